//! Commits to Iceberg tables.

use iceberg::spec::{
    MAIN_BRANCH, NestedField, Operation, PrimitiveType, SnapshotReference, SnapshotRetention,
    TableMetadata, Type,
};
use object_store::PutMode;

use super::super::tables::{Formats, Tables, name};
use super::super::topics::Topics;
use super::snapshot::Draft;
use super::{Change, Deed, Rogue};

/// A table as somebody else finds it.
pub(super) struct Found {
    pub(super) table: String,
    /// Where its metadata files are, without a `/` at the end.
    folder: String,
    /// The number of its newest version.
    version: i64,
    pub(super) metadata: TableMetadata,
    /// Where the metadata is; none without a catalog.
    pub(super) location: Option<String>,
}

impl Rogue {
    pub(super) async fn act_on_iceberg(
        &mut self,
        deed: Deed,
        topic: &str,
        topics: &Topics,
        tables: &Tables,
    ) {
        let home = if matches!(tables.formats, Formats::Iceberg(_)) { "" } else { "_iceberg/" };
        let Some(found) = self.find(name(topic), home).await else { return };
        let of_files = match deed {
            Deed::Append | Deed::Delete => true,
            Deed::Optimize => self.rng.bool(),
            Deed::AddColumn | Deed::Restore => false,
        };
        if of_files {
            // Partitions would have to be told as well.
            if tables.partition_by.is_empty() {
                self.change_files(deed, found, topic, topics).await;
            }
            return;
        }
        let Found { metadata, version, .. } = &found;
        let builder = metadata.clone().into_builder(found.location.clone());
        let (builder, like) = match deed {
            Deed::AddColumn => {
                let schema = metadata.current_schema();
                let name = format!("foreign_{version}");
                let ty = Type::Primitive(PrimitiveType::String);
                let field = NestedField::optional(metadata.last_column_id() + 1, name, ty);
                let schema = schema.as_ref().clone().into_builder().with_fields([field.into()]);
                (builder.add_current_schema(schema.build().unwrap()).unwrap(), None)
            }
            Deed::Restore => {
                let snapshots: Vec<i64> = ancestors(metadata).skip(1).collect();
                let Some(snapshot) = self.rng.choice(snapshots) else { return };
                let retention = SnapshotRetention::branch(None, None, None);
                let main = SnapshotReference::new(snapshot, retention);
                (builder.set_ref(MAIN_BRANCH, main).unwrap(), Some(snapshot))
            }
            Deed::Optimize => {
                let comment = [("comment".to_owned(), version.to_string())].into();
                (builder.set_properties(comment).unwrap(), None)
            }
            Deed::Append | Deed::Delete => return,
        };
        let made = builder.build().unwrap().metadata;
        self.world.counters.count(&format!("foreign {deed:?} of metadata"));
        self.publish(found, deed, made, Change { like, ..Change::default() }).await;
    }

    /// Makes a snapshot with other files.
    async fn change_files(&mut self, deed: Deed, found: Found, topic: &str, topics: &Topics) {
        let world = std::sync::Arc::clone(&self.world);
        self.commits += 1;
        let Some(mut draft) = Draft::new(&world, &found, self.commits).await else { return };
        let (change, operation) = match deed {
            Deed::Append => (draft.append(&mut self.rng).await, Operation::Append),
            Deed::Delete => {
                let last = topics.last(topic).await;
                (draft.delete(&mut self.rng, &last).await, Operation::Delete)
            }
            _ => (draft.rewrite(&mut self.rng).await, Operation::Replace),
        };
        let Some(change) = change else { return };
        let made = draft.finish(operation).await;
        world.counters.count(&format!("foreign {deed:?} of Iceberg's files"));
        self.publish(found, deed, made, change).await;
    }

    /// The table in its catalog; without one, as its newest metadata file has it.
    async fn find(&self, table: &str, home: &str) -> Option<Found> {
        let (world, folder) = (&self.world, format!("{table}/{home}metadata"));
        let table = table.to_owned();
        let versions = world.catalog.versions(&table).await;
        if let Some(newest) = versions.last() {
            let version = i64::try_from(versions.len()).unwrap();
            let (metadata, location) = (newest.metadata.clone(), Some(newest.location.clone()));
            return Some(Found { table, folder, version, metadata, location });
        }
        let before = format!("{folder}/v");
        let effects = world.bucket.effects();
        let version = effects.iter().rev().find_map(|effect| {
            let name = effect.path.as_ref().strip_prefix(&before)?;
            name.strip_suffix(".metadata.json")?.parse::<i64>().ok()
        })?;
        let path = format!("{before}{version}.metadata.json");
        let bytes = world.bucket.recall(&path.into()).await?;
        let metadata = serde_json::from_slice(&bytes).unwrap();
        Some(Found { table, folder, version, metadata, location: None })
    }

    /// Makes the table's next version. Without a catalog that is the next metadata file.
    async fn publish(&mut self, found: Found, deed: Deed, made: TableMetadata, change: Change) {
        let Found { table, folder, version, location, .. } = found;
        let (world, version) = (&self.world, version + 1);
        if location.is_some() {
            world.catalog.put(world, &table, made).await;
        } else {
            let path = format!("{folder}/v{version}.metadata.json");
            let (made, at) = (serde_json::to_vec(&made).unwrap(), world.trace.millis());
            let (path, options) = (path.into(), PutMode::Create.into());
            world.bucket.put(&path, made.into(), options, at).await.unwrap();
        }
        world.trace.say(format!("rogue: {deed:?} is version {version} of {table}"));
        self.deeds.insert((table, version), change);
    }
}

/// The current snapshot and those it came from.
fn ancestors(metadata: &TableMetadata) -> impl Iterator<Item = i64> {
    let parent = |id: &i64| metadata.snapshot_by_id(*id)?.parent_snapshot_id();
    std::iter::successors(metadata.current_snapshot_id(), parent)
}
