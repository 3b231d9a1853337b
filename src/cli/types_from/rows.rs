//! What a database is asked about its columns, and the answer: a JSON object for each column, in the tables' order.

use serde::Deserialize;

use super::SourceColumn;
use crate::decode::{Database, SourceType};
use crate::error::{Error, Result};

/// The SQL of a kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Dialect {
    /// PostgreSQL
    Postgres,
    /// MySQL and MariaDB
    Mysql,
}

/// Columns of tables, with domains followed to the types below them and arrays to their elements.
const POSTGRES: &str = r"
WITH RECURSIVE columns AS (
    SELECT n.nspname AS schema, c.relname AS name, a.attname AS col, a.attnum AS place,
           a.atttypid AS type, a.atttypmod AS modifier
      FROM pg_attribute a
      JOIN pg_class c ON c.oid = a.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
       AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
), followed AS (
    SELECT * FROM columns
    UNION ALL
    SELECT f.schema, f.name, f.col, f.place, t.typbasetype,
           CASE WHEN f.modifier >= 0 THEN f.modifier ELSE t.typtypmod END
      FROM followed f JOIN pg_type t ON t.oid = f.type
     WHERE t.typtype = 'd'
)
SELECT json_build_object(
           'database', 'postgres', 'schema', f.schema, 'table', f.name, 'column', f.col,
           'type', coalesce(e.typname, t.typname), 'array', e.oid IS NOT NULL,
           'enum', coalesce(e.typtype, t.typtype) = 'e', 'modifier', f.modifier)::text
  FROM followed f
  JOIN pg_type t ON t.oid = f.type AND t.typtype <> 'd'
  LEFT JOIN pg_type e ON t.typcategory = 'A' AND e.oid = t.typelem
 ORDER BY f.schema, f.name, f.place";

/// Columns of tables, of one database where the connection has one.
const MYSQL: &str = r"
SELECT JSON_OBJECT(
           'database', 'mysql', 'schema', c.TABLE_SCHEMA, 'table', c.TABLE_NAME, 'column', c.COLUMN_NAME,
           'type', c.DATA_TYPE, 'whole', CAST(c.COLUMN_TYPE AS CHAR), 'precision', c.NUMERIC_PRECISION,
           'scale', c.NUMERIC_SCALE, 'fraction', c.DATETIME_PRECISION)
  FROM information_schema.COLUMNS c
  JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME
 WHERE t.TABLE_TYPE = 'BASE TABLE'
   AND c.TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')
   AND c.TABLE_SCHEMA = COALESCE(DATABASE(), c.TABLE_SCHEMA)
 ORDER BY c.TABLE_SCHEMA, c.TABLE_NAME, c.ORDINAL_POSITION";

impl Dialect {
    /// The query, whose rows [`columns`] reads.
    pub(in crate::cli) fn query(self) -> &'static str {
        match self {
            Self::Postgres => POSTGRES.trim_start(),
            Self::Mysql => MYSQL.trim_start(),
        }
    }

    /// The name in options.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
        }
    }
}

/// A row of the answer.
#[derive(Debug, Deserialize)]
struct Line {
    database: String,
    schema: String,
    table: String,
    column: String,
    #[serde(rename = "type")]
    ty: String,
    #[serde(default)]
    array: bool,
    #[serde(default, rename = "enum")]
    is_enum: bool,
    /// Postgres' parameters of the type, packed.
    modifier: Option<i64>,
    /// MySQL's type with its parameters.
    whole: Option<String>,
    precision: Option<i64>,
    scale: Option<i64>,
    /// Digits of fractions of a second.
    fraction: Option<i64>,
}

/// The columns that the rows of a query tell of.
pub(super) fn columns(rows: &str) -> Result<Vec<SourceColumn>> {
    let lines = rows.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(column).collect()
}

