//! The store of all workflows' output, as async callers see it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_proto::limits::SEGMENT_BYTES_MAX;
use gantry_proto::{TenantId, WorkflowId};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::file::io_error;
use super::frame::StreamId;
use super::handles::Handles;
use super::log::{Progress, WorkflowLog};
use super::{Chunk, SegmentError, StreamKey};
use crate::data_key::DataKey;
use crate::durable_fs;

/// Blocking file operations at once. Two disks' worth of queue; more threads would only wait for the same device.
const IO_THREADS_MAX: usize = 16;
/// Workflows whose index is kept in memory. Past it, the longest unused one with nothing to sync is forgotten and read again when needed.
const WORKFLOWS_MAX: usize = 4_096;
/// Candidates looked at when one must be forgotten: bounds the time under the lock.
const FORGET_CANDIDATES: usize = 16;

struct Inner {
    root: PathBuf,
    segment_bytes_max: u64,
    handles: Handles,
    logs: Mutex<LruCache<(TenantId, WorkflowId), Arc<WorkflowLog>>>,
    io: Arc<Semaphore>,
    syncs: AtomicU64,
    tasks: TaskTracker,
}

/// Live output on disk; see the module. Cloning shares it.
///
/// Operations run on worker threads and are completed there even when the caller's future is dropped: a dropped append may have been stored, a repeat
/// is harmless. [`Self::close`] waits for them.
#[derive(Clone)]
pub struct SegmentStore {
    inner: Arc<Inner>,
}

impl fmt::Debug for SegmentStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentStore")
            .field("root", &self.inner.root)
            .finish_non_exhaustive()
    }
}

