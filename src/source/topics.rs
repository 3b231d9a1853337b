//! Which topics are read: names, globs and regular expressions, one rule for Kafka's subscription and for ours.
//!
//! `*` and `?` are globs over the whole name, dots included. A leading `^` makes a regular expression, matched
//! as librdkafka matches it: from the start of the name, and to its end only when the expression says `$`.

use std::fmt;
use std::str::FromStr;

use regex::Regex;

use crate::error::{Error, Result};

/// Topics that hold Kafka's own bookkeeping; no pattern matches them.
const INTERNAL: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];

/// One entry of `--topics`.
#[derive(Debug, Clone)]
pub struct TopicPattern {
    text: String,
    subscription: String,
    regex: Option<Regex>,
}

impl TopicPattern {
    /// The entry for librdkafka's subscription list: a name, or an expression with a leading `^`.
    pub fn subscription(&self) -> &str {
        &self.subscription
    }

    /// True when it names one topic.
    pub fn is_exact(&self) -> bool {
        self.regex.is_none()
    }

    /// True for a topic that the subscription brings.
    pub fn matches(&self, topic: &str) -> bool {
        match &self.regex {
            None => self.text == topic,
            Some(regex) => !INTERNAL.contains(&topic) && regex.is_match(topic),
        }
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for TopicPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let expression = if text.starts_with('^') {
            check_portable(text)?;
            Some(text.to_owned())
        } else {
            check_name(text)?;
            text.contains(['*', '?']).then(|| glob(text))
        };
        let regex = match &expression {
            None => None,
            Some(expression) => Some(Regex::new(expression).map_err(|error| {
                Error::invalid(format!("topic pattern \"{text}\" is no regular expression"))
                    .because(error)
            })?),
        };
        let subscription = expression.unwrap_or_else(|| text.to_owned());
        Ok(Self { text: text.to_owned(), subscription, regex })
    }
}

/// The topics that are read.
#[derive(Debug, Clone)]
pub struct Topics {
    patterns: Vec<TopicPattern>,
    excluded: Vec<String>,
}

impl Topics {
    /// Parses the entries of `--topics`; an entry may itself be a list with commas.
    pub fn parse<S: AsRef<str>>(entries: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut patterns = Vec::new();
        for entry in entries {
            for pattern in split(entry.as_ref()) {
                patterns.push(pattern.parse()?);
            }
        }
        if patterns.is_empty() {
            return Err(Error::invalid("no topic is named")
                .hint("name topics with --topics, for example --topics 'shop.public.*'"));
        }
        Ok(Self { patterns, excluded: Vec::new() })
    }

    /// Leaves out `topic`, as the one of the dead letters: a sink that reads what it writes never ends.
    #[must_use]
    pub fn without(mut self, topic: impl Into<String>) -> Self {
        self.excluded.push(topic.into());
        self
    }

    /// True for a topic that is read.
    pub fn matches(&self, topic: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(topic))
            && !self.excluded.iter().any(|excluded| excluded == topic)
    }

    /// The patterns.
    pub fn patterns(&self) -> &[TopicPattern] {
        &self.patterns
    }

    /// librdkafka's subscription list.
    pub(super) fn subscription(&self) -> Vec<&str> {
        self.patterns.iter().map(TopicPattern::subscription).collect()
    }

    /// librdkafka's list of topics that shall not exist for it.
    pub(super) fn blacklist(&self) -> String {
        let named = |topic: &str| self.patterns.iter().any(|p| p.is_exact() && p.matches(topic));
        let internal = INTERNAL.into_iter().filter(|topic| !named(topic));
        let excluded = self.excluded.iter().map(String::as_str);
        internal.chain(excluded).map(glob).collect::<Vec<_>>().join(",")
    }
}

/// Splits at commas, but not inside the braces, brackets or parentheses of an expression.
fn split(list: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    list.split(|c| {
        match c {
            '{' | '[' | '(' => depth += 1,
            '}' | ']' | ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth <= 0
    })
    .map(str::trim)
    .filter(|entry| !entry.is_empty())
    .collect()
}

fn glob(text: &str) -> String {
    let mut expression = String::from("^");
    for c in text.chars() {
        match c {
            '*' => expression.push_str(".*"),
            '?' => expression.push('.'),
            '.' => expression.push_str("\\."),
            c => expression.push(c),
        }
    }
    expression.push('$');
    expression
}

/// A glob or a name holds what Kafka allows in a name, so nothing else needs escaping.
fn check_name(text: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-*?".contains(c);
    match text.chars().find(|c| !legal(*c)) {
        None => Ok(()),
        Some(c) => Err(Error::invalid(format!(
            "topic pattern \"{text}\" holds {c:?}, which no topic's name can"
        ))
        .hint("`*` and `?` are wildcards; start the pattern with ^ for a regular expression")),
    }
}

/// librdkafka uses the C library's extended expressions: what they lack would match here and not there.
fn check_portable(text: &str) -> Result<()> {
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        let foreign = match c {
            '\\' => next.is_none_or(|c| c.is_ascii_alphanumeric()),
            '(' | '*' | '+' | '?' | '}' => next == Some('?'),
            _ => false,
        };
        if foreign {
            return Err(Error::invalid(format!(
                "topic pattern \"{text}\" uses {:?}, which Kafka's client does not understand",
                [Some(c), next].into_iter().flatten().collect::<String>()
            ))
            .hint("write [0-9] for \\d, and use neither lazy repetition nor (?…) groups"));
        }
        if c == '\\' {
            chars.next();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("shop.public.orders", "shop.public.orders", true)]
    #[case("shop.public.orders", "shopxpublic.orders", false)]
    #[case("shop.public.*", "shop.public.orders", true)]
    #[case("shop.public.*", "shop.public.a.b", true)]
    #[case("shop.public.*", "shop-public.orders", false)]
    #[case("shop.public.*", "a.shop.public.orders", false)]
    #[case("t?", "t1", true)]
    #[case("t?", "t", false)]
    #[case("t?", "t12", false)]
    #[case("^shop\\.(a|b)", "shop.a", true)]
    #[case("^shop\\.(a|b)", "shop.a.more", true)]
    #[case("^shop\\.(a|b)$", "shop.a.more", false)]
    #[case("*", "__consumer_offsets", false)]
    #[case("*", "anything", true)]
    #[case("a, b ,c*", "b", true)]
    #[case("^t[0-9]{1,2}$,other", "t12", true)]
    #[case("^t[0-9]{1,2}$,other", "other", true)]
    fn a_pattern_matches(#[case] patterns: &str, #[case] topic: &str, #[case] expected: bool) {
        assert_eq!(Topics::parse([patterns]).unwrap().matches(topic), expected);
    }

    #[rstest]
    #[case("")]
    #[case("a b")]
    #[case("a{b}")]
    #[case("^a(")]
    #[case("^t\\d")]
    #[case("^(?i)t")]
    #[case("^t.*?x")]
    fn a_bad_pattern_is_refused(#[case] pattern: &str) {
        let error = Topics::parse([pattern]).unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::Invalid, "{}", error.report());
    }

    #[test]
    fn what_is_left_out_does_not_exist_for_kafkas_client() {
        let topics = Topics::parse(["*"]).unwrap().without("dead.letters");
        assert!(!topics.matches("dead.letters"));
        assert!(topics.matches("dead_letters"));
        assert!(topics.blacklist().ends_with(",^dead\\.letters$"));
        assert_eq!(topics.subscription(), ["^.*$"]);
    }
}
