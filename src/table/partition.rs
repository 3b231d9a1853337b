//! How a table is partitioned: by columns, or by Iceberg's transforms of them.

use serde::{Deserialize, Serialize};

/// How a partition value is made from a column's value (Iceberg specification, "Partition Transforms").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transform {
    /// The value itself.
    Identity,
    /// Murmur3 hash modulo the number of buckets.
    Bucket(u32),
    /// Text cut to a length, numbers rounded down to a multiple.
    Truncate(u32),
    /// Years since 1970.
    Year,
    /// Months since 1970-01.
    Month,
    /// Days since 1970-01-01.
    Day,
    /// Hours since 1970-01-01 00:00.
    Hour,
}

/// One partition field.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PartitionField {
    /// The column it is made from.
    pub column: String,
    /// How.
    pub transform: Transform,
    /// Its name: the column's for identity, else as Iceberg's engines name it (`ts_day`, `id_bucket`).
    pub name: String,
}

/// The partition fields of a table; none when it is not partitioned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Partitioning {
    /// The fields, in order.
    pub fields: Vec<PartitionField>,
}
