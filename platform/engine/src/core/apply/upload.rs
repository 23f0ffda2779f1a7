//! Records about an upload.

use gantry_proto::{UploadId, v1};

use super::{ApplyError, Place};
use crate::core::rows::UploadRow;
use crate::core::state::{PartitionState, Timer};

pub(super) fn upload_created(
    state: &mut PartitionState,
    place: Place,
    event: &v1::UploadCreated,
) -> Result<(), ApplyError> {
    if state.uploads.contains_key(&event.upload) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "the upload exists",
        });
    }
    state.dirty.uploads.insert((place.tenant, event.upload));
    state.insert_upload(UploadRow {
        id: event.upload,
        tenant: place.tenant,
        content: event.content,
        size_bytes: event.size_bytes,
        by: event.by,
        created_at_ms: place.at_ms,
        expires_at_ms: event.expires_at_ms,
        created_seq: place.seq,
        key_hash: event.key_hash.clone(),
        request_hash: event.request_hash.clone(),
    });
    Ok(())
}

/// Deleted or expired: nothing of it stays.
pub(super) fn upload_gone(state: &mut PartitionState, place: Place, upload: UploadId) -> Result<(), ApplyError> {
    let known = state.uploads.remove(&upload).filter(|row| row.tenant == place.tenant);
    let Some(row) = known else {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "upload",
        });
    };
    state.timers.remove(&(row.expires_at_ms, Timer::Upload(upload)));
    state.dirty.uploads.insert((place.tenant, upload));
    Ok(())
}
