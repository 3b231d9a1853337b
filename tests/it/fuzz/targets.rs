//! What any bytes are sent through, whoever makes them: one captured record with another key, value or header, decoded
//! between two times the record itself.

use std::sync::{Arc, LazyLock};

use arrow::util::display::array_value_to_string;
use cdc_sink::decode::{Columns, Decoder, Registry, Row, ScanError, Scanned};
use cdc_sink::record::{Record, Records};

use crate::captures::{DATABASES, DECLARED, options, registry, topics};

/// A captured record and what is needed to read it.
pub(crate) struct Captured {
    registry: Arc<Registry>,
    records: Records,
    /// The capture's kind, such as `avro`.
    kind: &'static str,
}

impl Captured {
    /// The record.
    pub(crate) fn record(&self) -> Record<'_> {
        self.records.get(0).unwrap()
    }
}

/// Some of every topic's records of every capture.
pub(crate) static CORPUS: LazyLock<Vec<Captured>> = LazyLock::new(|| {
    let mut corpus = Vec::new();
    for database in DATABASES {
        let registry = registry(database);
        for kind in ["json-schema", "json", "avro", "modes"] {
            for (_, records) in topics(&format!("{database}-{kind}")) {
                let step = (records.len() / 8).max(1);
                let registry = &registry;
                let captured =
                    move |records| Captured { registry: Arc::clone(registry), records, kind };
                corpus.extend(records.into_iter().step_by(step).map(captured));
            }
        }
    }
    corpus
});

/// Which part of a record is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Key,
    Value,
    Header,
}

/// Bytes that are sent through the decoder. An input is the number of a captured record, two bytes, and what its part is
/// then.
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: &'static str,
    part: Part,
    /// Kinds of captures whose records it takes.
    kinds: &'static [&'static str],
    /// Bytes of the part that stay: Avro's name their schema.
    kept: usize,
}

/// Every target.
pub(crate) const TARGETS: [Target; 4] = [
    Target {
        name: "json_envelope",
        part: Part::Value,
        kinds: &["json-schema", "json", "modes"],
        kept: 0,
    },
    Target { name: "avro_body", part: Part::Value, kinds: &["avro"], kept: 5 },
    Target { name: "key", part: Part::Key, kinds: &["json-schema", "json", "avro"], kept: 0 },
    Target {
        name: "headers",
        part: Part::Header,
        kinds: &["json-schema", "json", "avro"],
        kept: 0,
    },
];

impl Target {
    fn corpus(&self) -> Vec<&'static Captured> {
        let has = |record: Record<'_>| match self.part {
            Part::Value => record.value.is_some_and(|value| value.len() >= self.kept),
            Part::Key | Part::Header => record.key.is_some(),
        };
        let mine =
            |captured: &&Captured| self.kinds.contains(&captured.kind) && has(captured.record());
        CORPUS.iter().filter(mine).collect()
    }

    /// Inputs that are the captured records themselves.
    pub(crate) fn seeds(&self) -> Vec<Vec<u8>> {
        let part = |captured: &Captured| match self.part {
            Part::Value => captured.record().value.unwrap()[self.kept..].to_vec(),
            // An old key is written as the key is.
            Part::Key | Part::Header => captured.record().key.unwrap().to_vec(),
        };
        let number = |at: usize| u16::try_from(at).unwrap().to_le_bytes();
        let seed =
            |(at, captured): (usize, &&Captured)| [&number(at)[..], &part(captured)].concat();
        self.corpus().iter().enumerate().map(seed).collect()
    }

    /// Sends an input through the decoder; panics when that does or when it leaves a trace.
    pub(crate) fn run(&self, input: &[u8]) {
        let Some((number, bytes)) = input.split_first_chunk::<2>() else { return };
        let corpus = self.corpus();
        let captured = corpus[usize::from(u16::from_le_bytes(*number)) % corpus.len()];
        check(captured, self.part, |part| {
            part.truncate(self.kept);
            part.extend_from_slice(bytes);
        });
    }
}

