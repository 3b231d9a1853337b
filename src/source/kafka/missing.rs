//! Topics that are to be read and are not there: deleted, not made yet, or such that the user may not describe.
//!
//! librdkafka tells of them once, in words, and of those that a pattern brought not at all.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use super::KafkaOptions;

/// A topic counts as missing when it is not there at two looks, so far apart: brokers that have just started may know
/// little.
const AGAIN: Duration = Duration::from_secs(5);

/// When the brokers are asked for their topics, and what they told.
#[derive(Debug)]
pub(super) struct Missing {
    every: Duration,
    due: Instant,
    /// Topics that are named, and those that were read.
    wanted: BTreeSet<String>,
    /// Not there at the last look.
    absent: BTreeSet<String>,
    /// Not there at the last two looks, as was told.
    missing: BTreeSet<String>,
}

impl Missing {
    pub(super) fn new(options: &KafkaOptions, now: Instant) -> Self {
        let named = options.topics.patterns().iter().filter(|pattern| pattern.is_exact());
        let named = named.map(|pattern| pattern.subscription().to_owned());
        Self {
            every: options.metadata_refresh,
            due: now,
            wanted: named.filter(|name| options.topics.matches(name)).collect(),
            absent: BTreeSet::new(),
            missing: BTreeSet::new(),
        }
    }

    /// The topic is read.
    pub(super) fn want(&mut self, topic: &str) {
        if !self.wanted.contains(topic) {
            self.wanted.insert(topic.to_owned());
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now
    }

    /// Takes the topics that there are, none when the brokers do not tell. Gives those that are missing, when they are
    /// others than before.
    pub(super) fn told(
        &mut self,
        topics: Option<&HashSet<String>>,
        now: Instant,
    ) -> Option<BTreeSet<String>> {
        let again = AGAIN.min(self.every);
        let Some(topics) = topics else {
            self.due = now + again;
            return None;
        };
        let absent = self.wanted.iter().filter(|topic| !topics.contains(*topic));
        let absent: BTreeSet<_> = absent.cloned().collect();
        let missing: BTreeSet<_> = absent.intersection(&self.absent).cloned().collect();
        self.due = now + if absent == missing { self.every } else { again };
        self.absent = absent;
        if missing == self.missing {
            return None;
        }
        self.missing.clone_from(&missing);
        Some(missing)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::source::Topics;

    #[test]
    fn a_topic_is_missing_when_it_is_not_there_twice() {
        let topics = Topics::parse(["named", "pattern.*"]).unwrap();
        let options = KafkaOptions::new("a:1", "g", topics, &BTreeMap::new(), |_| None).unwrap();
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut missing = Missing::new(&options, begin);
        let mut told = Vec::new();
        for (at, there) in [
            (0, Some("other")),
            (1, Some("named")),
            (2, None),
            (3, Some("other")),
            (4, None),
            (5, Some("other")),
            (6, Some("other pattern.a")),
            (7, Some("named pattern.a")),
            (8, Some("named")),
            (9, Some("named")),
            (10, Some("named")),
        ] {
            if at == 6 {
                missing.want("pattern.a");
            }
            let now = begin + at * second;
            let there = there.map(|names| names.split(' ').map(str::to_owned).collect());
            if let Some(names) = missing.told(there.as_ref(), now) {
                told.push((at, names.into_iter().collect::<Vec<_>>()));
            }
            let doubtful = matches!(at, 0 | 2 | 3 | 4 | 8);
            assert_eq!(missing.is_due(now + AGAIN), doubtful, "at {at}");
            assert!(missing.is_due(now + options.metadata_refresh), "at {at}");
        }
        let named = vec!["named".to_owned()];
        assert_eq!(told, [(5, named), (7, vec![]), (9, vec!["pattern.a".to_owned()])]);
    }
}
