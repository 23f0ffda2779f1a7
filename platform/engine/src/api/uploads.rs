//! What gateways call about uploads: files that clients store for workflows to come.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use gantry_proto::{PrincipalId, TenantId, UploadId};
use serde::Serialize;
use utoipa::ToSchema;

use super::backend::{Caller, Refusal};

/// A file to store.
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// Who sends it.
    pub caller: Caller,
    /// What people call it: 1 to 255 bytes without control characters.
    pub name: String,
    /// Media type, as the sender says.
    pub content_type: Option<String>,
    /// How long it is kept; `UPLOAD_TTL_MS_MAX` when absent.
    pub ttl_ms: Option<u64>,
    /// Makes a repeated sending return the first one's upload, as long as that is kept.
    pub idempotency_key: Option<String>,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct UploadView {
    /// Id, `upl_...`: what definitions name.
    #[schema(value_type = String)]
    pub id: UploadId,
    /// What people call it.
    pub name: String,
    /// Size.
    pub size_bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Media type, as the sender said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Who sent it.
    #[schema(value_type = String)]
    pub created_by: PrincipalId,
    /// When it was stored.
    pub created_at_ms: u64,
    /// When it is forgotten. Workflows that took it keep their copies.
    pub expires_at_ms: u64,
}

/// What became of a file that was sent.
#[derive(Debug, Clone)]
pub struct UploadReceipt {
    /// The upload, durable by now.
    pub upload: UploadView,
    /// The idempotency key was known: this is what was stored first.
    pub replayed: bool,
}

/// An upload, opened for reading.
pub struct UploadBody {
    /// What it is.
    pub upload: UploadView,
    /// Its bytes, decrypted.
    pub stream: BoxStream<'static, std::io::Result<Bytes>>,
}

/// Uploads of a tenant. What has expired is not found.
#[async_trait::async_trait]
pub trait Uploads: Send + Sync + 'static {
    /// Stores a file; nothing of it stays when `data` fails, is too large, or the future is dropped.
    async fn upload(
        &self,
        new: NewUpload,
        data: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<UploadReceipt, Refusal>;

    /// All that are kept, newest first; their number is bounded.
    async fn uploads(&self, tenant: TenantId) -> Result<Vec<UploadView>, Refusal>;

    /// One.
    async fn upload_info(&self, tenant: TenantId, upload: UploadId) -> Result<UploadView, Refusal>;

    /// Opens one.
    async fn upload_content(&self, tenant: TenantId, upload: UploadId) -> Result<UploadBody, Refusal>;

    /// Ends one: its content is erased. Workflows that took it keep their copies.
    async fn delete_upload(&self, caller: Caller, upload: UploadId) -> Result<(), Refusal>;
}
