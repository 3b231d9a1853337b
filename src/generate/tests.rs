use std::collections::{BTreeMap, HashMap};

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::Value as Json;

use super::*;
use crate::schema::ColumnType;

const ALL: [Shape; 4] = [Shape::Customers, Shape::Orders, Shape::Events, Shape::Stock];

fn workload(encoding: Encoding) -> Workload {
    Workload {
        seed: 7,
        tables: ALL.to_vec(),
        rows: 50,
        changes: 2000,
        partitions: 3,
        encoding,
        mix: Mix { moves: 50, ..Mix::default() },
        placeholder_percent: 30,
        placeholders_in_moves: true,
        add_column_after: Some(1000),
        ..Workload::default()
    }
}

/// A row as a record tells it; none for a column whose value is not in the record.
type Told = BTreeMap<String, Option<Value>>;

/// What a naive reader makes of a record: the text of its key, its operation, its row.
struct Read {
    key: String,
    old_key: Option<String>,
    operation: Option<String>,
    before: Option<Told>,
    after: Option<Told>,
}

/// Decodes records by what they say of themselves and by nothing the generator knows, save Avro's schemas.
struct Reader {
    encoding: Encoding,
    /// Avro's schemas, and their text for what the Avro library does not keep.
    schemas: HashMap<u32, (Schema, Json)>,
}

impl Reader {
    fn new(workload: &Workload) -> Self {
        let parse = |subject: &Subject| {
            let text = serde_json::from_str(&subject.schema).unwrap();
            (Schema::parse_str(&subject.schema).unwrap(), text)
        };
        let schemas = (1..).zip(workload.subjects().iter().map(parse)).collect();
        Self { encoding: workload.encoding, schemas }
    }

    fn read(&self, record: &Generated) -> Read {
        let header = record.headers.iter().find(|(name, _)| *name == OLD_KEY);
        let old_key =
            header.map(|(_, value)| serde_json::from_slice::<Json>(value).unwrap().to_string());
        let mut read =
            Read { key: String::new(), old_key, operation: None, before: None, after: None };
        match self.encoding {
            Encoding::Avro => {
                read.key = told_key(&self.avro(&record.key));
                if let Some(value) = &record.value {
                    let envelope = fields(self.avro(value));
                    read.operation = envelope.get("op").map(avro_text);
                    let id = u32::from_be_bytes(value[1..5].try_into().unwrap());
                    read.before = self.avro_row(id, &envelope["before"]);
                    read.after = self.avro_row(id, &envelope["after"]);
                }
            }
            Encoding::Json | Encoding::JsonWithSchema => {
                let (_, key) = unwrap(&record.key);
                read.key = key.to_string();
                if let Some(value) = &record.value {
                    let (schema, envelope) = unwrap(value);
                    read.operation = envelope["op"].as_str().map(ToOwned::to_owned);
                    read.before = json_row(&schema, &envelope, "before");
                    read.after = json_row(&schema, &envelope, "after");
                }
            }
        }
        read
    }

    fn avro(&self, framed: &[u8]) -> Avro {
        let (mark, mut rest) = framed.split_first().unwrap();
        assert_eq!(*mark, 0);
        let id = u32::from_be_bytes(rest.split_off(..4).unwrap().try_into().unwrap());
        let value = apache_avro::from_avro_datum(&self.schemas[&id].0, &mut rest, None).unwrap();
        assert!(rest.is_empty(), "bytes after the datum");
        value
    }

    fn avro_row(&self, id: u32, image: &Avro) -> Option<Told> {
        let Avro::Union(_, image) = image else { panic!("an image is optional") };
        if **image == Avro::Null {
            return None;
        }
        let schema = &self.schemas[&id].1;
        let columns = schema["fields"][0]["type"][1]["fields"].as_array().unwrap().clone();
        let names = |column: &Json| {
            let ty = &column["type"];
            let ty = if ty.is_array() { &ty[1] } else { ty };
            (column["name"].as_str().unwrap().to_owned(), ty["connect.name"].clone())
        };
        let semantics: HashMap<_, _> = columns.iter().map(names).collect();
        let told = |(name, value): (String, Avro)| {
            let value = if let Avro::Union(_, value) = value { *value } else { value };
            let value = typed_avro(value, semantics[&name].as_str());
            (name, value)
        };
        Some(fields((**image).clone()).into_iter().map(told).collect())
    }
}

