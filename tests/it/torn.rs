//! Key changes torn apart: one instance reads the delete of the old key, another the create of the new one, which leaves
//! out values that only the old row has. Whatever happens to either, no value is lost.

use std::sync::Arc;
use std::time::Duration;

use cdc_sink::generate::Encoding;
use cdc_sink::schema::is_metadata;
use cdc_sink::sink::lake::{LakeOptions, LakeSink, read};
use cdc_sink::sink::memory::{TextRow, text_rows};
use cdc_sink::sink::storage::Location;
use cdc_sink::source::scripted::Acknowledged;
use object_store::memory::InMemory;
use object_store::path::Path;
use proptest::prelude::*;
use url::Url;

use crate::batches::{logs, options};
use crate::pipeline::{PARTITIONS, World, process, run, script, step, world};

/// The lives of a process: what its source does, and after how many events it is killed.
type Lives = Vec<(Vec<(u8, i32, usize)>, usize)>;

fn lives() -> impl Strategy<Value = Lives> {
    prop::collection::vec((prop::collection::vec(step(), 0..20), 0usize..60), 0..4)
}

/// Delta, Iceberg version 2 and 3, both formats, on a store that everybody shares.
fn table(format: usize) -> LakeOptions {
    let folder = tempfile::tempdir().unwrap();
    let [delta, iceberg] = logs(if format == 1 { 2 } else { 3 });
    let logs = match format {
        0 => vec![delta],
        1 | 2 => vec![iceberg],
        _ => vec![delta, iceberg],
    };
    let store = Arc::new(InMemory::new());
    let location = Location::new(store, Path::from("t"), Url::parse("memory:///t/").unwrap());
    LakeOptions { location, partition_by: String::new(), ..options(&folder, logs) }
}

/// One instance after another, each with a while of its own before it; the last one comes to the end.
async fn instance(world: &World, table: &LakeOptions, lives: Lives, delay: u64) {
    let (sink, acknowledged) = (|| LakeSink::new(table.clone()), Acknowledged::default());
    tokio::time::sleep(Duration::from_secs(delay)).await;
    for (steps, events) in lives {
        process(world, script(world, &steps), sink, &acknowledged, Some(events)).await;
    }
    process(world, Vec::new(), sink, &acknowledged, None).await;
}

async fn rows(table: &LakeOptions) -> Vec<(&'static str, Vec<TextRow>)> {
    let formats = read(table).await.unwrap().into_iter();
    let sorted = formats.map(|(format, batches)| {
        let mut rows: Vec<TextRow> =
            batches.iter().flat_map(|batch| text_rows(batch).unwrap()).collect();
        rows.iter_mut().for_each(|row| row.retain(|column, _| !is_metadata(column)));
        rows.sort();
        (format, rows)
    });
    sorted.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn no_value_is_lost_between_two_instances(
        seed in 0u64..1000,
        format in 0usize..4,
        alone in 0..PARTITIONS,
        one in lives(),
        other in lives(),
        delays in (0u64..40, 0u64..40),
    ) {
        run(async {
            // Small records: what waits for the other instance must not use up the memory.
            let world = world(seed, Encoding::Avro);
            let (own, rest) = (world.part(|p| p == alone), world.part(|p| p != alone));
            let table = table(format);
            tokio::join!(
                instance(&own, &table, one, delays.0),
                instance(&rest, &table, other, delays.1),
            );
            for (format, rows) in rows(&table).await {
                let lost = world.expected.iter().find(|row| !rows.contains(row));
                assert_eq!(lost, None, "{format}");
                assert_eq!(rows, world.expected, "{format}");
            }
        });
    }
}
