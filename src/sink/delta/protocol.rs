//! Delta's `protocol` and `metaData` actions, and which tables this writer may write.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schema::Field;
use crate::error::{Error, Result};

/// Configuration key that switches deletion vectors on.
const DELETION_VECTORS: &str = "delta.enableDeletionVectors";

/// Configuration key that allows wider types of columns.
const ENABLE_TYPE_WIDENING: &str = "delta.enableTypeWidening";
/// The feature of tables whose columns got wider types, and its name while it was new.
const TYPE_WIDENING: &str = "typeWidening";
const TYPE_WIDENING_PREVIEW: &str = "typeWidening-preview";

/// Configuration keys of column mapping: its mode, and the highest id that a column has.
const MAPPING_PREFIX: &str = "delta.columnMapping.";
const MAPPING: &str = "delta.columnMapping.mode";
const MAX_COLUMN_ID: &str = "delta.columnMapping.maxColumnId";

/// Configuration keys of ours: what a table schema knows and Delta does not.
pub(super) const TOPIC: &str = "cdc-sink.topic";
/// Table property: the deployment that the table belongs to.
pub(super) const OWNER: &str = "cdc-sink.owner";
pub(super) const KEY: &str = "cdc-sink.key";
pub(super) const PARTITIONING: &str = "cdc-sink.partitioning";
pub(super) const LAST_ID: &str = "cdc-sink.last-field-id";
pub(super) const DROPPED_IDS: &str = "cdc-sink.dropped-field-ids";
/// Partitions of the topic when the table was made; absent where that was not known.
pub(super) const PARTITIONS: &str = "cdc-sink.partitions";

/// Features of tables that are read and written right. Those of the second group ask something of a writer only when
/// the schema or the configuration makes use of them, which [`check`] refuses.
const KNOWN: [&str; 17] = [
    "deletionVectors",
    "timestampNtz",
    "invariants",
    "changeDataFeed",
    "v2Checkpoint",
    "vacuumProtocolCheck",
    "domainMetadata",
    "appendOnly",
    "checkConstraints",
    "generatedColumns",
    "identityColumns",
    "allowColumnDefaults",
    "columnMapping",
    TYPE_WIDENING,
    TYPE_WIDENING_PREVIEW,
    "inCommitTimestamp",
    "materializePartitionColumns",
];

/// The `protocol` action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    pub(super) min_reader_version: i32,
    pub(super) min_writer_version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reader_features: Option<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) writer_features: Option<BTreeSet<String>>,
}

impl Protocol {
    /// The protocol of a new table.
    pub(super) fn create(fields: &[Field], configuration: &BTreeMap<String, String>) -> Self {
        let features = || Some(BTreeSet::from(["deletionVectors".to_owned()]));
        let mut protocol = Self {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: features(),
            writer_features: features(),
        };
        if is_true(configuration, "delta.enableChangeDataFeed") {
            protocol.add_writer("changeDataFeed");
        }
        protocol.extended_for(fields)
    }

    /// This protocol with the features that the columns need. Spark refuses a table whose columns are NOT NULL when
    /// `invariants` is not listed; `timestampNtz` has to be listed for readers and writers.
    #[must_use]
    pub(super) fn extended_for(&self, fields: &[Field]) -> Self {
        let mut protocol = self.clone();
        if fields.iter().any(|field| !field.nullable) {
            protocol.add_writer("invariants");
        }
        if fields.iter().any(Field::holds_timestamp_ntz) {
            protocol.add_both("timestampNtz");
        }
        if fields.iter().any(Field::is_mapped) {
            protocol.add_both("columnMapping");
        }
        if fields.iter().any(Field::was_widened) && !protocol.lists(TYPE_WIDENING_PREVIEW) {
            protocol.add_both(TYPE_WIDENING);
        }
        protocol
    }

    fn add_both(&mut self, feature: &str) {
        self.add_writer(feature);
        self.reader_features.get_or_insert_default().insert(feature.to_owned());
    }

    fn add_writer(&mut self, feature: &str) {
        self.writer_features.get_or_insert_default().insert(feature.to_owned());
    }

    fn lists(&self, feature: &str) -> bool {
        let lists = |features: &Option<BTreeSet<String>>| {
            features.as_ref().is_some_and(|f| f.contains(feature))
        };
        lists(&self.reader_features) && lists(&self.writer_features)
    }
}

/// The `metaData` action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) description: Option<String>,
    pub(super) format: Value,
    pub(super) schema_string: String,
    pub(super) partition_columns: Vec<String>,
    #[serde(default)]
    pub(super) configuration: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) created_time: Option<i64>,
}

impl Metadata {
    /// True when data files have names of their own for the columns.
    pub(super) fn maps_columns(&self) -> bool {
        self.configuration.get(MAPPING).is_some_and(|mode| mode == "name")
    }

