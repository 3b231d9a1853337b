//! The data path in memory, on one core: from records as Kafka gives them to the Parquet bytes and deletion bitmaps of a
//! commit. 100,000 changes (60 % updates, 30 % creates, 10 % deletes with their tombstones) go into a table of as many
//! rows; the throughput counts changes, tombstones are extra.

#![expect(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "criterion makes a public function; a benchmark may panic"
)]

use std::sync::Arc;
use std::time::Instant;

use cdc_sink::batch::{Buffer, Given, Outcome};
use cdc_sink::decode::{Decoder, Options, Registry, ScanError, Scanned, SchemaId};
use cdc_sink::generate::{Encoding, Generated, Generator, Mix, Shape, UNAVAILABLE, Workload};
use cdc_sink::record::{Record, Records};
use cdc_sink::sink::storage::Location;
use cdc_sink::table::index::Budget;
use cdc_sink::table::partition::Partitioning;
use cdc_sink::table::physical::{self, Planned, Table};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use tokio::runtime::Runtime;
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANGES: u64 = 100_000;
/// Records to a chunk, about what a fetch of a partition gives.
const CHUNK: usize = 5000;

fn path(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut group = criterion.benchmark_group("path");
    group.throughput(Throughput::Elements(CHANGES)).sample_size(10);
    for shape in [Shape::Customers, Shape::Orders, Shape::Events] {
        for encoding in [Encoding::Json, Encoding::JsonWithSchema, Encoding::Avro] {
            let mut prepared = None;
            let name = BenchmarkId::new(shape.name(), format!("{encoding:?}"));
            group.bench_function(name, |bencher| {
                // Not for a benchmark that a filter leaves out.
                let prepared =
                    prepared.get_or_insert_with(|| Prepared::new(shape, encoding, &runtime));
                bencher.iter_batched(
                    || prepared.changes.clone(),
                    |changes| prepared.run(changes, &runtime),
                    BatchSize::PerIteration,
                );
            });
        }
    }
    group.finish();
}

/// A table with rows, and what happens to them.
struct Prepared {
    location: Location,
    table: Table,
    registry: Arc<Registry>,
    changes: Vec<Records>,
}

impl Prepared {
    fn new(shape: Shape, encoding: Encoding, runtime: &Runtime) -> Self {
        let workload = Workload {
            tables: vec![shape],
            rows: CHANGES,
            changes: CHANGES,
            encoding,
            mix: Mix { creates: 30, updates: 60, deletes: 10, moves: 0 },
            placeholder_percent: 0,
            add_column_after: None,
            ..Workload::default()
        };
        let ids = (1..).map(SchemaId);
        let schemas = workload.subjects().into_iter().map(|subject| subject.schema);
        let registry = Registry::preloaded(ids.zip(schemas));
        let mut generator = Generator::new(&workload);
        let rows = chunks(generator.by_ref().take(usize::try_from(CHANGES).unwrap()), 0);
        let mut decoder = Decoder::new(options(), Some(Arc::clone(&registry)), None);
        let buffer = buffered(&mut decoder, rows, 0, runtime);
        let changes = chunks(generator, buffer.position().get(0).unwrap());
        let batch =
            buffer.assemble(&mut decoder, Uuid::from_u128(1), &Given::default()).unwrap().batch;
        let url = "memory:///table/".parse().unwrap();
        let location = Location::new(Arc::new(InMemory::new()), Path::from("table"), url);
        let schema = Arc::clone(&batch.schema);
        let limits = physical::Options {
            index: Budget::new(1 << 30),
            open_concurrency: 1,
            packed_integers: true,
            match_rows: false,
        };
        let mut table =
            Table::create(location.clone(), schema, Arc::new(Partitioning::default()), limits);
        let planned = runtime.block_on(table.plan(&batch, 0)).unwrap();
        table.applied(&planned).unwrap();
        Self { location, table, registry, changes }
    }

    /// Everything from the records to the plan of a commit; its files are removed again.
    fn run(&self, changes: Vec<Records>, runtime: &Runtime) -> Planned {
        let schema = Arc::clone(self.table.schema());
        let mut decoder = Decoder::new(options(), Some(Arc::clone(&self.registry)), Some(schema));
        let from = self.table.position().get(0).unwrap();
        let buffer = buffered(&mut decoder, changes, from, runtime);
        let assembled =
            buffer.assemble(&mut decoder, Uuid::from_u128(2), &Given::default()).unwrap();
        assert!(assembled.rejected.is_empty());
        let planned = runtime.block_on(self.table.plan(&assembled.batch, 0)).unwrap();
        for file in &planned.commit.added {
            let path = Path::from(format!("table/{}", file.path));
            runtime.block_on(self.location.store().delete(&path)).unwrap();
        }
        planned
    }
}

fn options() -> Options {
    Options { placeholder: UNAVAILABLE.to_owned(), ..Options::default() }
}

fn chunks(records: impl Iterator<Item = Generated>, mut offset: i64) -> Vec<Records> {
    let mut chunks: Vec<Records> = Vec::new();
    for record in records {
        if chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            chunks.push(Records::new(Arc::clone(&record.topic), 0, offset));
        }
        let headers = record.headers.iter().map(|(name, value)| (*name, Some(&**value)));
        let time = Some(record.timestamp_ms);
        let chunk = chunks.last_mut().unwrap();
        assert!(chunk.push(offset, time, Some(&record.key), record.value.as_deref(), headers));
        offset += 1;
    }
    chunks
}

fn buffered(decoder: &mut Decoder, chunks: Vec<Records>, from: i64, runtime: &Runtime) -> Buffer {
    let mut buffer = Buffer::default();
    buffer.start_at([(0, from)]);
    for records in chunks {
        let outcomes = records.iter().map(|record| outcome(decoder, &record, runtime)).collect();
        buffer.push(records, outcomes, Instant::now());
    }
    buffer
}

fn outcome(decoder: &mut Decoder, record: &Record<'_>, runtime: &Runtime) -> Outcome {
    loop {
        match decoder.scan(record) {
            Ok(Scanned::Change(change)) => return Outcome::Change(change),
            Err(ScanError::NeedsSchema(id)) => runtime.block_on(decoder.fetch_schema(id)).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

criterion_group!(benches, path);
criterion_main!(benches);
