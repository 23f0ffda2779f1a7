//! The hash chain over a partition's log, and the reader that checks it.
//!
//! Each entry's chain value covers the one before and its own content, so an entry that is missing, changed or from elsewhere shows at the next one.
//! The hash is over the encoded form as this version writes it: a version that adds a field to an entry or a record raises
//! [`gantry_proto::JOURNAL_FORMAT`], and older binaries refuse such entries by their format before they look at the chain.

use bytes::Bytes;
use gantry_proto::v1::LogEntry;
use gantry_proto::vocabulary::{UnknownWord, Vocabulary, Words};
use gantry_proto::{JOURNAL_FORMAT, PartitionId};
use prost::Message as _;

use crate::keys::{self, Parsed};
use crate::store::{Direction, Pair, ReadError, Store};

/// A chain value.
pub type Chain = [u8; 16];

/// Sequence of the first record of a partition. 0 stands for "before everything" in cursors.
pub const FIRST_SEQ: u64 = 1;

/// Entries that one scan of a [`LogReader`] takes: bounds its memory to a few of the largest batches.
const PAGE_ENTRIES: usize = 64;

/// A place between two entries of a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPosition {
    /// Sequence that the next entry begins with.
    pub next_seq: u64,
    /// Chain value of the entry before.
    pub chain: Chain,
}

impl LogPosition {
    /// Before the first entry.
    pub const START: Self = Self {
        next_seq: FIRST_SEQ,
        chain: [0; 16],
    };

    /// Behind `entry`; `None` when its chain value is not 16 bytes or its sequences overflow.
    #[must_use]
    pub fn after(entry: &LogEntry) -> Option<Self> {
        let chain = Chain::try_from(entry.chain.as_ref()).ok()?;
        let next_seq = entry.first_seq.checked_add(entry.records.len() as u64)?;
        Some(Self { next_seq, chain })
    }
}

fn chain_of(prev: &Chain, entry: &LogEntry) -> Chain {
    let unchained = LogEntry {
        chain: Bytes::new(),
        ..entry.clone()
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update(prev);
    hasher.update(&unchained.encode_to_vec());
    let mut chain = Chain::default();
    chain.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    chain
}

/// Fills `entry.chain`, as the last thing before the entry is encoded. Returns the new chain value.
pub fn seal_entry(prev: &Chain, entry: &mut LogEntry) -> Chain {
    entry.chain = Bytes::new();
    let chain = chain_of(prev, entry);
    entry.chain = Bytes::copy_from_slice(&chain);
    chain
}

/// Checks an entry against the one before it; returns its chain value.
///
/// # Errors
/// [`ReadError::Damaged`] when the chain does not fit.
pub fn check_entry(prev: &Chain, entry: &LogEntry) -> Result<Chain, ReadError> {
    let chain = chain_of(
        prev,
        &LogEntry {
            chain: Bytes::new(),
            ..entry.clone()
        },
    );
    if entry.chain == chain.as_slice() {
        Ok(chain)
    } else {
        Err(ReadError::Damaged {
            what: format!("log entry {}", entry.first_seq),
            detail: "its hash does not follow from the entry before it".into(),
        })
    }
}

/// Reads a partition's log entry by entry and checks order, completeness, format and chain. It ends at the last entry, or with the first error.
pub struct LogReader<'a> {
    store: &'a dyn Store,
    partition: PartitionId,
    position: LogPosition,
    page: std::vec::IntoIter<Pair>,
    exhausted: bool,
    words: Words,
}

impl std::fmt::Debug for LogReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("partition", &self.partition)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl<'a> LogReader<'a> {
    /// Reads from `position` on, which the caller knows to be good.
    #[must_use]
    pub fn from_position(store: &'a dyn Store, partition: PartitionId, position: LogPosition) -> Self {
        Self {
            store,
            partition,
            position,
            page: Vec::new().into_iter(),
            exhausted: false,
            words: Words::new(),
        }
    }

