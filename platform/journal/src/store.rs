//! The store's contract: an ordered key-value space with atomic, durable batches, range scans, and an owner epoch per partition.

use bytes::Bytes;
use gantry_proto::PartitionId;

use crate::keys::KeyRange;

/// Ownership of a partition: every batch names the epoch it was written under, and a batch of an older epoch is refused.
/// Greater is newer; the first owner has epoch 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// One change of a [`Batch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key.
    Put(Bytes, Bytes),
    /// Removes a key; absent keys are no error.
    Delete(Bytes),
}

/// All changes of one decide round of one partition: log entries, projections, timers and indexes together, or none of it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The partition whose owner writes.
    pub partition: PartitionId,
    /// Under which ownership.
    pub epoch: Epoch,
    /// The changes, applied in order.
    pub writes: Vec<Write>,
}

/// Why a commit did not happen, or may not have happened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// Another owner has taken the partition; this one must stop at once.
    #[error("partition {partition} is owned by a newer epoch than {ours:?}")]
    Fenced {
        /// The partition.
        partition: PartitionId,
        /// The epoch of the refused batch.
        ours: Epoch,
    },
    /// The outcome is unknown: the owner must discard its memory and recover from the store. Never retried on top of applied state.
    #[error("commit failed, its outcome is unknown: {reason}")]
    Unknown {
        /// What the store said.
        reason: String,
    },
    /// The committer has been shut down; nothing was written.
    #[error("the committer is closed")]
    Closed,
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The store could not read.
    #[error("read failed: {0}")]
    Io(String),
    /// What was read breaks the format, the chain or a checksum.
    #[error("{what} is damaged: {detail}")]
    Damaged {
        /// What: a key or a file.
        what: String,
        /// How that shows.
        detail: String,
    },
    /// A newer version of Gantry wrote what was read: it is sound, and this version does not understand it.
    #[error("{what} holds {unknown}, which this Gantry ({version}) does not know: run the newer Gantry that wrote it", version = env!("CARGO_PKG_VERSION"))]
    Newer {
        /// What: a key or a file.
        what: String,
        /// What is not known.
        unknown: String,
    },
}

/// Order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the lowest key up.
    Forward,
    /// From the greatest key down.
    Reverse,
}

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// What a store's write-ahead log has cost since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WalCounters {
    /// Times that it was synced.
    pub syncs: u64,
    /// Bytes written to it.
    pub bytes: u64,
}

/// Durable ordered storage. Calls block: async callers go through [`crate::Committer`] or `spawn_blocking`.
///
/// Implementations pass one conformance suite (`platform/journal/tests/conformance.rs`): the in-memory model and `RocksDB` today, `PostgreSQL` later.
pub trait Store: Send + Sync {
    /// Takes ownership of a partition: the returned epoch is greater than every one before, and durable.
    ///
    /// # Errors
    /// [`CommitError::Unknown`] when it could not be made durable.
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, CommitError>;

    /// Commits several partitions' batches with one sync. When it returns `Ok`, all of them are durable. Per-batch verdicts are in the order of
    /// `batches`: a fenced batch is left out without touching the others.
    ///
    /// # Errors
    /// [`CommitError::Unknown`]: none, some or all may be durable.
    fn commit(&self, batches: &[Batch]) -> Result<Vec<Result<(), CommitError>>, CommitError>;

    /// Why the store takes no further write until it is opened anew; `None` while it does. Reads may go on.
    fn failure(&self) -> Option<String>;

    /// What the write-ahead log has cost, by the store's own count; `None` when it has no such log.
    fn wal(&self) -> Option<WalCounters> {
        None
    }

    /// Reads one key. Serves only durable state.
    ///
    /// # Errors
    /// When the store cannot read or finds damage.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError>;

    /// Keys in `from..to` (to excluded), at most `limit`, in `direction`.
    ///
    /// # Errors
    /// When the store cannot read or finds damage.
    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Pair>, ReadError>;

    /// Makes the bytes of values that were deleted from `ranges` go from wherever the store still has them: afterwards no file of it holds them. Stores
    /// that overwrite in place have nothing to do.
    ///
    /// # Errors
    /// When the store cannot; repeating is right.
    fn purge(&self, ranges: &[KeyRange]) -> Result<(), ReadError> {
        let _ = ranges;
        Ok(())
    }
}

/// The end of the range of keys that start with `prefix`; empty `prefix` has none and gives 0xff bytes past every key in use.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; 8]
}
