//! Races in stores that lie, or are slow.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use rstest::rstest;
use url::Url;

use super::*;
use crate::error::Kind;

/// What is wrong with a store.
#[derive(Debug, Clone, Copy)]
enum Flaw {
    /// Nothing, but that each answer takes longer than the one before.
    Slow,
    /// Looks for the file first and writes it then.
    LooksThenWrites,
    /// Takes no notice of the condition.
    Overwrites,
    /// Says no to everybody.
    SaysNo,
    /// Says no to all but the first, and writes them.
    WritesAnyway,
    /// The first request is done, but its answer is that the file is there: a second attempt after a lost answer.
    LosesAnAnswer,
    /// Every other request gets no answer and is not done.
    Drops,
    /// All requests get no answer.
    Down,
}

#[derive(Debug)]
struct Flawed {
    inner: InMemory,
    flaw: Flaw,
    asked: AtomicUsize,
}

impl fmt::Display for Flawed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store with a flaw")
    }
}

fn exists(path: &Path) -> object_store::Error {
    object_store::Error::AlreadyExists { path: path.to_string(), source: "test".into() }
}

fn reset() -> object_store::Error {
    object_store::Error::Generic { store: "test", source: "connection reset".into() }
}

#[async_trait]
impl ObjectStore for Flawed {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let nth = self.asked.fetch_add(1, Ordering::Relaxed);
        let overwrite = |payload| self.inner.put_opts(path, payload, PutOptions::default());
        match self.flaw {
            Flaw::Slow => {
                tokio::time::sleep(Duration::from_secs(u64::try_from(nth).unwrap())).await;
            }
            Flaw::LooksThenWrites => {
                let found = self.inner.head(path).await.is_ok();
                tokio::time::sleep(Duration::from_millis(1)).await;
                return if found { Err(exists(path)) } else { overwrite(payload).await };
            }
            Flaw::Overwrites => return overwrite(payload).await,
            Flaw::SaysNo => return Err(exists(path)),
            Flaw::WritesAnyway => {
                let done = overwrite(payload).await?;
                return if nth == 0 { Ok(done) } else { Err(exists(path)) };
            }
            Flaw::LosesAnAnswer if nth == 0 => {
                overwrite(payload).await?;
                return Err(exists(path));
            }
            Flaw::Drops if nth.is_multiple_of(2) => return Err(reset()),
            Flaw::Down => return Err(reset()),
            Flaw::LosesAnAnswer | Flaw::Drops => {}
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[rstest]
#[case(Flaw::Slow, None)]
#[case(Flaw::LosesAnAnswer, None)]
#[case(Flaw::Drops, None)]
#[case(Flaw::LooksThenWrites, Some((Kind::Refused, "lets 32 of 32 writers make the same new file")))]
#[case(Flaw::Overwrites, Some((Kind::Refused, "lets 32 of 32 writers make the same new file")))]
#[case(Flaw::SaysNo, Some((Kind::Refused, "lets nobody make a file that is not there")))]
#[case(Flaw::WritesAnyway, Some((Kind::Refused, "does not keep what the one writer wrote")))]
#[case(Flaw::Down, Some((Kind::Unavailable, "connection reset")))]
#[tokio::test(start_paused = true)]
async fn one_writer_alone_makes_a_file_or_the_store_is_refused(
    #[case] flaw: Flaw,
    #[case] refused: Option<(Kind, &str)>,
) {
    let store = Arc::new(Flawed { inner: InMemory::new(), flaw, asked: AtomicUsize::new(0) });
    let url = Url::parse("s3://lake/tables/").unwrap();
    let location = Location::new(Arc::<Flawed>::clone(&store), Path::from("tables"), url);
    let checked = check(&location).await;
    let told = checked.err().map(|error| (error.kind(), error.report()));
    match (told, refused) {
        (None, None) => {}
        (Some((kind, report)), Some((expected, said))) => {
            assert_eq!(kind, expected, "{report}");
            assert!(report.contains(said) && report.contains("s3://lake/tables/"), "{report}");
            let advised = report.contains("If-None-Match") && report.contains("--catalog");
            assert_eq!(advised, kind == Kind::Refused, "{report}");
        }
        (told, _) => panic!("{told:?}"),
    }
    let left: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}
