//! Filling a new store from pairs, as a restore does.

use std::fs::File;
use std::path::{Path, PathBuf};

use rocksdb::{DB, WriteBatch, WriteOptions};

use super::open::{classify, options, take_lock};
use super::{OpenError, RocksOptions, RocksStore};
use crate::durable_fs;
use crate::keys::{Kind, meta};

/// Pairs that are written at once.
const BATCH_BYTES: usize = 4 << 20;

/// A store that is being filled. Nothing is durable before [`Loader::finish`], and nobody else can open it until then.
pub struct Loader {
    db: DB,
    path: PathBuf,
    batch: WriteBatch,
    _lock: File,
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Loader {
    /// Begins a store in a directory that must not hold one.
    ///
    /// # Errors
    /// [`OpenError`]; [`OpenError::Foreign`] when there is a database already.
    pub fn create(dir: &Path) -> Result<Self, OpenError> {
        let path = dir.display().to_string();
        durable_fs::create_dir_all(dir).map_err(|error| OpenError::Io {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let lock = take_lock(dir)?;
        if dir.join("CURRENT").exists() {
            return Err(OpenError::Foreign { path });
        }
        let mut options = options();
        options.set_error_if_exists(true);
        let db = DB::open(&options, dir).map_err(|error| classify(&path, &error))?;
        Ok(Self {
            db,
            path: dir.to_owned(),
            batch: WriteBatch::default(),
            _lock: lock,
        })
    }

    /// Adds a pair, the store's own included: format, partitions, installation and epochs come with the rest. Checkpoints of the chain do not: the whole
    /// chain is checked when the store is first opened.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), OpenError> {
        let checkpoint = matches!(key, [kind, name, ..] if *kind == Kind::Meta as u8 && *name == meta::CHECKPOINT);
        if !checkpoint {
            self.batch.put(key, value);
        }
        if self.batch.size_in_bytes() >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Removes a key that was put before.
    pub fn delete(&mut self, key: &[u8]) {
        self.batch.delete(key);
    }

    fn flush(&mut self) -> Result<(), OpenError> {
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let batch = std::mem::take(&mut self.batch);
        self.db
            .write_opt(batch, &unlogged)
            .map_err(|error| classify(&self.path.display().to_string(), &error))
    }

    /// Makes everything durable and opens the store: format, partitions and the whole chain are checked as at every start.
    ///
    /// # Errors
    /// As [`RocksStore::open`].
    pub fn finish(mut self, partitions: u16) -> Result<RocksStore, OpenError> {
        self.flush()?;
        let path = self.path.clone();
        let fail = |error: rocksdb::Error| classify(&path.display().to_string(), &error);
        self.db.flush().map_err(fail)?;
        // What was deleted must not stay in a file.
        self.db.compact_range::<&[u8], &[u8]>(None, None);
        drop(self);
        durable_fs::sync_dir(&path).map_err(|error| OpenError::Io {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        RocksStore::open(&path, RocksOptions { partitions })
    }
}
