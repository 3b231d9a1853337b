//! Commits: made from a plan, or read from the log. Both are applied to the table's state in the same way.

use std::collections::HashMap;

use deltalake::kernel::{Add, DeletionVectorDescriptor, Remove, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Landed;
use super::protocol::{Metadata, Protocol};
use super::values;
use crate::error::{Error, Result};
use crate::schema::TableSchema;
use crate::sink::seal;
use crate::table::notes::Notes;
use crate::table::partition::Partitioning;
use crate::table::plan::{CommitPlan, DataFile};

/// Name in `commitInfo` of the batch's id.
const BATCH_ID: &str = "cdc-sink.batch-id";
/// Name in `commitInfo` of the batch's offset ranges.
const OFFSETS: &str = "cdc-sink.offsets";
/// Name in `commitInfo` of what a person did.
const AUDIT: &str = "cdc-sink.audit";
/// Name in `commitInfo` of the notes of key changes, where there are any.
const NOTES: &str = "cdc-sink.departed-rows";

/// One version of the log: the actions that we make or look at, each kind in the log's order.
#[derive(Debug, Default)]
pub(super) struct Commit {
    pub(super) info: Option<Value>,
    pub(super) protocol: Option<Protocol>,
    pub(super) metadata: Option<Metadata>,
    pub(super) transactions: Vec<Transaction>,
    pub(super) removes: Vec<Remove>,
    pub(super) adds: Vec<Add>,
}

/// A line of a commit. What is not named here is not our business.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Line<'a> {
    CommitInfo(&'a Value),
    Protocol(&'a Protocol),
    MetaData(&'a Metadata),
    Txn(&'a Transaction),
    Remove(&'a Remove),
    Add(&'a Add),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyLine {
    commit_info: Option<Value>,
    protocol: Option<Protocol>,
    meta_data: Option<Metadata>,
    txn: Option<Transaction>,
    remove: Option<Remove>,
    add: Option<Add>,
}

impl Commit {
    /// Parses a commit of the log.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self> {
        check(bytes)?;
        let mut commit = Self::default();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty())
        {
            let line: AnyLine = serde_json::from_slice(line)
                .map_err(|e| Error::data("a version of its log cannot be read").because(e))?;
            commit.info = line.commit_info.or(commit.info);
            commit.protocol = line.protocol.or(commit.protocol);
            commit.metadata = line.meta_data.or(commit.metadata);
            commit.transactions.extend(line.txn);
            commit.removes.extend(line.remove);
            commit.adds.extend(line.add);
        }
        Ok(commit)
    }

    /// The commit as the log has it, one action a line.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let lines = self
            .info
            .iter()
            .map(Line::CommitInfo)
            .chain(self.protocol.iter().map(Line::Protocol))
            .chain(self.metadata.iter().map(Line::MetaData))
            .chain(self.transactions.iter().map(Line::Txn))
            .chain(self.removes.iter().map(Line::Remove))
            .chain(self.adds.iter().map(Line::Add));
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, &line)
                .map_err(|e| Error::internal("cannot write a Delta commit").because(e))?;
            bytes.push(b'\n');
        }
        seal::seal(&mut bytes);
        Ok(bytes)
    }

    /// The batch that made it, when it is one of ours; `version` is its own.
    pub(super) fn landed(&self, version: i64) -> Option<Landed> {
        let batch = self.info.as_ref()?.get(BATCH_ID)?.as_str()?.parse().ok()?;
        Some(Landed {
            batch,
            version,
            files: self.adds.iter().map(|add| add.path.clone()).collect(),
        })
    }

    /// The version whose rows somebody brought back with this commit (RESTORE); -1 when the commit does not tell which.
    pub(super) fn restores(&self) -> Option<i64> {
        let info = self.info.as_ref()?;
        if info.get("operation")?.as_str()? != "RESTORE" {
            return None;
        }
        let version = info.get("operationParameters").and_then(|told| told.get("version"));
        let version =
            version.and_then(|told| told.as_i64().or_else(|| told.as_str()?.parse().ok()));
        Some(version.unwrap_or(-1))
    }

    /// The notes of a commit of ours. What cannot be read is as if it were not there: a create that needs it says so.
    pub(super) fn notes(&self) -> Notes {
        let notes = self.info.as_ref().and_then(|info| info.get(NOTES));
        notes.and_then(|notes| Notes::deserialize(notes).ok()).unwrap_or_default()
    }
}

/// Fails when a commit of ours is not what was written.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    if seal::is_whole(bytes) {
        return Ok(());
    }
    Err(Error::data("a version of its log is damaged: its checksum does not match")
        .hint("bring the file in _delta_log back from a copy, or make the table anew from a new initial snapshot"))
}

/// The application id under which a partition's position is stored.
pub(super) fn application(topic: &str, partition: i32) -> String {
    format!("cdc-sink/{topic}/{partition}")
}

