use std::collections::BTreeSet;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::UInt32Type;
use futures::FutureExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use rstest::rstest;
use tempfile::TempDir;

use super::super::{Place, read_rows, write};
use super::*;
use crate::error::Kind;
use crate::schema::{Column, ColumnType, TableSchema};
use crate::sink::storage::Location;
use crate::table::plan::DataFile;

const ROWS: u32 = 1000;
const GIB: u64 = 1 << 30;

/// A table in a store far away, and a folder at hand.
struct Home {
    location: Location,
    folder: TempDir,
}

/// A data file and its rows.
struct Written {
    file: DataFile,
    rows: RecordBatch,
}

/// What was counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    fetched: u64,
    copied: u64,
    damaged: u64,
    size: u64,
}

fn schema() -> TableSchema {
    let columns = [("id", ColumnType::Int64), ("document", ColumnType::String)];
    let columns = columns.into_iter().zip(1..);
    let columns = columns.map(|((name, ty), id)| Column { id, ..Column::new(name, ty, true) });
    TableSchema::from_parts(columns.collect(), vec![], 99)
}

fn rows(seed: u64) -> RecordBatch {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut document =
        || -> String { std::iter::repeat_with(|| random.alphanumeric()).take(1500).collect() };
    let documents: Vec<String> = (0..ROWS).map(|_| document()).collect();
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..i64::from(ROWS)));
    RecordBatch::try_new(schema().arrow(), vec![ids, Arc::new(StringArray::from(documents))])
        .unwrap()
}

impl Home {
    fn new(limit: u64) -> Self {
        let url = url::Url::parse("memory:///t/").unwrap();
        let path = object_store::path::Path::from("t");
        let location = Location::new(Arc::new(InMemory::new()), path, url);
        let home = Self { location, folder: tempfile::tempdir().unwrap() };
        home.reopened(limit)
    }

    /// The same after a restart.
    fn reopened(self, limit: u64) -> Self {
        let Self { location, folder } = self;
        let location = location.with_copies(None);
        let copies = Arc::new(Copies::open(folder.path(), limit).unwrap());
        Self { location: location.with_copies(Some(copies)), folder }
    }

    fn copies(&self) -> &Arc<Copies> {
        self.location.copies().unwrap()
    }

    async fn write(&self, seed: u64) -> Written {
        let rows = rows(seed);
        let place = Place::default();
        let file = write(&self.location, &schema(), place, rows.clone(), true).await.unwrap();
        Written { file, rows }
    }

    async fn read(&self, written: &Written, at: &[u32]) -> Result<RecordBatch> {
        let schema = schema();
        let (found, _) = read_rows(&self.location, &written.file, schema.columns(), at).await?;
        Ok(concat_batches(&found[0].schema(), &found).unwrap())
    }

    /// Reads rows and compares them.
    async fn check(&self, written: &Written, at: &[u32]) {
        let found = self.read(written, at).await.unwrap();
        let at = arrow::array::PrimitiveArray::<UInt32Type>::from(at.to_vec());
        let expected = take_record_batch(&written.rows, &at).unwrap();
        assert_eq!(found.columns(), expected.columns());
    }

    /// Reads rows from all of the file.
    async fn check_all(&self, written: &Written) {
        self.check(written, &spread()).await;
    }

    async fn remove_from_store(&self, written: &Written) {
        self.location.store().delete(&self.location.file(&written.file.path)).await.unwrap();
    }

    fn copy_of(&self, written: &Written) -> PathBuf {
        let of = self.copies().of(self.location.file_url(&written.file.path), written.file.size);
        self.copies().path(of.name, COPY)
    }

    /// What is in the folder, without the lock, and its size.
    fn there(&self) -> (BTreeSet<String>, u64) {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(Result::unwrap);
        let entries = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry));
        let entries: Vec<_> = entries.filter(|(name, _)| name != LOCK).collect();
        let size = entries.iter().map(|(_, entry)| entry.metadata().unwrap().len()).sum();
        (entries.into_iter().map(|(name, _)| name).collect(), size)
    }
}

/// Positions in every page.
fn spread() -> Vec<u32> {
    (0..ROWS).step_by(4).collect()
}

