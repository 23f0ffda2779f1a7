//! What a crash, a cut or a flipped bit does to the journal on disk: what was acknowledged is there, or the store says what is damaged.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests fail by panicking

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gantry_journal::chain::{LogPosition, seal_entry};
use gantry_journal::{Batch, Loader, LogReader, OpenError, ReadError, RocksOptions, RocksStore, Store, Write, keys};
use gantry_proto::v1::{Event, LogEntry, Record};
use gantry_proto::{JOURNAL_FORMAT, PartitionId, TenantId};
use prost::Message as _;

const OPTIONS: RocksOptions = RocksOptions { partitions: 2 };

fn partition() -> PartitionId {
    PartitionId::new(1).unwrap()
}

fn tenant() -> TenantId {
    TenantId::from_bytes([1; 16])
}

/// Appends one entry of `bytes` payload and returns the new end.
fn append(store: &RocksStore, epoch: gantry_journal::Epoch, end: LogPosition, bytes: usize) -> LogPosition {
    let payload: Vec<u8> = (0..bytes).map(|n| (n as u8) ^ (end.next_seq as u8)).collect();
    let record = Record {
        event: Event { kind: None },
        workflow: None,
        payload: Some(payload.into()),
    };
    let mut entry = LogEntry {
        format: JOURNAL_FORMAT,
        first_seq: end.next_seq,
        at_ms: 1,
        tenant: tenant(),
        chain: Bytes::new(),
        records: vec![record],
    };
    seal_entry(&end.chain, &mut entry);
    let writes = vec![Write::Put(
        keys::log(partition(), end.next_seq, tenant()),
        entry.encode_to_vec().into(),
    )];
    store
        .commit(&[Batch {
            partition: partition(),
            epoch,
            writes,
        }])
        .unwrap()[0]
        .clone()
        .unwrap();
    LogPosition::after(&entry).unwrap()
}

fn length(store: &RocksStore) -> usize {
    LogReader::from_start(store, partition())
        .inspect(|entry| assert!(entry.is_ok(), "{entry:?}"))
        .count()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with(suffix))
        .collect();
    files.sort();
    files
}

/// The write-ahead log that holds the live tail: the one that is not empty, newest last.
fn live_wal(dir: &Path) -> PathBuf {
    files(dir, ".log")
        .into_iter()
        .rfind(|path| fs::metadata(path).unwrap().len() > 0)
        .unwrap()
}

/// A directory as a killed process leaves it: copied while the store is open. Also the length of its log file after each commit.
fn crashed(dir: &Path, entries: usize, bytes: usize) -> Vec<u64> {
    let live = dir.with_extension("live");
    let store = RocksStore::open(&live, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let mut lengths = Vec::new();
    let mut end = LogPosition::START;
    for _ in 0..entries {
        end = append(&store, epoch, end, bytes);
        lengths.push(fs::metadata(live_wal(&live)).unwrap().len());
    }
    copy(&live, dir);
    lengths
}

#[test]
fn a_log_cut_anywhere_keeps_everything_acknowledged_before_the_cut() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let lengths = crashed(&origin, 12, 300);
    let wal_name = live_wal(&origin).file_name().unwrap().to_owned();
    let full = *lengths.last().unwrap();
    // Every cut of the last two records, and coarser ones down to the first.
    let fine = (lengths[lengths.len() - 3]..=full).step_by(13);
    let coarse = (lengths[0]..full).step_by(101);
    let borders = lengths
        .iter()
        .flat_map(|length| [length - 1, *length, length + 1])
        .filter(|length| *length <= full);
    for (case, cut) in fine.chain(coarse).chain(borders).enumerate() {
        let trial = dir.path().join(format!("cut-{case}"));
        copy(&origin, &trial);
        fs::OpenOptions::new()
            .write(true)
            .open(trial.join(&wal_name))
            .unwrap()
            .set_len(cut)
            .unwrap();
        let acknowledged = lengths.iter().filter(|length| **length <= cut).count();
        let store = RocksStore::open(&trial, OPTIONS).unwrap_or_else(|error| panic!("cut at {cut} of {full}: {error}"));
        assert_eq!(length(&store), acknowledged, "cut at {cut} of {full}");
        // It goes on from there.
        let epoch = store.acquire(partition()).unwrap();
        let end = gantry_journal::chain::log_end(&store, partition()).unwrap();
        append(&store, epoch, end, 10);
        drop(store);
        assert_eq!(length(&RocksStore::open(&trial, OPTIONS).unwrap()), acknowledged + 1);
        fs::remove_dir_all(&trial).unwrap();
    }
}

