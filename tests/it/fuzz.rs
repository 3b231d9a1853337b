//! Captured records, damaged at random: whatever comes, the decoder answers, and the next good record is what it was.

use std::sync::{Arc, LazyLock};

use arrow::util::display::array_value_to_string;
use cdc_sink::decode::{Columns, Decoder, Registry, Row, ScanError, Scanned};
use cdc_sink::record::{Record, Records};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::decode::{DATABASES, DECLARED, options, registry, topics};

/// A captured record and what is needed to read it.
struct Captured {
    registry: Arc<Registry>,
    records: Records,
}

/// Some of every topic's records of every capture.
static CORPUS: LazyLock<Vec<Captured>> = LazyLock::new(|| {
    let mut corpus = Vec::new();
    for database in DATABASES {
        let registry = registry(database);
        for kind in ["json-schema", "json", "avro", "modes"] {
            for (_, records) in topics(&format!("{database}-{kind}")) {
                let step = (records.len() / 8).max(1);
                let registry = &registry;
                let captured = move |records| Captured { registry: Arc::clone(registry), records };
                corpus.extend(records.into_iter().step_by(step).map(captured));
            }
        }
    }
    corpus
});

/// Which part of a record is damaged.
#[derive(Debug, Clone, Copy)]
enum Part {
    Key,
    Value,
    Header,
}

#[derive(Debug, Clone)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    CutOff(Index),
    /// A run of digits becomes another number.
    Number(Index, &'static str),
    /// A part of another record.
    Graft(Index, Index, Index, usize),
}

/// What is put into records on purpose.
const TOKENS: [&str; 16] = [
    "null", "true", "{}", "[]", "\"", "\\", "\\ud800", "[[[[[[[[", "{\"a\":", ",", ":", "}", "]",
    "1e999", "-0.0", "\u{0}",
];
const NUMBERS: [&str; 8] =
    ["0", "-1", "9223372036854775808", "-9223372036854775809", "1e308", "1E-400", "0.1", "00"];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>();
    prop_oneof![
        4 => (at.clone(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        4 => (at.clone(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => (at.clone(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        4 => (at.clone(), prop::sample::select(&TOKENS[..]))
            .prop_map(|(at, token)| Damage::Insert(at, token.as_bytes().to_vec())),
        2 => (at.clone(), 1..40_usize).prop_map(|(at, length)| Damage::Remove(at, length)),
        1 => (at.clone(), 1..40_usize, 1..400_usize)
            .prop_map(|(at, length, times)| Damage::Repeat(at, length, times)),
        2 => at.clone().prop_map(Damage::CutOff),
        4 => (at.clone(), prop::sample::select(&NUMBERS[..]))
            .prop_map(|(at, number)| Damage::Number(at, number)),
        2 => (at, any::<Index>(), any::<Index>(), 1..200_usize)
            .prop_map(|(at, other, from, length)| Damage::Graft(at, other, from, length)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let end = bytes.len();
        let place = |at: &Index| at.index(end + 1);
        let up_to = |from: usize, length: usize| end.min(from + length);
        match self {
            Self::Set(at, byte) if end > 0 => bytes[at.index(end)] = *byte,
            Self::Flip(at, bit) if end > 0 => bytes[at.index(end)] ^= 1 << bit,
            Self::Set(..) | Self::Flip(..) => {}
            Self::Insert(at, inserted) => {
                bytes.splice(place(at)..place(at), inserted.iter().copied());
            }
            Self::Remove(at, length) => {
                bytes.drain(place(at)..up_to(place(at), *length));
            }
            Self::Repeat(at, length, times) => {
                let piece = bytes[place(at)..up_to(place(at), *length)].repeat(*times);
                bytes.splice(place(at)..place(at), piece);
            }
            Self::CutOff(at) => bytes.truncate(place(at)),
            Self::Number(at, number) => {
                let from = (place(at)..end).find(|at| bytes[*at].is_ascii_digit());
                let from = from.unwrap_or(end);
                let to = (from..end).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(end);
                bytes.splice(from..to, number.bytes());
            }
            Self::Graft(at, other, from, length) => {
                let other = &CORPUS[other.index(CORPUS.len())].records;
                let other = other.get(0).unwrap().value.unwrap_or_default();
                let from = from.index(other.len() + 1);
                let piece = &other[from..other.len().min(from + length)];
                bytes.splice(place(at)..place(at), piece.iter().copied());
            }
        }
    }
}

fn damaged(record: &Record<'_>, part: Part, damages: &[Damage]) -> Records {
    let hurt = |bytes: Option<&[u8]>, hit: bool| {
        let mut bytes = bytes.map(<[u8]>::to_vec);
        if let (Some(bytes), true) = (&mut bytes, hit) {
            damages.iter().for_each(|damage| damage.apply(bytes));
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

/// Scans the damaged record between two times the good one, and decodes what rows they have.
fn check(captured: &Captured, part: Part, damages: &[Damage]) {
    let good = captured.records.get(0).unwrap();
    let records = damaged(&good, part, damages);
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

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn damaged_records_are_answered_and_leave_no_trace(
        picked in any::<Index>(),
        part in prop_oneof![6 => Just(Part::Value), 2 => Just(Part::Key), 1 => Just(Part::Header)],
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        check(&CORPUS[picked.index(CORPUS.len())], part, &damages);
    }
}
