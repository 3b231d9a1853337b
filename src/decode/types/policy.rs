//! What becomes of values that a column's type does not have.

use serde::Deserialize;

/// What becomes of a value that its column's type does not have: an infinite date, a year before 1, a decimal of more
/// than 38 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum InvalidValue {
    /// Its record goes to the dead letters.
    #[default]
    DeadLetter,
    /// Null is stored in its place; a key column's value still goes to the dead letters.
    Null,
    /// The nearest value that the type has is stored in its place, where there is one; else its record goes to the
    /// dead letters.
    Clamp,
}

impl InvalidValue {
    /// The name in options and as the `policy` label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead-letter",
            Self::Null => "null",
            Self::Clamp => "clamp",
        }
    }
}
