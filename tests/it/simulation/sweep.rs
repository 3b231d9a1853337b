//! Somebody who removes orphans. Its requests never fail, and files are as old for it as the simulated clock says.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cdc_sink::sink::iceberg::{Catalog, TableName};
use cdc_sink::sink::orphans::{Place, Rules, SAFE_AGE, Table, Unneeded};
use cdc_sink::sink::storage::Location;
use chrono::DateTime;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::sleep;
use url::Url;

use super::catalog::Straight;
use super::chance::names;
use super::store::World;
use super::tables::{NAMESPACE, name};

/// How long a list and a delete take.
const LISTING: Duration = Duration::from_secs(20);
const DELETING: Duration = Duration::from_millis(300);

/// Removes orphans of the topic's table, as young as is safe; how many there were.
pub(super) async fn sweep(
    world: &Arc<World>,
    topic: &str,
    has_catalog: bool,
) -> Result<u64, String> {
    let table = name(topic);
    let url = Url::parse(&format!("memory:///{table}/")).unwrap();
    let store = Arc::new(Stamped { world: Arc::clone(world) });
    let about = format!("sweep {}", world.trace.millis());
    let location =
        Location::new(store, Path::from(table), url).with_names(names(world.seed, &about));
    let catalog = match has_catalog {
        true => Catalog::Rest(Straight::connect(world).await.map_err(|e| e.report())?),
        false => Catalog::Files,
    };
    let place = Place {
        name: table.into(),
        location,
        catalog: Arc::new(catalog),
        table: TableName { namespace: vec![NAMESPACE.to_owned()], name: table.to_owned() },
    };
    let opened = Table::open(place).await.map_err(|e| e.report())?;
    let Some(mut opened) = opened else { return Ok(0) };
    let rules = Rules { older_than: SAFE_AGE, dry_run: false };
    let mut tell = |_: Unneeded<'_>| ();
    let done = opened.sweep(&rules, &mut tell).await.map_err(|e| e.report())?;
    Ok(done.removed)
}

/// The bucket, with the simulated time on its files.
#[derive(Debug)]
struct Stamped {
    world: Arc<World>,
}

impl fmt::Display for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store of who removes orphans")
    }
}

impl Stamped {
    /// When each file was put.
    fn stamps(&self) -> HashMap<Path, u64> {
        let effects = self.world.bucket.effects();
        effects.into_iter().filter(|effect| effect.put).map(|put| (put.path, put.at)).collect()
    }
}

fn stamp(meta: &mut ObjectMeta, stamps: &HashMap<Path, u64>) {
    let at = Duration::from_millis(stamps[&meta.location]);
    meta.last_modified = DateTime::UNIX_EPOCH + at;
}

#[async_trait]
impl ObjectStore for Stamped {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.world.bucket.put(path, payload, options, self.world.trace.millis()).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("{path} is put in parts");
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.world.bucket.files.get_opts(path, options).await?;
        stamp(&mut found.meta, &self.stamps());
        Ok(found)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let world = Arc::clone(&self.world);
        let delete = move |path: Result<Path>| {
            let world = Arc::clone(&world);
            async move {
                let path = path?;
                sleep(DELETING).await;
                world.bucket.delete(&path, world.trace.millis()).await?;
                world.trace.say(format!("{path} is removed as an orphan"));
                Ok(path)
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (world, prefix, stamps) = (Arc::clone(&self.world), prefix.cloned(), self.stamps());
        let listed = async move {
            let found = world.bucket.files.list(prefix.as_ref());
            let mut found: Vec<ObjectMeta> = found.try_collect().await?;
            found.iter_mut().for_each(|meta| stamp(meta, &stamps));
            // What is committed meanwhile is not in the list. On a library's own thread that would be time that really passes.
            if world.trace.is_at_home() {
                sleep(LISTING).await;
            }
            Ok::<_, object_store::Error>(stream::iter(found).map(Ok))
        };
        stream::once(listed).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        panic!("{prefix:?} is listed by folders");
    }

    async fn copy_opts(&self, from: &Path, to: &Path, _options: CopyOptions) -> Result<()> {
        panic!("{from} is copied to {to}");
    }
}