fn fields(record: Avro) -> HashMap<String, Avro> {
    let Avro::Record(fields) = record else { panic!("not a record: {record:?}") };
    fields.into_iter().collect()
}

fn avro_text(value: &Avro) -> String {
    let Avro::String(text) = value else { panic!("not a text: {value:?}") };
    text.clone()
}

fn told_key(key: &Avro) -> String {
    let Avro::Record(columns) = key else { panic!("a key is a record") };
    let plain = |value: &Avro| match value {
        Avro::Long(number) => Json::from(*number),
        other => Json::from(avro_text(other)),
    };
    let columns = columns.iter().map(|(name, value)| (name.clone(), plain(value)));
    Json::Object(columns.collect()).to_string()
}

fn typed_avro(value: Avro, semantic: Option<&str>) -> Option<Value> {
    let semantic = semantic.and_then(|name| name.rsplit('.').next());
    Some(match (value, semantic) {
        (Avro::Null, _) => Value::Null,
        (Avro::Boolean(value), _) => Value::Boolean(value),
        (Avro::Int(days), Some("Date")) => Value::Date(days),
        (Avro::Int(value), _) => Value::Int(value.into()),
        (Avro::Long(micros), Some("MicroTimestamp")) => Value::Timestamp(micros),
        (Avro::Long(value), _) => Value::Int(value),
        (Avro::Double(value), _) => Value::Float(value),
        (Avro::Decimal(decimal), _) => unscaled(&<Vec<u8>>::try_from(decimal).unwrap(), 0),
        (Avro::String(text), semantic) => return told_text(text, semantic),
        (other, semantic) => panic!("unexpected {other:?} {semantic:?}"),
    })
}

fn unwrap(bytes: &[u8]) -> (Option<Json>, Json) {
    let mut json: Json = serde_json::from_slice(bytes).unwrap();
    match (json["schema"].take(), json["payload"].take()) {
        (Json::Null, Json::Null) => (None, serde_json::from_slice(bytes).unwrap()),
        (schema, payload) => (Some(schema), payload),
    }
}

fn json_row(schema: &Option<Json>, envelope: &Json, image: &str) -> Option<Told> {
    let row = envelope[image].as_object()?;
    let described = schema.as_ref().map(|schema| {
        let fields = schema["fields"].as_array().unwrap();
        let image = fields.iter().find(|field| field["field"] == image).unwrap();
        image["fields"].as_array().unwrap().clone()
    });
    let told = |(name, value): (&String, &Json)| {
        let column = described.as_ref().map(|columns| {
            columns.iter().find(|column| column["field"] == *name).expect("in the schema").clone()
        });
        (name.clone(), typed_json(value, column.as_ref()))
    };
    let told: Told = row.iter().map(told).collect();
    assert!(described.is_none_or(|columns| columns.len() == told.len()));
    Some(told)
}

fn typed_json(value: &Json, column: Option<&Json>) -> Option<Value> {
    let semantic = column.and_then(|column| column["name"].as_str()?.rsplit('.').next());
    Some(match (value, semantic) {
        (Json::Null, _) => Value::Null,
        (Json::Bool(value), _) => Value::Boolean(*value),
        (Json::Number(days), Some("Date")) => {
            Value::Date(days.as_i64().unwrap().try_into().unwrap())
        }
        (Json::Number(micros), Some("MicroTimestamp")) => {
            Value::Timestamp(micros.as_i64().unwrap())
        }
        (Json::Number(number), _) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap()), Value::Int)
        }
        (Json::String(text), Some("Decimal")) => {
            let scale = column.unwrap()["parameters"]["scale"].as_str().unwrap();
            unscaled(&STANDARD.decode(text).unwrap(), scale.parse().unwrap())
        }
        (Json::String(text), semantic) => return told_text(text.clone(), semantic),
        (other, semantic) => panic!("unexpected {other:?} {semantic:?}"),
    })
}

fn unscaled(bytes: &[u8], scale: u8) -> Value {
    let fill = if bytes[0] >= 0x80 { 0xff } else { 0 };
    let mut all = [fill; 16];
    all[16 - bytes.len()..].copy_from_slice(bytes);
    Value::Decimal { unscaled: i128::from_be_bytes(all), scale }
}

fn told_text(text: String, semantic: Option<&str>) -> Option<Value> {
    if text == UNAVAILABLE {
        return None;
    }
    Some(if semantic == Some("ZonedTimestamp") {
        let time = chrono::DateTime::parse_from_rfc3339(&text).unwrap();
        Value::TimestampTz(time.timestamp_micros())
    } else {
        Value::String(text)
    })
}