/// Runs a test's steps, and what they count.
fn counted<T>(steps: impl Future<Output = T>) -> (T, Counted) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let done = ::metrics::with_local_recorder(&recorder, || runtime.block_on(steps));
    let scrape = recorder.handle().render();
    let value = |series: &str| {
        let line = scrape.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().unwrap())
    };
    let counted = Counted {
        fetched: value(r#"cdc_sink_row_read_bytes_total{from="store"}"#),
        copied: value(r#"cdc_sink_row_read_bytes_total{from="copy"}"#),
        damaged: value("cdc_sink_damaged_copies_total"),
        size: value("cdc_sink_copies_bytes"),
    };
    (done, counted)
}

#[rstest]
#[tokio::test]
async fn values_are_those_of_the_store(
    #[values(1, 2, 3, 4)] seed: u64,
    #[values(GIB, 3_000_000)] limit: u64,
) {
    let home = Home::new(limit);
    let mut random = fastrand::Rng::with_seed(seed);
    let files = [home.write(seed).await, home.write(seed + 10).await, home.write(seed + 20).await];
    for _ in 0..40 {
        let most = [1, 10, 1000][random.usize(..3)];
        let some = random.usize(1..=most);
        let at: BTreeSet<u32> = std::iter::repeat_with(|| random.u32(..ROWS)).take(some).collect();
        home.check(&files[random.usize(..3)], &at.into_iter().collect::<Vec<_>>()).await;
    }
    assert!(!home.there().0.is_empty());
}

#[test]
fn a_second_read_asks_the_store_for_nothing() {
    let home = Home::new(GIB);
    let (written, first) = counted(async {
        let written = home.write(1).await;
        home.check_all(&written).await;
        written
    });
    let size = written.file.size;
    assert!(first.fetched < size + 100_000 && first.size == size, "{first:?} of {size}");
    let ((), second) = counted(async {
        home.remove_from_store(&written).await;
        home.check_all(&written).await;
    });
    assert_eq!((second.fetched, second.damaged), (0, 0));
    assert!(second.copied > size / 2, "{second:?}");
}

#[tokio::test]
async fn a_few_rows_are_no_reason_for_a_copy() {
    let home = Home::new(GIB);
    let written = home.write(1).await;
    let mut reads = 0;
    while home.there().0.is_empty() {
        home.check(&written, &[reads * 100]).await;
        reads += 1;
    }
    // Each fetches the end of 64 KiB and a page or two.
    assert!((3..20).contains(&reads), "{reads}");
}

#[tokio::test]
async fn copies_keep_their_bound_and_the_oldest_makes_room() {
    let home = Home::new(GIB);
    let mut files = Vec::new();
    for seed in 0..6 {
        files.push(home.write(seed).await);
    }
    let limit = files[0].file.size * 7 / 2;
    let home = home.reopened(limit);
    for written in &files {
        home.check_all(written).await;
        home.check_all(written).await;
        assert!(home.there().1 <= limit);
    }
    let kept: Vec<bool> = files.iter().map(|written| home.copy_of(written).exists()).collect();
    assert_eq!(kept, [false, false, false, true, true, true]);
}

#[tokio::test]
async fn more_files_than_there_is_room_for_do_not_push_each_other_out() {
    let home = Home::new(GIB);
    let mut files = Vec::new();
    for seed in 0..6 {
        files.push(home.write(seed).await);
    }
    let home = home.reopened(files[0].file.size * 7 / 2);
    for _ in 0..4 {
        for written in &files {
            home.check_all(written).await;
        }
    }
    let kept: Vec<bool> = files.iter().map(|written| home.copy_of(written).exists()).collect();
    assert_eq!(kept, [true, true, true, false, false, false]);
}

#[tokio::test]
async fn a_file_of_more_than_half_the_bound_is_not_copied() {
    let home = Home::new(GIB);
    let written = home.write(1).await;
    let home = home.reopened(written.file.size * 2 - 2);
    home.check_all(&written).await;
    assert!(home.there().0.is_empty());
}

/// A copy is spoilt, and one read of it counts one damaged copy and has the right values.
fn spoilt(spoil: impl Fn(&Path)) {
    let home = Home::new(GIB);
    let ((), counted) = counted(async {
        let written = home.write(1).await;
        home.check_all(&written).await;
        spoil(&home.copy_of(&written));
        home.check_all(&written).await;
        home.check_all(&written).await;
        // The one that it was copied again to is good.
        home.remove_from_store(&written).await;
        home.check_all(&written).await;
    });
    assert_eq!(counted.damaged, 1);
}

#[rstest]
#[case::empty(0)]
#[case::of_one_block(4096)]
#[case::without_its_last_byte(u64::MAX)]
#[case::without_its_end(500_000)]
fn a_copy_that_is_cut_short_is_not_used(#[case] bytes: u64) {
    spoilt(|copy| {
        let file = File::options().write(true).open(copy).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(bytes.min(size - 1)).unwrap();
    });
}

#[test]
fn a_copy_that_is_gone_or_zeroed_is_not_used() {
    spoilt(|copy| fs::remove_file(copy).unwrap());
    spoilt(|copy| {
        let file = File::options().write(true).open(copy).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(0).unwrap();
        file.set_len(size).unwrap();
    });
}

#[rstest]
fn no_flipped_bit_gets_into_a_value(#[values(1, 2, 3)] seed: u64) {
    const FLIPS: u64 = 60;
    let mut random = fastrand::Rng::with_seed(seed);
    let home = Home::new(GIB);
    let ((), counted) = counted(async {
        let written = home.write(seed).await;
        for flip in 0..FLIPS {
            home.check_all(&written).await;
            let copy = home.copy_of(&written);
            let mut bytes = fs::read(&copy).unwrap();
            // The end, where the footer is, is of more kinds.
            let from = if flip % 3 == 0 { bytes.len() - 3000 } else { 0 };
            let at = random.usize(from..bytes.len());
            bytes[at] ^= 1 << random.u32(..8);
            fs::write(&copy, bytes).unwrap();
            home.check_all(&written).await;
        }
    });
    // Some of the bits are of nothing that is read.
    assert!((FLIPS / 2..=FLIPS).contains(&counted.damaged), "{counted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_costs_nothing_but_the_copies() {
    let home = Home::new(GIB);
    let written = home.write(1).await;
    let unfinished = home.copy_of(&written).with_extension(UNFINISHED);
    std::os::unix::fs::symlink("/dev/full", &unfinished).unwrap();
    home.check_all(&written).await;
    assert!(home.there().0.is_empty());
    tokio::time::advance(PAUSE - Duration::from_secs(1)).await;
    home.check_all(&written).await;
    assert!(home.there().0.is_empty());
    tokio::time::advance(Duration::from_secs(1)).await;
    home.check_all(&written).await;
    assert!(home.copy_of(&written).exists());
    assert_eq!(home.copies().state().bytes, written.file.size);
}

#[tokio::test]
async fn a_restart_takes_over_what_is_there_and_leaves_others_alone() {
    let home = Home::new(GIB);
    let files = [home.write(1).await, home.write(2).await];
    for written in &files {
        home.check_all(written).await;
        home.remove_from_store(written).await;
    }
    let [theirs, unfinished] =
        ["notes.copy", "00000000000000000000000000000007.unfinished"].map(str::to_owned);
    for name in [&theirs, &unfinished] {
        fs::write(home.folder.path().join(name), "x").unwrap();
    }
    let home = home.reopened(GIB);
    for written in &files {
        home.check_all(written).await;
    }
    let there = home.there().0;
    assert!(there.contains(&theirs) && !there.contains(&unfinished), "{there:?}");
    // With less room, no more than that stays.
    let home = home.reopened(files[0].file.size * 3 / 2);
    assert_eq!(home.there().0.len(), 2);
}

#[tokio::test]
async fn files_without_checksums_and_files_on_a_disk_are_not_copied() {
    let home = Home::new(GIB);
    let rows = rows(1);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let size = u64::try_from(bytes.len()).unwrap();
    let path = home.location.file("f.parquet");
    home.location.store().put(&path, PutPayload::from(bytes)).await.unwrap();
    let foreign = Written { file: DataFile::bare("f.parquet", size), rows };
    home.check_all(&foreign).await;
    home.check_all(&foreign).await;
    let disk = tempfile::tempdir().unwrap();
    let location = Location::warehouse(disk.path().to_str().unwrap()).unwrap();
    let location = location.with_copies(Some(Arc::clone(home.copies())));
    let home = Home { location, ..home };
    home.check_all(&home.write(1).await).await;
    assert!(home.there().0.is_empty());
}

#[test]
fn two_reads_at_once_make_one_copy() {
    let home = Home::new(GIB);
    let (size, counted) = counted(async {
        let written = home.write(1).await;
        tokio::join!(home.check_all(&written), home.check_all(&written));
        written.file.size
    });
    assert!(counted.fetched < size * 3 / 2 && counted.size == size, "{counted:?} of {size}");
}

#[tokio::test]
async fn a_copy_that_is_given_up_leaves_no_trace() {
    let home = Home::new(GIB);
    let written = home.write(1).await;
    // Cut off after each of its steps.
    let mut steps = 0;
    while home.there().0.iter().all(|name| !name.ends_with(COPY)) {
        steps += 1;
        let at = spread();
        let mut read = Box::pin(home.read(&written, &at));
        for _ in 0..steps {
            if read.as_mut().now_or_never().is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    assert_eq!(home.copies().state().bytes, written.file.size);
    // A store that ends before the file does.
    let other = home.write(2).await;
    let path = home.location.file(&other.file.path);
    let whole = home.location.store().get(&path).await.unwrap().bytes().await.unwrap();
    home.location.store().put(&path, whole.slice(..whole.len() / 2).into()).await.unwrap();
    home.read(&other, &spread()).await.unwrap_err();
    assert_eq!(home.copies().state().bytes, written.file.size);
    let copy = home.copy_of(&other);
    assert!(!copy.exists() && !copy.with_extension(UNFINISHED).exists());
}

#[test]
fn a_folder_is_one_processs() {
    let folder = tempfile::tempdir().unwrap();
    let first = Copies::open(folder.path(), GIB).unwrap();
    let refused = Copies::open(folder.path(), GIB).unwrap_err();
    assert_eq!(refused.kind(), Kind::Invalid);
    assert!(refused.report().contains("another process uses it"), "{}", refused.report());
    drop(first);
    Copies::open(folder.path(), GIB).unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let refused = Copies::open(&file, GIB).unwrap_err();
    assert!(refused.report().contains("option copies"), "{}", refused.report());
}
