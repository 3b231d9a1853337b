//! Tests of the whole, in one binary: one file per concern.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may panic, and the settings for tests do not reach helpers of an integration test"
)]

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

mod anew;
mod batches;
mod captured;
mod captures;
mod compose;
mod contract;
mod dashboards;
mod dead_letters;
mod decode;
mod dependencies;
mod evolution;
mod flipped;
mod fuzz;
mod gap;
mod generated;
mod grown;
mod held;
mod keyless;
mod lake;
mod late_history;
#[cfg(target_os = "linux")]
mod memory;
mod orphans;
mod owner;
mod pipeline;
mod poison;
mod readers;
mod rounds;
mod settled;
mod simulation;
mod sinks;
mod sources;
mod stop;
mod tidy;
mod torn;
mod types_page;
mod vectors;

/// Where the repository is.
static REPOSITORY: LazyLock<&Path> = LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")));

/// The program, with none of its options in the environment.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cdc-sink"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CDC_SINK_")) {
        command.env_remove(name);
    }
    command
}

/// A file of the repository, as text.
fn repository_file(path: &str) -> String {
    let path = REPOSITORY.join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

/// A YAML file of the repository.
fn repository_yaml(path: &str) -> serde_json::Value {
    serde_saphyr::from_str(&repository_file(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}
