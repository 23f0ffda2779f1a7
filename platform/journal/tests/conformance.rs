//! One suite for every store: random operations, compared step by step with a map. What a store promises beyond that stands in its own suite.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests fail by panicking

use std::collections::BTreeMap;
#[cfg(feature = "rocksdb")]
use std::path::PathBuf;

use bytes::Bytes;
use gantry_journal::{Batch, CommitError, Direction, Epoch, MemoryStore, Store, Write, keys};
use gantry_proto::{NodeId, PartitionId, TenantId};
use proptest::prelude::*;

const PARTITIONS: u16 = 3;

fn partition(index: u16) -> PartitionId {
    PartitionId::new(index % PARTITIONS).unwrap()
}

fn key(index: u16, n: u8) -> Bytes {
    keys::node(
        partition(index),
        TenantId::from_bytes([n % 2; 16]),
        NodeId::from_bytes([n; 16]),
    )
}

/// A store that can be closed and opened again.
trait Subject {
    fn store(&self) -> &dyn Store;
    fn reopen(&mut self);
}

struct Memory(MemoryStore);

impl Subject for Memory {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    fn reopen(&mut self) {
        self.0 = self.0.reopened();
    }
}

#[cfg(feature = "rocksdb")]
struct Rocks {
    store: Option<gantry_journal::RocksStore>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

#[cfg(feature = "rocksdb")]
impl Rocks {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut rocks = Self {
            store: None,
            path,
            _dir: dir,
        };
        rocks.reopen();
        rocks
    }
}

#[cfg(feature = "rocksdb")]
impl Subject for Rocks {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        drop(self.store.take());
        let options = gantry_journal::RocksOptions { partitions: PARTITIONS };
        self.store = Some(gantry_journal::RocksStore::open(&self.path, options).unwrap());
    }
}

/// A key and its new value; none removes it.
type Change = (u8, Option<Vec<u8>>);

#[derive(Debug, Clone)]
enum Op {
    Acquire(u16),
    /// Several partitions' batches at once; `stale` ones name the epoch before.
    Commit(Vec<(u16, bool, Vec<Change>)>),
    Get(u16, u8),
    Scan {
        from: (u16, u8),
        to: (u16, u8),
        reverse: bool,
        limit: usize,
    },
    ScanPartition {
        partition: u16,
        reverse: bool,
        limit: usize,
    },
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let write = (
        0..8u8,
        prop::option::weighted(0.75, prop::collection::vec(any::<u8>(), 0..40)),
    );
    let batch = (
        0..PARTITIONS,
        prop::bool::weighted(0.15),
        prop::collection::vec(write, 0..6),
    );
    prop_oneof![
        2 => (0..PARTITIONS).prop_map(Op::Acquire),
        8 => prop::collection::vec(batch, 1..4).prop_map(Op::Commit),
        3 => (0..PARTITIONS, 0..8u8).prop_map(|(p, n)| Op::Get(p, n)),
        3 => ((0..PARTITIONS, 0..8u8), (0..PARTITIONS, 0..8u8), any::<bool>(), 0..20usize)
            .prop_map(|(from, to, reverse, limit)| Op::Scan { from, to, reverse, limit }),
        3 => (0..PARTITIONS, any::<bool>(), 0..20usize).prop_map(|(partition, reverse, limit)| Op::ScanPartition { partition, reverse, limit }),
        1 => Just(Op::Reopen),
    ]
}

#[derive(Default)]
struct Oracle {
    pairs: BTreeMap<Bytes, Bytes>,
    epochs: [u64; PARTITIONS as usize],
}

impl Oracle {
    fn scan(&self, from: &Bytes, to: &Bytes, reverse: bool, limit: usize) -> Vec<(Bytes, Bytes)> {
        let mut pairs: Vec<_> = self
            .pairs
            .iter()
            .filter(|(key, _)| *key >= from && *key < to)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        if reverse {
            pairs.reverse();
        }
        pairs.truncate(limit);
        pairs
    }
}

