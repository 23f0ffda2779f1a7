//! A view of the store as of one moment, for backups and checks of a store that goes on being written.

use bytes::Bytes;
use gantry_proto::PartitionId;
use rocksdb::ReadOptions;

use super::RocksStore;
use crate::store::{Batch, CommitError, Direction, Epoch, Pair, ReadError, Store};

/// The store as it was at [`RocksStore::cut`]. Holding it keeps what was since deleted on disk.
pub struct Snapshot<'a> {
    store: &'a RocksStore,
    snapshot: rocksdb::Snapshot<'a>,
}

impl std::fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl RocksStore {
    /// Holds all writing, takes a snapshot, runs `meanwhile` on it, and lets writing go on. What `meanwhile` reads of other durable things is as of the same
    /// moment, as far as they change only before or after a commit. It must be short: nothing is acknowledged while it runs.
    pub fn cut<T>(&self, meanwhile: impl FnOnce(&Snapshot<'_>) -> T) -> (Snapshot<'_>, T) {
        let _held = self.owners.lock();
        let snapshot = Snapshot {
            store: self,
            snapshot: self.db.snapshot(),
        };
        let made = meanwhile(&snapshot);
        (snapshot, made)
    }
}

impl Snapshot<'_> {
    /// How many partitions the store has.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.store.partitions
    }

    /// Hands every pair to `each`, in order of keys, without collecting them.
    ///
    /// # Errors
    /// What `each` says, or damage that the store finds.
    pub fn for_each<E: From<ReadError>>(&self, mut each: impl FnMut(&[u8], &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut options = ReadOptions::default();
        // A backup reads everything once: it must not push out of memory what the running engine reads.
        options.fill_cache(false);
        let mut cursor = self.snapshot.raw_iterator_opt(options);
        cursor.seek_to_first();
        while let Some((key, value)) = cursor.item() {
            each(key, value)?;
            cursor.next();
        }
        cursor.status().map_err(|error| E::from(self.store.read_error(&error)))
    }
}

/// Reads only.
impl Store for Snapshot<'_> {
    fn acquire(&self, _: PartitionId) -> Result<Epoch, CommitError> {
        Err(CommitError::Closed)
    }

    fn commit(&self, _: &[Batch]) -> Result<Vec<Result<(), CommitError>>, CommitError> {
        Err(CommitError::Closed)
    }

    fn failure(&self) -> Option<String> {
        Some("a snapshot takes no writes".to_owned())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        let value = self.snapshot.get(key).map_err(|error| self.store.read_error(&error))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Pair>, ReadError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut cursor = self.snapshot.raw_iterator_opt(options);
        match direction {
            Direction::Forward => cursor.seek_to_first(),
            Direction::Reverse => cursor.seek_to_last(),
        }
        self.store.collect(cursor, direction, limit)
    }
}
