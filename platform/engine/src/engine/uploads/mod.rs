//! Uploads: a file is sealed and durable before a record says that it is there, and its object goes after the record that ends it.

mod carry;
mod hold;
mod sweep;
mod take;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use gantry_proto::v1::{Artifact, Payload};
use gantry_proto::{ArtifactId, ErrorCode, PartitionId, TenantId, UploadId, limits};

pub(super) use self::carry::Copied;
pub(super) use self::hold::Held;
use self::hold::Hold;
pub(super) use self::sweep::sweep;
pub(super) use self::take::Taken;
use super::content::blob_refusal;
use super::{CallRefusal, Engine, not_found, unexpected};
use crate::api::{Caller, NewUpload, Refusal, UploadBody, UploadReceipt, UploadView, Uploads};
use crate::core::commands::{CreateUpload, DeleteUpload};
use crate::core::{Rejection, Reply};
use crate::read;

/// Name and media type of an upload.
const WORD_BYTES_MAX: usize = 255;
/// Shortest life that can be asked for.
const TTL_MS_MIN: u64 = 1_000;

fn check(new: &NewUpload) -> Result<u64, Refusal> {
    let invalid = |message: String| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let word = |text: &str| !text.is_empty() && text.len() <= WORD_BYTES_MAX && !text.chars().any(char::is_control);
    if !word(&new.name) {
        return invalid(format!(
            "the name of an upload has 1 to {WORD_BYTES_MAX} bytes and no control characters"
        ));
    }
    if new.content_type.as_deref().is_some_and(|text| !word(text)) {
        return invalid(format!("a media type has at most {WORD_BYTES_MAX} bytes"));
    }
    let key = new.idempotency_key.as_ref();
    if key.is_some_and(|key| key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX) {
        let max = limits::IDEMPOTENCY_KEY_BYTES_MAX;
        return invalid(format!("an idempotency key has 1 to {max} bytes"));
    }
    let ttl_ms = new.ttl_ms.unwrap_or(limits::UPLOAD_TTL_MS_MAX);
    if !(TTL_MS_MIN..=limits::UPLOAD_TTL_MS_MAX).contains(&ttl_ms) {
        let max = limits::UPLOAD_TTL_MS_MAX;
        return invalid(format!("an upload is kept for {TTL_MS_MIN} to {max} ms"));
    }
    Ok(ttl_ms)
}

