//! Live output on disk: the same ids and bytes for ever, nothing visible before it is durable, and what a crash may take and what not.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests fail by panicking

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use gantry_journal::{Chunk, DataKey, SegmentError, SegmentStore, StreamKey};
use gantry_proto::limits::OUTPUT_CHUNK_BYTES_MAX;
use gantry_proto::v1::OutputStream;
use gantry_proto::{PartitionId, TaskId, TenantId, WorkflowId};
use proptest::prelude::*;
use tokio::task::JoinSet;

fn data_key() -> DataKey {
    DataKey::from_bytes(&[9; 32])
}

fn key(workflow: u64, task: u64) -> StreamKey {
    let partition = PartitionId::new(2).unwrap();
    StreamKey {
        tenant: TenantId::new(1, partition, 1),
        workflow: WorkflowId::new(1, partition, workflow),
        task: TaskId::new(1, partition, task),
        step: 0,
        attempt: 1,
    }
}

fn chunk(seq: u64, bytes: usize) -> Chunk {
    let stream = if seq.is_multiple_of(3) {
        OutputStream::Stderr
    } else {
        OutputStream::Stdout
    };
    let data: Vec<u8> = (0..bytes).map(|n| (n as u64 * 7 + seq) as u8).collect();
    Chunk {
        seq,
        stream,
        at_ms: 1_000 + seq,
        data: data.into(),
    }
}

fn chunks(from: u64, to: u64, bytes: usize) -> Vec<Chunk> {
    (from..=to).map(|seq| chunk(seq, bytes)).collect()
}

fn segment_files(dir: &Path, key: &StreamKey) -> Vec<PathBuf> {
    let dir = dir.join(key.tenant.to_string()).join(key.workflow.to_string());
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

async fn read_all(store: &SegmentStore, key: &StreamKey, max_bytes: usize) -> Vec<Chunk> {
    let mut all: Vec<Chunk> = Vec::new();
    loop {
        let after = all.last().map_or(0, |chunk| chunk.seq);
        let page = store.read(key, &data_key(), after, max_bytes).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

#[tokio::test]
async fn appending_is_idempotent_and_refuses_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let key = key(1, 1);
    assert_eq!(store.high_water(&key), 0);
    store.append(&key, &data_key(), chunks(1, 5, 100)).await.unwrap();
    // A repeat with other bytes does not replace what was given first.
    let mut repeated = chunks(3, 8, 100);
    repeated[0].data = Bytes::from_static(b"other");
    store.append(&key, &data_key(), repeated).await.unwrap();
    assert_eq!(store.high_water(&key), 8);
    let gap = store.append(&key, &data_key(), vec![chunk(9, 1), chunk(11, 1)]).await;
    assert!(matches!(gap, Err(SegmentError::Gap { expected: 10, got: 11 })));
    assert!(matches!(
        store.append(&key, &data_key(), vec![chunk(0, 1)]).await,
        Err(SegmentError::Gap { .. })
    ));
    let large = store
        .append(
            &key,
            &data_key(),
            vec![chunk(9, 1), chunk(10, OUTPUT_CHUNK_BYTES_MAX + 1)],
        )
        .await;
    assert!(matches!(large, Err(SegmentError::ChunkTooLarge { .. })));
    assert_eq!(store.high_water(&key), 8, "refused calls store nothing");
    store
        .append(&key, &data_key(), vec![chunk(9, OUTPUT_CHUNK_BYTES_MAX), chunk(10, 0)])
        .await
        .unwrap();
    assert_eq!(store.durable(&key).await.unwrap(), 10);
    let mut expected = chunks(1, 8, 100);
    expected.extend([chunk(9, OUTPUT_CHUNK_BYTES_MAX), chunk(10, 0)]);
    assert_eq!(read_all(&store, &key, 150).await, expected);
}

#[tokio::test]
async fn nothing_is_visible_before_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let key = key(1, 1);
    assert_eq!(store.durable(&key).await.unwrap(), 0);
    store.append(&key, &data_key(), chunks(1, 4, 10)).await.unwrap();
    assert!(read_all(&store, &key, 1000).await.is_empty());
    assert_eq!(store.durable(&key).await.unwrap(), 4);
    store.append(&key, &data_key(), chunks(5, 6, 10)).await.unwrap();
    assert_eq!(read_all(&store, &key, 1000).await, chunks(1, 4, 10));
    assert_eq!(store.stream_end(&key).await.unwrap(), (4, None));
}

#[tokio::test]
async fn pages_are_bounded_and_replay_from_any_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open_with(dir.path(), 8 << 10).unwrap();
    let (one, two) = (key(1, 1), key(1, 2));
    for seq in 1..=300 {
        store.append(&one, &data_key(), vec![chunk(seq, 97)]).await.unwrap();
        store.append(&two, &data_key(), vec![chunk(seq, 31)]).await.unwrap();
    }
    store.durable(&one).await.unwrap();
    assert_eq!(store.durable(&two).await.unwrap(), 300);
    assert!(segment_files(dir.path(), &one).len() > 5, "rolled");
    for after in [0, 1, 7, 149, 298, 299, 300, 301, u64::MAX] {
        let page = store.read(&one, &data_key(), after, 970).await.unwrap();
        let expected = if after >= 300 {
            Vec::new()
        } else {
            chunks(after + 1, (after + 10).min(300), 97)
        };
        assert_eq!(page, expected, "after {after}");
    }
    assert_eq!(
        store.read(&one, &data_key(), 0, 0).await.unwrap().len(),
        1,
        "at least one"
    );
    assert_eq!(read_all(&store, &two, 500).await, chunks(1, 300, 31));
}