fn run(subject: &mut dyn Subject, ops: Vec<Op>) {
    let mut oracle = Oracle::default();
    for op in ops {
        match op {
            Op::Acquire(p) => {
                let epoch = subject.store().acquire(partition(p)).unwrap();
                assert!(epoch.0 > oracle.epochs[usize::from(p)], "greater than every one before");
                oracle.epochs[usize::from(p)] = epoch.0;
            }
            Op::Commit(parts) => {
                let mut batches = Vec::new();
                let mut expected = Vec::new();
                for (p, stale, writes) in parts {
                    let current = oracle.epochs[usize::from(p)];
                    let epoch = Epoch(current.saturating_sub(u64::from(stale)));
                    let writes: Vec<Write> = writes
                        .into_iter()
                        .map(|(n, value)| {
                            value.map_or_else(|| Write::Delete(key(p, n)), |value| Write::Put(key(p, n), value.into()))
                        })
                        .collect();
                    expected.push(epoch.0 == current && current > 0);
                    batches.push(Batch {
                        partition: partition(p),
                        epoch,
                        writes,
                    });
                }
                let verdicts = subject.store().commit(&batches).unwrap();
                assert_eq!(verdicts.len(), batches.len());
                for ((verdict, batch), fits) in verdicts.iter().zip(&batches).zip(expected) {
                    match verdict {
                        Ok(()) => assert!(fits),
                        Err(CommitError::Fenced { partition, ours }) => {
                            assert!(!fits);
                            assert_eq!((*partition, *ours), (batch.partition, batch.epoch));
                        }
                        Err(other) => panic!("{other}"),
                    }
                    for write in batch.writes.iter().filter(|_| fits) {
                        match write {
                            Write::Put(key, value) => drop(oracle.pairs.insert(key.clone(), value.clone())),
                            Write::Delete(key) => drop(oracle.pairs.remove(key)),
                        }
                    }
                }
            }
            Op::Get(p, n) => assert_eq!(
                subject.store().get(&key(p, n)).unwrap(),
                oracle.pairs.get(&key(p, n)).cloned()
            ),
            Op::Scan {
                from,
                to,
                reverse,
                limit,
            } => {
                let (from, to) = (key(from.0, from.1), key(to.0, to.1));
                let direction = if reverse {
                    Direction::Reverse
                } else {
                    Direction::Forward
                };
                assert_eq!(
                    subject.store().scan(&from, &to, direction, limit).unwrap(),
                    oracle.scan(&from, &to, reverse, limit)
                );
            }
            Op::ScanPartition {
                partition: p,
                reverse,
                limit,
            } => {
                let range = keys::all_of(keys::Kind::Node, partition(p));
                let direction = if reverse {
                    Direction::Reverse
                } else {
                    Direction::Forward
                };
                let found = subject.store().scan(&range.from, &range.to, direction, limit).unwrap();
                assert_eq!(found, oracle.scan(&range.from, &range.to, reverse, limit));
            }
            Op::Reopen => subject.reopen(),
        }
    }
    subject.reopen();
    for p in 0..PARTITIONS {
        let range = keys::all_of(keys::Kind::Node, partition(p));
        let found = subject
            .store()
            .scan(&range.from, &range.to, Direction::Forward, usize::MAX)
            .unwrap();
        assert_eq!(
            found,
            oracle.scan(&range.from, &range.to, false, usize::MAX),
            "after the last reopening"
        );
    }
}

fn fencing(subject: &mut dyn Subject) {
    let p = partition(1);
    let batch = |epoch, n: u8| Batch {
        partition: p,
        epoch,
        writes: vec![Write::Put(key(1, n), Bytes::from(vec![n]))],
    };
    let unowned = subject
        .store()
        .commit(&[batch(Epoch(0), 9), batch(Epoch(1), 9)])
        .unwrap();
    assert!(
        unowned
            .iter()
            .all(|verdict| matches!(verdict, Err(CommitError::Fenced { .. }))),
        "nobody owns it yet"
    );
    let first = subject.store().acquire(p).unwrap();
    assert_eq!(first, Epoch(1));
    subject.store().commit(&[batch(first, 1)]).unwrap()[0].clone().unwrap();
    subject.reopen();
    let second = subject.store().acquire(p).unwrap();
    assert!(second > first, "the epoch outlives the process");
    let verdicts = subject
        .store()
        .commit(&[batch(first, 2), batch(second, 3), batch(Epoch(second.0 + 1), 4)])
        .unwrap();
    assert!(matches!(verdicts[0], Err(CommitError::Fenced { ours, .. }) if ours == first));
    assert!(verdicts[1].is_ok());
    assert!(
        matches!(verdicts[2], Err(CommitError::Fenced { .. })),
        "an epoch that was never given"
    );
    let present = |n: u8| subject.store().get(&key(1, n)).unwrap().is_some();
    assert_eq!([1, 2, 3, 4].map(present), [true, false, true, false]);
}

