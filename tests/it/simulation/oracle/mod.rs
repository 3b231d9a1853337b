//! The oracle: at every version the table is the fold of its topic up to the position stored with it, and the log is in
//! order.

mod delta;
mod files;
mod iceberg;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cdc_sink::position::{OffsetRange, Position};
use cdc_sink::schema::SOURCE_COLUMN;
use cdc_sink::sink::memory::TextRow;
use roaring::RoaringTreemap;
use serde_json::Value;

pub(super) use self::iceberg::{Icebergs, relative as below_root};
use super::bucket::Effect;
use super::member::Acknowledgement;
use super::rogue::{Change, Deeds};
use super::store::World;
use super::tables::{Formats, name};
use super::topics::{Rows, Topics, key_of};
pub(super) use delta::Deltas;
use files::Files;

/// A live data file.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) rows: Arc<Vec<TextRow>>,
    pub(super) deleted: Arc<RoaringTreemap>,
    /// How Delta's log describes it.
    pub(super) add: Value,
}

/// A version of a table, as one format's log has it.
#[derive(Debug)]
struct Version {
    number: i64,
    /// How many changes there were in the store before it.
    clock: usize,
    position: Position,
    /// What the commit says that it covers, where it says so.
    ranges: Vec<OffsetRange>,
    batch: Option<String>,
    /// Iceberg's snapshot.
    snapshot: Option<i64>,
    live: BTreeMap<String, Live>,
    /// Data files that were not live before.
    added: Vec<String>,
    /// Every file that a reader needs.
    needs: BTreeSet<String>,
}

impl Version {
    /// The rows, and keys that several of them have.
    fn rows(&self) -> (Rows, Vec<String>) {
        let (mut rows, mut twice) = (Rows::new(), Vec::new());
        for file in self.live.values() {
            for (_, row) in
                (0_u64..).zip(file.rows.iter()).filter(|(at, _)| !file.deleted.contains(*at))
            {
                let key = key_of(row);
                if rows.insert(key.clone(), row.clone()).is_some() {
                    twice.push(key);
                }
            }
        }
        (rows, twice)
    }
}

/// What the oracle found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) violations: Vec<String>,
    pub(super) commits: u64,
    pub(super) versions: u64,
}

/// Looks at every version of every table of a history. `deeds` are what others committed to the authorities.
pub(super) async fn check(
    world: &World,
    topics: &Topics,
    formats: Formats,
    acknowledged: &[Acknowledgement],
    deeds: &Deeds,
) -> Findings {
    let effects = world.bucket.effects();
    let mut findings = Findings::default();
    for topic in topics.topics() {
        let table = name(&topic);
        let mut files = Files::new(&world.bucket, table.to_owned());
        let logs = logs(&mut files, &effects, formats, &topic, &mut findings).await;
        if let Some((_, versions)) = logs.iter().find(|(format, _)| *format == "iceberg") {
            let catalog = world.catalog.versions(table).await;
            findings.violations.extend(iceberg::history(table, versions, &catalog));
        }
        let Some(((authority, versions), followers)) = logs.split_first() else { continue };
        let positions: Vec<_> = versions.iter().map(|v| v.position.clone()).collect();
        let folds = topics.folds(&topic, &positions).await;
        let expected = with_deeds(table, versions, folds, deeds);
        for (version, expected) in versions.iter().zip(&expected) {
            let wrong = differences(version, expected, topics.awaits(&topic, &version.position));
            findings.of(table, authority, version, wrong);
        }
        for (format, followed) in followers {
            for version in followed {
                // It may go from one version to a later one, but is like one of them.
                let same = versions.iter().zip(&expected);
                let same = same.filter(|(other, _)| other.position == version.position);
                let awaits = topics.awaits(&topic, &version.position);
                let wrong = same.map(|(_, expected)| differences(version, expected, awaits));
                let fewest = wrong.min_by_key(Vec::len);
                let wrong = fewest.unwrap_or_else(|| vec!["no such position".to_owned()]);
                findings.of(table, format, version, wrong);
            }
        }
        for (format, versions) in &logs {
            let told = format!("{table} in {format}");
            let back = |version: &Version| {
                let deed = deeds.get(&(table.to_owned(), version.number));
                *format == *authority && deed.is_some_and(|change| change.like.is_some())
            };
            positions_only_grow(&told, versions, back, &mut findings);
            nothing_comes_twice(&told, versions, back, &mut findings);
            files_are_there(&told, table, versions, &effects, &mut findings);
        }
        findings.commits += versions.iter().filter(|v| v.batch.is_some()).count() as u64;
        nothing_is_acknowledged_early(&topic, versions, acknowledged, &mut findings);
    }
    findings
}

impl Findings {
    fn of(&mut self, table: &str, format: &str, version: &Version, wrong: Vec<String>) {
        let Version { number, position, .. } = version;
        let told = |what| format!("{table} in {format}, version {number} at {position:?}: {what}");
        self.violations.extend(wrong.into_iter().map(told));
    }
}

/// The rows of each version: the fold, and what others did up to then.
fn with_deeds(table: &str, versions: &[Version], folds: Vec<Rows>, deeds: &Deeds) -> Vec<Rows> {
    let mut total = Change::default();
    let mut totals: Vec<Change> = Vec::new();
    let mut expected: Vec<Rows> = Vec::new();
    for (version, mut rows) in versions.iter().zip(folds) {
        let change = deeds.get(&(table.to_owned(), version.number)).cloned().unwrap_or_default();
        // Iceberg's version is known by its snapshot.
        let like = change.like.and_then(|like| {
            versions.iter().position(|v| {
                (v.number == like && v.snapshot.is_none()) || v.snapshot == Some(like)
            })
        });
        total.added.extend(change.added);
        total.removed.extend(change.removed);
        rows.retain(|key, _| !total.removed.contains(key));
        rows.extend(total.added.clone());
        if let Some(like) = like {
            (total, rows) = (totals[like].clone(), expected[like].clone());
        }
        totals.push(total.clone());
        expected.push(rows);
    }
    expected
}

