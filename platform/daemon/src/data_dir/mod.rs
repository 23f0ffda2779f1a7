//! The data directory: where everything durable of one installation lives, and the lock that keeps a second process out.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("data directory {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("data directory {} is in use by process {holder}: stop it first, or give another --data-dir", path.display())]
    InUse { path: PathBuf, holder: String },
}

/// A data directory that this process owns until it drops it.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    /// Holds the lock; the kernel releases it when the process dies, however it dies.
    _lock: File,
}

/// Where the daemon listens, for scripts and tests. Written when ready, removed at the end.
#[derive(Debug, Serialize)]
pub(crate) struct Endpoints {
    /// REST API, `http://...`.
    pub(crate) http: String,
    /// Node protocol, `http://...`; absent when it is off.
    pub(crate) grpc: Option<String>,
    /// Process id.
    pub(crate) pid: u32,
    /// Id of the installation; label of its containers.
    pub(crate) installation: String,
}

impl DataDir {
    /// Creates what is missing (mode 0700) and takes the lock.
    pub(crate) fn open(root: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io {
            path: root.to_owned(),
            source,
        };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io)?;
        let root = fs::canonicalize(root).map_err(io)?;
        let path = root.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(io)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            let holder = if holder.trim().is_empty() {
                "(unknown)".to_owned()
            } else {
                holder.trim().to_owned()
            };
            return Err(DataDirError::InUse { path: root, holder });
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(io)?;
        Ok(Self { root, _lock: lock })
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.root.join("directory.db")
    }

    pub(crate) fn master_key(&self) -> PathBuf {
        self.root.join("master.key")
    }

    pub(crate) fn segments(&self) -> PathBuf {
        self.root.join("segments")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// State of the node that runs in this process.
    pub(crate) fn node(&self) -> PathBuf {
        self.root.join("node")
    }

    /// Publishes where the daemon listens: whole or not at all.
    pub(crate) fn publish(&self, endpoints: &Endpoints) -> Result<(), DataDirError> {
        let path = self.root.join("endpoints.json");
        let partial = self.root.join("endpoints.json.part");
        let io = |source| DataDirError::Io {
            path: path.clone(),
            source,
        };
        // A struct of strings and a number always serialises.
        let text = serde_json::to_vec_pretty(endpoints).map_err(|error| io(std::io::Error::other(error)))?;
        fs::write(&partial, text)
            .and_then(|()| fs::rename(&partial, &path))
            .map_err(io)
    }

    /// Takes the endpoints back: readers see that nobody listens.
    pub(crate) fn unpublish(&self) {
        // A stale file is told from a live one by its pid; failing to remove it is not worth a failed shutdown.
        let _ = fs::remove_file(self.root.join("endpoints.json"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_kept_out_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        DataDir::open(dir.path()).unwrap();
    }
}