#[test]
fn a_flipped_bit_before_the_end_of_the_log_is_refused_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    let lengths = crashed(&origin, 12, 300);
    let wal_name = live_wal(&origin).file_name().unwrap().to_owned();
    let content = fs::read(origin.join(&wal_name)).unwrap();
    let mut refused = 0;
    let places: Vec<usize> = (0..usize::try_from(lengths[9]).unwrap()).step_by(37).collect();
    for (case, &at) in places.iter().enumerate() {
        let trial = dir.path().join(format!("flip-{case}"));
        copy(&origin, &trial);
        let mut damaged = content.clone();
        damaged[at] ^= 0x04;
        fs::write(trial.join(&wal_name), damaged).unwrap();
        match RocksStore::open(&trial, OPTIONS) {
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
            Ok(store) => panic!("byte {at}: opened with {} of {} entries", length(&store), lengths.len()),
        }
        fs::remove_dir_all(&trial).unwrap();
    }
    assert_eq!(refused, places.len());
}

#[test]
fn a_missing_entry_in_the_live_tail_is_found_by_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let store = RocksStore::open(&path, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let mut end = LogPosition::START;
    for _ in 0..10 {
        end = append(&store, epoch, end, 20);
    }
    // Only the database could lose an entry by itself; here the owner does it for it.
    let writes = vec![Write::Delete(keys::log(partition(), 5, tenant()))];
    store
        .commit(&[Batch {
            partition: partition(),
            epoch,
            writes,
        }])
        .unwrap()[0]
        .clone()
        .unwrap();
    drop(store);
    let error = RocksStore::open(&path, OPTIONS).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }));
    let text = error.to_string();
    assert!(
        text.contains("log entry 6 of partition 1") && text.contains("entry 5 was expected") && text.contains("backup"),
        "{text}"
    );
}

#[test]
fn a_log_that_ends_before_its_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let store = RocksStore::open(&path, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let mut end = LogPosition::START;
    for _ in 0..5 {
        end = append(&store, epoch, end, 20);
    }
    drop(store);
    let store = RocksStore::open(&path, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let writes = vec![Write::Delete(keys::log(partition(), 5, tenant()))];
    store
        .commit(&[Batch {
            partition: partition(),
            epoch,
            writes,
        }])
        .unwrap()[0]
        .clone()
        .unwrap();
    drop(store);
    let text = RocksStore::open(&path, OPTIONS).unwrap_err().to_string();
    assert!(text.contains("it ends before its checkpoint"), "{text}");
}

/// A directory with tables, closed cleanly.
fn with_tables(path: &Path) {
    let store = RocksStore::open(path, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let mut end = LogPosition::START;
    for _ in 0..50 {
        end = append(&store, epoch, end, 2_000);
    }
    drop(store);
    // Recovery moves the log into a table.
    drop(RocksStore::open(path, OPTIONS).unwrap());
    assert!(!files(path, ".sst").is_empty());
}

#[test]
fn cut_missing_or_changed_tables_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    with_tables(&origin);
    let table = files(&origin, ".sst")
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let name = table.file_name().unwrap().to_string_lossy().into_owned();
    let content = fs::read(&table).unwrap();
    let mut last_byte = content.clone();
    *last_byte.last_mut().unwrap() ^= 1;
    for (case, damaged) in [
        None,
        Some(content[..content.len() / 2].to_vec()),
        Some(Vec::new()),
        Some(last_byte),
    ]
    .into_iter()
    .enumerate()
    {
        let trial = dir.path().join(format!("table-{case}"));
        copy(&origin, &trial);
        match damaged {
            None => fs::remove_file(trial.join(&name)).unwrap(),
            Some(damaged) => fs::write(trial.join(&name), damaged).unwrap(),
        }
        let error = RocksStore::open(&trial, OPTIONS).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "case {case}: {error}");
        assert!(error.to_string().contains(&name), "case {case}: {error}");
    }
}