    /// Reads from the first entry on.
    #[must_use]
    pub fn from_start(store: &'a dyn Store, partition: PartitionId) -> Self {
        Self::from_position(store, partition, LogPosition::START)
    }

    /// Reads from the entry that holds `seq` on, or from the first one after it. The entry before is taken as good: its chain value is where the
    /// check starts.
    ///
    /// # Errors
    /// When the store cannot read or the entries around `seq` are damaged.
    pub fn from_seq(store: &'a dyn Store, partition: PartitionId, seq: u64) -> Result<Self, ReadError> {
        let position = match last_entry_through(store, partition, seq)? {
            None => LogPosition::START,
            Some(entry) => {
                let behind = position_after(partition, &entry)?;
                if seq >= behind.next_seq {
                    behind
                } else if entry.first_seq <= FIRST_SEQ {
                    LogPosition::START
                } else {
                    match last_entry_through(store, partition, entry.first_seq - 1)? {
                        Some(before) => position_after(partition, &before)?,
                        None => return Err(damaged(partition, entry.first_seq, "the entry before it is missing")),
                    }
                }
            }
        };
        Ok(Self::from_position(store, partition, position))
    }

    /// Behind the last entry that was returned. After the reader has ended: the end of the log.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.position
    }

    fn read_next(&mut self) -> Result<Option<LogEntry>, ReadError> {
        if self.page.len() == 0 && !self.exhausted {
            let range = keys::log_from(self.partition, self.position.next_seq);
            let page = self
                .store
                .scan(&range.from, &range.to, Direction::Forward, PAGE_ENTRIES)?;
            self.exhausted = page.len() < PAGE_ENTRIES;
            self.page = page.into_iter();
        }
        let Some((key, value)) = self.page.next() else {
            return Ok(None);
        };
        let entry = decode_entry(self.partition, &key, value.clone())?;
        // Generated types drop what they do not know: without this, a newer version's record would pass for damage, or for nothing at all.
        match Vocabulary::known().read(&value, &mut self.words) {
            Ok(_) => {}
            Err(UnknownWord::Malformed { message }) => {
                return Err(damaged(
                    self.partition,
                    entry.first_seq,
                    &format!("it holds bytes that are no `{message}`"),
                ));
            }
            Err(unknown) => {
                return Err(ReadError::Newer {
                    what: entry_name(self.partition, entry.first_seq),
                    unknown: unknown.to_string(),
                });
            }
        }
        if entry.first_seq != self.position.next_seq {
            let detail = format!("entry {} was expected", self.position.next_seq);
            return Err(damaged(self.partition, entry.first_seq, &detail));
        }
        check_entry(&self.position.chain, &entry).map_err(|_| {
            damaged(
                self.partition,
                entry.first_seq,
                "its hash does not follow from the entry before it",
            )
        })?;
        self.position = position_after(self.partition, &entry)?;
        Ok(Some(entry))
    }
}

impl Iterator for LogReader<'_> {
    type Item = Result<LogEntry, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read_next().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.exhausted = true;
            self.page = Vec::new().into_iter();
        }
        next
    }
}

/// Where a partition's log ends, by its last entry alone. [`LogReader`] is what checks.
///
/// # Errors
/// When the store cannot read or the last entry is damaged.
pub fn log_end(store: &dyn Store, partition: PartitionId) -> Result<LogPosition, ReadError> {
    match last_entry_through(store, partition, u64::MAX)? {
        Some(entry) => position_after(partition, &entry),
        None => Ok(LogPosition::START),
    }
}

fn last_entry_through(store: &dyn Store, partition: PartitionId, seq: u64) -> Result<Option<LogEntry>, ReadError> {
    let range = keys::log_through(partition, seq);
    let found = store
        .scan(&range.from, &range.to, Direction::Reverse, 1)?
        .into_iter()
        .next();
    found
        .map(|(key, value)| decode_entry(partition, &key, value))
        .transpose()
}

