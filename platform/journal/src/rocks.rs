//! The store on `RocksDB`: one database, one column family, every commit a synced write of its write-ahead log.
//!
//! **Durable before visible.** Pipelined and unordered writes stay off: `RocksDB` then publishes a write to readers only after its log record was
//! appended and synced, so `get` and `scan` never see what a crash could take back.
//!
//! **After a failed write** the store refuses further ones until it is reopened: what the failed one left is only known after recovery.
//!
//! **Damage.** A record that was cut off at the end of the log is the trace of a crash and is dropped, it was never acknowledged. Everything else is
//! refused at open: a bad record before the end, a missing or truncated file, a hash chain that does not hold over a partition's live tail, a log that ends
//! before its anchor (a small file beside the database, so that losing the newest files with what names them is not taken for never having had them). A flipped
//! bit inside a table's data block is found by its checksum when the block is read, and is a [`ReadError::Damaged`].

mod anchor;
mod checkpoint;
mod load;
mod open;
mod purge;
mod snapshot;
mod words;

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gantry_proto::PartitionId;
use gantry_proto::limits::PARTITIONS_DEFAULT;
use parking_lot::Mutex;
use rocksdb::statistics::Ticker;
use rocksdb::{DB, DBRawIterator, ErrorKind, Options, ReadOptions, WriteBatch, WriteOptions};

pub use self::load::Loader;
pub use self::snapshot::Snapshot;

use self::anchor::Anchor;
use self::checkpoint::Checkpoints;
use self::words::WrittenWords;
use crate::admission::admit;
use crate::keys::{KeyRange, meta};
use crate::store::{Batch, CommitError, Direction, Epoch, Pair, ReadError, Store, WalCounters, Write};

/// How a store is opened.
#[derive(Debug, Clone, Copy)]
pub struct RocksOptions {
    /// Partitions of a new store; an existing one must have as many.
    pub partitions: u16,
}

impl Default for RocksOptions {
    fn default() -> Self {
        Self {
            partitions: PARTITIONS_DEFAULT,
        }
    }
}

/// Why a store does not open. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the journal {path} is in use by another process; stop that one first")]
    Locked {
        /// The directory.
        path: String,
    },
    /// It was made with another number of partitions.
    #[error(
        "the journal {path} has {stored} partitions, the configuration says {asked}; the count is fixed when a data directory is made: set it back to {stored}"
    )]
    Partitions {
        /// The directory.
        path: String,
        /// What it has.
        stored: u16,
        /// What was asked for.
        asked: u16,
    },
    /// The configured count is 0 or above [`PartitionId::LIMIT`].
    #[error("{asked} partitions are not possible: choose 1 to 4096")]
    PartitionCount {
        /// What was asked for.
        asked: u16,
    },
    /// It was written by a newer version.
    #[error(
        "the journal {path} has format {stored}, this Gantry ({version}) reads up to {ours}: run Gantry {writer} or newer, or restore the backup from before the upgrade",
        version = env!("CARGO_PKG_VERSION")
    )]
    Format {
        /// The directory.
        path: String,
        /// What it has.
        stored: u32,
        /// What this version reads.
        ours: u32,
        /// The version that wrote it.
        writer: String,
    },
    /// A newer version has written records of a kind, or with a field or value, that this one does not know.
    #[error(
        "the journal {path} holds {word}, which this Gantry ({version}) does not know: run Gantry {writer} or newer, or restore the backup from before the upgrade",
        version = env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The directory.
        path: String,
        /// What is not known.
        word: String,
        /// The version that wrote it, or `the newer version` where that was not recorded.
        writer: String,
    },
    /// The directory holds a database of something else.
    #[error("{path} holds a RocksDB database that is no Gantry journal; choose another directory")]
    Foreign {
        /// The directory.
        path: String,
    },
    /// Something is damaged.
    #[error(
        "the journal {path} is damaged: {what}: {detail}. Restore the data directory from a backup; do not delete files in it"
    )]
    Damaged {
        /// The directory.
        path: String,
        /// What: a file, a key or a log entry.
        what: String,
        /// How that shows.
        detail: String,
    },
    /// The file system or the database refused.
    #[error("the journal {path} does not open: {reason}")]
    Io {
        /// The directory.
        path: String,
        /// What it said.
        reason: String,
    },
}

struct Owners {
    /// Epoch by partition index.
    epochs: Vec<Epoch>,
    checkpoints: Checkpoints,
    /// What the log is written with; a newer Gantry's words keep an older one out.
    words: WrittenWords,
    anchor: Anchor,
    /// Why no further write is taken.
    failed: Option<String>,
}

/// A [`Store`] in a directory.
pub struct RocksStore {
    db: DB,
    /// Holds the statistics.
    options: Options,
    path: PathBuf,
    installation: [u8; 16],
    partitions: u16,
    /// Held over each write, so that no batch of an old owner follows a taking of ownership.
    owners: Mutex<Owners>,
    /// Locked for as long as the store is open.
    _lock: File,
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStore")
            .field("path", &self.path)
            .field("partitions", &self.partitions())
            .finish_non_exhaustive()
    }
}