/// What a table holds after all records, by key.
type Folded = HashMap<(Arc<str>, String), Told>;

fn fold(workload: &Workload) -> (Generator, Folded) {
    let reader = Reader::new(workload);
    let mut generator = Generator::new(workload);
    let mut tables = Folded::new();
    // Rows of deleted keys, for placeholders of a changed key.
    let mut gone = Folded::new();
    for record in &mut generator {
        let read = reader.read(&record);
        let place = (Arc::clone(&record.topic), read.key.clone());
        let Some(mut row) = read.after else {
            if let Some(row) = tables.remove(&place) {
                gone.insert(place, row);
            }
            continue;
        };
        let from = read.old_key.map(|key| (Arc::clone(&record.topic), key));
        let old = match &from {
            Some(from) => gone.get(from),
            None => tables.get(&place),
        };
        for (name, value) in &mut row {
            if value.is_none() {
                value.clone_from(&old.expect("a row to take the value from")[name]);
            }
        }
        tables.insert(place, row);
    }
    (generator, tables)
}

fn assert_folds(workload: &Workload) {
    let (generator, mut tables) = fold(workload);
    for shape in workload.tables.iter().copied() {
        let topic: Arc<str> = format!("{}.public.{}", workload.prefix, shape.name()).into();
        let columns = generator.columns(shape);
        let keys = shape.key();
        for row in generator.expected_rows(shape) {
            let named: Told =
                columns.iter().map(|c| c.name.clone()).zip(row.into_iter().map(Some)).collect();
            let key = keys.iter().map(|key| {
                let value = match named[*key].clone().unwrap() {
                    Value::Int(id) => Json::from(id),
                    Value::String(text) => Json::from(text),
                    other => panic!("a key of {other:?}"),
                };
                ((*key).to_owned(), value)
            });
            let key = Json::Object(key.collect()).to_string();
            let mut told =
                tables.remove(&(Arc::clone(&topic), key)).expect("a row that is expected");
            for column in &columns {
                // Rows not touched since the column was added do not have it; Avro does not tell a decimal's scale.
                let value = told.entry(column.name.clone()).or_insert(Some(Value::Null));
                if let (
                    Some(Value::Decimal { scale, .. }),
                    ColumnType::Decimal { scale: known, .. },
                ) = (value, &column.ty)
                    && workload.encoding == Encoding::Avro
                {
                    *scale = *known;
                }
            }
            assert_eq!(told, named);
        }
    }
    assert!(tables.is_empty(), "rows nobody expects: {tables:?}");
}

#[rstest]
fn folding_the_records_gives_the_expected_rows(
    #[values(Encoding::Json, Encoding::JsonWithSchema, Encoding::Avro)] encoding: Encoding,
    #[values(false, true)] full_before: bool,
) {
    assert_folds(&Workload { full_before, ..workload(encoding) });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_workload_folds_to_its_expected_rows(
        seed in any::<u64>(),
        rows in 0..5_u64,
        changes in 0..200_u64,
        weights in any::<[u8; 4]>(),
        add in proptest::option::of(0..200_u64),
    ) {
        let [creates, updates, deletes, moves] = weights.map(u32::from);
        let mix = Mix { creates, updates, deletes, moves };
        let base = workload(Encoding::Json);
        assert_folds(&Workload { seed, rows, changes, mix, add_column_after: add, ..base });
    }
}

#[rstest]
fn equal_workloads_give_equal_records_and_other_seeds_others(
    #[values(Encoding::Json, Encoding::JsonWithSchema, Encoding::Avro)] encoding: Encoding,
) {
    let workload = workload(encoding);
    assert!(Generator::new(&workload).eq(Generator::new(&workload)));
    let other = Workload { seed: 8, ..workload.clone() };
    assert!(Generator::new(&workload).ne(Generator::new(&other)));
}

