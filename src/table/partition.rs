//! How a table is partitioned: by columns, or by Iceberg's transforms of them.

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::schema::TableSchema;
use crate::table::plan::Scalar;

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

/// The rows of one partition.
#[derive(Debug)]
pub struct Split {
    /// The partition's folders, `name=value`, outermost first.
    pub folders: Vec<String>,
    /// Values of the partition fields.
    pub partition: Vec<Option<Scalar>>,
    /// Its rows, ascending.
    pub rows: Vec<u32>,
}

impl Split {
    /// The partition's rows out of all.
    pub fn take(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        take_record_batch(rows, &UInt32Array::from(self.rows.clone()))
            .map_err(|e| Error::internal("cannot take a partition's rows").because(e))
    }
}

impl Partitioning {
    /// Splits `rows`, which have the columns of `schema`, by partition.
    pub fn split(&self, schema: &TableSchema, rows: &RecordBatch) -> Result<Vec<Split>> {
        let count = u32::try_from(rows.num_rows())
            .map_err(|_| Error::internal("a batch has 2^32 rows or more"))?;
        if self.fields.is_empty() {
            let all =
                Split { folders: Vec::new(), partition: Vec::new(), rows: (0..count).collect() };
            return Ok(vec![all]);
        }
        let _ = schema;
        Err(Error::invalid("partitioned tables cannot be written yet"))
    }
}
