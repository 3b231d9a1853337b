//! Records per second of the generator: it must not be what a benchmark of the rest measures.

#![expect(missing_docs, reason = "criterion makes a public function")]

use cdc_sink::generate::{Encoding, Generator, Mix, Shape, Workload};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CHANGES: u64 = 50_000;

fn generate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("generate");
    group.throughput(Throughput::Elements(CHANGES)).sample_size(20);
    for shape in [Shape::Customers, Shape::Orders, Shape::Events] {
        for encoding in [Encoding::Json, Encoding::JsonWithSchema, Encoding::Avro] {
            let workload = Workload {
                tables: vec![shape],
                rows: 0,
                changes: CHANGES,
                encoding,
                mix: Mix { moves: 0, ..Mix::default() },
                ..Workload::default()
            };
            let name = BenchmarkId::new(shape.name(), format!("{encoding:?}"));
            group.bench_function(name, |bencher| {
                bencher.iter(|| Generator::new(&workload).count());
            });
        }
    }
    group.finish();
}

criterion_group!(benches, generate);
criterion_main!(benches);
