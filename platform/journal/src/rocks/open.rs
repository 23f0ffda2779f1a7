//! Opening and recovery.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use gantry_proto::{JOURNAL_FORMAT, PartitionId};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, ErrorKind, LogLevel, Options, WriteBatch,
};

use rocksdb::statistics::StatsLevel;

use super::anchor::{self, Anchor};
use super::checkpoint::{self, Checkpoints};
use super::words::{self, WrittenWords};
use super::{OpenError, Owners, RocksOptions, RocksStore, synced};
use crate::chain::{LogPosition, LogReader};
use crate::durable_fs;
use crate::keys::meta;
use crate::store::{Epoch, ReadError, Store as _};

/// Write-ahead logs that may exist before memory tables are flushed for their sake.
pub(super) const WAL_BYTES_MAX: u64 = 32 << 20;
/// One memory table; two may exist. An idle daemon holds next to nothing of it.
const MEMTABLE_BYTES: usize = 8 << 20;
/// Blocks of tables kept in memory, indexes and filters included.
const CACHE_BYTES: usize = 8 << 20;
/// Table files kept open.
const OPEN_TABLES_MAX: i32 = 256;
/// `RocksDB`'s own log: warnings only, and not for ever.
const INFO_LOG_BYTES: usize = 1 << 20;
/// What the manifest's file is made larger by at a time.
const MANIFEST_BYTES: usize = 64 << 10;
const LOCK_FILE: &str = "gantry.lock";

pub(super) fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_paranoid_checks(true);
    // Both are off by default; durable before visible rests on it.
    options.set_enable_pipelined_write(false);
    options.set_unordered_write(false);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    options.set_max_write_buffer_number(2);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_max_background_jobs(2);
    options.set_max_open_files(OPEN_TABLES_MAX);
    options.set_log_level(LogLevel::Warn);
    options.set_max_log_file_size(INFO_LOG_BYTES);
    options.set_keep_log_file_num(2);
    // An idle installation should not hold megabytes of disk for a file of a few kilobytes.
    options.set_manifest_preallocation_size(MANIFEST_BYTES);
    // Counters only, which cost next to nothing.
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

pub(super) fn open(dir: &Path, asked: RocksOptions) -> Result<RocksStore, OpenError> {
    if asked.partitions == 0 || asked.partitions > PartitionId::LIMIT {
        return Err(OpenError::PartitionCount {
            asked: asked.partitions,
        });
    }
    let path = dir.display().to_string();
    let io = |reason: String| OpenError::Io {
        path: path.clone(),
        reason,
    };
    durable_fs::create_dir_all(dir).map_err(|error| io(error.to_string()))?;
    let lock = take_lock(dir)?;
    let existed = dir.join("CURRENT").exists();
    if !existed {
        // Without it the database would be made anew over the files of the old one.
        refuse_remains(dir, &path)?;
    }
    let options = options();
    let db = DB::open(&options, dir).map_err(|error| classify(&path, &error))?;
    let read = |key: bytes::Bytes| db.get(key).map_err(|error| classify(&path, &error));
    match read(meta::format())? {
        None if existed && db_has_keys(&db) => return Err(OpenError::Foreign { path }),
        None => initialise(&db, asked.partitions).map_err(&io)?,
        Some(value) => {
            let stored = number(&value).ok_or_else(|| damaged(&path, "the format key", "it is not a number"))?;
            if stored > JOURNAL_FORMAT {
                let writer = words::writer(read(meta::vocabulary())?.as_deref());
                return Err(OpenError::Format {
                    path,
                    stored,
                    ours: JOURNAL_FORMAT,
                    writer,
                });
            }
        }
    }
    let words = WrittenWords::read(&path, read(meta::vocabulary())?.as_deref())?;
    let partitions =
        read(meta::partitions())?.and_then(|value| Some(u16::from_be_bytes(value.as_slice().try_into().ok()?)));
    let stored = partitions.ok_or_else(|| damaged(&path, "the partition count", "it is missing"))?;
    if stored != asked.partitions {
        return Err(OpenError::Partitions {
            path,
            stored,
            asked: asked.partitions,
        });
    }
    let installation = read(meta::installation())?.and_then(|value| value.as_slice().try_into().ok());
    let installation = installation.ok_or_else(|| damaged(&path, "the installation id", "it is missing"))?;
    let mut epochs = Vec::with_capacity(usize::from(stored));
    for partition in (0..stored).filter_map(PartitionId::new) {
        let epoch = read(meta::epoch(partition))?.map_or(Some(0), |value| {
            Some(u64::from_be_bytes(value.as_slice().try_into().ok()?))
        });
        epochs.push(Epoch(epoch.ok_or_else(|| {
            damaged(
                &path,
                &format!("the epoch of partition {partition}"),
                "it is not a number",
            )
        })?));
    }
    let owners = Mutex::new(Owners {
        epochs,
        checkpoints: Checkpoints::new(stored),
        words,
        anchor: Anchor::default(),
        failed: None,
    });
    let store = RocksStore {
        db,
        options,
        path: dir.to_owned(),
        installation,
        partitions: stored,
        owners,
        _lock: lock,
    };
    check_chains(&store, stored, &path)?;
    check_anchor(&store, &path)?;
    store.write_anchor();
    Ok(store)
}

