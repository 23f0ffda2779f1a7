//! Artifacts and uploads in object storage, sealed under the data key of the workflow or upload that owns them.
//!
//! An object is a header and frames of a fixed plain size, so that a range can be read without the rest. Each frame is sealed with its place: tenant,
//! owner, artifact, index, and whether it is the last one. A frame that is exchanged, moved, or missing at the end does not open.

mod frames;
mod reader;
mod staging;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, pin_mut};
use gantry_proto::{ArtifactId, TenantId, UploadId, WorkflowId};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _};
use sha2::{Digest as _, Sha256};

use self::frames::{FRAME_PLAIN_BYTES, FrameSealer};
use crate::data_key::DataKey;
use crate::durable_fs;
use crate::keyring::SealError;
use crate::owner::ContentOwner;

pub use self::reader::BlobReader;

/// One call of the object store. Local files take milliseconds; a store that hangs must not hang a task for ever.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// Sealed bytes that go out at once: what an upload holds in memory.
const PART_BYTES: usize = 1 << 20;

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Plain bytes.
    pub size_bytes: u64,
    /// SHA-256 of the plain bytes.
    pub sha256: [u8; 32],
}

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// More bytes came than are allowed. Nothing was stored.
    #[error("larger than the limit of {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// The stream that gave the bytes failed. Nothing was stored.
    #[error("the upload failed: {0}")]
    Source(#[source] io::Error),
    /// There is no such blob.
    #[error("no such blob")]
    NotFound,
    /// The range begins behind the end, or ends before it begins.
    #[error("the range is outside of the {size_bytes} bytes")]
    Range {
        /// The blob's size.
        size_bytes: u64,
    },
    /// The object is cut short, changed, or was written by a newer version.
    #[error("blob {object} is damaged: {detail}")]
    Damaged {
        /// The object.
        object: String,
        /// What is wrong.
        detail: String,
    },
    /// It cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The object store refused, or did not answer in time.
    #[error("object storage: {0}")]
    Store(String),
}

/// Which blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobKey {
    tenant: TenantId,
    owner: ContentOwner,
    id: ArtifactId,
}

impl BlobKey {
    fn path(&self) -> ObjectPath {
        ObjectPath::from(format!("{}/{}", directory(self.tenant, self.owner), self.id))
    }
}

/// Where all objects of an owner are.
fn directory(tenant: TenantId, owner: ContentOwner) -> String {
    match owner {
        ContentOwner::Workflow(_) => format!("{tenant}/{owner}"),
        ContentOwner::Upload(_) => format!("{}/{tenant}/{owner}", staging::UPLOADS),
    }
}

/// Blobs over an object store. Cloning shares it.
#[derive(Debug, Clone)]
pub struct BlobStore {
    store: Arc<dyn ObjectStore>,
    /// Where the objects are files, so that empty directories go with their owner.
    local: Option<PathBuf>,
}

