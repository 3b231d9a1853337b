//! What a generator is asked for.

use super::avro::{Subject, key_subject, value_subject};
use super::envelope::Layout;
use super::shape::Shape;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// JSON, `schemas.enable=false`.
    #[default]
    Json,
    /// JSON with the schema in every record.
    JsonWithSchema,
    /// Avro in Confluent's framing; the schemas are [`Workload::subjects`].
    Avro,
}

/// How likely each kind of change is; the numbers are weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mix {
    /// Inserts; one in eight takes a key that was given up lately.
    pub creates: u32,
    /// Updates that leave the key as it is.
    pub updates: u32,
    /// Deletes, each followed by its tombstone.
    pub deletes: u32,
    /// Updates that change the key, one in eight to one given up lately: a delete, its tombstone, a create.
    pub moves: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { creates: 300, updates: 590, deletes: 100, moves: 10 }
    }
}

/// What a generator is asked for. Two generators with equal workloads give equal records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Where all randomness comes from.
    pub seed: u64,
    /// When the initial snapshot is taken, microseconds since the epoch.
    pub start_micros: i64,
    /// Debezium's `topic.prefix`; a topic is `<prefix>.public.<table>`.
    pub prefix: String,
    /// The tables.
    pub tables: Vec<Shape>,
    /// Rows of each table when the initial snapshot is taken.
    pub rows: u64,
    /// Changes after it, over all tables. A delete gives two records, a change of a key three.
    pub changes: u64,
    /// Partitions of each topic, at least 1. All records of a key are in one.
    pub partitions: i32,
    /// How records are written.
    pub encoding: Encoding,
    /// What changes do.
    pub mix: Mix,
    /// Percent of updates whose unchanged large texts are placeholders. None with `full_before`, as in PostgreSQL.
    pub placeholder_percent: u8,
    /// Placeholders also in the create of a changed key: only the row of the old key, deleted just before, has the
    /// value.
    pub placeholders_in_moves: bool,
    /// The row before a change is logged whole (`REPLICA IDENTITY FULL`), not its key alone.
    pub full_before: bool,
    /// After so many changes every table gets one more column.
    pub add_column_after: Option<u64>,
}

impl Default for Workload {
    /// Customers and orders, 1,000 rows each, 10,000 changes, a column added half-way.
    fn default() -> Self {
        Self {
            seed: 0,
            start_micros: 1_767_225_600_000_000, // 2026-01-01
            prefix: "shop".to_owned(),
            tables: vec![Shape::Customers, Shape::Orders],
            rows: 1000,
            changes: 10_000,
            partitions: 1,
            encoding: Encoding::Json,
            mix: Mix::default(),
            placeholder_percent: 5,
            placeholders_in_moves: false,
            full_before: false,
            add_column_after: Some(5000),
        }
    }
}

impl Workload {
    /// The schemas that records in Avro need, in the order in which a registry should get them. Without further ado
    /// records carry the ids 1, 2, 3 and so on; see [`super::Generator::with_schema_ids`].
    pub fn subjects(&self) -> Vec<Subject> {
        let mut subjects = Vec::new();
        for shape in self.tables.iter().copied() {
            let narrow = Layout { shape, widened: false };
            subjects.push(key_subject(narrow, &self.prefix));
            subjects.push(value_subject(narrow, &self.prefix));
            if self.add_column_after.is_some() {
                subjects.push(value_subject(Layout { shape, widened: true }, &self.prefix));
            }
        }
        subjects
    }
}
