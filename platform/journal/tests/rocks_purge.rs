//! What was destroyed is in no file of the store any more: neither in its logs nor in its tables.
#![cfg(feature = "rocksdb")]
#![allow(clippy::unwrap_used)] // helpers of tests fail by panicking

use std::path::Path;

use bytes::Bytes;
use gantry_journal::keys::{self, KeyRange};
use gantry_journal::{Batch, FileKeyRing, KeyRing as _, RocksOptions, RocksStore, Store as _, Write};
use gantry_proto::{PartitionId, TenantId, WorkflowId};

/// Files below `dir` that hold `needle`.
fn holding(dir: &Path, needle: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, needle));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(needle.len()).any(|window| window == needle) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn the_bytes_of_a_deleted_key_are_in_no_file_after_a_purge() {
    let dir = tempfile::tempdir().unwrap();
    let ring = FileKeyRing::open_or_create(&dir.path().join("master.key")).unwrap();
    let journal = dir.path().join("journal");
    let store = RocksStore::open(&journal, RocksOptions { partitions: 1 }).unwrap();
    let partition = PartitionId::default();
    let epoch = store.acquire(partition).unwrap();
    let tenant = TenantId::new(1, partition, 1);
    let commit = |writes: Vec<Write>| {
        let batch = Batch {
            partition,
            epoch,
            writes,
        };
        assert!(
            store
                .commit(&[batch])
                .unwrap()
                .into_iter()
                .all(|verdict| verdict.is_ok())
        );
    };
    let mut wrapped: Vec<(Bytes, Bytes)> = Vec::new();
    for n in 0..64 {
        let workflow = WorkflowId::new(n, partition, n);
        let (_, key) = ring.generate(tenant, workflow).unwrap();
        wrapped.push((keys::data_key(partition, tenant, workflow), key.0));
    }
    // Some are in tables of more than one level by then, some in the memory table and its log alone.
    let keys_and_rows = |pairs: &[(Bytes, Bytes)]| {
        for (key, value) in pairs {
            commit(vec![Write::Put(key.clone(), value.clone())]);
        }
    };
    keys_and_rows(&wrapped[..32]);
    store.purge(&[KeyRange::of_key(&wrapped[0].0)]).unwrap();
    keys_and_rows(&wrapped[32..]);
    // The random end of a wrapped key: an SST file keeps what keys have in common only once.
    let needle = |n: usize| wrapped[n].1[wrapped[n].1.len() - 32..].to_vec();
    for n in [3, 40] {
        assert!(
            !holding(&journal, &needle(n)).is_empty(),
            "it is there before, or the search is no proof"
        );
    }

    let gone: Vec<usize> = vec![3, 17, 40, 63];
    commit(gone.iter().map(|n| Write::Delete(wrapped[*n].0.clone())).collect());
    let ranges: Vec<KeyRange> = gone.iter().map(|n| KeyRange::of_key(&wrapped[*n].0)).collect();
    store.purge(&ranges).unwrap();
    for n in &gone {
        assert_eq!(holding(&journal, &needle(*n)), Vec::<String>::new(), "key {n}");
        assert_eq!(store.get(&wrapped[*n].0).unwrap(), None);
    }
    // A purge of more ranges than it looks at one by one.
    let many: Vec<usize> = (10..40).filter(|n| !gone.contains(n)).collect();
    commit(many.iter().map(|n| Write::Delete(wrapped[*n].0.clone())).collect());
    store
        .purge(
            &many
                .iter()
                .map(|n| KeyRange::of_key(&wrapped[*n].0))
                .collect::<Vec<_>>(),
        )
        .unwrap();
    for n in &many {
        assert_eq!(holding(&journal, &needle(*n)), Vec::<String>::new(), "key {n}");
    }
    drop(store);
    let again = RocksStore::open(&journal, RocksOptions { partitions: 1 }).unwrap();
    for (n, (key, value)) in wrapped.iter().enumerate() {
        let stays = !gone.contains(&n) && !many.contains(&n);
        assert_eq!(again.get(key).unwrap(), stays.then(|| value.clone()), "key {n}");
    }
}