impl BlobStore {
    /// Blobs as files under `dir`, synced before they are reported as stored. Removes what uploads of a crashed process left behind; blocks for a walk
    /// over the directory.
    ///
    /// # Errors
    /// When the directory cannot be made or walked.
    pub fn local(dir: &Path) -> Result<Self, BlobError> {
        let fail = |error: io::Error| BlobError::Store(format!("{}: {error}", dir.display()));
        durable_fs::create_dir_all(dir).map_err(fail)?;
        remove_partial(dir, 0).map_err(fail)?;
        let store = LocalFileSystem::new_with_prefix(dir)
            .map_err(|error| store_error(&error))?
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            local: Some(dir.to_owned()),
        })
    }

    /// Blobs in memory, for a simulation: a store of files answers from threads of its own, at times that no seed decides.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn memory() -> Self {
        Self {
            store: Arc::new(object_store::memory::InMemory::new()),
            local: None,
        }
    }

    /// Stores a stream of plain bytes as blob `id`, replacing what has that id. It is visible whole and durable when this returns, and not at all before
    /// or after an error. Holds about 2 MiB in memory. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] as soon as more than `limit_bytes` came.
    pub async fn put_stream<S>(
        &self,
        tenant: TenantId,
        owner: impl Into<ContentOwner>,
        id: ArtifactId,
        data_key: &DataKey,
        stream: S,
        limit_bytes: u64,
    ) -> Result<BlobInfo, BlobError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let owner = owner.into();
        let key = BlobKey { tenant, owner, id };
        let mut upload = timed(self.store.put_multipart(&key.path())).await?;
        let done = self.upload(&key, data_key, stream, limit_bytes, upload.as_mut()).await;
        if done.is_err()
            && let Err(error) = timed(upload.abort()).await
        {
            tracing::warn!(%error, "an aborted upload left its part behind; it is removed at the next start");
        }
        done
    }

    async fn upload<S>(
        &self,
        key: &BlobKey,
        data_key: &DataKey,
        stream: S,
        limit_bytes: u64,
        upload: &mut dyn MultipartUpload,
    ) -> Result<BlobInfo, BlobError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send,
    {
        let mut sealer = FrameSealer::new(*key, data_key.clone());
        let mut hash = Sha256::new();
        let mut size_bytes = 0u64;
        pin_mut!(stream);
        while let Some(bytes) = stream.next().await {
            let mut bytes = bytes.map_err(BlobError::Source)?;
            size_bytes += bytes.len() as u64;
            if size_bytes > limit_bytes {
                return Err(BlobError::TooLarge { limit_bytes });
            }
            hash.update(&bytes);
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(FRAME_PLAIN_BYTES));
                sealer.push(&piece)?;
                if sealer.sealed_len() >= PART_BYTES {
                    timed(upload.put_part(sealer.take().into())).await?;
                }
            }
        }
        sealer.finish()?;
        timed(upload.put_part(sealer.take().into())).await?;
        timed(upload.complete()).await?;
        Ok(BlobInfo {
            size_bytes,
            sha256: hash.finalize().into(),
        })
    }

    /// Reads a blob, or a range of it; only the frames that the range touches are fetched. An end behind the blob's end is cut to it.
    ///
    /// # Errors
    /// Here when there is no such blob or the range is outside; damage shows in the stream, before any byte of the damaged frame is given out.
    pub async fn get_stream(
        &self,
        tenant: TenantId,
        owner: impl Into<ContentOwner>,
        id: ArtifactId,
        data_key: &DataKey,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<BlobReader, BlobError> {
        let owner = owner.into();
        BlobReader::open(
            Arc::clone(&self.store),
            BlobKey { tenant, owner, id },
            data_key.clone(),
            range,
        )
        .await
    }

    /// Removes all blobs of a workflow. Repeating is harmless.
    ///
    /// # Errors
    /// When the store refuses; some may be left, and repeating is right.
    pub async fn delete_workflow(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(), BlobError> {
        self.delete_all(tenant, workflow.into()).await
    }

    /// Removes all blobs of an upload. Repeating is harmless.
    ///
    /// # Errors
    /// When the store refuses; some may be left, and repeating is right.
    pub async fn delete_upload(&self, tenant: TenantId, upload: UploadId) -> Result<(), BlobError> {
        self.delete_all(tenant, upload.into()).await
    }

    async fn delete_all(&self, tenant: TenantId, owner: ContentOwner) -> Result<(), BlobError> {
        let directory = directory(tenant, owner);
        let prefix = ObjectPath::from(directory.as_str());
        let mut listed = self.store.list(Some(&prefix));
        while let Some(meta) = timed_next(&mut listed).await {
            match timed(self.store.delete(&meta?.location)).await {
                Ok(()) | Err(BlobError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(root) = self.local.clone() else { return Ok(()) };
        let dir = root.join(directory);
        let remove = move || -> io::Result<()> {
            match std::fs::remove_dir_all(&dir) {
                Ok(()) => durable_fs::sync_dir(dir.parent().unwrap_or(&root)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        };
        let done = crate::host::blocking(remove)
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error)));
        done.map_err(|error| BlobError::Store(error.to_string()))
    }
}

/// Uploads in progress have a `#` in their file names, which no object key has.
fn remove_partial(dir: &Path, depth: usize) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            // <tenant>/<workflow>/<artifact>, uploads/<tenant>/<upload>/<artifact>
            if depth < 3 {
                remove_partial(&entry.path(), depth + 1)?;
            }
        } else if entry.file_name().as_encoded_bytes().contains(&b'#') {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn store_error(error: &object_store::Error) -> BlobError {
    match error {
        object_store::Error::NotFound { .. } => BlobError::NotFound,
        other => BlobError::Store(other.to_string()),
    }
}

async fn timed<T>(call: impl Future<Output = object_store::Result<T>>) -> Result<T, BlobError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(done) => done.map_err(|error| store_error(&error)),
        Err(_) => Err(BlobError::Store(format!(
            "no answer within {} s",
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

async fn timed_next<T>(
    stream: &mut (impl Stream<Item = object_store::Result<T>> + Unpin),
) -> Option<Result<T, BlobError>> {
    match tokio::time::timeout(CALL_TIMEOUT, stream.next()).await {
        Ok(next) => next.map(|item| item.map_err(|error| store_error(&error))),
        Err(_) => Some(Err(BlobError::Store(format!(
            "no answer within {} s",
            CALL_TIMEOUT.as_secs()
        )))),
    }
}

#[cfg(test)]
mod tests;
