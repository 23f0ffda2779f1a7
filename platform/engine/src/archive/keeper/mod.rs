//! The task that keeps history: seals what has ended, compacts what was sealed, removes what has been kept long enough, finishes what an erasure began, and
//! sweeps away objects that count for nothing.
//!
//! One round after the other, one partition and tenant at a time: memory and disk load are those of one object. Every step can be cut off anywhere: an
//! object without a row in the manifest counts for nothing, and what is to be destroyed is marked in the batch that decided so.

mod compact;
mod destroy;
mod expire;
mod seal;
mod sweep;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gantry_journal::archive::{FileError, ObjectError, SourceError};
use gantry_journal::keys::{self, Kind};
use gantry_journal::{BlobError, Direction, Epoch, ErasureError, ReadError, SegmentError, Store, Write};
use gantry_proto::{PartitionId, TenantId, limits};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::ArchiveParts;
use crate::Engine;
use crate::api::Refusal;
use crate::processor::{Manifest, Message};

/// Why a round was not finished. The next one goes on where it stood.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Rows cannot be made.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// An object cannot be stored or read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A file cannot be written or read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Artifacts cannot be removed.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Output cannot be removed.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The list of erasures cannot be written.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
    /// The engine refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The partition has passed to another owner, or is being recovered.
    #[error("partition {0} is not owned under the epoch that was worked with")]
    NotOwned(PartitionId),
    /// The keeper is to stop.
    #[error("stopped")]
    Stopped,
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Round {
    /// Workflows that were sealed.
    pub sealed: u64,
    /// Objects that were written, compacted ones included.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that others took the place of.
    pub retired: u64,
    /// Workflows that were removed.
    pub removed: u64,
    /// Workflows of which the last traces were destroyed.
    pub destroyed: u64,
    /// Objects that were swept away.
    pub swept: u64,
}

/// The running task. Whoever started it stops it.
#[derive(Debug)]
pub struct Keeper {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts rounds in the interval that the engine's archive is configured with, the first one now.
    #[must_use]
    pub fn start(engine: Arc<Engine>) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let Some(parts) = engine.archive_parts() else { return };
            let mut first = true;
            while !stopped.is_cancelled() {
                match House::new(&engine, &parts, &stopped).round(first).await {
                    Ok(round) => {
                        first = false;
                        if round != Round::default() {
                            tracing::info!(?round, "kept history");
                        }
                    }
                    Err(KeepError::Stopped) => return,
                    Err(error) => {
                        // What it had yet to look after is forgotten with it: the next one looks everywhere.
                        first = true;
                        tracing::warn!(%error, "keeping history was interrupted; the next round goes on");
                    }
                }
                let pause = tokio::time::sleep(Duration::from_millis(parts.config.interval_ms));
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = pause => {}
                }
            }
        });
        Self { stop, task }
    }

    /// Ends the round that runs at its next step, and waits for that.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            tracing::error!("the keeper of history panicked");
        }
    }
}

impl Engine {
    /// One round of keeping history, as [`Keeper`] does in its interval: for whoever cannot wait, and for tests.
    ///
    /// # Errors
    /// What stopped it; the next one goes on.
    pub async fn keep_history(&self) -> Result<Round, KeepError> {
        let Some(parts) = self.archive_parts() else {
            return Ok(Round::default());
        };
        let stop = CancellationToken::new();
        House::new(self, &parts, &stop).round(true).await
    }
}

/// One round at work.
pub(crate) struct House<'a> {
    pub(super) engine: &'a Engine,
    pub(super) parts: &'a ArchiveParts,
    stop: &'a CancellationToken,
    pub(super) now_ms: u64,
    pub(super) done: Round,
    /// Where this round removed workflows.
    pub(super) removed: BTreeSet<(PartitionId, TenantId)>,
}

impl<'a> House<'a> {
    pub(crate) fn new(engine: &'a Engine, parts: &'a ArchiveParts, stop: &'a CancellationToken) -> Self {
        Self {
            engine,
            parts,
            stop,
            now_ms: engine.now_ms(),
            done: Round::default(),
            removed: BTreeSet::new(),
        }
    }

    /// Does all that is due. `first`: it also looks everywhere for what was left undone, by a process before or a round that was interrupted.
    pub(super) async fn round(mut self, first: bool) -> Result<Round, KeepError> {
        // Erasure comes first: nothing is to be written about what must be gone.
        self.finish_destruction().await?;
        if first {
            self.repeat_erasures().await?;
        }
        for partition in self.engine.all_partitions() {
            for tenant in self.tenants(partition, Kind::Ended).await? {
                self.seal(partition, tenant).await?;
                self.expire(partition, tenant).await?;
            }
            for tenant in self.tenants(partition, Kind::Archive).await? {
                self.compact(partition, tenant, first).await?;
            }
        }
        self.finish_destruction().await?;
        self.sweep(first).await?;
        Ok(self.done)
    }

    /// Tenants that have keys of a kind in a partition, found by skipping from one to the next.
    async fn tenants(&self, partition: PartitionId, kind: Kind) -> Result<Vec<TenantId>, KeepError> {
        self.blocking(move |store| {
            let range = keys::all_of(kind, partition);
            let (mut from, mut tenants) = (range.from, Vec::new());
            while let Some((key, _)) = store.scan(&from, &range.to, Direction::Forward, 1)?.into_iter().next() {
                let Some(tenant) = keys::tenant_in(&key) else { break };
                tenants.push(tenant);
                from = keys::tenant_of(kind, partition, tenant).to;
            }
            Ok(tenants)
        })
        .await
    }

    /// Reads off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, KeepError> + Send + 'static,
    ) -> Result<T, KeepError> {
        if self.stop.is_cancelled() {
            return Err(KeepError::Stopped);
        }
        self.engine
            .off_thread(move |storage| read(storage.store().as_ref()))
            .await
    }

    /// The epoch under which a partition is owned now.
    pub(super) fn epoch(&self, partition: PartitionId) -> Result<Epoch, KeepError> {
        let shared = self.engine.shared_of(partition);
        let epoch = shared.map_or(0, |shared| shared.epoch.load(Ordering::Acquire));
        if epoch == 0 {
            return Err(KeepError::NotOwned(partition));
        }
        Ok(Epoch(epoch))
    }

    /// Writes manifest rows, if the partition is still owned under `epoch`. Returns when they are durable.
    pub(super) async fn write(
        &self,
        partition: PartitionId,
        epoch: Epoch,
        writes: Vec<Write>,
    ) -> Result<(), KeepError> {
        let (reply, done) = oneshot::channel();
        let message = Message::Manifest(Manifest { epoch, writes, reply });
        self.engine.post(partition, message)?;
        done.await.map_err(|_| KeepError::NotOwned(partition))
    }

    /// Waits as long as writing `bytes` may take.
    pub(super) async fn pace(&self, bytes: usize) -> Result<(), KeepError> {
        let pause = Duration::from_millis(bytes as u64 * 1_000 / limits::SEAL_BYTES_PER_S);
        tokio::select! {
            () = self.stop.cancelled() => Err(KeepError::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
