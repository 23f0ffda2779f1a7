//! A file was stored for workflows to come.

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload};
use gantry_proto::{ArtifactId, ErrorCode, PrincipalId, TenantId, UploadId, limits};

use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};

/// A file was stored; its content is durable and sealed, and nothing refers to it yet.
#[derive(Debug, Clone)]
pub struct CreateUpload {
    /// Whose.
    pub tenant: TenantId,
    /// By whom.
    pub by: PrincipalId,
    /// Its id.
    pub upload: UploadId,
    /// The object that holds it.
    pub content: ArtifactId,
    /// Its size.
    pub size_bytes: u64,
    /// How long it is kept.
    pub ttl_ms: u64,
    /// Name, digest and media type, to be sealed.
    pub payload: Payload,
    /// Hash of the idempotency key, and of what was sent with it.
    pub idempotency: Option<([u8; 32], [u8; 32])>,
}

impl CreateUpload {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let refused = |code, message: String| Ok(Err(Rejection::Refused { code, message }));
        let (mut count, mut bytes) = (0usize, self.size_bytes);
        // Past its time one is only not yet swept.
        let held = batch.state.uploads.values();
        for row in held.filter(|row| row.tenant == self.tenant && row.expires_at_ms > batch.now_ms) {
            if let (Some((key, request)), Some(known)) = (&self.idempotency, &row.key_hash)
                && known[..] == key[..]
            {
                if row.request_hash.as_deref() == Some(&request[..]) {
                    let upload = row.id;
                    return Ok(Ok(Reply::Uploaded { upload, replayed: true }));
                }
                let message = format!("the idempotency key was used for another file, which is {}", row.id);
                return refused(ErrorCode::IdempotencyMismatch, message);
            }
            count += 1;
            bytes = bytes.saturating_add(row.size_bytes);
        }
        if count >= limits::UPLOADS_PER_TENANT_MAX || bytes > limits::UPLOADS_PER_TENANT_BYTES_MAX {
            let message = format!(
                "{count} uploads are kept, and with this one they would have {bytes} bytes; at most {} and {} bytes are kept",
                limits::UPLOADS_PER_TENANT_MAX,
                limits::UPLOADS_PER_TENANT_BYTES_MAX
            );
            return refused(ErrorCode::UploadQuota, message);
        }
        if batch.state.uploads.contains_key(&self.upload) {
            let message = "the id was taken in the same millisecond; try again".to_owned();
            return refused(ErrorCode::Overloaded, message);
        }
        let event = v1::UploadCreated {
            upload: self.upload,
            content: self.content,
            size_bytes: self.size_bytes,
            by: self.by,
            expires_at_ms: batch.now_ms.saturating_add(self.ttl_ms),
            key_hash: self.idempotency.map(|(key, _)| Bytes::copy_from_slice(&key)),
            request_hash: self.idempotency.map(|(_, request)| Bytes::copy_from_slice(&request)),
        };
        batch.emit(self.tenant, None, Kind::UploadCreated(event), Some(self.payload))?;
        Ok(Ok(Reply::Uploaded {
            upload: self.upload,
            replayed: false,
        }))
    }
}
