//! What processors and readers share: the store, the committer, and the data keys in use.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use bytes::Bytes;
use gantry_journal::{
    Batch, CommitError, Committer, ContentOwner, DataKey, KeyRing, ReadError, SealError, Store, WrappedKey, keys,
};
use gantry_proto::v1::Payload;
use gantry_proto::v1::event::Kind;
use gantry_proto::{TenantId, WorkflowId};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;

/// Data keys kept open. An unwrapping costs microseconds; this covers what is active at once on a busy machine, in about a megabyte.
const KEYS_OPEN_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// Why sealed content cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ContentError {
    /// The store could not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Keys or sealed bytes do not fit.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Store, committer and keys.
pub struct Storage {
    store: Arc<dyn Store>,
    committer: RwLock<Arc<Committer>>,
    keyring: Arc<dyn KeyRing>,
    open: Mutex<LruCache<WorkflowId, Arc<DataKey>>>,
    /// Keys of what content was sealed for before it is journaled.
    prepared: Mutex<BTreeMap<WorkflowId, (Arc<DataKey>, WrappedKey)>>,
}

/// A data key that was made before its owner is journaled. The batch that journals the owner writes it; it is forgotten when this is dropped.
pub struct PreparedKey {
    storage: Arc<Storage>,
    owner: WorkflowId,
    key: Arc<DataKey>,
}

impl std::fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PreparedKey")
            .field("owner", &self.owner)
            .finish_non_exhaustive()
    }
}

impl PreparedKey {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &DataKey {
        &self.key
    }
}

impl Drop for PreparedKey {
    fn drop(&mut self) {
        self.storage.prepared.lock().remove(&self.owner);
    }
}

/// Whose key a record's payload is sealed under, by the id that the key is stored under.
#[must_use]
pub fn content_owner(kind: Option<&Kind>, workflow: Option<WorkflowId>) -> Option<WorkflowId> {
    match kind {
        Some(Kind::UploadCreated(created)) => Some(ContentOwner::from(created.upload).key_id()),
        _ => workflow,
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").finish_non_exhaustive()
    }
}

/// Binds a sealed payload to its place, so that it opens nowhere else.
fn context(workflow: Option<WorkflowId>, seq: u64) -> Vec<u8> {
    let mut context = Vec::with_capacity(32);
    context.extend_from_slice(b"record");
    context.extend_from_slice(workflow.unwrap_or_default().as_bytes());
    context.extend_from_slice(&seq.to_be_bytes());
    context
}

impl Storage {
    /// Starts a committer on the store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, keyring: Arc<dyn KeyRing>) -> Self {
        let committer = RwLock::new(Arc::new(Committer::start(Arc::clone(&store))));
        Self {
            store,
            committer,
            keyring,
            open: Mutex::new(LruCache::new(KEYS_OPEN_MAX)),
            prepared: Mutex::default(),
        }
    }

    /// The store; calls block.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The committer in use.
    #[must_use]
    pub fn committer(&self) -> Arc<Committer> {
        Arc::clone(&self.committer.read())
    }

    /// Commits; after an unknown outcome the committer is poisoned for good, and a new one takes its place, for owners that have recovered.
    ///
    /// # Errors
    /// See [`Committer::commit`].
    pub async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let committer = self.committer();
        let verdict = committer.commit(batch).await;
        if matches!(verdict, Err(CommitError::Unknown { .. })) {
            let mut current = self.committer.write();
            // Every partition with a batch in it comes here; the first one replaces it.
            if Arc::ptr_eq(&current, &committer) {
                *current = Arc::new(Committer::start(Arc::clone(&self.store)));
            }
        }
        verdict
    }

    /// Joins the committer; blocks.
    pub fn close(&self) {
        self.committer().close();
    }

    /// The data key of a new workflow or upload: the prepared one, or a fresh one. The wrapped form goes into the batch that journals it.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn new_key(&self, tenant: TenantId, owner: WorkflowId) -> Result<WrappedKey, SealError> {
        let prepared = self.prepared.lock().get(&owner).cloned();
        let (key, wrapped) = match prepared {
            Some(prepared) => prepared,
            None => {
                let (key, wrapped) = self.keyring.generate(tenant, owner)?;
                (Arc::new(key), wrapped)
            }
        };
        self.open.lock().put(owner, key);
        Ok(wrapped)
    }

    /// Makes the data key of an owner whose content is sealed before it is journaled.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn prepare_key(self: &Arc<Self>, tenant: TenantId, owner: ContentOwner) -> Result<PreparedKey, SealError> {
        let owner = owner.key_id();
        let (key, wrapped) = self.keyring.generate(tenant, owner)?;
        let key = Arc::new(key);
        self.prepared.lock().insert(owner, (Arc::clone(&key), wrapped));
        Ok(PreparedKey {
            storage: Arc::clone(self),
            owner,
            key,
        })
    }

    /// Closes a key whose stored form was destroyed.
    pub fn forget_key(&self, owner: ContentOwner) {
        self.open.lock().pop(&owner.key_id());
    }

    /// The data key of a workflow; blocks when it is not open yet.
    ///
    /// # Errors
    /// [`SealError::Erased`] when it was destroyed.
    pub fn key(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Arc<DataKey>, ContentError> {
        if let Some(key) = self.open.lock().get(&workflow) {
            return Ok(Arc::clone(key));
        }
        let stored = self
            .store
            .get(&keys::data_key(workflow.partition(), tenant, workflow))?;
        let wrapped = stored.ok_or(SealError::Erased)?;
        let key = Arc::new(self.keyring.unwrap(tenant, workflow, &WrappedKey(wrapped))?);
        self.open.lock().put(workflow, Arc::clone(&key));
        // It may have been destroyed since it was read, and forgotten before it was put.
        let place = keys::data_key(workflow.partition(), tenant, workflow);
        if self.store.get(&place)?.is_none() {
            self.open.lock().pop(&workflow);
            return Err(SealError::Erased.into());
        }
        Ok(key)
    }

    /// Seals the payload of the record at `seq`.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn seal(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        seq: u64,
        payload: &Payload,
    ) -> Result<Bytes, ContentError> {
        let key = self.key(tenant, workflow)?;
        Ok(key.seal(&context(Some(workflow), seq), &payload.encode_to_vec())?)
    }

    /// Opens the payload of the record at `seq`.
    ///
    /// # Errors
    /// [`ContentError`].
    pub fn unseal(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        seq: u64,
        sealed: &[u8],
    ) -> Result<Payload, ContentError> {
        open_payload(&*self.key(tenant, workflow)?, workflow, seq, sealed)
    }
}

/// Opens the payload of the record at `seq` with its workflow's key.
///
/// # Errors
/// [`SealError::Open`].
pub fn open_payload(key: &DataKey, workflow: WorkflowId, seq: u64, sealed: &[u8]) -> Result<Payload, ContentError> {
    let plain = key.open(&context(Some(workflow), seq), sealed)?;
    Payload::decode(plain).map_err(|_| ContentError::Seal(SealError::Open))
}