pub(super) fn take_lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.display().to_string();
    let io = |error: std::io::Error| OpenError::Io {
        path: path.clone(),
        reason: format!("{LOCK_FILE}: {error}"),
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(dir.join(LOCK_FILE))
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked { path }),
        Err(TryLockError::Error(error)) => Err(io(error)),
    }
}

/// Files of a database in a directory that names no database.
fn refuse_remains(dir: &Path, path: &str) -> Result<(), OpenError> {
    let io = |error: std::io::Error| OpenError::Io {
        path: path.into(),
        reason: error.to_string(),
    };
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        let of_database = name.starts_with("MANIFEST-")
            || Path::new(&name)
                .extension()
                .is_some_and(|extension| extension == "sst" || extension == "log");
        if of_database {
            return Err(damaged(
                path,
                "the file CURRENT is missing",
                &format!("{name} and others are there"),
            ));
        }
    }
    Ok(())
}

/// The logs reach as far as they are known to have come, and are the same there.
fn check_anchor(store: &RocksStore, path: &str) -> Result<(), OpenError> {
    let anchored = anchor::read(&store.path).map_err(|detail| damaged(path, "the anchor", &detail))?;
    for (partition, position) in anchored.unwrap_or_default() {
        let what = || format!("the log of partition {partition}");
        let fail = |error: ReadError| damaged(path, &what(), &error.to_string());
        let end = crate::chain::log_end(store, partition).map_err(fail)?;
        if end.next_seq < position.next_seq {
            let detail = format!(
                "it ends with record {}, and had {} when it was last noted: newer files are lost",
                end.next_seq - 1,
                position.next_seq - 1
            );
            return Err(damaged(path, &what(), &detail));
        }
        let found = LogReader::from_seq(store, partition, position.next_seq).map_err(fail)?;
        if found.position() != position {
            return Err(damaged(
                path,
                &what(),
                &format!("record {} is another one than was noted", position.next_seq - 1),
            ));
        }
    }
    Ok(())
}

fn db_has_keys(db: &DB) -> bool {
    let mut cursor = db.raw_iterator();
    cursor.seek_to_first();
    cursor.valid() || cursor.status().is_err()
}

/// One synced write: a directory is either new or complete.
fn initialise(db: &DB, partitions: u16) -> Result<(), String> {
    let mut installation = [0u8; 16];
    getrandom::fill(&mut installation).map_err(|error| error.to_string())?;
    let mut batch = WriteBatch::default();
    batch.put(meta::format(), JOURNAL_FORMAT.to_be_bytes());
    batch.put(meta::partitions(), partitions.to_be_bytes());
    batch.put(meta::installation(), installation);
    db.write_opt(batch, &synced()).map_err(|error| error.to_string())
}

fn number(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

pub(super) fn damaged(path: &str, what: &str, detail: &str) -> OpenError {
    OpenError::Damaged {
        path: path.into(),
        what: what.into(),
        detail: detail.into(),
    }
}

pub(super) fn classify(path: &str, error: &rocksdb::Error) -> OpenError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => damaged(path, "a file of the database", &text),
        // A file that the manifest names is not there.
        ErrorKind::IOError if text.contains("No such file") => {
            damaged(path, "a file of the database is missing", &text)
        }
        _ => OpenError::Io {
            path: path.into(),
            reason: text,
        },
    }
}

/// Checks each partition's chain from its checkpoint to its end, and moves the checkpoint there: recovery has put everything into table files.
fn check_chains(store: &RocksStore, partitions: u16, path: &str) -> Result<(), OpenError> {
    let fail = |error: ReadError| match error {
        ReadError::Damaged { what, detail } => damaged(path, &what, &detail),
        ReadError::Newer { what, unknown } => OpenError::Newer {
            path: path.into(),
            word: format!("{unknown} in {what}"),
            writer: store
                .get(&meta::vocabulary())
                .map_or_else(|_| words::writer(None), |text| words::writer(text.as_deref())),
        },
        ReadError::Io(reason) => OpenError::Io {
            path: path.into(),
            reason,
        },
    };
    let mut moved = WriteBatch::default();
    for partition in (0..partitions).filter_map(PartitionId::new) {
        let checkpoint = match store.get(&meta::verified(partition)).map_err(fail)? {
            None => LogPosition::START,
            Some(value) => checkpoint::decode(&value).ok_or_else(|| {
                damaged(
                    path,
                    &format!("the checkpoint of partition {partition}"),
                    "it is not one",
                )
            })?,
        };
        // What the checkpoint stands on must still be there: it is the tail's anchor.
        if crate::chain::log_end(store, partition).map_err(fail)?.next_seq < checkpoint.next_seq {
            return Err(damaged(
                path,
                &format!("the log of partition {partition}"),
                "it ends before its checkpoint",
            ));
        }
        let mut reader = LogReader::from_position(store, partition, checkpoint);
        for entry in reader.by_ref() {
            entry.map_err(fail)?;
        }
        if reader.position() != checkpoint {
            moved.put(meta::verified(partition), checkpoint::encode(&reader.position()));
        }
    }
    if moved.is_empty() {
        return Ok(());
    }
    store.db.write_opt(moved, &synced()).map_err(|error| OpenError::Io {
        path: path.into(),
        reason: error.to_string(),
    })
}
