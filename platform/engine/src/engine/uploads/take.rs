//! Taking uploads into a workflow: their content becomes the workflow's own, under its key, before it is submitted.

use std::collections::BTreeMap;

use gantry_journal::blobs::BlobError;
use gantry_journal::keys;
use gantry_proto::v1::{Artifact, UploadTaken};
use gantry_proto::{ArtifactId, ErrorCode, PartitionId, TenantId, UploadId, WorkflowId, limits};

use super::{Hold, entropy};
use crate::api::{Issue, Refusal, SubmitReceipt};
use crate::core::Rejection;
use crate::core::rows::IdempotencyRow;
use crate::engine::content::blob_refusal;
use crate::engine::{CallRefusal, Engine, not_found, unreadable};
use crate::processor::load::decode;
use crate::read::{self, StoredUpload};

/// Uploads that a workflow to be has taken.
pub(crate) struct Taken {
    /// The id that it is to be submitted under.
    pub(crate) workflow: WorkflowId,
    /// Its copies.
    pub(crate) copies: Vec<UploadTaken>,
    /// Until it is journaled.
    pub(crate) hold: Hold,
}

fn missing(wanted: Vec<(UploadId, String)>) -> Refusal {
    let about = |(upload, path): (UploadId, String)| Issue {
        message: format!("there is no upload `{upload}`"),
        path: Some(path),
        line: None,
        column: None,
    };
    let issues: Vec<Issue> = wanted.into_iter().map(about).collect();
    let first = issues.first().map_or("", |issue| issue.message.as_str());
    let message = format!("{first}: it is unknown, has expired, or was deleted");
    Refusal {
        issues,
        ..Refusal::new(ErrorCode::UploadMissing, message)
            .with_hint("Send the file again (`gantry upload`) and use the new id.")
    }
}

fn is_gone(source: &std::io::Error) -> bool {
    let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<BlobError>());
    matches!(inner, Some(BlobError::NotFound))
}

impl Engine {
    /// What an idempotency key has started already: then there is nothing to take, and the uploads may be gone.
    pub(in crate::engine) async fn known_submission(
        &self,
        tenant: TenantId,
        partition: PartitionId,
        (key, request): ([u8; 32], [u8; 32]),
    ) -> Result<Option<SubmitReceipt>, Refusal> {
        let now_ms = self.parts.clock.now_ms();
        let known = self.blocking(move |storage| {
            let value = storage.store().get(&keys::idempotency(partition, tenant, &key));
            let value = value.map_err(unreadable)?;
            let row = value.map(|value| decode::<IdempotencyRow>("an idempotency row", &value));
            row.transpose().map_err(unreadable)
        });
        match known.await?.filter(|row| row.expires_at_ms > now_ms) {
            None => Ok(None),
            Some(row) if row.request_hash[..] == request => Ok(Some(SubmitReceipt {
                workflow: row.workflow,
                replayed: true,
            })),
            Some(row) => Err(CallRefusal::Rejection(Rejection::IdempotencyMismatch(row.workflow)).into()),
        }
    }

    /// Copies uploads for a workflow of `partition`. Each is checked before any is copied. Dropping the future leaves what a sweep removes.
    pub(in crate::engine) async fn take_uploads(
        &self,
        tenant: TenantId,
        partition: PartitionId,
        wanted: BTreeMap<UploadId, String>,
    ) -> Result<Taken, Refusal> {
        let now_ms = self.parts.clock.now_ms();
        let known = |upload: &UploadId| self.partition(upload.partition()).is_ok();
        let (wanted, mut absent): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(upload, _)| known(upload));
        let found = self.blocking(move |storage| {
            let mut found: Vec<(StoredUpload, String)> = Vec::with_capacity(wanted.len());
            for (upload, path) in wanted {
                match read::upload(storage, tenant, upload, now_ms)? {
                    Some(stored) => found.push((stored, path)),
                    None => absent.push((upload, path)),
                }
            }
            if absent.is_empty() {
                Ok(found)
            } else {
                Err(missing(absent))
            }
        });
        let found = found.await?;
        let bytes = found.iter().map(|(stored, _)| stored.row.size_bytes).sum::<u64>();
        if bytes > limits::SUBMIT_UPLOADS_BYTES_MAX {
            let message = format!(
                "the uploads that the workflow takes have {bytes} bytes; the limit is {}",
                limits::SUBMIT_UPLOADS_BYTES_MAX
            );
            return Err(Refusal::new(ErrorCode::TooLarge, message));
        }
        let workflow = WorkflowId::new(now_ms, partition, entropy()?);
        let hold = self.hold(tenant, workflow.into())?;
        self.blobs.stage(tenant, workflow).await.map_err(blob_refusal)?;
        let mut copies = Vec::with_capacity(found.len());
        for (stored, path) in found {
            let upload = stored.row.id;
            let copied = self.copy(&stored, workflow, &hold).await;
            // It may have ended since it was found.
            let artifact = copied.map_err(|refusal| match refusal.code {
                ErrorCode::NotFound => missing(vec![(upload, path)]),
                _ => refusal,
            })?;
            copies.push(UploadTaken { upload, artifact });
        }
        Ok(Taken { workflow, copies, hold })
    }

    async fn copy(&self, stored: &StoredUpload, workflow: WorkflowId, hold: &Hold) -> Result<Artifact, Refusal> {
        let (tenant, upload) = (stored.row.tenant, stored.row.id);
        let id = ArtifactId::derive(
            workflow.time_ms(),
            workflow.partition(),
            &[b"upload", workflow.as_bytes(), upload.as_bytes()],
        );
        let content = self.open_upload(stored).await?;
        let copied = self
            .blobs
            .put_stream(tenant, workflow, id, hold.key(), content, stored.row.size_bytes)
            .await
            .map_err(|error| match error {
                // Reading it failed: gone under our hands, or damaged.
                BlobError::Source(source) if is_gone(&source) => not_found(),
                other => blob_refusal(other),
            })?;
        if copied.sha256[..] != stored.file.sha256[..] {
            return Err(Refusal::new(
                ErrorCode::StorageUnavailable,
                format!("upload `{upload}` is not what was stored; nothing was submitted"),
            ));
        }
        Ok(Artifact {
            id,
            ..stored.file.clone()
        })
    }

    /// The workflow is journaled: what it took is its own. A marker that stays is removed by a sweep.
    pub(in crate::engine) async fn taken(&self, tenant: TenantId, workflow: WorkflowId, hold: Hold) {
        match self.blobs.unstage(tenant, workflow).await {
            Ok(()) => hold.keep(),
            Err(error) => tracing::warn!(%error, %workflow, "remove the marker of a submission; it is tried again"),
        }
    }
}
