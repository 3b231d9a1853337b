//! A plan to the commit of the next version.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use deltalake::kernel::{Add, Transaction};
use roaring::RoaringTreemap;

use super::commit::{self, Commit};
use super::{DeltaTable, admit, at, protocol, schema, store_schema, vectors};
use crate::error::{Error, Result};
use crate::position::OffsetRange;
use crate::table::plan::{CommitPlan, DataFile, Deletion, LiveFile};

impl DeltaTable {
    /// False when the plan speaks of files or of other partitions' positions as they no longer are. That its own ranges
    /// start at the stored position is the caller's promise, who has checked that nobody fenced it.
    pub(super) fn is_made_on_this_version(&self, plan: &CommitPlan) -> Result<bool> {
        let stands = |file: &DataFile, deleted: &Arc<RoaringTreemap>| {
            let live = self.state.files.get(&file.path);
            live.is_some_and(|live| Arc::ptr_eq(&live.deleted, deleted) || live.deleted == *deleted)
        };
        let added: HashSet<&str> = plan.added.iter().map(|file| file.path.as_str()).collect();
        let enters = |deletion: &Deletion| {
            deletion.before.is_empty() && added.contains(deletion.file.path.as_str())
        };
        let grows = |deletion: &Deletion| stands(&deletion.file, &deletion.before);
        let files_stand = plan.deletions.iter().all(|deletion| grows(deletion) || enters(deletion))
            && plan.removed.iter().all(|live| stands(&live.file, &live.deleted))
            && plan.added.iter().all(|file| !self.state.files.contains_key(&file.path));
        if !files_stand {
            return Ok(false);
        }
        let stored = &self.state.position;
        let advanced = stored.advance(&plan.ranges).map_err(|range| {
            let OffsetRange { partition, from, .. } = range;
            let stored = stored.get(partition);
            let topic = &self.options.topic;
            let batch = plan.batch_id;
            at(
                &self.log,
                Error::internal(format!(
                    "batch {batch} starts at {topic}[{partition}]@{from}, the table at {stored:?}"
                )),
            )
        })?;
        Ok(advanced == plan.position)
    }

    /// The commit of a plan. Its deletion vectors are written, in a file that no other attempt uses.
    pub(super) async fn prepare(&self, plan: &CommitPlan) -> Result<Commit> {
        let mut commit =
            Commit { info: Some(commit::merged(plan, self.state.version)), ..Commit::default() };
        if plan.schema_changed || !self.ids_stored {
            self.change_schema(plan, &mut commit)?;
        }
        if let Some(owner) = &plan.owner {
            let mut metadata = commit.metadata.take().unwrap_or_else(|| self.metadata.clone());
            metadata.configuration.insert(protocol::OWNER.to_owned(), owner.to_string());
            commit.metadata = Some(metadata);
        }
        let transaction = |range: &OffsetRange| {
            Transaction::new_with_last_update(
                commit::application(&self.options.topic, range.partition),
                range.to,
                None,
            )
        };
        commit.transactions = plan.ranges.iter().map(transaction).collect();
        for live in &plan.removed {
            commit.removes.push(commit::remove(self.add(&live.file.path)?, plan.now_millis));
        }
        let mut added = BTreeMap::new();
        for file in &plan.added {
            let (schema, partitioning) = (&plan.schema, &self.state.partitioning);
            let add = commit::add(file, schema, partitioning, plan.now_millis)?;
            added.insert(file.path.as_str(), add);
        }
        if !plan.deletions.is_empty() {
            let bitmaps: Vec<&RoaringTreemap> =
                plan.deletions.iter().map(|deletion| deletion.after.as_ref()).collect();
            let vectors =
                vectors::write(self.log.location(), self.log.location().new_name(), &bitmaps)
                    .await?;
            for (deletion, vector) in plan.deletions.iter().zip(vectors) {
                let (path, rows) = (deletion.file.path.as_str(), deletion.file.rows);
                // A path is added once in a commit: a file that enters with deleted rows has its vector at once.
                if let Some(add) = added.remove(path) {
                    commit.adds.push(commit::with_vector(&add, vector, rows)?);
                } else {
                    let add = self.add(path)?;
                    commit.removes.push(commit::remove(add, plan.now_millis));
                    commit.adds.push(commit::with_vector(add, vector, rows)?);
                }
            }
        }
        commit.adds.extend(added.into_values());
        Ok(commit)
    }

    fn change_schema(&self, plan: &CommitPlan, commit: &mut Commit) -> Result<()> {
        let existing = schema::fields(&self.metadata.schema_string)?;
        let fields = schema::encode(&plan.schema, &self.state.partitioning, &existing)?;
        let mut metadata = self.metadata.clone();
        if fields.iter().any(|field| field.was_widened() && !existing.contains(field)) {
            protocol::allow_widening(&mut metadata.configuration, self.options.type_widening)
                .map_err(|e| at(&self.log, e))?;
        }
        let extended = self.protocol.extended_for(&fields);
        if extended != self.protocol {
            commit.protocol = Some(extended);
        }
        store_schema(&mut metadata, &plan.schema, fields)?;
        let extended = commit.protocol.as_ref().unwrap_or(&self.protocol);
        if admit(extended, &metadata, &self.options.topic)?.schema != *plan.schema {
            let lost = Error::internal(format!(
                "batch {}: its schema would not come back from the log",
                plan.batch_id
            ));
            return Err(at(&self.log, lost));
        }
        commit.metadata = Some(metadata);
        Ok(())
    }

    pub(super) fn add(&self, path: &str) -> Result<&Add> {
        self.adds.get(path).ok_or_else(|| {
            Error::internal(format!(
                "data file {path} is not in the table {}",
                self.log.location().url()
            ))
        })
    }

    /// The live files of a commit of our own, in the order of its adds: nothing of them has to be read.
    pub(super) fn planned_files(
        &self,
        plan: &CommitPlan,
        commit: &Commit,
    ) -> Result<Vec<LiveFile>> {
        let none = Arc::new(RoaringTreemap::new());
        let grown = plan.deletions.iter().map(|deletion| (&deletion.file, &deletion.after));
        let added = plan.added.iter().map(|file| (file, &none));
        let planned: HashMap<&str, _> = added
            .chain(grown)
            .map(|(file, deleted)| (file.path.as_str(), (file, deleted)))
            .collect();
        let live = |add: &Add| {
            let (file, deleted) = planned.get(add.path.as_str()).ok_or_else(|| {
                Error::internal(format!("data file {} is not in the plan", add.path))
            })?;
            Ok(LiveFile { file: Arc::clone(file), deleted: Arc::clone(deleted) })
        };
        commit.adds.iter().map(live).collect()
    }
}
