//! One error type, six kinds, each named by what the caller does about it.
//!
//! A message is a lowercase sentence for an operator: what was attempted, on what, why it failed. The cause
//! stays in the `source` chain and out of the text; a hint says what a person can do. An error is logged once,
//! where it is handled. No message holds a secret or a row's values.

use std::fmt;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A broker, store, catalog or registry does not answer or answers "later": hold and retry with backoff.
    Unavailable,
    /// The configuration or the command line is wrong: stop with exit code 2.
    Invalid,
    /// Data from outside cannot be used: dead letter for a record, halt for a table.
    Data,
    /// Another owner committed past us: drop what is buffered, do not commit.
    Fenced,
    /// The other side refused for good (credentials, permission, a table of an unknown make): halt the table.
    Refused,
    /// An invariant does not hold: stop the table rather than continue wrong.
    Internal,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Unavailable, Self::Invalid, Self::Data, Self::Fenced, Self::Refused, Self::Internal];

    /// The name used in logs and as the `kind` label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
            Self::Data => "data",
            Self::Fenced => "fenced",
            Self::Refused => "refused",
            Self::Internal => "internal",
        }
    }
}

/// An error of this crate.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    what: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` says what was attempted, on what, and why it failed.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), hint: None, source: None }
    }

    /// Something outside does not answer now.
    pub fn unavailable(what: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, what)
    }

    /// The configuration is wrong.
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, what)
    }

    /// Data from outside cannot be used.
    pub fn data(what: impl Into<String>) -> Self {
        Self::new(Kind::Data, what)
    }

    /// Another owner committed past us.
    pub fn fenced(what: impl Into<String>) -> Self {
        Self::new(Kind::Fenced, what)
    }

    /// The other side refused for good.
    pub fn refused(what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, what)
    }

    /// An invariant does not hold.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal, what)
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what a person can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was attempted, or on what, in front of the message.
    #[must_use]
    pub fn context(mut self, attempted: impl fmt::Display) -> Self {
        self.what = format!("{attempted}: {}", self.what);
        self
    }

    /// What the caller does about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// True when the same call may succeed later without a person.
    pub fn is_retryable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// The message, its causes and its hint on one line, for the log and for `status`.
    pub fn report(&self) -> String {
        let mut text = self.what.clone();
        let mut cause: Option<&dyn std::error::Error> = self.source.as_deref().map(|e| e as _);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            text.push_str(" (");
            text.push_str(hint);
            text.push(')');
        }
        // What a server or a library says may have lines of its own, or pass for some of ours.
        text.replace(char::is_control, " ")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_whatever_was_answered() {
        let answer = "403\r\n<Code>No</Code>\n2026-01-01 INFO all is well\x1b[2K";
        let report = Error::refused("cannot write").because(answer).hint("ask\tsomebody").report();
        assert_eq!(
            report,
            "cannot write: 403  <Code>No</Code> 2026-01-01 INFO all is well [2K (ask somebody)"
        );
    }
}
