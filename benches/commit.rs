//! What a commit of 10,000 changes costs: the same whatever the number of rows in the table, and a little more for every
//! data file that the changes touch.
//!
//! Half of the changes are updates spread evenly over the table, 40 % inserts, 10 % deletes, as in `side_by_side`; each
//! of the table's data files is touched by every commit. The tables take turns, one commit each. Which tables and where
//! can be chosen, on the local disk by default; away from it, values left out are read with local copies as well:
//! `CDC_SINK_BENCH_TABLES=100000/1,10000000/1` (rows/files), `CDC_SINK_BENCH_WAREHOUSE=s3://bucket/prefix`.
//! Not criterion: it would repeat the small table's commits until the table is no longer small.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark may panic, and prints what it finds"
)]

mod support;

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::DataType;
use cdc_sink::change::{Hole, Origin, Own};
use cdc_sink::key::Key;
use cdc_sink::schema::{Column, ColumnType, TableSchema};
use cdc_sink::sink::storage::Location;
use cdc_sink::table::files::Copies;
use support::{Formats, Table, keys, schema};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CITIES: [&str; 8] = ["Berlin", "Paris", "Madrid", "Rome", "Oslo", "Wien", "Prag", "Kyiv"];
/// By rows with one and with ten files, then by files.
const TABLES: &str = "100000/1,1000000/1,10000000/1,100000/10,1000000/10,10000000/10,1000000/100";
const FORMATS: [Formats; 3] = [Formats::Delta, Formats::Iceberg, Formats::Both];
const WARM_UP: i64 = 3;
/// No more: the smallest table's rows that are there at the start are all updated then.
const ROUNDS: i64 = 12;

/// A table's shape.
#[derive(Debug, Clone, Copy)]
struct Case {
    rows: i64,
    files: i64,
}

fn main() {
    let tables = std::env::var("CDC_SINK_BENCH_TABLES").unwrap_or_else(|_| TABLES.into());
    let cases: Vec<Case> = tables.split(',').map(Case::parse).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut medians = Vec::new();
    for formats in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path(), &format!("{formats:?}"));
        medians.push(runtime.block_on(measure(formats, &cases, &place)));
    }
    print(&cases, &medians);
    for with_copies in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::warehouse(&place(folder.path(), "documents")).unwrap();
        if with_copies && location.is_a_disk() {
            break;
        }
        let copies = tempfile::tempdir().unwrap();
        let open = || Arc::new(Copies::open(copies.path(), 10 << 30).unwrap());
        let location = location.with_copies(with_copies.then(open));
        let [full, left_out] = runtime.block_on(documents(location));
        println!("10,000 updates of 1,000,000 rows with documents of 2 KiB: {full:.1} ms");
        let how = if with_copies { ", with local copies" } else { "" };
        println!("the same, documents left out{how}: {left_out:.1} ms ({:.2}x)", left_out / full);
    }
}

/// A place for tables: in the warehouse of the environment, else in `folder`.
fn place(folder: &Path, name: &str) -> String {
    match std::env::var("CDC_SINK_BENCH_WAREHOUSE") {
        Ok(warehouse) => format!("{warehouse}/{name}-{}", uuid::Uuid::new_v4()),
        Err(_) => folder.display().to_string(),
    }
}

impl Case {
    fn parse(text: &str) -> Self {
        let (rows, files) = text.split_once('/').unwrap();
        Self { rows: rows.parse().unwrap(), files: files.parse().unwrap() }
    }
}

/// The medians, each with its ratio to that of the first table with as many files; then what a file costs.
fn print(cases: &[Case], medians: &[Vec<f64>]) {
    println!("10,000 changes, median commit in ms{:>15}{:>17}{:>17}", "Delta", "Iceberg", "both");
    for (at, case) in cases.iter().enumerate() {
        let base = cases.iter().position(|base| base.files == case.files).unwrap();
        print!("into {:>8} rows, {:>3} files touched", case.rows, case.files);
        for medians in medians {
            print!("{:>9.1} ({:.2}x)", medians[at], medians[at] / medians[base]);
        }
        println!();
    }
    let most = (0..cases.len()).max_by_key(|at| cases[*at].files).unwrap();
    let fewest = (0..cases.len()).filter(|at| cases[*at].rows == cases[most].rows);
    let fewest = fewest.min_by_key(|at| cases[*at].files).unwrap();
    if cases[fewest].files < cases[most].files {
        let files = f64::from(i32::try_from(cases[most].files - cases[fewest].files).unwrap());
        print!("each further file touched         ");
        for medians in medians {
            print!("{:>9.3}        ", (medians[most] - medians[fewest]) / files);
        }
        println!();
    }
}

/// The median commit for each case, milliseconds.
async fn measure(formats: Formats, cases: &[Case], place: &str) -> Vec<f64> {
    let mut tables = Vec::new();
    for case in cases {
        let place = format!("{place}/{}-{}", case.rows, case.files);
        let mut table = Table::new(Location::warehouse(&place).unwrap(), formats, schema());
        load(&mut table, *case).await;
        tables.push((case.rows, table, Vec::new()));
    }
    for round in 0..WARM_UP + ROUNDS {
        for (rows, table, taken) in &mut tables {
            let time = merge(table, *rows, round).await;
            if round >= WARM_UP {
                taken.push(time);
            }
        }
    }
    tables.into_iter().map(|(.., taken)| median(taken)).collect()
}

