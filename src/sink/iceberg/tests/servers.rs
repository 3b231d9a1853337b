//! The same on real catalogs: Apache's REST catalog with credentials of our own, and Nessie, which hands them out. Each
//! test runs where the stack of `tests/stack` runs, and says so where it does not.

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use url::Url;
use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::testing::needed;

/// A folder in the stack's object store.
fn folder(bucket: &str, path: &str, key: &str, secret: &str) -> Location {
    let store = AmazonS3Builder::new()
        .with_endpoint(std::env::var("CDC_SINK_TEST_S3").unwrap())
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_bucket_name(bucket)
        .with_access_key_id(key)
        .with_secret_access_key(secret)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .build()
        .unwrap();
    let url = Url::parse(&format!("s3://{bucket}/{path}/")).unwrap();
    Location::new(Arc::new(store), Path::from(path), url)
}

async fn connect(options: RestOptions) -> Catalog {
    Catalog::Rest(RestCatalog::connect(options, Clock::system()).await.unwrap())
}

async fn apache() -> Option<Place> {
    let uri = needed("CDC_SINK_TEST_ICEBERG_REST")?;
    let key = std::env::var("CDC_SINK_TEST_S3_ACCESS_KEY").unwrap();
    let secret = std::env::var("CDC_SINK_TEST_S3_SECRET_KEY").unwrap();
    let bucket = std::env::var("CDC_SINK_TEST_S3_BUCKET").unwrap();
    let catalog = connect(RestOptions { uri, ..RestOptions::default() }).await;
    let unique = format!("it_{}", Uuid::new_v4().simple());
    let name = TableName { namespace: vec![unique.clone()], name: "items é".into() };
    let root = folder(&bucket, &format!("tests/{unique}/items"), &key, &secret);
    Some(Place::of(catalog, name, root))
}

async fn nessie() -> Option<Place> {
    let uri = needed("CDC_SINK_TEST_NESSIE")?;
    let options = RestOptions { uri, vended_credentials: true, ..RestOptions::default() };
    let catalog = connect(options).await;
    let unique = format!("it_{}", Uuid::new_v4().simple());
    let name = TableName { namespace: vec![unique.clone(), "inner".into()], name: "items".into() };
    // Keys that open nothing: all that works, works with Nessie's.
    let root = folder("lake-nessie", &format!("{unique}/items"), "nobody", "nothing");
    Some(Place::of(catalog, name, root))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_store_can_be_its_own_catalog() {
    let place = || async { Some(Place { catalog: Arc::new(Catalog::Files), ..apache().await? }) };
    let Some(first) = place().await else { return };
    several_commits(first, 3, by_name()).await;
    two_writers(place().await.unwrap(), 3).await;
    expiry(place().await.unwrap(), 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_takes_commits() {
    for (version, partitioning) in [(2, plain()), (3, plain()), (3, by_name())] {
        let Some(place) = apache().await else { return };
        several_commits(place, version, partitioning).await;
    }
    let two_formats = Options { two_formats: true, ..options(3) };
    several_commits_with(apache().await.unwrap(), two_formats, plain()).await;
    two_writers(apache().await.unwrap(), 3).await;
    added_columns(apache().await.unwrap(), 3).await;
    expiry(apache().await.unwrap(), 3).await;
}

/// Commits beyond the retention, and the files after them.
async fn expiry(place: Place, version: u8) {
    let snapshots = Retention { min_count: 2, max_count: 3, max_age_millis: i64::MAX };
    let mut writer = place.create(Options { snapshots, ..options(version) }, plain()).await;
    for i in 0..10 {
        writer.commit(&[(i, "x"), (i + 1, "y")], &[i / 2 + 100]).await;
        writer.table.maintain(writer.now).await.unwrap();
    }
    writer.check(&place).await;
    assert!(writer.table.known.metadata.snapshots().count() <= 3);
    let found = stored(writer.table.location()).await;
    let named = named_files(&writer.table).await;
    assert!(named.iter().all(|path| found.contains(path)));
    let lists = found.iter().filter(|path| path.contains("/snap-")).count();
    let kept = writer.table.known.metadata.properties().get(GC_ENABLED).is_some();
    assert_eq!(lists, if kept { 10 } else { 3 });
}

#[tokio::test(flavor = "multi_thread")]
async fn nessie_takes_commits_and_gives_credentials() {
    for (version, partitioning) in [(2, plain()), (3, by_name())] {
        let Some(place) = nessie().await else { return };
        several_commits(place, version, partitioning).await;
    }
    two_writers(nessie().await.unwrap(), 2).await;
    added_columns(nessie().await.unwrap(), 2).await;
    expiry(nessie().await.unwrap(), 2).await;
}