#[tokio::test]
async fn reopening_gives_the_same_ids_bytes_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        key(1, 1),
        StreamKey {
            attempt: 2,
            ..key(1, 1)
        },
    );
    {
        let store = SegmentStore::open_with(dir.path(), 4 << 10).unwrap();
        for seq in 1..=100 {
            store.append(&one, &data_key(), vec![chunk(seq, 200)]).await.unwrap();
        }
        store.append(&two, &data_key(), chunks(1, 3, 5)).await.unwrap();
        store.finish(&one, 100).await.unwrap();
        // Not synced by anybody: what is on disk counts after a restart, since it is synced there first.
        store.append(&two, &data_key(), chunks(4, 4, 5)).await.unwrap();
        store.close().await;
        assert!(matches!(
            store.read(&one, &data_key(), 0, 1).await,
            Err(SegmentError::Closed)
        ));
    }
    let store = SegmentStore::open_with(dir.path(), 4 << 10).unwrap();
    store.load(one.tenant, one.workflow).await.unwrap();
    assert_eq!(store.streams(one.tenant, one.workflow), [one, two]);
    assert_eq!((store.high_water(&one), store.high_water(&two)), (100, 4));
    assert_eq!((store.is_finished(&one), store.is_finished(&two)), (true, false));
    assert_eq!(store.stream_end(&one).await.unwrap(), (100, Some(100)));
    assert_eq!(read_all(&store, &one, 1_000).await, chunks(1, 100, 200));
    assert_eq!(read_all(&store, &two, 1_000).await, chunks(1, 4, 5));
    assert!(matches!(
        store.append(&one, &data_key(), vec![chunk(101, 1)]).await,
        Err(SegmentError::Finished { last_seq: 100 })
    ));
    store.append(&one, &data_key(), chunks(90, 100, 200)).await.unwrap();
}

#[tokio::test]
async fn an_end_is_exact_and_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let key = key(1, 1);
    store.append(&key, &data_key(), chunks(1, 3, 5)).await.unwrap();
    assert!(matches!(
        store.finish(&key, 4).await,
        Err(SegmentError::Gap { expected: 4, got: 4 })
    ));
    assert!(!store.is_finished(&key));
    store.finish(&key, 3).await.unwrap();
    store.finish(&key, 3).await.unwrap();
    assert!(store.is_finished(&key));
    assert!(matches!(
        store.finish(&key, 2).await,
        Err(SegmentError::Finished { last_seq: 3 })
    ));
    // A step that printed nothing has an end all the same.
    let silent = StreamKey { step: 1, ..key };
    store.finish(&silent, 0).await.unwrap();
    assert!(store.is_finished(&silent));
    assert_eq!(store.streams(key.tenant, key.workflow), [key, silent]);
}

