//! The data directory: where everything durable of one installation lives, and the lock that keeps a second process out.

pub(crate) mod stamp;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use stamp::Stamp;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("data directory {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("data directory {} is in use by process {holder}: stop it first, or give another --data-dir", path.display())]
    InUse { path: PathBuf, holder: String },
    #[error("{} is no data directory of Gantry: there is no journal in it", path.display())]
    NotOne { path: PathBuf },
    #[error(
        "data directory {} has format {stored}, this Gantry ({version}) reads up to {known}: run Gantry {writer} or newer, or restore the backup from before the upgrade",
        path.display(), version = env!("CARGO_PKG_VERSION"), known = stamp::DATA_FORMAT
    )]
    Newer { path: PathBuf, stored: u32, writer: String },
    #[error("data directory {} is damaged: {what}: {detail}. Put back what is missing, or restore the whole directory from a backup", path.display())]
    Damaged {
        path: PathBuf,
        what: String,
        detail: String,
    },
    #[error("the restore into data directory {} has not ended: delete the directory and restore again", path.display())]
    HalfRestored { path: PathBuf },
}

/// A data directory that this process owns until it drops it.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    stamp: Mutex<Stamp>,
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
    /// Creates what is missing (mode 0700), takes the lock, and brings an older directory to today's format.
    pub(crate) fn open(root: &Path) -> Result<Self, DataDirError> {
        let (root, lock) = Self::take(root)?;
        let stamp = Mutex::new(Stamp::settle(&root)?);
        Ok(Self {
            root,
            stamp,
            _lock: lock,
        })
    }

    /// As [`Self::open`], for those who would look into a directory and not make one.
    pub(crate) fn open_existing(root: &Path) -> Result<Self, DataDirError> {
        if root.join("journal").is_dir() {
            Self::open(root)
        } else {
            Err(DataDirError::NotOne { path: root.to_owned() })
        }
    }

    /// Takes a directory that a restore fills: the stamp says so until [`Self::note`].
    pub(crate) fn begin_restore(root: &Path) -> Result<Self, DataDirError> {
        let (root, lock) = Self::take(root)?;
        let stamp = Stamp::restoring();
        stamp.write(&root)?;
        Ok(Self {
            root,
            stamp: Mutex::new(stamp),
            _lock: lock,
        })
    }

    /// Notes that every part is there, and whose they are. From now on a missing or exchanged one is damage.
    pub(crate) fn note(&self, parts: &[&str], installation: &str, master_key: &str) -> Result<(), DataDirError> {
        let mut stamp = self.stamp.lock();
        let other = |what: &str, found: &str, expected: &str| DataDirError::Damaged {
            path: self.root.clone(),
            what: what.to_owned(),
            detail: format!("it is {found}, and {expected} belongs here"),
        };
        if let Some(expected) = stamp.master_key.as_deref().filter(|expected| *expected != master_key) {
            return Err(other("master.key", master_key, expected));
        }
        if let Some(expected) = stamp
            .installation
            .as_deref()
            .filter(|expected| *expected != installation)
        {
            return Err(other("directory.db", installation, expected));
        }
        let mut noted = stamp.clone();
        noted.parts.extend(parts.iter().map(|part| (*part).to_owned()));
        noted.installation = Some(installation.to_owned());
        noted.master_key = Some(master_key.to_owned());
        noted.restoring = false;
        if noted != *stamp {
            noted.write(&self.root)?;
            *stamp = noted;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn take(root: &Path) -> Result<(PathBuf, File), DataDirError> {
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
        Ok((root, lock))
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

    /// Sealed history, where it is not in a bucket.
    pub(crate) fn archive(&self) -> PathBuf {
        self.root.join("archive")
    }

    /// What was erased; no backup has it.
    pub(crate) fn erasures(&self) -> PathBuf {
        self.root.join("erasures.jsonl")
    }

    /// Sealed objects that queries read, kept for the next ones. Can be removed while no daemon runs.
    pub(crate) fn query(&self) -> PathBuf {
        self.root.join("query")
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