fn position_after(partition: PartitionId, entry: &LogEntry) -> Result<LogPosition, ReadError> {
    LogPosition::after(entry).ok_or_else(|| damaged(partition, entry.first_seq, "its chain value is not 16 bytes long"))
}

/// Decodes a stored entry and checks it against its key.
///
/// # Errors
/// [`ReadError::Damaged`].
pub fn decode_entry(partition: PartitionId, key: &[u8], value: Bytes) -> Result<LogEntry, ReadError> {
    let Some(Parsed::Log {
        partition: of_key,
        first_seq,
        tenant,
    }) = keys::parse(key)
    else {
        return Err(ReadError::Damaged {
            what: format!("key {}", hex::encode(key)),
            detail: "it is no log key".into(),
        });
    };
    let entry = LogEntry::decode(value).map_err(|error| damaged(partition, first_seq, &error.to_string()))?;
    if entry.format > JOURNAL_FORMAT {
        return Err(ReadError::Newer {
            what: entry_name(partition, first_seq),
            unknown: format!("format {} (the newest known one is {JOURNAL_FORMAT})", entry.format),
        });
    }
    if entry.format == 0
        || of_key != partition
        || entry.first_seq != first_seq
        || entry.tenant != tenant
        || entry.records.is_empty()
    {
        return Err(damaged(partition, first_seq, "its content does not fit its key"));
    }
    Ok(entry)
}

fn entry_name(partition: PartitionId, seq: u64) -> String {
    format!("log entry {seq} of partition {partition}")
}