impl RocksStore {
    /// Opens a directory, or makes it. Blocks: recovery reads the write-ahead log, and the chain of each partition's live tail is checked.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(dir: &Path, options: RocksOptions) -> Result<Self, OpenError> {
        open::open(dir, options)
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Random id that the directory got when it was made; it labels what belongs to this installation.
    #[must_use]
    pub fn installation(&self) -> [u8; 16] {
        self.installation
    }

    fn write_synced(&self, owners: &mut Owners, batch: WriteBatch) -> Result<(), CommitError> {
        self.db.write_opt(batch, &synced()).map_err(|error| {
            let reason = error.to_string();
            owners.failed = Some(reason.clone());
            CommitError::Unknown { reason }
        })
    }

    /// Notes outside of the database how far the logs are. What it guards against needs a second fault, so failing to write it fails no commit.
    fn write_anchor(&self) {
        let ends = (0..self.partitions)
            .filter_map(PartitionId::new)
            .map(|partition| Ok((partition, crate::chain::log_end(self, partition)?)))
            .collect::<Result<Vec<_>, ReadError>>();
        let written = ends
            .map_err(|error| error.to_string())
            .and_then(|ends| anchor::write(&self.path, &ends).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(error, path = %self.path.display(), "the journal's anchor could not be written");
        }
    }

    fn collect(
        &self,
        mut cursor: DBRawIterator<'_>,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<Pair>, ReadError> {
        let mut pairs = Vec::new();
        while pairs.len() < limit {
            let Some((key, value)) = cursor.item() else { break };
            pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            if pairs.len() < limit {
                match direction {
                    Direction::Forward => cursor.next(),
                    Direction::Reverse => cursor.prev(),
                }
            }
        }
        cursor.status().map_err(|error| self.read_error(&error))?;
        Ok(pairs)
    }

    fn read_error(&self, error: &rocksdb::Error) -> ReadError {
        match error.kind() {
            ErrorKind::Corruption => ReadError::Damaged {
                what: format!("the journal {}", self.path.display()),
                detail: error.to_string(),
            },
            _ => ReadError::Io(error.to_string()),
        }
    }
}

fn synced() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(true);
    options
}

fn fail_reason(owners: &Owners) -> Result<(), CommitError> {
    owners.failed.as_ref().map_or(Ok(()), |reason| {
        let reason = format!("an earlier write failed, reopen the journal: {reason}");
        Err(CommitError::Unknown { reason })
    })
}

impl Store for RocksStore {
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, CommitError> {
        let mut owners = self.owners.lock();
        fail_reason(&owners)?;
        let index = usize::from(partition.index());
        let Some(current) = owners.epochs.get(index).copied() else {
            return Err(CommitError::Unknown {
                reason: format!("the journal has no partition {partition}"),
            });
        };
        let next = Epoch(current.0 + 1);
        let mut batch = WriteBatch::default();
        batch.put(meta::epoch(partition), next.0.to_be_bytes());
        // Fenced from here on, even if the write's outcome is unknown.
        owners.epochs[index] = next;
        self.write_synced(&mut owners, batch)?;
        Ok(next)
    }

    fn commit(&self, batches: &[Batch]) -> Result<Vec<Result<(), CommitError>>, CommitError> {
        let mut owners = self.owners.lock();
        fail_reason(&owners)?;
        let epoch_of = |partition: PartitionId| {
            owners
                .epochs
                .get(usize::from(partition.index()))
                .copied()
                .unwrap_or(Epoch(0))
        };
        let verdicts: Vec<_> = batches
            .iter()
            .map(|batch| admit(batch, epoch_of(batch.partition)))
            .collect();
        let mut writes = WriteBatch::default();
        for (batch, verdict) in batches.iter().zip(&verdicts) {
            if verdict.is_ok() {
                for write in &batch.writes {
                    match write {
                        Write::Put(key, value) => writes.put(key, value),
                        Write::Delete(key) => writes.delete(key),
                    }
                }
                owners.checkpoints.note(batch);
                owners.words.note(batch);
            }
        }
        if !writes.is_empty() {
            for (partition, position) in owners.checkpoints.due() {
                writes.put(meta::verified(partition), checkpoint::encode(&position));
            }
            if let Some(text) = owners.words.due() {
                writes.put(meta::vocabulary(), text);
            }
            let bytes = writes.size_in_bytes() as u64;
            self.write_synced(&mut owners, writes)?;
            if owners.anchor.note(bytes) {
                self.write_anchor();
            }
        }
        Ok(verdicts)
    }

    fn wal(&self) -> Option<WalCounters> {
        Some(WalCounters {
            syncs: self.options.get_ticker_count(Ticker::WalFileSynced),
            bytes: self.options.get_ticker_count(Ticker::WalFileBytes),
        })
    }

    fn failure(&self) -> Option<String> {
        self.owners.lock().failed.clone()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let value = self.db.get(key).map_err(|error| self.read_error(&error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Pair>, ReadError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut cursor = self.db.raw_iterator_opt(options);
        match direction {
            Direction::Forward => cursor.seek_to_first(),
            Direction::Reverse => cursor.seek_to_last(),
        }
        self.collect(cursor, direction, limit)
    }

    fn purge(&self, ranges: &[KeyRange]) -> Result<(), ReadError> {
        purge::purge(&self.db, ranges).map_err(|error| self.read_error(&error))
    }
}