/// Milliseconds.
fn median(mut taken: Vec<Duration>) -> f64 {
    taken.sort_unstable();
    taken[taken.len() / 2].as_secs_f64() * 1000.0
}

async fn load(table: &mut Table, case: Case) {
    let each = case.rows / case.files;
    for file in 0..case.files {
        let columns = rows(file * each..(file + 1) * each, 0);
        let keys = keys(&columns[0]);
        table.merge(columns, keys, Vec::new(), Vec::new()).await;
    }
}

/// A commit of 10,000 changes, of rows that are as they were loaded: three quarters of the ids are for updates, the rest
/// for deletes.
async fn merge(table: &mut Table, size: i64, round: i64) -> Duration {
    let (updated, deleted) = (size / 5000, size / 1000);
    let updates = (0..5000).map(|i| i * updated + round);
    let inserts = size + round * 4000;
    let columns = rows(updates.chain(inserts..inserts + 4000), round);
    let upserts = keys(&columns[0]);
    let first = updated * (round % 5) + updated - 1 - round / 5;
    let deletes = (0..1000).map(|i| i * deleted + first);
    let deletes: ArrayRef = Arc::new(Int64Array::from_iter_values(deletes));
    let deletes = keys(&deletes);
    let start = Instant::now();
    table.merge(columns, upserts, deletes, Vec::new()).await;
    start.elapsed()
}

/// The median commit of 10,000 updates spread evenly over a table with large values, with these values and without, as
/// Debezium leaves out what Postgres stores apart from the row and did not change. In turns on one table.
async fn documents(location: Location) -> [f64; 2] {
    const ROWS: i64 = 1_000_000;
    const FILE: i64 = 50_000;
    let columns = vec![
        Column::new("id", ColumnType::Int64, false),
        Column::new("status", ColumnType::String, true),
        Column::new("document", ColumnType::String, true),
    ];
    let schema = Arc::new(TableSchema::create(columns, vec!["id".to_owned()]));
    let mut table = Table::new(location, Formats::Delta, schema);
    for from in (0..ROWS).step_by(usize::try_from(FILE).unwrap()) {
        let columns = documents_of(from..from + FILE, 0);
        let keys = keys(&columns[0]);
        table.merge(columns, keys, Vec::new(), Vec::new()).await;
    }
    let mut taken = [Vec::new(), Vec::new()];
    for round in 0..2 * (WARM_UP + ROUNDS) {
        let mut columns = documents_of((0..10_000).map(|i| i * 100 + round), round);
        let keys = keys(&columns[0]);
        let left_out = round % 2 == 1;
        let holes = match left_out {
            false => Vec::new(),
            true => {
                columns[2] = new_null_array(&DataType::Utf8, keys.len());
                let hole = |(row, key): (usize, &Key)| Hole {
                    row,
                    column: 2,
                    from: Origin::Row(*key),
                    own: Own::Null,
                };
                keys.iter().enumerate().map(hole).collect()
            }
        };
        let start = Instant::now();
        table.merge(columns, keys, Vec::new(), holes).await;
        if round >= 2 * WARM_UP {
            taken[usize::from(left_out)].push(start.elapsed());
        }
    }
    taken.map(median)
}

/// Rows with 2 KiB of text that compresses to about a third.
fn documents_of(ids: impl Iterator<Item = i64>, round: i64) -> Vec<ArrayRef> {
    let ids: Vec<i64> = ids.collect();
    let document = |id: &i64| {
        let mut random = fastrand::Rng::with_seed(u64::try_from(id * 31 + round).unwrap());
        let mut text = String::with_capacity(2100);
        while text.len() < 2048 {
            write!(text, "\"{}\": {}, ", CITIES[random.usize(..8)], random.u32(..100_000)).unwrap();
        }
        text
    };
    let status = |id: &i64| format!("status {}", (id + round) % 5);
    vec![
        Arc::new(Int64Array::from_iter_values(ids.iter().copied())),
        Arc::new(StringArray::from_iter_values(ids.iter().map(status))),
        Arc::new(StringArray::from_iter_values(ids.iter().map(document))),
    ]
}

fn rows(ids: impl Iterator<Item = i64>, round: i64) -> Vec<ArrayRef> {
    let ids: Vec<i64> = ids.collect();
    let text = |text: &dyn Fn(i64) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(ids.iter().map(|id| text(*id))))
    };
    let city = |id: i64| CITIES[usize::try_from(id % 8).unwrap()].to_owned();
    let status = |id: i64| ["new", "active", "blocked"][usize::try_from((id + round) % 3).unwrap()];
    let balances = ids.iter().map(|id| i128::from((id * 37 + round) % 1_000_000));
    let balances = Decimal128Array::from_iter_values(balances).with_precision_and_scale(18, 2);
    let times = ids.iter().map(|id| 1_700_000_000_000_000 + id * 1000 + round);
    vec![
        Arc::new(Int64Array::from_iter_values(ids.iter().copied())),
        text(&|id| format!("name-{round}-{id}")),
        text(&|id| format!("u{id}.{round}@example.com")),
        text(&|id| format!("+1-555-{:07}", (id * 7919 + round) % 10_000_000)),
        text(&city),
        text(&|id| status(id).to_owned()),
        Arc::new(balances.unwrap()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")),
    ]
}