    /// Switches column mapping on when `fields` need it. Mode `name`: mode `id` cannot be reached from a table without
    /// mapping, and not every reader reads it.
    pub(super) fn map_columns(&mut self, fields: &[Field]) {
        if !fields.iter().any(Field::is_mapped) {
            return;
        }
        let highest = fields.iter().flat_map(Field::mapped_ids).max().unwrap_or_default();
        let known = self.configuration.get(MAX_COLUMN_ID).and_then(|id| id.parse().ok());
        let highest = highest.max(known.unwrap_or_default());
        self.configuration.insert(MAPPING.to_owned(), "name".to_owned());
        self.configuration.insert(MAX_COLUMN_ID.to_owned(), highest.to_string());
    }

    /// A value of the configuration that we store as JSON.
    pub(super) fn stored<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        let text = self.configuration.get(key).ok_or_else(|| {
            Error::refused(format!("the table has no property {key}: cdc-sink did not make it"))
                .hint("choose another warehouse or table name, or move the table away")
        })?;
        serde_json::from_str(text).map_err(|e| {
            Error::refused(format!("the table's property {key} cannot be read")).because(e)
        })
    }
}

/// Refuses a table that we would read or write wrong, saying what it has and what a person can do.
pub(super) fn check(protocol: &Protocol, metadata: &Metadata, fields: &[Field]) -> Result<()> {
    let configuration = &metadata.configuration;
    let listed = protocol.reader_features.iter().chain(&protocol.writer_features).flatten();
    if let Some(feature) = listed.into_iter().find(|feature| !KNOWN.contains(&feature.as_str())) {
        return Err(Error::refused(format!(
            "the table has the feature {feature}, which cdc-sink does not know"
        ))
        .hint(format!("ALTER TABLE … DROP FEATURE {feature}")));
    }
    if !protocol.lists("deletionVectors") || !is_true(configuration, DELETION_VECTORS) {
        return Err(Error::refused("the table allows no deletion vectors")
            .hint(format!("ALTER TABLE … SET TBLPROPERTIES ('{DELETION_VECTORS}' = 'true')")));
    }
    for property in ["delta.appendOnly", "delta.enableInCommitTimestamps"] {
        if is_true(configuration, property) {
            return Err(unset(property));
        }
    }
    let mapping = configuration.get(MAPPING).map_or("none", String::as_str);
    if mapping != "none" && (mapping != "name" || !protocol.lists("columnMapping")) {
        return Err(Error::refused(format!(
            "the table maps its columns by {mapping}, which cdc-sink does not support"
        )));
    }
    if let Some(constraint) = configuration.keys().find(|key| key.starts_with("delta.constraints."))
    {
        return Err(unset(constraint).hint("ALTER TABLE … DROP CONSTRAINT"));
    }
    // An expired `txn` would be a forgotten position.
    if configuration.contains_key("delta.setTransactionRetentionDuration") {
        return Err(unset("delta.setTransactionRetentionDuration"));
    }
    fields.iter().try_for_each(check_field)
}

/// Refuses columns whose values a writer has to check or make.
fn check_field(field: &Field) -> Result<()> {
    const DEMANDS: [&str; 4] = [
        "delta.invariants",
        "delta.generationExpression",
        "delta.identity.start",
        "CURRENT_DEFAULT",
    ];
    if !field.was_widened_as_known() {
        return Err(Error::refused(format!(
            "the type of column {} of the table was changed in a way that cdc-sink does not know",
            field.name
        )));
    }
    match DEMANDS.iter().find(|demand| field.metadata.contains_key(**demand)) {
        Some(demand) => Err(Error::refused(format!(
            "column {} of the table has {demand}, which cdc-sink does not honour",
            field.name
        ))),
        None => Ok(()),
    }
}

fn unset(property: &str) -> Error {
    Error::refused(format!("the table has the property {property}, which cdc-sink cannot keep"))
        .hint(format!("ALTER TABLE … UNSET TBLPROPERTIES ('{property}')"))
}

/// Allows wider types of columns, or refuses when the option does not: not every reader reads the table then.
pub(super) fn allow_widening(
    configuration: &mut BTreeMap<String, String>,
    allowed: bool,
) -> Result<()> {
    if is_true(configuration, ENABLE_TYPE_WIDENING) {
        return Ok(());
    }
    if !allowed {
        return Err(Error::refused(
            "a column would get a wider type, which option type-widening does not allow",
        )
        .hint("switch it on when every reader of the table knows Delta's type widening"));
    }
    configuration.insert(ENABLE_TYPE_WIDENING.to_owned(), "true".to_owned());
    Ok(())
}

pub(super) fn is_true(configuration: &BTreeMap<String, String>, key: &str) -> bool {
    configuration.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The configuration of a new table: the user's properties, then what may not be otherwise.
pub(super) fn configuration(
    properties: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let mut configuration = properties.clone();
    let taken = |key: &&String| key.starts_with("cdc-sink.") || key.starts_with(MAPPING_PREFIX);
    if let Some(key) = properties.keys().find(taken) {
        return Err(Error::invalid(format!(
            "table property {key}: names that start with cdc-sink. or {MAPPING_PREFIX} are taken"
        )));
    }
    let vectors = configuration.insert(DELETION_VECTORS.to_owned(), "true".to_owned());
    if vectors.is_some_and(|value| !value.eq_ignore_ascii_case("true")) {
        return Err(Error::invalid(format!(
            "table property {DELETION_VECTORS} cannot be switched off"
        )));
    }
    Ok(configuration)
}
