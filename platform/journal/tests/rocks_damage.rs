//! Damage of every kind to every file of the journal, at seeded places: either everything that was acknowledged is there, or the open or the read refuses
//! and says what is damaged. The one exception is the end of the newest write-ahead log, which nothing outside of it vouches for yet.
//!
//! `GANTRY_DAMAGE_SEED=n` repeats a run, `GANTRY_DAMAGE_CASES=n` makes it longer.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests fail by panicking

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gantry_journal::chain::{LogPosition, seal_entry};
use gantry_journal::{Batch, Epoch, LogReader, OpenError, RocksOptions, RocksStore, Store, Write, keys};
use gantry_proto::v1::{Event, LogEntry, Record};
use gantry_proto::{JOURNAL_FORMAT, PartitionId, TenantId};
use prost::Message as _;

const OPTIONS: RocksOptions = RocksOptions { partitions: 2 };
const CASES: u64 = 98;
/// Enough for a change of the write-ahead log, and for tables.
const ENTRIES: usize = 30;
const ENTRY_BYTES: usize = 400 << 10;

/// SplitMix64.
struct Seed(u64);

impl Seed {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn partition() -> PartitionId {
    PartitionId::new(1).unwrap()
}

fn append(store: &RocksStore, epoch: Epoch, end: LogPosition, bytes: usize, seed: &mut Seed) -> LogPosition {
    // Random, so that no compression makes the files small.
    let payload: Vec<u8> = (0..bytes / 8).flat_map(|_| seed.draw().to_be_bytes()).collect();
    let record = Record {
        event: Event { kind: None },
        workflow: None,
        payload: Some(payload.into()),
    };
    let tenant = TenantId::from_bytes([1; 16]);
    let mut entry = LogEntry {
        format: JOURNAL_FORMAT,
        first_seq: end.next_seq,
        at_ms: 1,
        tenant,
        chain: Bytes::new(),
        records: vec![record],
    };
    seal_entry(&end.chain, &mut entry);
    let writes = vec![Write::Put(
        keys::log(partition(), end.next_seq, tenant),
        entry.encode_to_vec().into(),
    )];
    let batch = Batch {
        partition: partition(),
        epoch,
        writes,
    };
    store.commit(&[batch]).unwrap()[0].clone().unwrap();
    LogPosition::after(&entry).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// As [`copy`]; tables, which are never changed in place, are shared but for the one that will be.
fn share(from: &Path, to: &Path, but: &str) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sst") && name != but {
            fs::hard_link(entry.path(), to.join(name)).unwrap();
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Removed,
    Emptied,
    Cut(u64),
    Flipped(u64),
    /// A block of zeros, as a file system leaves it that had the length on disk and not the content.
    Zeroed(u64),
    /// Something at the end that nobody wrote.
    Grown,
}

fn damage(path: &Path, seed: &mut Seed) -> Damage {
    let mut content = fs::read(path).unwrap();
    let at = seed.below(content.len() as u64);
    let damage = match seed.below(8) {
        0 => Damage::Removed,
        1 => Damage::Emptied,
        2 | 3 => Damage::Cut(at),
        4 | 5 => Damage::Flipped(at),
        6 => Damage::Zeroed(at),
        _ => Damage::Grown,
    };
    match damage {
        Damage::Removed => return fs::remove_file(path).map(|()| damage).unwrap(),
        Damage::Emptied => content.clear(),
        Damage::Cut(at) => content.truncate(at as usize),
        Damage::Flipped(at) => {
            if let Some(byte) = content.get_mut(at as usize) {
                *byte ^= 1 << seed.below(8);
            }
        }
        Damage::Zeroed(at) => content
            .iter_mut()
            .skip(at as usize)
            .take(4096)
            .for_each(|byte| *byte = 0),
        Damage::Grown => content.extend((0..100).map(|_| seed.draw() as u8)),
    }
    fs::write(path, content).unwrap();
    damage
}

/// A directory as a killed process leaves it, with tables, several logs, and everything that it acknowledged.
fn killed(dir: &Path, seed: &mut Seed) -> (PathBuf, Vec<LogPosition>) {
    let live = dir.join("live");
    let mut ends = vec![LogPosition::START];
    let store = RocksStore::open(&live, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    for _ in 0..ENTRIES {
        ends.push(append(&store, epoch, *ends.last().unwrap(), ENTRY_BYTES, seed));
    }
    drop(store);
    // A second process: recovery has made tables of everything, and the newest entries stand in a new log.
    let store = RocksStore::open(&live, OPTIONS).unwrap();
    let epoch = store.acquire(partition()).unwrap();
    for _ in 0..8 {
        ends.push(append(&store, epoch, *ends.last().unwrap(), 2_000, seed));
    }
    let origin = dir.join("origin");
    copy(&live, &origin);
    (origin, ends)
}

#[test]
fn whatever_is_damaged_nothing_acknowledged_is_lost_in_silence() {
    let start = number("GANTRY_DAMAGE_SEED", 1);
    eprintln!("GANTRY_DAMAGE_SEED={start}");
    let mut seed = Seed(start);
    let dir = tempfile::tempdir().unwrap();
    let (origin, ends) = killed(dir.path(), &mut seed);
    let files = names(&origin);
    assert!(
        ["CURRENT", "gantry.anchor"]
            .iter()
            .all(|name| files.iter().any(|file| file == name)),
        "{files:?}"
    );
    let newest_log = files
        .iter()
        .rfind(|name| name.ends_with(".log") && fs::metadata(origin.join(name)).unwrap().len() > 0)
        .cloned()
        .unwrap();
    let (mut refused, mut whole, mut shortened) = (0, 0, 0);
    for case in 0..number("GANTRY_DAMAGE_CASES", CASES) {
        let trial = dir.path().join("trial");
        // Every kind of file in turn, so that the many tables do not take all cases.
        let kinds = [
            "CURRENT",
            "MANIFEST",
            ".sst",
            ".log",
            "OPTIONS",
            "gantry.anchor",
            "IDENTITY",
        ];
        let kind = kinds[(case % kinds.len() as u64) as usize];
        let of_kind: Vec<&String> = files.iter().filter(|name| name.contains(kind)).collect();
        if of_kind.is_empty() {
            continue;
        }
        let name = of_kind[seed.below(of_kind.len() as u64) as usize];
        share(&origin, &trial, name);
        let what = damage(&trial.join(name), &mut seed);
        let said = || format!("GANTRY_DAMAGE_SEED={start}, case {case}: {name} {what:?}");
        match RocksStore::open(&trial, OPTIONS) {
            Err(OpenError::Damaged {
                path,
                what: part,
                detail,
            }) => {
                assert!(
                    path.ends_with("trial") && !part.is_empty() && !detail.is_empty(),
                    "{}",
                    said()
                );
                refused += 1;
            }
            Err(other) => panic!("{}: {other}", said()),
            Ok(store) => {
                let mut reader = LogReader::from_start(&store, partition());
                let mut found = vec![LogPosition::START];
                let mut failed = None;
                while let Some(entry) = reader.next() {
                    match entry {
                        Ok(_) => found.push(reader.position()),
                        Err(error) => failed = Some(error),
                    }
                }
                assert_eq!(found, ends[..found.len()], "{}: something else was served", said());
                match failed {
                    Some(error) => {
                        assert!(error.to_string().contains("damaged"), "{}: {error}", said());
                        refused += 1;
                    }
                    None if found.len() == ends.len() => whole += 1,
                    None => {
                        assert_eq!(
                            *name,
                            newest_log,
                            "{}: only {} of {} entries",
                            said(),
                            found.len(),
                            ends.len()
                        );
                        assert!(found.len() > ENTRIES, "{}: more than the unsealed tail is gone", said());
                        shortened += 1;
                    }
                }
            }
        }
        fs::remove_dir_all(&trial).unwrap();
    }
    eprintln!("{refused} refused, {whole} whole, {shortened} shortened in the unsealed tail");
    assert!(refused > 25, "most damage is found: {refused}");
}
