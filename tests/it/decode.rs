//! Records that Debezium wrote, scanned and decoded, compared with what the databases held.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use cdc_sink::decode::{Columns, Decoder, InvalidValue, Options, Row, ScanError, Scanned};
use cdc_sink::record::Records;
use serde_json::Value;

use crate::captures::{DATABASES, fixture, options, registry, topics};

fn scan(decoder: &mut Decoder, records: &Records) -> Result<Scanned, ScanError> {
    let record = records.get(0).unwrap();
    for _ in 0..4 {
        match decoder.scan(&record) {
            Err(ScanError::NeedsSchema(id)) => {
                futures::executor::block_on(decoder.fetch_schema(id)).unwrap();
            }
            scanned => return scanned,
        }
    }
    panic!("a schema is asked for again and again");
}

/// Scans and decodes all records of a topic, as if they were one batch of a new table.
struct Decoded {
    columns: Option<Columns>,
    outcomes: BTreeMap<String, usize>,
}

fn decode(decoder: &mut Decoder, topic: &[Records]) -> Decoded {
    let mut outcomes = BTreeMap::new();
    let mut changes = Vec::new();
    let mut sources = Vec::new();
    for records in topic {
        let outcome = match scan(decoder, records) {
            Ok(Scanned::Change(change)) => {
                changes.push(change);
                sources.push(records.get(0).unwrap());
                format!("change {}", change.operation.code())
            }
            Ok(Scanned::Skipped(skip)) => format!("skip {skip:?}"),
            Ok(Scanned::Truncate { .. }) => "truncate".to_owned(),
            Err(ScanError::Reject(reject)) => format!("reject {}", reject.reason),
            Err(other) => panic!("{other:?}"),
        };
        *outcomes.entry(outcome).or_default() += 1;
    }
    let input: Vec<Row<'_>> = changes
        .iter()
        .zip(&sources)
        .filter_map(|(change, record)| Row::of(*record, change))
        .collect();
    let columns = (!input.is_empty()).then(|| {
        let schema = decoder.table_schema(&input).unwrap();
        decoder.columns(&input, &schema).unwrap()
    });
    if let Some(columns) = &columns {
        assert_eq!(columns.rows.num_rows(), input.len());
        for (_, reject) in &columns.rejects {
            *outcomes.entry(format!("row {}", reject.message)).or_default() += 1;
        }
    }
    Decoded { columns, outcomes }
}

fn texts(rows: &RecordBatch, row: usize) -> BTreeMap<String, Option<String>> {
    let options = FormatOptions::new()
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.f"))
        .with_null("NULL");
    let fields = rows.schema();
    let columns = fields.fields().iter().zip(rows.columns());
    let columns = columns.filter(|(field, _)| !field.name().starts_with("_cdc_"));
    let text = |(field, column): (&Arc<Field>, &ArrayRef)| {
        let value = || {
            let text = ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string();
            let moment = matches!(field.data_type(), DataType::Timestamp(..));
            if moment { canonical("timestamp", &text) } else { text }
        };
        (field.name().clone(), column.is_valid(row).then(value))
    };
    columns.map(text).collect()
}

/// What the database held: the table's columns with their types, and its rows.
pub(crate) struct Held {
    pub(crate) columns: Vec<(String, String)>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

/// What the database held at the end. The tables that were made and renamed while the connector ran were not written
/// down.
pub(crate) fn held(database: &str, table: &str) -> Held {
    let row = |id: &str, v: &str| vec![Some(id.to_owned()), Some(v.to_owned())];
    let made_later = |row| Held {
        columns: vec![("id".into(), "int".into()), ("v".into(), "text".into())],
        rows: vec![row],
    };
    match table {
        "later" => return made_later(row("1", "created while streaming")),
        "later2" => return made_later(row("2", "after rename")),
        _ => {}
    }
    let tables: Value = serde_json::from_str(&fixture(&format!("{database}-rows.json"))).unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = |value: &Value| value.as_array().unwrap().clone();
    Held {
        columns: list(&tables[table]["columns"])
            .iter()
            .map(|column| (text(&column[0]).unwrap(), text(&column[1]).unwrap()))
            .collect(),
        rows: list(&tables[table]["rows"])
            .iter()
            .map(|row| list(row).iter().map(text).collect())
            .collect(),
    }
}

/// The database's text of a value, as [`texts`] has it.
pub(crate) fn canonical(ty: &str, text: &str) -> String {
    match ty {
        "bytea" => text.trim_start_matches("\\x").to_owned(),
        _ if text.starts_with("0x") => text.trim_start_matches("0x").to_lowercase(),
        _ if ty.starts_with("time ") || ty.starts_with("time(") => micros(text).to_string(),
        _ if ty.ends_with("[]") => text.replace('{', "[").replace('}', "]").replace(',', ", "),
        _ if ty.starts_with("timestamp") || ty.starts_with("datetime") => {
            let local = text.trim_end_matches("+00");
            let local = if local.contains('.') { local.trim_end_matches('0') } else { local };
            local.trim_end_matches('.').to_owned()
        }
        _ => text.to_owned(),
    }
}

/// Microseconds since midnight.
fn micros(text: &str) -> i64 {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole = seconds.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap());
    whole * 1_000_000 + format!("{fraction:0<6}").parse::<i64>().unwrap()
}

