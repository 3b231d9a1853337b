//! What a commit of 10,000 changes costs as the table grows: it must stay flat, 10 million rows against 100 thousand.
//!
//! Half of the changes are updates spread evenly over the table, 40 % inserts, 10 % deletes, as in `side_by_side`. The
//! tables take turns, one commit each. Sizes can be chosen: `CDC_SINK_BENCH_ROWS=100000,1000000 cargo bench --bench commit`,
//! and so can the place, a folder on the local disk by default: `CDC_SINK_BENCH_WAREHOUSE=s3://bucket/prefix`.
//! Not criterion: it would repeat the small table's commits until the table is no longer small.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark may panic, and prints what it finds"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray};
use support::{Formats, Table, keys};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CITIES: [&str; 8] = ["Berlin", "Paris", "Madrid", "Rome", "Oslo", "Wien", "Prag", "Kyiv"];
/// Rows to a commit while a table is loaded.
const LOAD: i64 = 1_000_000;
const WARM_UP: i64 = 3;
const ROUNDS: i64 = 15;

fn main() {
    let sizes = std::env::var("CDC_SINK_BENCH_ROWS").unwrap_or_else(|_| "100000,10000000".into());
    let sizes: Vec<i64> = sizes.split(',').map(|size| size.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for formats in [Formats::Delta, Formats::Iceberg, Formats::Both] {
        let folder = tempfile::tempdir().unwrap();
        let place = match std::env::var("CDC_SINK_BENCH_WAREHOUSE") {
            Ok(warehouse) => format!("{warehouse}/{formats:?}-{}", uuid::Uuid::new_v4()),
            Err(_) => folder.path().display().to_string(),
        };
        let medians = runtime.block_on(measure(formats, &sizes, &place));
        for (size, median) in sizes.iter().zip(&medians) {
            let ratio = median.as_secs_f64() / medians[0].as_secs_f64();
            println!("commit {formats:?} {size:>9} rows: {:7.1} ms, {ratio:.2}x", millis(*median));
        }
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The median commit for each size.
async fn measure(formats: Formats, sizes: &[i64], place: &str) -> Vec<Duration> {
    let mut tables = Vec::new();
    for size in sizes {
        let mut table = Table::new(&format!("{place}/{size}"), formats);
        load(&mut table, *size).await;
        tables.push((*size, table, Vec::new()));
    }
    for round in 1..=WARM_UP + ROUNDS {
        for (size, table, taken) in &mut tables {
            let time = merge(table, *size, round).await;
            if round > WARM_UP {
                taken.push(time);
            }
        }
    }
    let median = |mut taken: Vec<Duration>| {
        taken.sort_unstable();
        taken[taken.len() / 2]
    };
    tables.into_iter().map(|(.., taken)| median(taken)).collect()
}

async fn load(table: &mut Table, size: i64) {
    let mut from = 0;
    while from < size {
        let to = size.min(from + LOAD);
        let columns = rows(from..to, 0);
        let keys = keys(&columns[0]);
        table.merge(columns, keys, Vec::new()).await;
        from = to;
    }
}

/// A commit of 10,000 changes; no two rounds delete the same row, and none updates what another deletes.
async fn merge(table: &mut Table, size: i64, round: i64) -> Duration {
    let (updated, deleted) = (size / 5000, size / 1000);
    let half = updated / 2;
    let updates = (0..5000).map(|i| i * updated + round % half);
    let inserts = size + round * 4000;
    let columns = rows(updates.chain(inserts..inserts + 4000), round);
    let upserts = keys(&columns[0]);
    let first = half + round % half + updated * (round / half % 5);
    let deletes = (0..1000).map(|i| i * deleted + first);
    let deletes: ArrayRef = Arc::new(Int64Array::from_iter_values(deletes));
    let deletes = keys(&deletes);
    let start = Instant::now();
    table.merge(columns, upserts, deletes).await;
    start.elapsed()
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