fn damaged(partition: PartitionId, seq: u64, detail: &str) -> ReadError {
    ReadError::Damaged {
        what: entry_name(partition, seq),
        detail: detail.into(),
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::TenantId;
    use gantry_proto::v1::{Event, Record};

    use super::*;
    use crate::memory::MemoryStore;
    use crate::store::{Batch, Write};

    fn tenant() -> TenantId {
        TenantId::from_bytes([1; 16])
    }

    fn entry(first_seq: u64, records: usize) -> LogEntry {
        let record = Record {
            event: Event { kind: None },
            workflow: None,
            payload: Some(Bytes::from_static(b"p")),
        };
        LogEntry {
            format: JOURNAL_FORMAT,
            first_seq,
            at_ms: first_seq,
            tenant: tenant(),
            chain: Bytes::new(),
            records: vec![record; records],
        }
    }

    /// A store with `count` entries of two records each, and their positions.
    fn log_of(count: u64) -> (MemoryStore, PartitionId) {
        let partition = PartitionId::new(3).unwrap();
        let store = MemoryStore::new();
        let epoch = store.acquire(partition).unwrap();
        let mut chain = LogPosition::START.chain;
        let mut writes = Vec::new();
        for index in 0..count {
            let mut entry = entry(FIRST_SEQ + index * 2, 2);
            chain = seal_entry(&chain, &mut entry);
            writes.push(Write::Put(
                keys::log(partition, entry.first_seq, tenant()),
                entry.encode_to_vec().into(),
            ));
        }
        store
            .commit(&[Batch {
                partition,
                epoch,
                writes,
            }])
            .unwrap()[0]
            .clone()
            .unwrap();
        (store, partition)
    }

    fn change(store: &MemoryStore, partition: PartitionId, write: Write) {
        let epoch = store.acquire(partition).unwrap();
        store
            .commit(&[Batch {
                partition,
                epoch,
                writes: vec![write],
            }])
            .unwrap()[0]
            .clone()
            .unwrap();
    }

    #[test]
    fn reads_everything_over_page_borders() {
        let (store, partition) = log_of(200);
        let mut reader = LogReader::from_start(&store, partition);
        let seqs: Vec<u64> = reader.by_ref().map(|entry| entry.unwrap().first_seq).collect();
        assert_eq!(seqs, (0..200).map(|n| 1 + 2 * n).collect::<Vec<_>>());
        assert_eq!(reader.position(), log_end(&store, partition).unwrap());
        assert_eq!(reader.position().next_seq, 401);
    }

    #[test]
    fn starts_at_the_entry_that_holds_a_sequence() {
        let (store, partition) = log_of(10);
        for (seq, first) in [
            (0, Some(1)),
            (1, Some(1)),
            (2, Some(1)),
            (3, Some(3)),
            (4, Some(3)),
            (20, Some(19)),
            (21, None),
            (99, None),
        ] {
            let mut reader = LogReader::from_seq(&store, partition, seq).unwrap();
            assert_eq!(reader.next().map(|entry| entry.unwrap().first_seq), first, "from {seq}");
        }
        let (empty, partition) = log_of(0);
        assert!(LogReader::from_seq(&empty, partition, 5).unwrap().next().is_none());
    }

    #[test]
    fn a_missing_changed_or_exchanged_entry_is_found() {
        let key = |partition, seq| keys::log(partition, seq, tenant());
        let error_after = |store: &MemoryStore, partition| {
            LogReader::from_start(store, partition)
                .find_map(Result::err)
                .map(|error| error.to_string())
        };

        let (store, partition) = log_of(100);
        change(&store, partition, Write::Delete(key(partition, 21)));
        assert!(
            error_after(&store, partition)
                .unwrap()
                .contains("entry 21 was expected")
        );

        let (store, partition) = log_of(100);
        let mut other = LogEntry::decode(store.get(&key(partition, 21)).unwrap().unwrap()).unwrap();
        other.at_ms += 1;
        change(
            &store,
            partition,
            Write::Put(key(partition, 21), other.encode_to_vec().into()),
        );
        assert!(
            error_after(&store, partition)
                .unwrap()
                .contains("log entry 21 of partition 3")
        );

        // A well-formed entry with a chain of its own in the middle: the next one does not follow from it.
        let (store, partition) = log_of(100);
        let mut forged = entry(21, 2);
        let before = LogEntry::decode(store.get(&key(partition, 19)).unwrap().unwrap()).unwrap();
        seal_entry(&LogPosition::after(&before).unwrap().chain, &mut forged);
        forged.at_ms = 999;
        let prev = LogPosition::after(&before).unwrap().chain;
        seal_entry(&prev, &mut forged);
        change(
            &store,
            partition,
            Write::Put(key(partition, 21), forged.encode_to_vec().into()),
        );
        assert!(error_after(&store, partition).unwrap().contains("log entry 23"));

        let (store, partition) = log_of(5);
        assert_eq!(error_after(&store, partition), None);
    }

    #[test]
    fn a_newer_format_is_named_as_such() {
        let (store, partition) = log_of(1);
        let mut newer = entry(3, 1);
        newer.format = JOURNAL_FORMAT + 1;
        change(
            &store,
            partition,
            Write::Put(keys::log(partition, 3, tenant()), newer.encode_to_vec().into()),
        );
        let error = LogReader::from_start(&store, partition)
            .find_map(Result::err)
            .unwrap()
            .to_string();
        assert!(error.contains("run the newer Gantry"), "{error}");
    }

    #[test]
    fn a_record_of_an_unknown_kind_is_no_damage_and_is_not_skipped() {
        let (store, partition) = log_of(1);
        // A record as a newer version would write it: an event whose one field has a number that nobody has used yet.
        let mut bytes = entry(3, 1).encode_to_vec();
        let record = [0x0a, 4, 0xfa, 0xff, 0x3f, 0];
        bytes.extend([0x32, u8::try_from(record.len()).unwrap()]);
        bytes.extend(record);
        change(
            &store,
            partition,
            Write::Put(keys::log(partition, 3, tenant()), bytes.into()),
        );
        let error = LogReader::from_start(&store, partition).find_map(Result::err).unwrap();
        assert!(matches!(error, ReadError::Newer { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("log entry 3 of partition 3") && text.contains("`Event`"),
            "{text}"
        );
    }
}
