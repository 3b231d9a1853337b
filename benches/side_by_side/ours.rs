//! cdc-sink's part in the comparison of `run.py`: the physical layer and the publishers, fed with the same Parquet files
//! as the others. Without the argument `worker` it only says who runs it.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark may panic, and prints what it finds"
)]

#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::fs::File;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray as _, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter, not};
use cdc_sink::sink::storage::Location;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::{Formats, Table, keys, schema};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    if std::env::args().any(|argument| argument == "worker") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(serve());
    } else {
        println!("side_by_side: run benches/side_by_side/run.py");
    }
}

/// Answers commands, a line each, until there are none.
async fn serve() {
    let mut tables = HashMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = match words[..] {
            ["create", kind, folder] => create(&mut tables, kind, Path::new(folder)).await,
            ["merge", kind, folder, number] => {
                let table = tables.get_mut(&place(kind, Path::new(folder))).unwrap();
                merge(table, &Path::new(folder).join(format!("batch-{number}.parquet"))).await
            }
            ["where", kind, folder] => whereabouts(kind, &place(kind, Path::new(folder))),
            _ => panic!("unknown command {line}"),
        };
        println!("ANSWER {answer}");
    }
}

fn place(kind: &str, folder: &Path) -> PathBuf {
    folder.join("ours").join(kind)
}

fn whereabouts(kind: &str, place: &Path) -> String {
    let place = place.display();
    match kind {
        "both" => format!(r#"{{"delta":"{place}","iceberg":"{place}/_iceberg"}}"#),
        _ => format!(r#"{{"{kind}":"{place}"}}"#),
    }
}

/// Loads the rows that every table starts with, a million to a commit.
async fn create(tables: &mut HashMap<PathBuf, Table>, kind: &str, folder: &Path) -> String {
    let formats = match kind {
        "delta" => Formats::Delta,
        "iceberg" => Formats::Iceberg,
        _ => Formats::Both,
    };
    // One table is held at a time: the indexes of all sizes and kinds would be in memory together.
    tables.retain(|place, _| place.starts_with(folder));
    let place = place(kind, folder);
    std::fs::create_dir_all(&place).unwrap();
    let location = Location::warehouse(&place.display().to_string()).unwrap();
    let mut table = Table::new(location, formats, schema());
    let mut files: Vec<_> =
        std::fs::read_dir(folder.join("base")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let start = Instant::now();
    for file in files {
        let rows = read(&file);
        let keys = keys(rows.column(0));
        table.merge(rows.columns().to_vec(), keys, Vec::new(), Vec::new()).await;
    }
    let taken = start.elapsed().as_secs_f64();
    tables.insert(place, table);
    taken.to_string()
}

/// Merges a file of changes; the seconds from the file to the commit.
async fn merge(table: &mut Table, file: &Path) -> String {
    let start = Instant::now();
    let changes = read(file);
    let columns = schema().columns().len() - 4;
    let deleted = changes.column(columns).as_string::<i32>();
    let deleted: BooleanArray = deleted.iter().map(|op| Some(op == Some("d"))).collect();
    let kept = not(&deleted).unwrap();
    let rows: Vec<ArrayRef> =
        changes.columns()[..columns].iter().map(|column| filter(column, &kept).unwrap()).collect();
    let deletes = keys(&filter(changes.column(0), &deleted).unwrap());
    let upserts = keys(&rows[0]);
    table.merge(rows, upserts, deletes, Vec::new()).await;
    start.elapsed().as_secs_f64().to_string()
}

fn read(file: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let schema = std::sync::Arc::clone(reader.schema());
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    concat_batches(&schema, &batches).unwrap()
}