fn product() -> impl Iterator<Item = (&'static str, &'static str)> {
    DATABASES.into_iter().flat_map(|database| {
        ["json-schema", "json", "avro"].into_iter().map(move |kind| (database, kind))
    })
}

/// Connect's Avro converter has no names with other characters.
pub(crate) fn avro_name(kind: &str, name: &str) -> String {
    match (kind, name) {
        ("avro", "some col") => "some_col".to_owned(),
        ("avro", "1abc") => "_1abc".to_owned(),
        (_, name) => name.to_owned(),
    }
}

/// Columns of `all_types` that JSON without a schema does not tell and nobody can declare: the connector writes a
/// negative scale as two thousand digits, and the length of a bit string is in its schema alone.
const UNTOLD: [&str; 2] = ["c_num_neg", "c_varbit"];

/// Columns of `all_types` whose value the connector writes in other words than the database.
const OTHER_WORDS: [(&str, &str, &str); 19] = [
    ("postgres", "c_point", "0101000000000000000000f83f00000000000004c0"),
    // The connector does not write arrays of arrays.
    ("postgres", "c_int_arr2", "[NULL, NULL]"),
    ("", "c_point", "0101000000000000000000f83f00000000000004c0"),
    (
        "",
        "c_geom",
        "01020000000300000000000000000000000000000000000000000000000000f03f000000000000f03f00000000000000400000000000000000",
    ),
    ("postgres", "c_char", "ab    "),
    ("postgres", "c_timetz", "04:41:12.123456Z"),
    ("postgres", "c_interval", "37091106789000"),
    ("postgres", "c_hstore", r#"{"k1":"v1","k2":null}"#),
    ("postgres", "c_money", "-1234.56"),
    ("postgres", "c_bit", "true"),
    ("postgres", "c_bit8", "b3"),
    // Of a bit string that varies the schema tells the longest.
    ("postgres", "c_varbit", "ce0200"),
    ("postgres", "c_text_arr", "[a, b,c, NULL, ]"),
    ("postgres", "c_ts_arr", "[2024-01-01 00:00:00, 2024-01-01 00:00:00.500]"),
    ("", "c_ubig", "-1"),
    ("", "c_bit1", "true"),
    ("", "c_bit9", "5501"),
    ("", "c_bit64", "ffffffffffffffff"),
    ("", "c_time", "-3020399000000"),
];

/// What JSON without a schema does not tell about `all_types`.
const ALL_TYPES: [(&str, &str); 45] = [
    ("c_num_free", "numeric"),
    ("c_point", "geometry"),
    ("c_geom", "geometry"),
    ("c_dec65", "decimal(65,10)"),
    ("c_int_arr2", "list<int>"),
    ("c_real", "float"),
    ("c_double", "double"),
    ("c_num", "decimal(18,4)"),
    ("c_num0", "decimal(10,0)"),
    ("c_bytea", "bytes"),
    ("c_date", "date"),
    ("c_time", "time(micros)"),
    ("c_time3", "time(millis)"),
    ("c_ts", "timestamp(micros)"),
    ("c_ts3", "timestamp(millis)"),
    ("c_ts0", "timestamp(millis)"),
    ("c_tstz", "timestamptz"),
    ("c_num_arr", "list<decimal(10,2)>"),
    ("c_ts_arr", "list<timestamp(micros)>"),
    ("c_money", "decimal(38,2)"),
    ("c_bit8", "bytes"),
    ("c_varbit", "bytes"),
    ("c_ts_default", "timestamptz"),
    ("c_dec", "decimal(18,4)"),
    ("c_udec", "decimal(10,2)"),
    ("c_float", "float"),
    ("c_time6", "time(micros)"),
    ("c_dt", "timestamp(millis)"),
    ("c_dt3", "timestamp(millis)"),
    ("c_dt6", "timestamp(micros)"),
    ("c_ts6", "timestamptz"),
    ("c_bit9", "bytes"),
    ("c_bit64", "bytes"),
    ("c_bin", "bytes"),
    ("c_varbin", "bytes"),
    ("c_blob", "bytes"),
    ("c_tinyblob", "bytes"),
    ("c_dt_default", "timestamp(millis)"),
    ("c_int", "int"),
    ("c_uuid", "uuid"),
    ("c_json", "json"),
    ("c_jsonb", "json"),
    ("c_bigint", "long"),
    ("c_bool", "boolean"),
    ("c_text", "string"),
];

/// The record without some columns.
fn without(records: &Records, names: &[&str]) -> Records {
    let record = records.get(0).unwrap();
    let value = record.value.map(|value| {
        let mut value: Value = serde_json::from_slice(value).unwrap();
        if let Some(fields) = value.pointer_mut("/schema/fields").and_then(Value::as_array_mut) {
            for image in
                fields.iter_mut().filter_map(|field| field.get_mut("fields")?.as_array_mut())
            {
                image.retain(|column| !names.contains(&column["field"].as_str().unwrap()));
            }
        }
        let payload =
            if value.get("payload").is_some() { &mut value["payload"] } else { &mut value };
        if let Some(row) = payload["after"].as_object_mut() {
            row.retain(|name, _| !names.contains(&name.as_str()));
        }
        serde_json::to_vec(&value).unwrap()
    });
    let mut changed = Records::new(Arc::clone(record.topic), record.partition, record.offset);
    assert!(changed.push(record.offset, None, record.key, value.as_deref(), []));
    changed
}

#[test]
fn a_row_of_all_types_is_what_the_database_held() {
    let mut different = Vec::new();
    for (database, kind) in product().filter(|(_, kind)| *kind != "avro") {
        let topics = topics(&format!("{database}-{kind}"));
        let (_, records) = topics.iter().find(|(topic, _)| topic.ends_with(".all_types")).unwrap();
        let first = |records: &&Records| {
            records.get(0).unwrap().key.unwrap().ends_with(br#""id":1}"#)
                || records.get(0).unwrap().key.unwrap().ends_with(br#""id":1}}"#)
        };
        let left_out = if kind == "json" { &UNTOLD[..] } else { &[] };
        let records: Vec<Records> =
            records.iter().filter(first).map(|records| without(records, left_out)).collect();
        let mut declared: Vec<(&str, &str)> = ALL_TYPES.to_vec();
        if database != "postgres" {
            declared.retain(|(name, _)| !matches!(*name, "c_ts" | "c_bool"));
            declared.push(("c_ts", "timestamptz"));
        }
        // With Delta among the formats a time beyond a day is kept.
        let options = Options { for_delta: true, ..options(&declared) };
        let mut decoder = Decoder::new(options, None, None);
        let decoded = decode(&mut decoder, &records);
        assert!(
            !decoded.outcomes.keys().any(|outcome| outcome.starts_with("row ")),
            "{:?}",
            decoded.outcomes
        );
        let columns = decoded.columns.as_ref().unwrap();
        let row = texts(&columns.rows, columns.rows.num_rows() - 1);
        let held = held(database, "all_types");
        let expected = held.rows.iter().find(|row| row[0].as_deref() == Some("1")).unwrap();
        for ((name, ty), expected) in held.columns.iter().zip(expected) {
            if left_out.contains(&name.as_str()) {
                continue;
            }
            let other = OTHER_WORDS.iter().find(|(at, column, _)| {
                column == name && (*at == database || (at.is_empty() && database != "postgres"))
            });
            let expected = match other {
                Some((_, _, words)) => Some((*words).to_owned()),
                None => expected.as_deref().map(|text| canonical(ty, text)),
            };
            if row.get(name) != Some(&expected) {
                different.push(format!(
                    "{database} {kind} {name}: {:?}, not {expected:?}",
                    row.get(name)
                ));
            }
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// A record with another value.
fn with_value(records: &Records, value: &[u8]) -> Records {
    let record = records.get(0).unwrap();
    let mut changed = Records::new(Arc::clone(record.topic), record.partition, record.offset);
    assert!(changed.push(record.offset, None, record.key, Some(value), record.headers()));
    changed
}

/// Scans and decodes one record, whatever it is; true when it was taken for a change.
fn survives(decoder: &mut Decoder, records: &Records) -> bool {
    let record = records.get(0).unwrap();
    let Ok(Scanned::Change(change)) = decoder.scan(&record) else { return false };
    let Some(row) = Row::of(record, &change) else { return true };
    if let Ok(schema) = decoder.table_schema(&[row]) {
        let columns = decoder.columns(&[row], &schema).unwrap();
        assert_eq!(columns.rows.num_rows(), 1);
    }
    true
}

#[test]
fn damaged_records_are_no_changes_and_end_nothing() {
    // Numbers that look random and are the same each time.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed >> 33).unwrap() % below
    };
    for (database, kind) in product() {
        for (topic, records) in topics(&format!("{database}-{kind}")) {
            let mut decoder = Decoder::new(options(&[]), Some(registry(database)), None);
            for record in &records {
                // Its schemas are known from here on.
                drop(scan(&mut decoder, record));
                let Some(value) = record.get(0).unwrap().value else { continue };
                for _ in 0..8 {
                    let cut = with_value(record, &value[..random(value.len())]);
                    assert!(!survives(&mut decoder, &cut), "{topic} {database} {kind}");
                    let mut damaged = value.to_vec();
                    let place = random(value.len());
                    damaged[place] = u8::try_from(random(256)).unwrap();
                    survives(&mut decoder, &with_value(record, &damaged));
                }
                let longer = with_value(record, &[value, b"1"].concat());
                assert!(!survives(&mut decoder, &longer), "{topic} {database} {kind}");
            }
        }
    }
}

/// Values that columns do not have are null when that is the policy; then every row of every capture is decoded.
#[test]
fn every_row_is_decoded() {
    for database in DATABASES {
        for kind in ["json-schema", "json", "avro", "modes"] {
            for (topic, records) in topics(&format!("{database}-{kind}")) {
                let options = Options { invalid: InvalidValue::Null, ..options(&[]) };
                let mut decoder = Decoder::new(options, Some(registry(database)), None);
                let outcomes = decode(&mut decoder, &records).outcomes;
                let rejected = outcomes.keys().find(|outcome| outcome.starts_with("row "));
                assert_eq!(rejected, None, "{topic} {kind}");
            }
        }
    }
}

/// Every record of every capture is accounted for: how many of them are what.
#[test]
fn every_record_is_accounted_for() {
    let mut all = String::new();
    for database in DATABASES {
        for kind in ["json-schema", "json", "avro", "modes", "flattened"] {
            let name = format!("{database}-{kind}");
            if kind == "flattened" && database != "postgres" {
                continue;
            }
            let mut sum: BTreeMap<String, usize> = BTreeMap::new();
            let mut records = 0;
            for topic in topics(&name).values() {
                let mut decoder = Decoder::new(options(&[]), Some(registry(database)), None);
                records += topic.len();
                for (outcome, count) in decode(&mut decoder, topic).outcomes {
                    *sum.entry(outcome).or_default() += count;
                }
            }
            let scanned = sum.iter().filter(|(outcome, _)| !outcome.starts_with("row "));
            assert_eq!(scanned.map(|(_, count)| count).sum::<usize>(), records, "{name}");
            writeln!(all, "{name}").unwrap();
            for (outcome, count) in sum {
                writeln!(all, "  {count} {outcome}").unwrap();
            }
        }
    }
    let golden = include_str!("../fixtures/captures/outcomes.txt");
    assert!(
        all == golden,
        "outcomes differ from tests/fixtures/captures/outcomes.txt; they are now:\n{all}"
    );
}
