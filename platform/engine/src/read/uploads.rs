//! Uploads of a tenant.

use gantry_journal::Direction;
use gantry_journal::keys;
use gantry_proto::v1::Artifact;
use gantry_proto::{PartitionId, TenantId, UploadId, limits};

use super::content;
use crate::api::{Refusal, UploadView};
use crate::core::rows::UploadRow;
use crate::engine::unreadable;
use crate::processor::load::{Records, decode};
use crate::processor::storage::Storage;

/// An upload with what its sender wrote.
#[derive(Debug, Clone)]
pub(crate) struct StoredUpload {
    pub(crate) row: UploadRow,
    /// Its name, digest and media type.
    pub(crate) file: Artifact,
}

impl StoredUpload {
    fn open(row: UploadRow, records: &mut Records<'_>) -> Result<Option<Self>, Refusal> {
        let payload = records.payload(row.created_seq).map_err(content)?;
        let file = payload.and_then(|payload| payload.artifacts.into_iter().next());
        Ok(file.map(|file| Self { row, file }))
    }

    pub(crate) fn view(&self) -> UploadView {
        UploadView {
            id: self.row.id,
            name: self.file.name.clone(),
            size_bytes: self.row.size_bytes,
            sha256: hex::encode(&self.file.sha256),
            content_type: self.file.content_type.clone(),
            created_by: self.row.by,
            created_at_ms: self.row.created_at_ms,
            expires_at_ms: self.row.expires_at_ms,
        }
    }
}

/// All uploads of a tenant that have not expired, newest first.
pub(crate) fn uploads(
    storage: &Storage,
    partition: PartitionId,
    tenant: TenantId,
    now_ms: u64,
) -> Result<Vec<StoredUpload>, Refusal> {
    let range = keys::uploads_of(partition, tenant);
    // Expired ones that are not swept yet may stand beside as many live ones.
    let limit = 2 * limits::UPLOADS_PER_TENANT_MAX;
    let pairs = storage.store().scan(&range.from, &range.to, Direction::Reverse, limit);
    let mut records = Records::new(storage, partition);
    let mut found = Vec::new();
    for (_, value) in pairs.map_err(unreadable)? {
        let row: UploadRow = decode("an upload row", &value).map_err(unreadable)?;
        if row.expires_at_ms > now_ms {
            found.extend(StoredUpload::open(row, &mut records)?);
        }
    }
    Ok(found)
}

/// One upload that has not expired.
pub(crate) fn upload(
    storage: &Storage,
    tenant: TenantId,
    id: UploadId,
    now_ms: u64,
) -> Result<Option<StoredUpload>, Refusal> {
    let key = keys::upload(id.partition(), tenant, id);
    let Some(value) = storage.store().get(&key).map_err(unreadable)? else {
        return Ok(None);
    };
    let row: UploadRow = decode("an upload row", &value).map_err(unreadable)?;
    if row.expires_at_ms <= now_ms {
        return Ok(None);
    }
    StoredUpload::open(row, &mut Records::new(storage, id.partition()))
}
