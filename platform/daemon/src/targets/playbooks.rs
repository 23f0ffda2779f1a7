//! Playbooks for the engine, out of the directory.

use std::sync::Arc;

use bytes::Bytes;
use gantry_directory::{Directory, ManageError};
use gantry_engine::api::{PlaybookSource, Refusal};
use gantry_proto::{ErrorCode, TenantId};

/// Looks playbooks up in the directory.
pub(super) struct DirectoryPlaybooks(pub(super) Arc<dyn Directory>);

#[async_trait::async_trait]
impl PlaybookSource for DirectoryPlaybooks {
    async fn playbook(&self, tenant: TenantId, name: &str, version: Option<u32>) -> Result<(Bytes, u32), Refusal> {
        let said = |error: ManageError| match error {
            ManageError::NotFound => Refusal::new(
                ErrorCode::NotFound,
                format!("there is no playbook `{name}`, or it has no such version"),
            ),
            other => Refusal::new(ErrorCode::StorageUnavailable, other.to_string()),
        };
        let playbook = self.0.playbook(tenant, name).await.map_err(said)?;
        if playbook.archived_at_ms.is_some() {
            let message = format!("playbook `{name}` is archived and starts nothing");
            return Err(Refusal::new(ErrorCode::Conflict, message).with_hint("restore it first"));
        }
        let (found, source) = self.0.playbook_source(tenant, name, version).await.map_err(said)?;
        Ok((Bytes::from(source), found.version))
    }
}