impl SegmentStore {
    /// Opens or makes the directory. Files are read when a workflow is first used.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self, SegmentError> {
        Self::open_with(dir, SEGMENT_BYTES_MAX)
    }

    /// As [`Self::open`], with files rolled at `segment_bytes_max` instead of [`SEGMENT_BYTES_MAX`], which stays the upper bound.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn open_with(dir: &Path, segment_bytes_max: u64) -> Result<Self, SegmentError> {
        durable_fs::create_dir_all(dir).map_err(|error| io_error(dir, &error))?;
        let inner = Inner {
            root: dir.to_owned(),
            segment_bytes_max,
            handles: Handles::new(),
            // Bounded by `log`, not by the cache: it would forget logs that are in use.
            logs: Mutex::new(LruCache::unbounded()),
            io: Arc::new(Semaphore::new(IO_THREADS_MAX)),
            syncs: AtomicU64::new(0),
            tasks: TaskTracker::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Syncs that [`Self::durable`] has made so far; fewer than its calls when they share.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.inner.syncs.load(Ordering::Relaxed)
    }

    /// Waits for what runs and refuses what comes later.
    pub async fn close(&self) {
        self.inner.io.close();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// Stores the chunks that are not stored yet; those that are, are dropped. Returns when they are written, not yet durable: see [`Self::durable`].
    ///
    /// # Errors
    /// [`SegmentError::Gap`] and [`SegmentError::ChunkTooLarge`] store nothing; after [`SegmentError::Io`] a part may be stored, and repeating is right.
    pub async fn append(&self, key: &StreamKey, data_key: &DataKey, chunks: Vec<Chunk>) -> Result<(), SegmentError> {
        let (key, data_key) = (*key, data_key.clone());
        self.run(key.tenant, key.workflow, move |inner, log| {
            log.append(&inner.handles, &key, &data_key, &chunks)
        })
        .await
    }

    /// Makes durable what was appended before the call, and returns the highest durable sequence, 0 for none. Callers of one workflow share a sync.
    ///
    /// # Errors
    /// After [`SegmentError::Unsynced`] the workflow takes no more output until the process is restarted.
    pub async fn durable(&self, key: &StreamKey) -> Result<u64, SegmentError> {
        let id = StreamId::from(key);
        let log = self.log(key.tenant, key.workflow);
        let target = self.run_on(Arc::clone(&log), move |_, log| log.target(id)).await?;
        let _turn = log.syncing.lock().await;
        self.run_on(Arc::clone(&log), move |inner, log| {
            log.sync(&inner.handles, &inner.syncs, target)
        })
        .await
    }

    /// Highest sequence that is written, durable or not; 0 for none.
    ///
    /// The first use of a workflow reads its files in the calling thread: async callers call [`Self::load`] before. When they cannot be read, this is 0,
    /// and every operation that stores or serves says why.
    #[must_use]
    pub fn high_water(&self, key: &StreamKey) -> u64 {
        self.progress(key).written
    }

    /// Whether the stream has a durable end marker. Blocks as [`Self::high_water`].
    #[must_use]
    pub fn is_finished(&self, key: &StreamKey) -> bool {
        self.progress(key).finished.is_some()
    }

    /// Highest sequence that readers get, and the last one of the stream if it has ended.
    ///
    /// # Errors
    /// When the workflow's files cannot be read.
    pub async fn stream_end(&self, key: &StreamKey) -> Result<(u64, Option<u64>), SegmentError> {
        let id = StreamId::from(key);
        let progress = self
            .run(key.tenant, key.workflow, move |_, log| log.progress(id))
            .await?;
        Ok((progress.durable, progress.finished))
    }

    /// Reads the workflow's files if that was not done yet.
    ///
    /// # Errors
    /// When they cannot be read or are damaged.
    pub async fn load(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(), SegmentError> {
        self.run(tenant, workflow, |_, log| log.ensure_loaded()).await
    }

    /// Durable chunks after `after_seq`, in order, until they hold `max_bytes` of data; at least one if there is one.
    ///
    /// # Errors
    /// [`SegmentError::Damaged`], or [`SegmentError::Seal`] when the key is not the stream's.
    pub async fn read(
        &self,
        key: &StreamKey,
        data_key: &DataKey,
        after_seq: u64,
        max_bytes: usize,
    ) -> Result<Vec<Chunk>, SegmentError> {
        let (key, data_key) = (*key, data_key.clone());
        self.run(key.tenant, key.workflow, move |_, log| {
            log.read(&key, &data_key, after_seq, max_bytes)
        })
        .await
    }

    /// Streams of a workflow that have any output or end, in order of task, step and attempt. Blocks as [`Self::high_water`]; empty when the files cannot
    /// be read.
    #[must_use]
    pub fn streams(&self, tenant: TenantId, workflow: WorkflowId) -> Vec<StreamKey> {
        let ids = self.log(tenant, workflow).stream_ids().unwrap_or_default();
        ids.into_iter()
            .map(|id| StreamKey {
                tenant,
                workflow,
                task: id.task,
                step: id.step,
                attempt: id.attempt,
            })
            .collect()
    }

    /// Ends a stream at `last_seq`, durably, with everything before it. Repeats are harmless.
    ///
    /// # Errors
    /// [`SegmentError::Gap`] when not exactly everything up to `last_seq` is stored; [`SegmentError::Finished`] when it ended elsewhere.
    pub async fn finish(&self, key: &StreamKey, last_seq: u64) -> Result<(), SegmentError> {
        let id = StreamId::from(key);
        self.run(key.tenant, key.workflow, move |inner, log| {
            log.finish(&inner.handles, id, last_seq)
        })
        .await?;
        self.durable(key).await.map(drop)
    }

    /// Removes all output of a workflow. Operations that run meanwhile get [`SegmentError::Destroyed`].
    ///
    /// # Errors
    /// When files cannot be removed; repeating is right.
    pub async fn destroy(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(), SegmentError> {
        let log = self.log(tenant, workflow);
        let done = self.run_on(log, |inner, log| log.destroy(&inner.handles)).await;
        self.inner.logs.lock().pop(&(tenant, workflow));
        done
    }

    fn progress(&self, key: &StreamKey) -> Progress {
        self.log(key.tenant, key.workflow)
            .progress(key.into())
            .unwrap_or_default()
    }

    /// The one log of a workflow: two would write over each other, so one that somebody holds is never forgotten.
    fn log(&self, tenant: TenantId, workflow: WorkflowId) -> Arc<WorkflowLog> {
        let mut logs = self.inner.logs.lock();
        if let Some(log) = logs.get(&(tenant, workflow)) {
            return Arc::clone(log);
        }
        let dir = self.inner.root.join(tenant.to_string()).join(workflow.to_string());
        let log = Arc::new(WorkflowLog::new(tenant, workflow, dir, self.inner.segment_bytes_max));
        logs.push((tenant, workflow), Arc::clone(&log));
        if logs.len() > WORKFLOWS_MAX {
            let unused = |log: &Arc<WorkflowLog>| Arc::strong_count(log) == 1 && log.is_clean();
            let candidate = logs
                .iter()
                .rev()
                .take(FORGET_CANDIDATES)
                .find(|(_, log)| unused(log))
                .map(|(key, _)| *key);
            if let Some(key) = candidate {
                logs.pop(&key);
            }
        }
        log
    }

    async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        work: impl FnOnce(&Inner, &WorkflowLog) -> Result<T, SegmentError> + Send + 'static,
    ) -> Result<T, SegmentError> {
        self.run_on(self.log(tenant, workflow), work).await
    }

    async fn run_on<T: Send + 'static>(
        &self,
        log: Arc<WorkflowLog>,
        work: impl FnOnce(&Inner, &WorkflowLog) -> Result<T, SegmentError> + Send + 'static,
    ) -> Result<T, SegmentError> {
        let inner = Arc::clone(&self.inner);
        // The permit is held by the work, not by this future, which may be dropped.
        let permit = Arc::clone(&inner.io)
            .acquire_owned()
            .await
            .map_err(|_| SegmentError::Closed)?;
        let work = move || {
            let done = work(&inner, &log);
            drop(permit);
            done
        };
        if crate::host::runs_inline() {
            return work();
        }
        let task = self.inner.tasks.spawn_blocking(work);
        task.await.unwrap_or(Err(SegmentError::Closed))
    }
}
