//! What is in the store, whoever asks; and everything that ever was, for the oracle.

use std::sync::Mutex;

use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutOptions, PutPayload, PutResult, Result};

/// Something that changed in the store.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    /// Milliseconds since the start.
    pub(super) at: u64,
    pub(super) path: Path,
    /// False when the file was removed.
    pub(super) put: bool,
}

#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) files: InMemory,
    /// Files that were removed are still here.
    ever: InMemory,
    effects: Mutex<Vec<Effect>>,
}

impl Bucket {
    pub(super) async fn put(
        &self,
        path: &Path,
        bytes: PutPayload,
        options: PutOptions,
        at: u64,
    ) -> Result<PutResult> {
        let done = self.files.put_opts(path, bytes.clone(), options).await?;
        self.ever.put(path, bytes).await?;
        self.effects.lock().unwrap().push(Effect { at, path: path.clone(), put: true });
        Ok(done)
    }

    pub(super) async fn delete(&self, path: &Path, at: u64) -> Result<()> {
        self.files.head(path).await?;
        self.files.delete(path).await?;
        self.effects.lock().unwrap().push(Effect { at, path: path.clone(), put: false });
        Ok(())
    }

    /// What the file holds, or held when it was removed.
    pub(super) async fn recall(&self, path: &Path) -> Option<Bytes> {
        self.ever.get(path).await.ok()?.bytes().await.ok()
    }

    /// Everything that changed, in order.
    pub(super) fn effects(&self) -> Vec<Effect> {
        self.effects.lock().unwrap().clone()
    }

    /// How many changes there were.
    pub(super) fn clock(&self) -> usize {
        self.effects.lock().unwrap().len()
    }

    /// Files put since `millis`.
    pub(super) fn put_since(&self, millis: u64) -> Vec<Path> {
        let effects = self.effects.lock().unwrap();
        let young = effects.iter().rev().take_while(|effect| effect.at >= millis);
        young.filter(|effect| effect.put).map(|effect| effect.path.clone()).collect()
    }
}
