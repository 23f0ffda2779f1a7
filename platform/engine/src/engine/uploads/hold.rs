//! Content that is being stored and not journaled yet: nobody sweeps it, and its key waits for the batch that journals its owner.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_journal::{ContentOwner, DataKey};
use gantry_proto::{ErrorCode, TenantId, limits};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::api::Refusal;
use crate::engine::Engine;
use crate::processor::ProcessorParts;
use crate::processor::storage::PreparedKey;

/// What is held by this process.
#[derive(Debug)]
pub(crate) struct Held {
    owners: Mutex<BTreeSet<ContentOwner>>,
    /// One for each upload that is being received.
    pub(super) slots: Semaphore,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            owners: Mutex::default(),
            slots: Semaphore::new(limits::UPLOADS_AT_ONCE_MAX),
        }
    }
}

impl Held {
    pub(super) fn contains(&self, owner: ContentOwner) -> bool {
        self.owners.lock().contains(&owner)
    }
}

/// Keeps the content of one owner from being swept. Dropping it wakes the sweep, unless the content was kept.
pub(crate) struct Hold {
    owner: ContentOwner,
    key: PreparedKey,
    held: Arc<Held>,
    parts: Arc<ProcessorParts>,
    kept: bool,
}

impl Hold {
    /// The key to seal the content with.
    pub(super) fn key(&self) -> &DataKey {
        self.key.key()
    }

    /// The owner is journaled: there is nothing to sweep.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.owners.lock().remove(&self.owner);
        if !self.kept {
            self.parts.uploads_gone.notify_one();
        }
    }
}

impl Engine {
    /// Begins to hold an owner that is not journaled.
    pub(super) fn hold(&self, tenant: TenantId, owner: ContentOwner) -> Result<Hold, Refusal> {
        let key = self.storage.prepare_key(tenant, owner);
        let key = key.map_err(|error| Refusal::new(ErrorCode::StorageUnavailable, format!("no data key: {error}")))?;
        self.uploads.owners.lock().insert(owner);
        Ok(Hold {
            owner,
            key,
            held: Arc::clone(&self.uploads),
            parts: Arc::clone(&self.parts),
            kept: false,
        })
    }
}
