//! The targets of `tests/it/fuzz`, for fuzzing by coverage.

use std::path::Path;
use std::sync::LazyLock;

use targets::TARGETS;

#[path = "../../it/captures.rs"]
mod captures;
#[path = "../../it/fuzz/targets.rs"]
mod targets;

/// Where the repository is.
static REPOSITORY: LazyLock<&Path> =
    LazyLock::new(|| Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")));

/// Sends an input through the target of this name.
pub fn run(target: &str, input: &[u8]) {
    if let Some(target) = TARGETS.iter().find(|known| known.name == target) {
        target.run(input);
    }
}

/// The seeds of every target, by its name.
pub fn seeds() -> impl Iterator<Item = (&'static str, Vec<Vec<u8>>)> {
    TARGETS.iter().map(|target| (target.name, target.seeds()))
}