/// The table's logs, the authority first.
async fn logs(
    files: &mut Files<'_>,
    effects: &[Effect],
    formats: Formats,
    topic: &str,
    findings: &mut Findings,
) -> Vec<(&'static str, Vec<Version>)> {
    let mut logs = Vec::new();
    if !matches!(formats, Formats::Iceberg(_)) {
        let (versions, wrong) = delta::versions(files, effects, topic).await;
        findings.violations.extend(wrong);
        logs.push(("delta", versions));
    }
    if formats != Formats::Delta {
        let home = if matches!(formats, Formats::Iceberg(_)) { "" } else { "_iceberg/" };
        let (versions, wrong) = iceberg::versions(files, effects, home).await;
        findings.violations.extend(wrong);
        logs.push(("iceberg", versions));
    }
    if formats == (Formats::Both { delta_first: false }) {
        logs.reverse();
    }
    findings.versions += logs.iter().map(|(_, versions)| versions.len() as u64).sum::<u64>();
    logs
}

/// How the rows of a version are not as expected. One that `awaits` changes may have values that are not known yet.
fn differences(version: &Version, expected: &Rows, awaits: bool) -> Vec<String> {
    let (mut rows, twice) = version.rows();
    let mut expected = expected.clone();
    for row in rows.values_mut().chain(expected.values_mut()) {
        row.remove(SOURCE_COLUMN);
    }
    for (key, row) in rows.iter_mut().filter(|_| awaits) {
        row.retain(|column, _| expected.get(key).is_none_or(|row| row.contains_key(column)));
    }
    let mut wrong: Vec<String> =
        twice.into_iter().map(|key| format!("key {key} is there twice")).collect();
    let missing = expected.iter().filter(|(key, _)| !rows.contains_key(*key));
    wrong.extend(missing.map(|(key, row)| format!("row {key} is missing: {row:?}")));
    let others = rows.iter().filter(|(key, row)| expected.get(*key) != Some(row));
    wrong.extend(
        others.map(|(key, row)| format!("row {key} is {row:?}, expected {:?}", expected.get(key))),
    );
    wrong
}

/// `back` are versions by which somebody took the table back.
fn positions_only_grow(
    told: &str,
    versions: &[Version],
    back: impl Fn(&Version) -> bool,
    findings: &mut Findings,
) {
    let pairs = versions.iter().zip(versions.iter().skip(1));
    for (before, after) in pairs.filter(|(_, after)| !back(after)) {
        let number = after.number;
        for (partition, next) in before.position.iter() {
            if after.position.get(partition).is_none_or(|now| now < next) {
                findings.violations.push(format!(
                    "{told}: version {number} goes back from {next} in partition {partition}"
                ));
            }
        }
        // Only a log that follows another one may be brought up by ranges it does not have.
        if !after.ranges.is_empty()
            && before.position.advance(&after.ranges).as_ref() != Ok(&after.position)
        {
            findings.violations.push(format!(
                "{told}: version {number} covers {:?} after {:?}",
                after.ranges, before.position
            ));
        }
    }
}

fn nothing_comes_twice(
    told: &str,
    versions: &[Version],
    back: impl Fn(&Version) -> bool,
    findings: &mut Findings,
) {
    let (mut batches, mut files) = (BTreeSet::new(), BTreeSet::new());
    for version in versions.iter().filter(|version| !back(version)) {
        if let Some(batch) = &version.batch
            && !batches.insert(batch)
        {
            let number = version.number;
            findings.violations.push(format!("{told}: batch {batch} is again in version {number}"));
        }
        for path in &version.added {
            if !files.insert(path) {
                findings
                    .violations
                    .push(format!("{told}: version {} adds {path} again", version.number));
            }
        }
    }
}

/// No file was removed from the store while the newest version needed it, or before a version came that does.
fn files_are_there(
    told: &str,
    table: &str,
    versions: &[Version],
    effects: &[Effect],
    findings: &mut Findings,
) {
    for (clock, effect) in effects.iter().enumerate().filter(|(_, effect)| !effect.put) {
        let Some(path) = effect.path.as_ref().strip_prefix(&format!("{table}/")) else { continue };
        let newest = versions.iter().rev().find(|version| version.clock < clock);
        if newest.is_some_and(|version| version.needs.contains(path)) {
            findings.violations.push(format!("{told}: {path} was removed while it was needed"));
        }
        let mut later = versions.iter().filter(|version| version.clock > clock);
        if let Some(version) = later.find(|version| version.needs.contains(path)) {
            let number = version.number;
            findings.violations.push(format!("{told}: {path} was gone before version {number}"));
        }
    }
}

/// What was acknowledged to Kafka was in the table by then.
fn nothing_is_acknowledged_early(
    topic: &str,
    versions: &[Version],
    acknowledged: &[Acknowledgement],
    findings: &mut Findings,
) {
    for acknowledgement in acknowledged.iter().filter(|a| a.topic == topic) {
        let before = versions.iter().filter(|v| v.clock < acknowledgement.clock);
        for (partition, next) in acknowledgement.position.iter() {
            let stored = before.clone().filter_map(|version| version.position.get(partition)).max();
            if stored.is_none_or(|stored| stored < next) {
                findings.violations.push(format!(
                    "{topic}[{partition}]@{next} was acknowledged, the table was at {stored:?}"
                ));
            }
        }
    }
}