fn column(line: &str) -> Result<SourceColumn> {
    let bad = || {
        Error::invalid("option types-from: a row that is not one of the query's")
            .hint("see `cdc-sink plan --types-query postgres`")
    };
    let line: Line = serde_json::from_str(line).map_err(|e| bad().because(e))?;
    let (database, (length, scale), is_unsigned) = match line.database.as_str() {
        "postgres" => (Database::Postgres, unpacked(&line.ty, line.modifier.unwrap_or(-1)), false),
        "mysql" => {
            let whole = line.whole.as_deref().unwrap_or_default().to_lowercase();
            let numbers = match line.ty.as_str() {
                "time" | "datetime" | "timestamp" => (line.fraction, None),
                "decimal" => (line.precision, line.scale),
                "bit" => (line.precision, None),
                _ => in_parentheses(&whole),
            };
            (Database::MySql, numbers, whole.contains(" unsigned"))
        }
        _ => return Err(bad()),
    };
    let (is_array, is_enum) = (line.array, line.is_enum);
    let ty = SourceType { name: line.ty, length, scale, is_array, is_enum, is_unsigned };
    Ok(SourceColumn { database, schema: line.schema, table: line.table, name: line.column, ty })
}

/// The numbers in parentheses that a type's modifier stands for in Postgres.
fn unpacked(name: &str, modifier: i64) -> (Option<i64>, Option<i64>) {
    match name {
        _ if modifier < 0 => (None, None),
        "numeric" => {
            // Sixteen bits of precision above eleven of scale, whose first one is a sign.
            let packed = modifier - 4;
            (Some((packed >> 16) & 0xffff), Some(((packed & 0x7ff) ^ 1024) - 1024))
        }
        "varchar" | "bpchar" => (Some(modifier - 4), None),
        _ => (Some(modifier), None),
    }
}

/// The numbers of `float(7,3) unsigned`.
fn in_parentheses(whole: &str) -> (Option<i64>, Option<i64>) {
    let inside = whole.split_once('(').and_then(|(_, rest)| Some(rest.split_once(')')?.0));
    let inside = inside.unwrap_or_default();
    let mut numbers = inside.split(',').map(|number| number.trim().parse().ok());
    (numbers.next().flatten(), numbers.next().flatten())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("numeric", -1, None, None)]
    #[case("numeric", (18 << 16 | 4) + 4, Some(18), Some(4))]
    #[case("numeric", (5 << 16 | (-2 & 0x7ff)) + 4, Some(5), Some(-2))]
    #[case("varchar", 44, Some(40), None)]
    #[case("timestamp", 3, Some(3), None)]
    #[case("timestamp", -1, None, None)]
    fn modifiers_are_numbers(
        #[case] name: &str,
        #[case] modifier: i64,
        #[case] length: Option<i64>,
        #[case] scale: Option<i64>,
    ) {
        assert_eq!(unpacked(name, modifier), (length, scale));
    }

    #[rstest]
    #[case(r#""type":"decimal","whole":"decimal(10,2) unsigned","precision":10,"scale":2"#, (Some(10), Some(2), true))]
    #[case(r#""type":"float","whole":"float(7,3)","precision":7,"scale":3"#, (Some(7), Some(3), false))]
    #[case(r#""type":"float","whole":"float","precision":12,"scale":null"#, (None, None, false))]
    #[case(r#""type":"datetime","whole":"datetime(6)","fraction":6"#, (Some(6), None, false))]
    #[case(r#""type":"bit","whole":"bit(9)","precision":9"#, (Some(9), None, false))]
    #[case(r#""type":"int","whole":"int(6) unsigned zerofill","precision":10,"scale":0"#, (Some(6), None, true))]
    #[case(r#""type":"enum","whole":"enum('a','b')""#, (None, None, false))]
    fn columns_of_the_information_schema(
        #[case] fields: &str,
        #[case] expected: (Option<i64>, Option<i64>, bool),
    ) {
        let line =
            format!(r#"{{"database":"mysql","schema":"s","table":"t","column":"c",{fields}}}"#);
        let found = columns(&line).unwrap().remove(0).ty;
        assert_eq!((found.length, found.scale, found.is_unsigned), expected);
    }

    #[test]
    fn another_row_is_refused() {
        for line in [
            "id|int8",
            "{}",
            r#"{"database":"oracle","schema":"s","table":"t","column":"c","type":"x"}"#,
        ] {
            assert!(columns(line).unwrap_err().report().contains("types-query"), "{line}");
        }
    }
}