/// The same file has the same hash: name, media type and content.
fn request_hash(new: &NewUpload, sha256: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let content_type = new.content_type.as_deref().unwrap_or_default();
    for part in [new.name.as_bytes(), content_type.as_bytes(), sha256] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

pub(super) fn entropy() -> Result<u64, Refusal> {
    gantry_journal::host::entropy()
        .map_err(|error| Refusal::new(ErrorCode::Internal, format!("no randomness: {error}")))
}

impl Engine {
    /// The partition of all uploads of a tenant: their number and size are bounded together.
    fn uploads_home(&self, tenant: TenantId) -> PartitionId {
        PartitionId::of(tenant, "uploads", &[], self.partition_count())
    }

    /// An upload that is kept.
    async fn find_upload(&self, tenant: TenantId, upload: UploadId) -> Result<read::StoredUpload, Refusal> {
        self.partition(upload.partition())?;
        let now_ms = self.parts.clock.now_ms();
        self.blocking(move |storage| read::upload(storage, tenant, upload, now_ms))
            .await?
            .ok_or_else(not_found)
    }

    async fn open_upload(
        &self,
        stored: &read::StoredUpload,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Refusal> {
        let (tenant, upload) = (stored.row.tenant, stored.row.id);
        let key = self.data_key(tenant, upload).await?;
        let stream = self
            .blobs
            .get_stream(tenant, upload, stored.row.content, &key, None)
            .await;
        let stream = stream.map_err(blob_refusal)?;
        Ok(stream.map(|part| part.map_err(std::io::Error::other)).boxed())
    }

    /// Sends a command whose content is held: the hold outlives the command's fate, also when the caller does not wait for it.
    pub(super) async fn call_holding(
        &self,
        partition: PartitionId,
        command: impl Into<crate::core::Command>,
        hold: Hold,
    ) -> Result<(Reply, Hold), CallRefusal> {
        let call = self.send_later(partition, command.into())?;
        let task = self.processors.spawn(async move { (call.await, hold) });
        let (answer, hold) = task.await.map_err(|_| CallRefusal::Refusal(super::stopped()))?;
        answer.map(|reply| (reply, hold))
    }

    async fn room(&self, tenant: TenantId) -> Result<(), Refusal> {
        let (partition, now_ms) = (self.uploads_home(tenant), self.parts.clock.now_ms());
        let held = self
            .blocking(move |storage| read::uploads(storage, partition, tenant, now_ms))
            .await?;
        if held.len() >= limits::UPLOADS_PER_TENANT_MAX {
            let message = format!("{} uploads are kept, which is the limit", held.len());
            return Err(quota(Refusal::new(ErrorCode::UploadQuota, message)));
        }
        Ok(())
    }
}

fn quota(refusal: Refusal) -> Refusal {
    if refusal.code == ErrorCode::UploadQuota {
        refusal.with_hint("Delete what is not needed (`gantry upload rm`), or let uploads expire sooner.")
    } else {
        refusal
    }
}

#[async_trait::async_trait]
impl Uploads for Engine {
    async fn upload(
        &self,
        new: NewUpload,
        data: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<UploadReceipt, Refusal> {
        let ttl_ms = check(&new)?;
        let _slot = self.uploads.slots.try_acquire().map_err(|_| {
            let max = limits::UPLOADS_AT_ONCE_MAX;
            Refusal::new(
                ErrorCode::Overloaded,
                format!("{max} uploads are being received already"),
            )
        })?;
        let tenant = new.caller.tenant;
        // Before a gigabyte comes for nothing; decided for good when it is recorded.
        self.room(tenant).await?;
        let partition = self.uploads_home(tenant);
        let now_ms = self.parts.clock.now_ms();
        let id = UploadId::new(now_ms, partition, entropy()?);
        let content = ArtifactId::new(now_ms, partition, entropy()?);
        let hold = self.hold(tenant, id.into())?;
        let stored = self
            .blobs
            .put_stream(tenant, id, content, hold.key(), data, limits::UPLOAD_BYTES_MAX)
            .await
            .map_err(blob_refusal)?;
        let hash = |key: &String| *blake3::hash(key.as_bytes()).as_bytes();
        let key_hash = new.idempotency_key.as_ref().map(hash);
        let command = CreateUpload {
            tenant,
            by: new.caller.principal,
            upload: id,
            content,
            size_bytes: stored.size_bytes,
            ttl_ms,
            idempotency: key_hash.map(|key| (key, request_hash(&new, &stored.sha256))),
            payload: Payload {
                artifacts: vec![Artifact {
                    id: content,
                    name: new.name,
                    size_bytes: stored.size_bytes,
                    sha256: Bytes::copy_from_slice(&stored.sha256),
                    content_type: new.content_type,
                }],
                ..Payload::default()
            },
        };
        let answer = self.call_holding(partition, command, hold).await;
        let (reply, hold) = answer.map_err(|refusal| quota(refusal.into()))?;
        let Reply::Uploaded { upload, replayed } = reply else {
            return Err(unexpected(&reply));
        };
        if !replayed {
            hold.keep();
        }
        let upload = self.find_upload(tenant, upload).await?.view();
        Ok(UploadReceipt { upload, replayed })
    }

    async fn uploads(&self, tenant: TenantId) -> Result<Vec<UploadView>, Refusal> {
        let (partition, now_ms) = (self.uploads_home(tenant), self.parts.clock.now_ms());
        let found = self
            .blocking(move |storage| read::uploads(storage, partition, tenant, now_ms))
            .await?;
        Ok(found.iter().map(read::StoredUpload::view).collect())
    }

    async fn upload_info(&self, tenant: TenantId, upload: UploadId) -> Result<UploadView, Refusal> {
        Ok(self.find_upload(tenant, upload).await?.view())
    }

    async fn upload_content(&self, tenant: TenantId, upload: UploadId) -> Result<UploadBody, Refusal> {
        let stored = self.find_upload(tenant, upload).await?;
        Ok(UploadBody {
            stream: self.open_upload(&stored).await?,
            upload: stored.view(),
        })
    }

    async fn delete_upload(&self, caller: Caller, upload: UploadId) -> Result<(), Refusal> {
        let command = DeleteUpload {
            tenant: caller.tenant,
            by: caller.principal,
            upload,
        };
        match self.call(upload.partition(), command).await {
            Ok(_) => Ok(()),
            Err(CallRefusal::Rejection(Rejection::NotFound)) => Err(not_found()),
            Err(other) => Err(other.into()),
        }
    }
}
