//! What the file says of single tables.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::change::{Keyless, MissingValue, Truncates, Unconfirmed};
use crate::decode::{InvalidValue, TypeConflict};

/// Options of one table.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TableOptions {
    /// The table's namespace and name, such as `shop.orders`.
    pub name: Option<String>,
    /// Partition fields, in place of the general ones.
    pub partition_by: Option<String>,
    /// Types of columns, such as `amount = "decimal(12,2)"`: what JSON without a schema does not tell, or another than
    /// the schema's.
    pub types: BTreeMap<String, String>,
    /// What becomes of values that a column's type does not have, by column: `dead-letter`, `null` or `clamp`.
    pub invalid_value: BTreeMap<String, InvalidValue>,
    /// The name of the key's column, where Kafka keys are bare values; the key's columns, where there are none.
    pub key: Vec<String>,
    /// Columns that identify a row, whatever the Kafka key is: for tables without a primary key, or with
    /// `message.key.columns`. Deletes must come with the row before (`REPLICA IDENTITY FULL`); tombstones are passed over.
    pub identity: Vec<String>,
    /// What becomes of changes that leave out values which are nowhere, in place of the general option.
    pub missing_value: Option<MissingValue>,
    /// What its records are when it has no primary key, in place of the general option.
    pub keyless: Option<Keyless>,
    /// What to do when a column's type changes, in place of the general answer.
    pub type_conflict: Option<TypeConflict>,
    /// Take records whose schema in the registry is named after another table of their connector than they are of, as
    /// with a router that renames schemas and another that renames topics. Else they are dead letters.
    pub any_schema_name: bool,
    /// What becomes of truncates, in place of the general option.
    pub truncate: Option<Truncates>,
    /// Whether rows keep where their last change is in the source's log, in place of the general option.
    pub source_position: Option<bool>,
    /// What becomes of rows that another initial snapshot does not have, in place of the general option.
    pub unconfirmed_rows: Option<Unconfirmed>,
}
