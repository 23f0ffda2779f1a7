//! Open files that segments are appended to: few, whatever the number of streams.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

use gantry_proto::{TenantId, WorkflowId};
use lru::LruCache;
use parking_lot::Mutex;

/// Files kept open. Far below the usual limit of 1,024 descriptors of a process.
const OPEN_FILES_MAX: NonZeroUsize = NonZeroUsize::new(128).unwrap();

/// Which file: workflow and number.
pub(super) type FileKey = (TenantId, WorkflowId, u32);

/// The cache. A file that falls out of it is synced first, so that a failed write-back is noticed and not lost with the descriptor.
#[derive(Debug)]
pub(super) struct Handles {
    open: Mutex<LruCache<FileKey, Arc<File>>>,
    /// Files whose sync failed when they fell out, until their owner asks.
    failed: Mutex<HashMap<FileKey, String>>,
}

impl Handles {
    pub(super) fn new() -> Self {
        Self {
            open: Mutex::new(LruCache::new(OPEN_FILES_MAX)),
            failed: Mutex::new(HashMap::new()),
        }
    }

    /// The open file, opened if need be.
    pub(super) fn get(&self, key: FileKey, path: &Path) -> io::Result<Arc<File>> {
        if let Some(reason) = self.failed.lock().get(&key) {
            return Err(io::Error::other(reason.clone()));
        }
        if let Some(file) = self.open.lock().get(&key) {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(path)?);
        self.put(key, Arc::clone(&file));
        Ok(file)
    }

    /// Takes over a file that was just created.
    pub(super) fn put(&self, key: FileKey, file: Arc<File>) {
        let pushed_out = self.open.lock().push(key, file);
        if let Some((old, file)) = pushed_out
            && old != key
            && let Err(error) = file.sync_data()
        {
            self.failed.lock().insert(old, format!("sync failed: {error}"));
        }
    }

    /// Forgets the files of a workflow.
    pub(super) fn forget(&self, tenant: TenantId, workflow: WorkflowId) {
        let ours = |key: &FileKey| key.0 == tenant && key.1 == workflow;
        let mut open = self.open.lock();
        let keys: Vec<FileKey> = open.iter().map(|(key, _)| *key).filter(ours).collect();
        for key in keys {
            open.pop(&key);
        }
        drop(open);
        self.failed.lock().retain(|key, _| !ours(key));
    }
}
