//! The conformance vectors of Debezium's format: every case of tests/fixtures/vectors, in every encoding, through the
//! pipeline into tables. `tests/README.md` explains the files; the report is in the build folder's `tmp/fidelity.txt`.

mod case;
mod check;
mod encode;
mod letters;
mod registry;
mod report;
pub(crate) mod run;
mod schema;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use case::{Case, Encoding, Section};
use check::Evidence;
use futures::StreamExt;
use letters::Letters;
use report::{Report, Verdict};
use run::{Delivery, Outcome, Run, Target};

/// Runs at once.
const CONCURRENCY: usize = 4;
/// Replays of a case start after at most so many different records.
const REPLAYS: usize = 4;
/// Only cases whose id starts with this are run, for who works on one.
const ONLY: &str = "CDC_SINK_TEST_VECTOR";

fn sections() -> Vec<Section> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/vectors");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let section = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        Section::parse(&text, &path.display().to_string())
    };
    files.iter().map(section).collect()
}

/// Every way in which a case is run in one encoding.
fn runs(case: &Case, encoding: Encoding) -> Vec<Run<'_>> {
    let records = case.send.iter().filter(|send| send.restart.is_none()).count();
    let mut ways = Vec::new();
    if case.shown_by.is_some() {
        return Vec::new();
    }
    if case.each_alone.is_none() {
        ways.push((Target::Memory, Delivery::Batch));
    }
    if case.one_batch.is_none() {
        ways.push((Target::Memory, Delivery::Each));
        if case.no_replay.is_none() && case.expect(encoding).halts.is_none() {
            let step = records.div_ceil(REPLAYS).max(1);
            let firsts = (1..=records).rev().step_by(step);
            ways.extend(firsts.map(|first| (Target::Memory, Delivery::Replay(first))));
        }
    }
    if case.lake == Some(true) {
        let delivery = if case.one_batch.is_none() { Delivery::Each } else { Delivery::Batch };
        let mut targets = vec![Target::Delta, Target::Iceberg3];
        // Version 2 differs in how deletes are kept, whatever the records' encoding.
        if encoding == case.encodings()[0] {
            targets.push(Target::Iceberg2);
        }
        ways.extend(targets.into_iter().map(|target| (target, delivery)));
    }
    ways.into_iter().map(|(target, delivery)| Run { case, encoding, target, delivery }).collect()
}

async fn run_all(runs: &[Run<'_>], letters: &Letters) -> Vec<Result<Outcome, String>> {
    let folder = tempfile::tempdir().unwrap();
    let mut outcomes: Vec<_> = futures::stream::iter(runs.iter().enumerate())
        .map(|(at, run)| {
            let (folder, letters) = (folder.path(), Arc::clone(&letters.sent));
            async move { (at, run.go(folder, &letters).await) }
        })
        .buffer_unordered(CONCURRENCY)
        .collect()
        .await;
    outcomes.sort_by_key(|(at, _)| *at);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vector_ends_as_it_says() {
    let only = std::env::var(ONLY).unwrap_or_default();
    let metrics = cdc_sink::metrics::install().unwrap();
    let letters = Letters::start();
    let sections = sections();
    let cases: Vec<&Case> = sections
        .iter()
        .flat_map(|section| &section.cases)
        .filter(|case| case.id.starts_with(&only))
        .collect();
    let runs: Vec<Run<'_>> = cases
        .iter()
        .flat_map(|case| case.encodings().into_iter().flat_map(|encoding| runs(case, encoding)))
        .collect();
    let outcomes = run_all(&runs, &letters).await;
    let evidence = Evidence { letters: letters.read(), metrics: metrics.render() };
    let mut wrong: BTreeMap<(&str, Encoding), BTreeMap<Target, Vec<String>>> = BTreeMap::new();
    for (run, outcome) in runs.iter().zip(&outcomes) {
        let of_case = wrong.entry((run.case.id.as_str(), run.encoding)).or_default();
        let of_target = of_case.entry(run.target).or_default();
        of_target.extend(check::check(run, outcome, &evidence));
    }
    for case in cases.iter().filter(|case| case.shown_by.is_some()) {
        for encoding in Encoding::ALL {
            wrong.insert((&case.id, encoding), BTreeMap::new());
        }
    }
    let verdicts = wrong.into_iter().map(|((id, encoding), targets)| {
        let case = cases.iter().find(|case| case.id == id).unwrap();
        ((id, encoding), Verdict::new(case.pending(encoding), targets))
    });
    let report = Report { sections: &sections, verdicts: verdicts.collect() };
    let text = report.to_string();
    std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join("fidelity.txt"), &text).unwrap();
    let failed = report.failed();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn tests_that_show_vectors_exist() {
    for case in sections().iter().flat_map(|section| &section.cases) {
        let Some(shown) = &case.shown_by else {
            assert!(!case.send.is_empty(), "{} sends nothing", case.id);
            continue;
        };
        for (file, test) in &shown.tests {
            let text = super::repository_file(file);
            assert!(text.contains(&format!("fn {test}(")), "{}: {file} has no {test}", case.id);
        }
    }
}

#[test]
fn ids_are_used_once() {
    let sections = sections();
    let mut seen = std::collections::BTreeSet::new();
    for section in &sections {
        for case in &section.cases {
            assert!(case.id.starts_with(&section.section), "{} is in another section", case.id);
            assert!(seen.insert(&case.id), "{} comes twice", case.id);
        }
    }
}