#[test]
fn a_record_looks_like_one_of_debezium() {
    let workload =
        Workload { tables: vec![Shape::Customers], rows: 1, changes: 0, ..Workload::default() };
    let record = Generator::new(&workload).next().unwrap();
    let value = String::from_utf8(record.value.unwrap()).unwrap();
    let (row, rest) = value.split_once(",\"source\"").unwrap();
    assert!(row.starts_with("{\"before\":null,\"after\":{\"id\":1,\"first_name\":\""), "{row}");
    let digits = regex::Regex::new("[0-9]{12,}").unwrap();
    assert_eq!(
        digits.replace_all(rest, "N"),
        ":{\"version\":\"3.7.0.Final\",\"connector\":\"postgresql\",\"name\":\"shop\",\"ts_ms\":N,\
         \"snapshot\":\"first\",\"db\":\"shop\",\"sequence\":\"[null,\\\"27556608\\\"]\",\"ts_us\":N,\"ts_ns\":N,\
         \"schema\":\"public\",\"table\":\"customers\",\"txId\":771,\"lsn\":27556608,\"xmin\":null,\"origin\":null,\
         \"origin_lsn\":null},\"transaction\":null,\"op\":\"r\",\"ts_ms\":N,\"ts_us\":N,\"ts_ns\":N}"
    );
    assert_eq!(record.key, b"{\"id\":1}");
    assert_eq!(&*record.topic, "shop.public.customers");
}

#[test]
fn what_the_workload_promises_does_occur() {
    let workload = workload(Encoding::Json);
    let reader = Reader::new(&workload);
    let mut seen = BTreeMap::<&str, u32>::new();
    let mut saw = |what| *seen.entry(what).or_default() += 1;
    let mut last_deleted = None;
    for record in Generator::new(&workload) {
        let read = reader.read(&record);
        let names: Vec<_> = record.headers.iter().map(|(name, _)| *name).collect();
        match read.operation.as_deref() {
            Some("r") => saw("read"),
            Some("c") if read.old_key.is_some() => saw("create of a changed key"),
            Some("c") => saw("create"),
            Some("u") => saw("update"),
            Some("d") => saw("delete"),
            None => {
                assert_eq!(
                    last_deleted.as_ref(),
                    Some(&read.key),
                    "a tombstone follows its delete"
                );
                saw("tombstone");
            }
            Some(other) => panic!("operation {other}"),
        }
        last_deleted = (read.operation.as_deref() == Some("d")).then_some(read.key);
        if names.contains(&NEW_KEY) {
            saw("new key");
        }
        if let Some(row) = &read.after {
            if row.values().any(Option::is_none) {
                saw(if read.old_key.is_some() { "moved placeholder" } else { "placeholder" });
            }
            if row.contains_key("segment") {
                saw("added column");
            }
        }
        if let Some(row) = &read.before {
            assert!(
                row.values().any(|value| matches!(value, Some(Value::Null))),
                "only the key is logged"
            );
        }
    }
    let occurred: Vec<_> = seen.keys().copied().collect();
    assert_eq!(
        occurred,
        [
            "added column",
            "create",
            "create of a changed key",
            "delete",
            "moved placeholder",
            "new key",
            "placeholder",
            "read",
            "tombstone",
            "update",
        ]
    );
    assert_eq!(seen["delete"], seen["tombstone"]);
    assert_eq!(seen["new key"], 2 * seen["create of a changed key"]);
}

#[test]
fn records_carry_the_ids_that_a_registry_gave() {
    let workload = Workload { tables: vec![Shape::Stock], ..workload(Encoding::Avro) };
    assert_eq!(workload.subjects().len(), 3);
    let generator = Generator::new(&workload).with_schema_ids(&[70, 800, 9]);
    let mut keys = std::collections::BTreeSet::new();
    let mut values = std::collections::BTreeSet::new();
    for record in generator {
        keys.insert(record.key[..5].to_vec());
        values.extend(record.value.map(|value| value[..5].to_vec()));
    }
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), [[0, 0, 0, 0, 70]]);
    assert_eq!(values.into_iter().collect::<Vec<_>>(), [[0, 0, 0, 0, 9], [0, 0, 0, 3, 32]]);
}

#[test]
fn a_key_stays_in_its_partition_and_time_follows_the_caller() {
    let workload = workload(Encoding::Json);
    let mut partitions = HashMap::new();
    let mut used = std::collections::BTreeSet::new();
    for record in Generator::new(&workload) {
        used.insert(record.partition);
        let place = (record.topic, record.key);
        assert_eq!(*partitions.entry(place).or_insert(record.partition), record.partition);
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), [0, 1, 2]);

    let late = workload.start_micros + 3_600_000_000;
    let mut generator = Generator::new(&workload);
    generator.not_before(late);
    assert!(generator.last().unwrap().timestamp_ms >= late / 1000);
}
