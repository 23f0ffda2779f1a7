//! What a sweep needs to know: which objects may have no owner in the journal. Uploads stand under a prefix of their own, and a workflow whose objects
//! are written before it is submitted has a marker meanwhile.

use std::collections::BTreeSet;
use std::str::FromStr;

use gantry_proto::{TenantId, UploadId, WorkflowId};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStoreExt as _, PutPayload};

use super::{BlobError, BlobStore, timed, timed_next};

pub(super) const UPLOADS: &str = "uploads";
const STAGED: &str = "staged";

/// Owners that one listing names: bounds its memory. What is left out is found once these are gone.
const LISTED_MAX: usize = 100_000;

fn marker(tenant: TenantId, workflow: WorkflowId) -> ObjectPath {
    ObjectPath::from(format!("{STAGED}/{tenant}/{workflow}"))
}

impl BlobStore {
    /// Notes, durably, that objects of a workflow are about to be written which is not submitted yet.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn stage(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(), BlobError> {
        timed(self.store.put(&marker(tenant, workflow), PutPayload::new()))
            .await
            .map(drop)
    }

    /// Forgets what [`Self::stage`] noted. Repeating is harmless.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn unstage(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(), BlobError> {
        match timed(self.store.delete(&marker(tenant, workflow))).await {
            Err(BlobError::NotFound) => Ok(()),
            other => other,
        }
    }

    /// Workflows that are noted as staged.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn staged(&self) -> Result<BTreeSet<(TenantId, WorkflowId)>, BlobError> {
        self.owners(STAGED).await
    }

    /// Uploads that have an object.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn uploads(&self) -> Result<BTreeSet<(TenantId, UploadId)>, BlobError> {
        self.owners(UPLOADS).await
    }

    /// `<prefix>/<tenant>/<id>...`; what has another form is not ours.
    async fn owners<T: FromStr + Ord>(&self, prefix: &str) -> Result<BTreeSet<(TenantId, T)>, BlobError> {
        let prefix = ObjectPath::from(prefix);
        let mut listed = self.store.list(Some(&prefix));
        let mut owners = BTreeSet::new();
        while let Some(meta) = timed_next(&mut listed).await {
            let location = meta?.location;
            let mut parts = location.parts().skip(1);
            let tenant = parts.next().and_then(|part| part.as_ref().parse().ok());
            let owner = parts.next().and_then(|part| part.as_ref().parse().ok());
            owners.extend(tenant.zip(owner));
            if owners.len() == LISTED_MAX {
                break;
            }
        }
        Ok(owners)
    }
}