#[tokio::test]
async fn a_cut_at_any_byte_keeps_every_whole_frame_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let key = key(1, 1);
    let mut lengths = Vec::new();
    {
        let store = SegmentStore::open(&dir.path().join("origin")).unwrap();
        for seq in 1..=4 {
            store.append(&key, &data_key(), vec![chunk(seq, 40)]).await.unwrap();
            lengths.push(
                fs::metadata(&segment_files(&dir.path().join("origin"), &key)[0])
                    .unwrap()
                    .len(),
            );
        }
    }
    let file = segment_files(&dir.path().join("origin"), &key).pop().unwrap();
    let content = fs::read(&file).unwrap();
    for cut in 0..=content.len() {
        let trial = dir.path().join("trial");
        let path = trial.join(file.strip_prefix(dir.path().join("origin")).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &content[..cut]).unwrap();
        let store = SegmentStore::open(&trial).unwrap();
        let whole = lengths.iter().filter(|length| **length <= cut as u64).count() as u64;
        store.load(key.tenant, key.workflow).await.unwrap();
        assert_eq!(store.high_water(&key), whole, "cut at {cut}");
        store.append(&key, &data_key(), chunks(1, 6, 40)).await.unwrap();
        store.durable(&key).await.unwrap();
        drop(store);
        let store = SegmentStore::open(&trial).unwrap();
        assert_eq!(read_all(&store, &key, 10_000).await, chunks(1, 6, 40), "cut at {cut}");
        fs::remove_dir_all(&trial).unwrap();
    }
}

#[tokio::test]
async fn damage_to_what_was_durable_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let key = key(1, 1);
    let store = SegmentStore::open_with(dir.path(), 2 << 10).unwrap();
    for seq in 1..=40 {
        store.append(&key, &data_key(), vec![chunk(seq, 150)]).await.unwrap();
        store.durable(&key).await.unwrap();
    }
    drop(store);
    let files = segment_files(dir.path(), &key);
    assert!(files.len() > 2);
    let refused = async |what: &str, damaged: &Path| {
        let store = SegmentStore::open(dir.path()).unwrap();
        let error = store.load(key.tenant, key.workflow).await.unwrap_err();
        let name = damaged.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            matches!(error, SegmentError::Damaged { .. }) && error.to_string().contains(&name),
            "{what}: {error}"
        );
        assert!(
            store.append(&key, &data_key(), chunks(1, 1, 1)).await.is_err(),
            "{what}: nothing is taken"
        );
        assert!(
            store.read(&key, &data_key(), 0, 1).await.is_err(),
            "{what}: nothing is served"
        );
        assert_eq!(store.high_water(&key), 0);
    };
    for (file, what) in [
        (&files[1], "a file before the last"),
        (files.last().unwrap(), "the durable part of the last"),
    ] {
        let good = fs::read(file).unwrap();
        let mut bad = good.clone();
        bad[60] ^= 1;
        fs::write(file, &bad).unwrap();
        refused(what, file).await;
        fs::write(file, &good).unwrap();
    }
    let good = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &good[..good.len() - 3]).unwrap();
    refused("a cut before the last file", &files[1]).await;
    fs::remove_file(&files[1]).unwrap();
    refused("a missing file", &files[1]).await;
    let mut newer = good.clone();
    newer[11] = 2;
    let crc = crc32c::crc32c(&newer[..12]);
    newer[12..16].copy_from_slice(&crc.to_be_bytes());
    fs::write(&files[1], &newer).unwrap();
    refused("a newer version", &files[1]).await;
    fs::write(&files[1], &good).unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    assert_eq!(read_all(&store, &key, 10_000).await, chunks(1, 40, 150));
}

#[tokio::test]
async fn sealed_chunks_open_only_with_their_key_and_in_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let (one, other) = (key(1, 1), key(2, 1));
    store.append(&one, &data_key(), chunks(1, 2, 64)).await.unwrap();
    store.durable(&one).await.unwrap();
    let wrong = store.read(&one, &DataKey::from_bytes(&[1; 32]), 0, 100).await;
    assert!(matches!(wrong, Err(SegmentError::Seal(_))));
    let file = &segment_files(dir.path(), &one)[0];
    let content = fs::read(file).unwrap();
    assert!(
        !content.windows(16).any(|window| window == &chunk(1, 64).data[..16]),
        "no plain bytes on disk"
    );
    // The file of one workflow in the place of another's.
    let copy = dir
        .path()
        .join(other.tenant.to_string())
        .join(other.workflow.to_string());
    fs::create_dir_all(&copy).unwrap();
    fs::copy(file, copy.join(file.file_name().unwrap())).unwrap();
    assert!(matches!(
        store.read(&other, &data_key(), 0, 100).await,
        Err(SegmentError::Seal(_))
    ));
}