#[test]
fn a_flipped_bit_in_a_table_is_never_served() {
    let dir = tempfile::tempdir().unwrap();
    let origin = dir.path().join("origin");
    with_tables(&origin);
    let expected: Vec<LogEntry> = {
        let store = RocksStore::open(&origin, OPTIONS).unwrap();
        LogReader::from_start(&store, partition()).map(Result::unwrap).collect()
    };
    let table = files(&origin, ".sst")
        .into_iter()
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let content = fs::read(&table).unwrap();
    let mut found = 0;
    for at in (0..content.len()).step_by(content.len() / 40) {
        let trial = dir.path().join(format!("bit-{at}"));
        copy(&origin, &trial);
        let mut damaged = content.clone();
        damaged[at] ^= 0x20;
        fs::write(trial.join(table.file_name().unwrap()), damaged).unwrap();
        match RocksStore::open(&trial, OPTIONS) {
            Err(_) => found += 1,
            Ok(store) => {
                let mut entries = Vec::new();
                let mut failed = false;
                for entry in LogReader::from_start(&store, partition()) {
                    match entry {
                        Ok(entry) => entries.push(entry),
                        Err(_) => failed = true,
                    }
                }
                assert!(failed || entries == expected, "byte {at}: something else was served");
                found += usize::from(failed);
            }
        }
        fs::remove_dir_all(&trial).unwrap();
    }
    assert!(found > 20, "most places hold data: {found}");
}

#[test]
fn a_missing_write_ahead_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let live = dir.path().join("live");
    let store = RocksStore::open(&live, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let mut end = LogPosition::START;
    // Enough to fill a memory table: a second log begins, and the manifest tracks the first.
    let mut trial = None;
    for round in 0..200 {
        end = append(&store, epoch, end, 256 << 10);
        let logs = files(&live, ".log");
        if logs.len() > 1 {
            let path = dir.path().join(format!("copy-{round}"));
            copy(&live, &path);
            let logs = files(&path, ".log");
            if logs.len() > 1 {
                trial = Some((path, logs[0].clone()));
                break;
            }
        }
    }
    let (path, first) = trial.expect("six changes of the log, and never two at once");
    fs::remove_file(first).unwrap();
    // Either the database misses the file, or it had been flushed before and everything is there.
    match RocksStore::open(&path, OPTIONS) {
        Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{error}"),
        Ok(store) => assert_eq!(gantry_journal::chain::log_end(&store, partition()).unwrap(), end),
    }
}

#[test]
fn who_may_not_open_it_is_told_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/journal");
    let store = RocksStore::open(&path, OPTIONS).unwrap();
    let installation = store.installation();
    assert_ne!(installation, [0; 16]);
    assert_eq!(store.partitions(), 2);
    assert!(matches!(
        RocksStore::open(&path, OPTIONS),
        Err(OpenError::Locked { .. })
    ));
    drop(store);
    assert_eq!(RocksStore::open(&path, OPTIONS).unwrap().installation(), installation);

    let error = RocksStore::open(&path, RocksOptions { partitions: 3 }).unwrap_err();
    assert!(matches!(
        error,
        OpenError::Partitions {
            stored: 2,
            asked: 3,
            ..
        }
    ));
    assert!(error.to_string().contains("set it back to 2"));
    for asked in [0, 4097] {
        assert!(matches!(
            RocksStore::open(&path, RocksOptions { partitions: asked }),
            Err(OpenError::PartitionCount { .. })
        ));
    }

    let raw = rocksdb::DB::open_default(&path).unwrap();
    raw.put(keys::meta::format(), (JOURNAL_FORMAT + 1).to_be_bytes())
        .unwrap();
    drop(raw);
    let error = RocksStore::open(&path, OPTIONS).unwrap_err();
    assert!(
        matches!(error, OpenError::Format { .. }) && error.to_string().contains("or newer"),
        "{error}"
    );

    let foreign = dir.path().join("foreign");
    let raw = rocksdb::DB::open_default(&foreign).unwrap();
    raw.put(b"somebody", b"else's").unwrap();
    drop(raw);
    assert!(matches!(
        RocksStore::open(&foreign, OPTIONS),
        Err(OpenError::Foreign { .. })
    ));
}

#[test]
fn a_new_directory_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    drop(RocksStore::open(&path, OPTIONS).unwrap());
    let bytes: u64 = fs::read_dir(&path)
        .unwrap()
        .map(|entry| std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512)
        .sum();
    assert!(bytes < 20 << 20, "{bytes} bytes");
}

