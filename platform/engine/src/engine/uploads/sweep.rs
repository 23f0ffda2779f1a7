//! Objects that no row speaks for are removed: of uploads that ended, and of what a crash or a refusal left half done.

use std::sync::Arc;
use std::time::Duration;

use gantry_journal::blobs::{BlobError, BlobStore};
use gantry_journal::{ContentOwner, ReadError, keys};
use tokio_util::sync::CancellationToken;

use super::Held;
use crate::processor::ProcessorParts;

/// What a sweep could not remove is tried again after so long, whatever else happens.
const AGAIN: Duration = Duration::from_hours(1);

#[derive(Debug, thiserror::Error)]
enum SweepError {
    #[error(transparent)]
    Blobs(#[from] BlobError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("a read ended unexpectedly: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Sweeps at the start, whenever content was given up, and once an hour, until shutdown.
pub(crate) async fn sweep(
    parts: Arc<ProcessorParts>,
    blobs: Arc<BlobStore>,
    held: Arc<Held>,
    shutdown: CancellationToken,
) {
    let rounds = async {
        loop {
            let woken = parts.uploads_gone.notified();
            if let Err(error) = once(&parts, &blobs, &held).await {
                tracing::warn!(%error, "sweep objects that belong to nothing; they are tried again");
            }
            // A wake-up during the sweep is kept: what ended meanwhile may not have been listed.
            let _ = tokio::time::timeout(AGAIN, woken).await;
        }
    };
    // Cancel safe: what is left is found by the next sweep.
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = rounds => {}
    }
}

async fn once(parts: &Arc<ProcessorParts>, blobs: &BlobStore, held: &Held) -> Result<(), SweepError> {
    // Listed first, asked second: what is not held any more by then has its row, or will never have one.
    for (tenant, upload) in blobs.uploads().await? {
        let key = keys::upload(upload.partition(), tenant, upload);
        if !held.contains(ContentOwner::Upload(upload)) && !exists(parts, key).await? {
            blobs.delete_upload(tenant, upload).await?;
        }
    }
    for (tenant, workflow) in blobs.staged().await? {
        if held.contains(ContentOwner::Workflow(workflow)) {
            continue;
        }
        if !exists(parts, keys::workflow(workflow.partition(), tenant, workflow)).await? {
            blobs.delete_workflow(tenant, workflow).await?;
        }
        blobs.unstage(tenant, workflow).await?;
    }
    Ok(())
}

async fn exists(parts: &Arc<ProcessorParts>, key: bytes::Bytes) -> Result<bool, SweepError> {
    let storage = Arc::clone(&parts.storage);
    let found = gantry_journal::host::blocking(move || storage.store().get(&key)).await??;
    Ok(found.is_some())
}
