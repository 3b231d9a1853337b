//! A deterministic simulation: one seed is one history of records, rebalances, crashes, stopped processes and a store that
//! fails in every way, on a clock that only the simulation moves.
//!
//! `CDC_SINK_SEED=n` runs that history alone and prints what happened. `CDC_SINK_HISTORIES=n` runs so many.
//!
//! That it sees what it shall was shown by breaking the program, each time in one way. Each of these is found within 300
//! histories, most within ten:
//!
//! - Delta: an answer that is no clear yes is taken for success; a commit is put over another's.
//! - Iceberg: a commit is put over another's; a plan's position is stored although another partition's moved on; a batch that
//!   is in by an earlier plan is taken for the later one; files of an attempt whose outcome is unknown are removed.
//! - Catalog: an answer that is no clear yes is taken for success; so is a 409; a 409 is taken for another's commit without a
//!   look, and the files are removed.
//! - Lake: a batch whose outcome is unknown is acknowledged; the log that follows is brought up from what is in memory.
//! - Table: a batch planned anew loses its deletes; the index is not told of others' files; a deletion bitmap holds the new
//!   rows alone.
//! - Protocol: a batch may start anywhere; reading starts one record after the position; a store that fails while a log is
//!   replayed counts as bad data.

mod bucket;
mod catalog;
mod chance;
mod faults;
mod group;
mod history;
mod instance;
mod member;
mod oracle;
mod process;
mod rogue;
mod setup;
mod store;
mod sweep;
mod tables;
mod topics;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use faults::{CATALOG_FAULTS, Counters, FAULTS};

/// Histories of a run.
const HISTORIES: u64 = 300;
/// Histories that once found something run with every number of others: a format that is made while files are listed, a
/// list or a catalog that lags behind what was seen before, a restore of a restore, a batch that grew after some of it was
/// found stale, a delete that was forgotten while a partition was behind it, a change passed over before the row that moved
/// to its key had come.
const FOUND: [u64; 14] =
    [410, 641, 938, 958, 1466, 1930, 2114, 3373, 3708, 4360, 5675, 6490, 7426, 8938];
/// After so many, a run tells how far it is.
const TOLD: usize = 500;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap())
}

/// Runs histories on every processor; those that found something.
#[expect(clippy::print_stdout, reason = "a long run tells how far it is")]
fn run_all(histories: u64, counters: &Arc<Counters>) -> Vec<(u64, Vec<String>)> {
    let found = FOUND.into_iter().filter(|seed| *seed >= histories);
    let seeds: Vec<u64> = (0..histories).chain(found).collect();
    let next = AtomicUsize::new(0);
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let done = next.fetch_add(1, Ordering::SeqCst);
                    let Some(&seed) = seeds.get(done) else { return };
                    if done > 0 && done.is_multiple_of(TOLD) {
                        let failed = failed.lock().unwrap().len();
                        println!("{done} of {}, violated {failed}", seeds.len());
                    }
                    let findings = history::run(seed, counters, false).findings;
                    counters.add("commits", findings.commits);
                    counters.add("versions", findings.versions);
                    if let Some(first) = findings.violations.first() {
                        println!("seed {seed}: {first}");
                        failed.lock().unwrap().push((seed, findings.violations));
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

#[test]
fn every_version_is_the_fold_whatever_happens() {
    let counters = Arc::new(Counters::default());
    if let Some(seed) = number("CDC_SINK_SEED") {
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).without_time().init();
        let findings = history::run(seed, &counters, true).findings;
        assert!(findings.violations.is_empty(), "{:#?}", findings.violations);
        return;
    }
    let histories = number("CDC_SINK_HISTORIES").unwrap_or(HISTORIES);
    let mut failed = run_all(histories, &counters);
    let happened: Vec<_> =
        counters.all().into_iter().map(|(what, n)| format!("{what} {n}")).collect();
    println!("histories {histories}, violated {}: {}", failed.len(), happened.join(", "));
    failed.sort();
    for (seed, violations) in failed.iter().take(20) {
        println!("seed {seed}: {} violations, the first: {}", violations.len(), violations[0]);
    }
    assert!(failed.is_empty(), "{} histories were violated", failed.len());
    assert!(counters.get(history::ORPHANS) > 0, "no orphan was removed");
    for fault in FAULTS {
        assert!(counters.get(&format!("{fault:?}")) > 0, "{fault:?} never happened");
    }
    for fault in CATALOG_FAULTS {
        assert!(counters.get(&fault.counter()) > 0, "{fault:?} of the catalog never happened");
    }
}

#[test]
fn a_seed_twice_is_the_same_history() {
    for seed in [3, 8, 21] {
        let run = || history::run(seed, &Arc::default(), false).trace;
        let (one, other) = (run(), run());
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(one.len(), other.len(), "seed {seed}");
    }
}