/// The partition of an application id of `topic`; none when it is someone else's.
pub(super) fn partition(topic: &str, application: &str) -> Option<i32> {
    application.strip_prefix("cdc-sink/")?.strip_prefix(topic)?.strip_prefix('/')?.parse().ok()
}

/// The `commitInfo` of a new table.
pub(super) fn created(metadata: &Metadata, now_millis: i64) -> Value {
    json!({
        "timestamp": now_millis,
        "operation": "CREATE TABLE",
        "operationParameters": {
            "isManaged": "false",
            "partitionBy": json!(metadata.partition_columns).to_string(),
            "properties": json!(metadata.configuration).to_string(),
        },
        "isBlindAppend": true,
        "engineInfo": engine(),
        "operationMetrics": {},
        seal::NAME: seal::ROOM,
    })
}

/// The `commitInfo` of a batch. Metrics and parameters are strings, as Spark has them.
pub(super) fn merged(plan: &CommitPlan, read_version: i64) -> Value {
    let counts = plan.counts;
    let mut info = json!({
        "timestamp": plan.now_millis,
        "operation": "MERGE",
        "operationParameters": {
            "predicate": json!(plan.schema.key()).to_string(),
            "matchedPredicates": r#"[{"actionType":"update"},{"actionType":"delete"}]"#,
            "notMatchedPredicates": r#"[{"actionType":"insert"}]"#,
            "notMatchedBySourcePredicates": "[]",
        },
        "readVersion": read_version,
        "isolationLevel": "Serializable",
        "isBlindAppend": false,
        "engineInfo": engine(),
        "operationMetrics": {
            "numTargetRowsInserted": counts.inserted.to_string(),
            "numTargetRowsUpdated": counts.updated.to_string(),
            "numTargetRowsDeleted": counts.deleted.to_string(),
            "numTargetFilesAdded": plan.added.len().to_string(),
            "numTargetFilesRemoved": plan.removed.len().to_string(),
            "numTargetDeletionVectorsUpdated": plan.deletions.len().to_string(),
        },
        BATCH_ID: plan.batch_id.to_string(),
        OFFSETS: plan.ranges,
        seal::NAME: seal::ROOM,
    });
    if let Some(info) = info.as_object_mut() {
        if !plan.notes.is_empty() {
            info.insert(NOTES.to_owned(), json!(plan.notes));
        }
        if let Some(audit) = &plan.audit {
            info.insert(AUDIT.to_owned(), json!(audit));
        }
    }
    info
}

fn engine() -> String {
    format!("cdc-sink/{}", env!("CARGO_PKG_VERSION"))
}

/// The `add` of a data file that is new to the table.
pub(super) fn add(
    file: &DataFile,
    schema: &TableSchema,
    partitioning: &Partitioning,
    now_millis: i64,
) -> Result<Add> {
    let columns: Vec<String> = partitioning.fields.iter().map(|field| field.name.clone()).collect();
    Ok(Add {
        path: file.path.clone(),
        partition_values: partition_values(file, schema, partitioning)?,
        size: i64::try_from(file.size).map_err(|e| {
            Error::internal(format!("data file {} is too large", file.path)).because(e)
        })?,
        modification_time: now_millis,
        data_change: true,
        stats: Some(values::stats(file, schema, &columns)?),
        ..Add::default()
    })
}

fn partition_values(
    file: &DataFile,
    schema: &TableSchema,
    partitioning: &Partitioning,
) -> Result<HashMap<String, Option<String>>> {
    if file.partition.len() != partitioning.fields.len() {
        return Err(Error::internal(format!(
            "data file {} has {} partition values and the table {} partition fields",
            file.path,
            file.partition.len(),
            partitioning.fields.len()
        )));
    }
    let mut values = HashMap::new();
    for (field, value) in partitioning.fields.iter().zip(&file.partition) {
        let ty = values::partition_type(field, schema)?;
        let text = value.as_ref().map(|value| {
            values::partition_text(value, field.transform, &ty).ok_or_else(|| {
                Error::data(format!(
                    "data file {}: its value of partition {} cannot be stored",
                    file.path, field.name
                ))
            })
        });
        values.insert(field.name.clone(), text.transpose()?);
    }
    Ok(values)
}

/// The `remove` that takes a file as it stands, with its deletion vector, out of the table.
pub(super) fn remove(add: &Add, now_millis: i64) -> Remove {
    Remove {
        path: add.path.clone(),
        data_change: true,
        deletion_timestamp: Some(now_millis),
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
        tags: add.tags.clone(),
        deletion_vector: add.deletion_vector.clone(),
        base_row_id: add.base_row_id,
        default_row_commit_version: add.default_row_commit_version,
    }
}

/// The `add` that puts a file back with another deletion vector.
pub(super) fn with_vector(add: &Add, vector: DeletionVectorDescriptor, rows: u64) -> Result<Add> {
    Ok(Add {
        deletion_vector: Some(vector),
        stats: Some(values::loosened(add.stats.as_deref(), rows)?),
        data_change: true,
        ..add.clone()
    })
}
