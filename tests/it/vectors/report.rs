//! The vectors by section and id: what passes in which encoding and target.

use std::collections::BTreeMap;
use std::fmt;

use super::case::{Encoding, Section};
use super::run::Target;

/// What is to be said of one case in one encoding.
pub(super) enum Verdict {
    Passed(Vec<Target>),
    /// It is known what is missing.
    Pending(String),
    Failed(Vec<String>),
}

impl Verdict {
    /// The verdict on what is wrong by target.
    pub(super) fn new(pending: Option<&str>, wrong: BTreeMap<Target, Vec<String>>) -> Self {
        let targets = wrong.keys().copied().collect();
        let wrong: Vec<String> = wrong.into_values().flatten().collect();
        match (pending, wrong.is_empty()) {
            (None, true) => Self::Passed(targets),
            (Some(what), false) => Self::Pending(what.to_owned()),
            (None, false) => Self::Failed(wrong),
            (Some(_), true) => {
                Self::Failed(vec!["it passes: it is not pending any more".to_owned()])
            }
        }
    }
}

/// All verdicts.
pub(super) struct Report<'a> {
    pub(super) sections: &'a [Section],
    pub(super) verdicts: BTreeMap<(&'a str, Encoding), Verdict>,
}

impl Report<'_> {
    /// What failed, and why.
    pub(super) fn failed(&self) -> Vec<String> {
        let failed = self.verdicts.iter().filter_map(|((id, encoding), verdict)| match verdict {
            Verdict::Failed(why) => Some(format!("{id} {}: {}", encoding.name(), why.join("\n  "))),
            _ => None,
        });
        failed.collect()
    }

    fn line(&self, f: &mut fmt::Formatter<'_>, id: &str) -> fmt::Result {
        write!(f, "  {id:<4}")?;
        for encoding in Encoding::ALL {
            let text = match self.verdicts.get(&(id, encoding)) {
                None => "-".to_owned(),
                Some(Verdict::Passed(targets)) if targets.is_empty() => "by other tests".to_owned(),
                Some(Verdict::Passed(targets)) => {
                    let names: Vec<_> = targets.iter().map(|target| target.name()).collect();
                    names.join(" ")
                }
                Some(Verdict::Pending(_)) => "pending".to_owned(),
                Some(Verdict::Failed(_)) => "FAILED".to_owned(),
            };
            write!(f, " | {:<7} {text:<29}", encoding.name())?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = Counts::default();
        for section in self.sections {
            let mut counts = Counts::default();
            let ids = section.cases.iter().map(|case| case.id.as_str());
            let ids: Vec<_> =
                ids.filter(|id| self.verdicts.keys().any(|(own, _)| own == id)).collect();
            for id in &ids {
                let own = self.verdicts.iter().filter(|((own, _), _)| own == id);
                counts.add(own.map(|(_, verdict)| verdict));
            }
            writeln!(f, "{} {}: {counts}", section.section, section.title)?;
            for id in ids {
                self.line(f, id)?;
            }
            all = all.and(&counts);
        }
        writeln!(f, "all: {all}")?;
        for ((id, encoding), verdict) in &self.verdicts {
            if let Verdict::Pending(what) = verdict {
                writeln!(f, "pending {id} {}: {what}", encoding.name())?;
            }
        }
        for section in self.sections {
            for case in &section.cases {
                if let Some(why) = &case.corrected {
                    writeln!(f, "corrected {}: {why}", case.id)?;
                }
            }
        }
        self.failed().iter().try_for_each(|failed| writeln!(f, "FAILED {failed}"))
    }
}

/// Vectors, and vectors by encoding.
#[derive(Debug, Default)]
struct Counts {
    vectors: [usize; 3],
    encoded: [usize; 3],
}

impl Counts {
    /// Counts a vector by its verdicts: the worst one is the vector's.
    fn add<'a>(&mut self, verdicts: impl Iterator<Item = &'a Verdict>) {
        let mut worst = 0;
        for verdict in verdicts {
            let kind = match verdict {
                Verdict::Passed(_) => 0,
                Verdict::Pending(_) => 1,
                Verdict::Failed(_) => 2,
            };
            self.encoded[kind] += 1;
            worst = worst.max(kind);
        }
        self.vectors[worst] += 1;
    }

    fn and(mut self, other: &Self) -> Self {
        for kind in 0..3 {
            self.vectors[kind] += other.vectors[kind];
            self.encoded[kind] += other.encoded[kind];
        }
        self
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [passed, pending, failed] = self.vectors;
        write!(f, "{passed} passed, {pending} pending, {failed} failed")?;
        let [passed, pending, failed] = self.encoded;
        write!(f, " (by encoding {passed}, {pending}, {failed})")
    }
}