fn damaged(record: &Record<'_>, part: Part, damage: impl Fn(&mut Vec<u8>)) -> Records {
    let hurt = |bytes: Option<&[u8]>, hit: bool| {
        let mut bytes = bytes.map(<[u8]>::to_vec);
        if let (Some(bytes), true) = (&mut bytes, hit) {
            damage(bytes);
        }
        bytes
    };
    let key = hurt(record.key, matches!(part, Part::Key));
    let value = hurt(record.value, matches!(part, Part::Value));
    let mut headers: Vec<(String, Option<Vec<u8>>)> = record
        .headers()
        .map(|(name, value)| (name.to_owned(), hurt(value, matches!(part, Part::Header))))
        .collect();
    if matches!(part, Part::Header) {
        let old_key = hurt(record.key, true);
        headers.push(("__debezium.oldkey".to_owned(), old_key));
    }
    let mut records = Records::new(Arc::clone(record.topic), record.partition, record.offset);
    let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref()));
    assert!(records.push(record.offset, None, key.as_deref(), value.as_deref(), headers));
    records
}

/// The first stage; a schema that the registry does not know ends it.
fn scan(decoder: &mut Decoder, record: &Record<'_>) -> Result<Scanned, ScanError> {
    for _ in 0..4 {
        match decoder.scan(record) {
            Err(ScanError::NeedsSchema(id)) => {
                if futures::executor::block_on(decoder.fetch_schema(id)).is_err() {
                    return Err(ScanError::NeedsSchema(id));
                }
            }
            scanned => return scanned,
        }
    }
    panic!("a schema is asked for again and again");
}

/// The row of what was scanned.
fn row<'a>(record: &Record<'a>, scanned: &Result<Scanned, ScanError>) -> Option<Row<'a>> {
    let Ok(Scanned::Change(change)) = scanned else { return None };
    Row::of(*record, change)
}

/// A row as text, or why it cannot be stored.
fn text(columns: &Columns, row: usize) -> String {
    if let Some((_, reject)) = columns.rejects.iter().find(|(rejected, _)| *rejected == row) {
        return reject.to_string();
    }
    let values = columns.rows.columns().iter().map(|c| array_value_to_string(c, row).unwrap());
    values.collect::<Vec<_>>().join("|")
}

/// Scans the record with `part` damaged between two times the good one, and decodes what rows they have. A part of a record
/// is damaged if it has one; an old key, which is damaged with the headers, is there always.
pub(crate) fn check(captured: &Captured, part: Part, damage: impl Fn(&mut Vec<u8>)) {
    let good = captured.record();
    let records = damaged(&good, part, damage);
    let bad = records.get(0).unwrap();
    let registry = Arc::clone(&captured.registry);
    let mut decoder = Decoder::new(options(&DECLARED), Some(registry), None);
    let before = scan(&mut decoder, &good);
    let Some(first) = row(&good, &before) else {
        // Nothing to decode; its damaged form may be anything.
        scan(&mut decoder, &bad).ok();
        assert_eq!(scan(&mut decoder, &good), before);
        return;
    };
    let Ok(schema) = decoder.table_schema(&[first]) else { return };
    decoder.set_schema(schema);
    let hurt = scan(&mut decoder, &bad);
    let after = scan(&mut decoder, &good);
    assert_eq!(after, before);
    let last = row(&good, &after).unwrap();
    let rows: Vec<Row<'_>> =
        [Some(first), row(&bad, &hurt), Some(last)].into_iter().flatten().collect();
    // A table may have to halt for a schema; it does not panic.
    let Ok(schema) = decoder.table_schema(&rows) else { return };
    let Ok(columns) = decoder.columns(&rows, &schema) else { return };
    assert_eq!(columns.rows.num_rows(), rows.len());
    assert_eq!(text(&columns, 0), text(&columns, rows.len() - 1));
}