#[test]
fn words_of_a_newer_version_keep_an_older_one_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let store = RocksStore::open(&path, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let end = append(&store, epoch, LogPosition::START, 10);
    let listed = store.get(&keys::meta::vocabulary()).unwrap().unwrap();
    let text = String::from_utf8(listed.to_vec()).unwrap();
    assert!(
        text.starts_with(env!("CARGO_PKG_VERSION")) && text.contains("\nRecord.1\n"),
        "{text}"
    );
    drop(store);

    // As a newer version leaves it: the record that it wrote lies long before the tail that an open looks at.
    for (word, named) in [
        ("Event.9999", "records of kind 9999"),
        ("WaitKind=99", "`WaitKind=99`"),
        ("TaskWaiting.99", "`TaskWaiting.99`"),
    ] {
        let raw = rocksdb::DB::open_default(&path).unwrap();
        raw.put(keys::meta::vocabulary(), format!("7.8.9\n{word}\nRecord.1"))
            .unwrap();
        drop(raw);
        let error = RocksStore::open(&path, OPTIONS).unwrap_err();
        assert!(matches!(error, OpenError::Newer { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains(named) && said.contains("run Gantry 7.8.9 or newer") && said.contains("backup"),
            "{said}"
        );
    }
    // Nothing was changed by looking: with words that are known it opens, and everything is there.
    let raw = rocksdb::DB::open_default(&path).unwrap();
    raw.put(keys::meta::vocabulary(), &text).unwrap();
    drop(raw);
    let store = RocksStore::open(&path, OPTIONS).unwrap();
    assert_eq!(gantry_journal::chain::log_end(&store, partition()).unwrap(), end);
}

#[test]
fn an_unknown_record_in_the_live_tail_stops_the_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let store = RocksStore::open(&path, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let end = append(&store, epoch, LogPosition::START, 10);
    drop(store);
    // An entry whose record holds an event of kind 131071, as bytes.
    let mut bytes = LogEntry {
        format: JOURNAL_FORMAT,
        first_seq: end.next_seq,
        at_ms: 1,
        tenant: tenant(),
        chain: Bytes::from_static(&[7; 16]),
        records: Vec::new(),
    }
    .encode_to_vec();
    bytes.extend([0x32, 6, 0x0a, 4, 0xfa, 0xff, 0x3f, 0]);
    let raw = rocksdb::DB::open_default(&path).unwrap();
    raw.put(keys::log(partition(), end.next_seq, tenant()), &bytes).unwrap();
    drop(raw);
    let error = RocksStore::open(&path, OPTIONS).unwrap_err();
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    assert!(error.to_string().contains("log entry 2 of partition 1"), "{error}");
}

#[test]
fn a_snapshot_stays_as_it_was_and_fills_another_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = RocksStore::open(&dir.path().join("one"), OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    let mut end = LogPosition::START;
    for _ in 0..20 {
        end = append(&store, epoch, end, 500);
    }
    let (snapshot, at_cut) = store.cut(|view| gantry_journal::chain::log_end(view, partition()).unwrap());
    assert_eq!(at_cut, end);
    let later = append(&store, epoch, end, 500);
    assert_eq!(gantry_journal::chain::log_end(&snapshot, partition()).unwrap(), end);
    assert_eq!(
        LogReader::from_start(&snapshot, partition())
            .map(Result::unwrap)
            .count(),
        20
    );
    assert!(snapshot.acquire(partition()).is_err(), "a snapshot takes no owner");

    let other = dir.path().join("two");
    let mut loader = Loader::create(&other).unwrap();
    assert!(matches!(
        RocksStore::open(&other, OPTIONS),
        Err(OpenError::Locked { .. })
    ));
    snapshot
        .for_each(|key, value| loader.put(key, value).map_err(|error| ReadError::Io(error.to_string())))
        .unwrap();
    drop(snapshot);
    let copy = loader.finish(2).unwrap();
    assert_eq!(copy.installation(), store.installation());
    assert_eq!(gantry_journal::chain::log_end(&copy, partition()).unwrap(), end);
    assert_eq!(
        copy.acquire(partition()).unwrap().0,
        epoch.0 + 1,
        "the next owner is newer than all before"
    );
    assert_eq!(gantry_journal::chain::log_end(&store, partition()).unwrap(), later);
    drop(copy);
    assert!(matches!(Loader::create(&other), Err(OpenError::Foreign { .. })));
}