fn foreign_keys(subject: &mut dyn Subject) {
    let p = partition(0);
    let epoch = subject.store().acquire(p).unwrap();
    for foreign in [key(1, 1), keys::meta::epoch(p), keys::meta::format(), Bytes::new()] {
        let writes = vec![
            Write::Put(key(0, 1), Bytes::new()),
            Write::Put(foreign.clone(), Bytes::from_static(b"x")),
        ];
        let verdicts = subject
            .store()
            .commit(&[Batch {
                partition: p,
                epoch,
                writes,
            }])
            .unwrap();
        assert!(matches!(verdicts[0], Err(CommitError::Unknown { .. })), "{foreign:?}");
        assert_eq!(subject.store().get(&key(0, 1)).unwrap(), None, "nothing of the batch");
        assert_ne!(subject.store().get(&foreign).unwrap().as_deref(), Some(&b"x"[..]));
    }
    subject
        .store()
        .commit(&[Batch {
            partition: p,
            epoch,
            writes: vec![],
        }])
        .unwrap()[0]
        .clone()
        .unwrap();
}

/// Readers beside a writer see each batch whole or not at all, and never go back.
fn atomic_to_readers(subject: &mut dyn Subject) {
    let p = partition(0);
    let epoch = subject.store().acquire(p).unwrap();
    let store = subject.store();
    let range = keys::all_of(keys::Kind::Node, p);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0u64;
            while last < 200 {
                let values: Vec<u64> = store
                    .scan(&range.from, &range.to, Direction::Forward, 100)
                    .unwrap()
                    .iter()
                    .map(|(_, value)| u64::from_be_bytes(value.as_ref().try_into().unwrap()))
                    .collect();
                assert!(values.is_empty() || values.len() == 8, "{values:?}");
                if let Some(&first) = values.first() {
                    assert!(values.iter().all(|value| *value == first), "{values:?}");
                    assert!(first >= last);
                    last = first;
                }
            }
        });
        for round in 1..=200u64 {
            let writes = (0..8)
                .map(|n| Write::Put(key(0, n), Bytes::copy_from_slice(&round.to_be_bytes())))
                .collect();
            store
                .commit(&[Batch {
                    partition: p,
                    epoch,
                    writes,
                }])
                .unwrap()[0]
                .clone()
                .unwrap();
        }
        reader.join().unwrap();
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn memory_behaves_as_the_map(ops in prop::collection::vec(op(), 1..80)) {
        run(&mut Memory(MemoryStore::new()), ops);
    }
}

#[test]
fn memory_fences() {
    fencing(&mut Memory(MemoryStore::new()));
}

#[test]
fn memory_refuses_foreign_keys() {
    foreign_keys(&mut Memory(MemoryStore::new()));
}

#[test]
fn memory_is_atomic_to_readers() {
    atomic_to_readers(&mut Memory(MemoryStore::new()));
}

#[cfg(feature = "rocksdb")]
mod rocks {
    use super::*;

    proptest! {
        // Each case opens a database several times and syncs every commit.
        #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 64, ..ProptestConfig::default() })]
        #[test]
        fn rocks_behaves_as_the_map(ops in prop::collection::vec(op(), 1..60)) {
            run(&mut Rocks::new(), ops);
        }
    }

    #[test]
    fn rocks_fences() {
        fencing(&mut Rocks::new());
    }

    #[test]
    fn rocks_refuses_foreign_keys() {
        foreign_keys(&mut Rocks::new());
    }

    #[test]
    fn rocks_is_atomic_to_readers() {
        atomic_to_readers(&mut Rocks::new());
    }
}