#[tokio::test]
async fn destroying_takes_everything_of_one_workflow() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let (one, other) = (key(1, 1), key(2, 1));
    for key in [&one, &other] {
        store.append(key, &data_key(), chunks(1, 3, 10)).await.unwrap();
        store.durable(key).await.unwrap();
    }
    for _ in 0..2 {
        store.destroy(one.tenant, one.workflow).await.unwrap();
        assert!(
            !dir.path()
                .join(one.tenant.to_string())
                .join(one.workflow.to_string())
                .exists()
        );
        assert!(store.streams(one.tenant, one.workflow).is_empty());
    }
    assert_eq!(read_all(&store, &other, 100).await.len(), 3);
    store.append(&one, &data_key(), chunks(1, 1, 10)).await.unwrap();
    assert_eq!(store.durable(&one).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..200 {
        store
            .append(&key(1, task), &data_key(), chunks(1, 2, 100))
            .await
            .unwrap();
    }
    for task in 0..200 {
        let store = store.clone();
        tasks.spawn(async move { store.durable(&key(1, task)).await.unwrap() });
    }
    while let Some(durable) = tasks.join_next().await {
        assert_eq!(durable.unwrap(), 2);
    }
    assert_eq!(store.syncs(), 1, "everything was written before the first sync");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_streams_keep_few_files_open() {
    const WORKFLOWS: u64 = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open(dir.path()).unwrap();
    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open_files();
    let mut tasks = JoinSet::new();
    for workflow in 0..WORKFLOWS {
        let store = store.clone();
        tasks.spawn(async move {
            for round in 0..2 {
                for task in 0..5 {
                    let key = key(workflow, task);
                    store
                        .append(&key, &data_key(), chunks(round * 2 + 1, round * 2 + 2, 20))
                        .await
                        .unwrap();
                }
            }
        });
        if tasks.len() > 64 {
            tasks.join_next().await.unwrap().unwrap();
        }
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let held = open_files() - before;
    assert!(held <= 200, "{held} files open for 5,000 streams");
    for workflow in (0..WORKFLOWS).step_by(97) {
        for task in 0..5 {
            assert_eq!(store.durable(&key(workflow, task)).await.unwrap(), 4);
            assert_eq!(read_all(&store, &key(workflow, task), 1_000).await, chunks(1, 4, 20));
        }
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_beside_a_writer_see_a_growing_prefix() {
    let dir = tempfile::tempdir().unwrap();
    let store = SegmentStore::open_with(dir.path(), 4 << 10).unwrap();
    let key = key(1, 1);
    let mut readers = JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        readers.spawn(async move {
            let mut seen = 0;
            while seen < 300 {
                let durable = store.stream_end(&key).await.unwrap().0;
                for chunk in store.read(&key, &data_key(), seen, 500).await.unwrap() {
                    seen += 1;
                    assert_eq!(chunk, self::chunk(seen, 60));
                }
                assert!(seen >= durable.min(seen + 1).saturating_sub(8), "progress");
            }
        });
    }
    for seq in 1..=300 {
        store.append(&key, &data_key(), vec![chunk(seq, 60)]).await.unwrap();
        store.durable(&key).await.unwrap();
    }
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
}

#[derive(Debug, Clone)]
enum Op {
    /// To a task's stream: how many to repeat, how many to add, their size.
    Append(u64, u64, u64, usize),
    Durable(u64),
    Finish(u64),
    Read(u64, u64, usize),
    Reopen,
    /// A crash that takes a part of what was not synced: where in the unsynced tail, in thousandths.
    Cut(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3u64, 0..4u64, 0..5u64, 0..300usize).prop_map(|(task, repeat, add, size)| Op::Append(task, repeat, add, size)),
        3 => (0..3u64).prop_map(Op::Durable),
        1 => (0..3u64).prop_map(Op::Finish),
        3 => (0..3u64, 0..30u64, 0..2_000usize).prop_map(|(task, after, max)| Op::Read(task, after, max)),
        1 => Just(Op::Reopen),
        2 => (0..=1_000u64).prop_map(Op::Cut),
    ]
}

/// What a stream must be: every chunk written, how many of them are durable, and whether it has ended.
#[derive(Default)]
struct Model {
    written: Vec<Chunk>,
    durable: usize,
    ended: bool,
}

async fn run(ops: Vec<Op>) {
    const ROLL: u64 = 2 << 10;
    let dir = tempfile::tempdir().unwrap();
    let mut store = SegmentStore::open_with(dir.path(), ROLL).unwrap();
    let mut models: BTreeMap<u64, Model> = BTreeMap::new();
    // File and length up to which everything is synced.
    let mut synced: Option<(PathBuf, u64)> = None;
    let tail = || {
        let exists = dir.path().join(key(1, 0).tenant.to_string()).is_dir();
        exists
            .then(|| segment_files(dir.path(), &key(1, 0)).pop())
            .flatten()
            .map(|path| (fs::metadata(&path).unwrap().len(), path))
    };
    for op in ops {
        match op {
            Op::Append(task, repeat, add, size) => {
                let model = models.entry(task).or_default();
                let written = model.written.len() as u64;
                let from = written.saturating_sub(repeat) + 1;
                let given: Vec<Chunk> = (from..=written + add)
                    .map(|seq| {
                        usize::try_from(seq - 1)
                            .ok()
                            .and_then(|at| model.written.get(at))
                            .cloned()
                            .unwrap_or_else(|| chunk(seq, size))
                    })
                    .collect();
                let done = store.append(&key(1, task), &data_key(), given.clone()).await;
                if model.ended && add > 0 {
                    assert!(matches!(done, Err(SegmentError::Finished { .. })));
                } else {
                    done.unwrap();
                    model
                        .written
                        .extend(given.into_iter().filter(|chunk| chunk.seq > written));
                }
            }
            Op::Durable(task) => {
                let expected = models.get(&task).map_or(0, |model| model.written.len());
                let before = models.get(&task).map_or(0, |model| model.durable);
                assert_eq!(store.durable(&key(1, task)).await.unwrap(), expected as u64);
                if before < expected {
                    models
                        .values_mut()
                        .for_each(|model| model.durable = model.written.len());
                    synced = tail().map(|(length, path)| (path, length));
                } else if let Some(model) = models.get_mut(&task) {
                    model.durable = expected;
                }
            }
            Op::Finish(task) => {
                let model = models.entry(task).or_default();
                if !model.ended {
                    store.finish(&key(1, task), model.written.len() as u64).await.unwrap();
                    model.ended = true;
                    models
                        .values_mut()
                        .for_each(|model| model.durable = model.written.len());
                    synced = tail().map(|(length, path)| (path, length));
                }
            }
            Op::Read(task, after, max) => {
                let page = store.read(&key(1, task), &data_key(), after, max).await.unwrap();
                let durable = models
                    .get(&task)
                    .map_or(&[][..], |model| &model.written[..model.durable]);
                let rest = durable.get(usize::try_from(after).unwrap()..).unwrap_or_default();
                assert_eq!(page, rest[..page.len()]);
                assert_eq!(page.is_empty(), rest.is_empty());
            }
            Op::Reopen | Op::Cut(_) => {
                store.close().await;
                if let (Op::Cut(thousandths), Some((length, path))) = (&op, tail()) {
                    let floor = synced
                        .as_ref()
                        .filter(|(file, _)| *file == path)
                        .map_or(0, |(_, length)| *length);
                    let cut = floor + (length - floor) * thousandths / 1_000;
                    fs::OpenOptions::new()
                        .write(true)
                        .open(&path)
                        .unwrap()
                        .set_len(cut)
                        .unwrap();
                }
                store = SegmentStore::open_with(dir.path(), ROLL).unwrap();
                store.load(key(1, 0).tenant, key(1, 0).workflow).await.unwrap();
                for (task, model) in &mut models {
                    let kept = usize::try_from(store.high_water(&key(1, *task))).unwrap();
                    assert!(
                        (model.durable..=model.written.len()).contains(&kept),
                        "{} durable, {kept} kept",
                        model.durable
                    );
                    assert!(matches!(op, Op::Cut(_)) || kept == model.written.len());
                    model.written.truncate(kept);
                    model.durable = kept;
                    assert_eq!(store.is_finished(&key(1, *task)), model.ended);
                }
                synced = tail().map(|(length, path)| (path, length));
            }
        }
    }
    for (task, model) in &models {
        assert_eq!(store.high_water(&key(1, *task)), model.written.len() as u64);
        store.durable(&key(1, *task)).await.unwrap();
        assert_eq!(read_all(&store, &key(1, *task), 1_000).await, model.written);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 256, ..ProptestConfig::default() })]
    #[test]
    fn random_operations_cuts_and_restarts_match_the_model(ops in prop::collection::vec(op(), 1..60)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(run(ops));
    }
}
