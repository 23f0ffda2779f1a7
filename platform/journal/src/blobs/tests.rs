#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)] // helpers of tests fail by panicking

use std::fs;

use futures_util::{TryStreamExt as _, stream};
use gantry_proto::PartitionId;

use super::*;

struct Rig {
    dir: tempfile::TempDir,
    store: BlobStore,
    data_key: DataKey,
    tenant: TenantId,
    workflow: WorkflowId,
}

fn rig() -> Rig {
    let dir = tempfile::tempdir().unwrap();
    let partition = PartitionId::new(1).unwrap();
    Rig {
        store: BlobStore::local(&dir.path().join("blobs")).unwrap(),
        dir,
        data_key: DataKey::from_bytes(&[3; 32]),
        tenant: TenantId::new(1, partition, 1),
        workflow: WorkflowId::new(1, partition, 1),
    }
}

fn artifact(n: u64) -> ArtifactId {
    ArtifactId::new(1, PartitionId::new(1).unwrap(), n)
}

fn content(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n % 251) as u8).collect()
}

impl Rig {
    async fn put(&self, id: ArtifactId, plain: &[u8], piece: usize, limit: u64) -> Result<BlobInfo, BlobError> {
        let pieces: Vec<io::Result<Bytes>> = plain
            .chunks(piece)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        self.store
            .put_stream(
                self.tenant,
                self.workflow,
                id,
                &self.data_key,
                stream::iter(pieces),
                limit,
            )
            .await
    }

    async fn get(&self, id: ArtifactId, range: Option<std::ops::Range<u64>>) -> Result<Vec<u8>, BlobError> {
        let reader = self
            .store
            .get_stream(self.tenant, self.workflow, id, &self.data_key, range)
            .await?;
        let pieces: Vec<Bytes> = reader.try_collect().await?;
        Ok(pieces.concat())
    }

    /// Every file under the directory.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.dir.path().to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found
    }
}

#[tokio::test]
async fn sizes_around_frame_and_part_borders_round_trip() {
    let rig = rig();
    for (n, size) in [0, 1, 65_535, 65_536, 65_537, 131_072, 1 << 20, (1 << 20) + 3, 3_000_000]
        .into_iter()
        .enumerate()
    {
        let plain = content(size);
        let info = rig.put(artifact(n as u64), &plain, 10_007, u64::MAX).await.unwrap();
        assert_eq!(info.size_bytes, size as u64);
        assert_eq!(info.sha256, <[u8; 32]>::from(Sha256::digest(&plain)));
        assert!(rig.get(artifact(n as u64), None).await.unwrap() == plain, "size {size}");
    }
}

#[tokio::test]
async fn ranges_are_exact() {
    let rig = rig();
    let plain = content(400_000);
    rig.put(artifact(1), &plain, 400_000, u64::MAX).await.unwrap();
    let ranges = [
        0..1,
        0..65_536,
        65_535..65_537,
        65_536..131_072,
        100..100,
        399_999..400_000,
        200_000..900_000,
        0..400_000,
    ];
    for range in ranges {
        let got = rig.get(artifact(1), Some(range.clone())).await.unwrap();
        let end = range.end.min(400_000) as usize;
        assert!(got == plain[range.start as usize..end], "{range:?}");
    }
    for range in [400_000..400_001, 500_000..500_000] {
        assert!(matches!(
            rig.get(artifact(1), Some(range)).await,
            Err(BlobError::Range { size_bytes: 400_000 })
        ));
    }
    #[allow(clippy::reversed_empty_ranges)]
    let backwards = rig.get(artifact(1), Some(9..3)).await;
    assert!(matches!(backwards, Err(BlobError::Range { .. })));
}

#[tokio::test]
async fn a_range_reads_only_its_own_frames() {
    let rig = rig();
    let plain = content(300_000);
    rig.put(artifact(1), &plain, 50_000, u64::MAX).await.unwrap();
    let path = rig.files().pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let frame = usize::try_from(frames::FRAME_SEALED_BYTES).unwrap();
    bytes[16 + 3 * frame + 5] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(
        rig.get(artifact(1), Some(0..196_608)).await.is_ok(),
        "frame 3 is not touched"
    );
    assert!(rig.get(artifact(1), Some(262_144..300_000)).await.is_ok());
    assert!(matches!(
        rig.get(artifact(1), Some(196_608..196_609)).await,
        Err(BlobError::Damaged { .. })
    ));
    assert!(matches!(
        rig.get(artifact(1), None).await,
        Err(BlobError::Damaged { .. })
    ));
}

#[tokio::test]
async fn cuts_swaps_and_changes_are_damage() {
    let rig = rig();
    let plain = content(200_000);
    rig.put(artifact(1), &plain, 50_000, u64::MAX).await.unwrap();
    let path = rig.files().pop().unwrap();
    let good = fs::read(&path).unwrap();
    let frame = usize::try_from(frames::FRAME_SEALED_BYTES).unwrap();
    for cut in [
        0,
        15,
        16,
        17,
        44,
        16 + frame,
        16 + 2 * frame,
        16 + 3 * frame,
        16 + 3 * frame + 28,
        good.len() - 1,
    ] {
        fs::write(&path, &good[..cut]).unwrap();
        assert!(
            matches!(rig.get(artifact(1), None).await, Err(BlobError::Damaged { .. })),
            "cut at {cut}"
        );
    }
    let mut swapped = good.clone();
    swapped[16..16 + frame].copy_from_slice(&good[16 + frame..16 + 2 * frame]);
    let mut longer = good.clone();
    longer.extend_from_slice(&good[good.len() - 40..]);
    let mut newer = good.clone();
    newer[11] = 2;
    for bad in [swapped, longer, newer] {
        fs::write(&path, &bad).unwrap();
        assert!(matches!(
            rig.get(artifact(1), None).await,
            Err(BlobError::Damaged { .. })
        ));
    }
    // Under another id the same bytes do not open.
    fs::write(&path, &good).unwrap();
    fs::copy(&path, path.with_file_name(artifact(2).to_string())).unwrap();
    assert!(matches!(
        rig.get(artifact(2), None).await,
        Err(BlobError::Damaged { .. })
    ));
    assert_eq!(rig.get(artifact(1), None).await.unwrap(), plain);
}

#[tokio::test]
async fn the_limit_and_a_failing_source_leave_nothing() {
    let rig = rig();
    let plain = content(2_000_000);
    assert!(rig.put(artifact(1), &plain, 4_096, 2_000_000).await.is_ok());
    assert!(matches!(
        rig.put(artifact(2), &plain, 4_096, 1_999_999).await,
        Err(BlobError::TooLarge { limit_bytes: 1_999_999 })
    ));
    let pieces = vec![
        Ok(Bytes::from(content(1_500_000))),
        Err(io::Error::other("the node went away")),
    ];
    let failed = rig
        .store
        .put_stream(
            rig.tenant,
            rig.workflow,
            artifact(3),
            &rig.data_key,
            stream::iter(pieces),
            u64::MAX,
        )
        .await;
    assert!(matches!(failed, Err(BlobError::Source(_))));
    assert_eq!(rig.files().len(), 1);
    for n in [2, 3] {
        assert!(matches!(rig.get(artifact(n), None).await, Err(BlobError::NotFound)));
    }
    // What is there stays as it is when its replacement fails.
    let failed = rig.put(artifact(1), &content(3_000_000), 4_096, 2_500_000).await;
    assert!(matches!(failed, Err(BlobError::TooLarge { .. })));
    assert!(rig.get(artifact(1), None).await.unwrap() == plain);
}

#[tokio::test]
async fn what_a_crash_left_is_removed_at_the_next_start_and_blobs_are_not() {
    let rig = rig();
    rig.put(artifact(1), b"kept", 4, 10).await.unwrap();
    let pending = stream::iter(vec![Ok(Bytes::from(content(1_500_000)))]).chain(stream::pending());
    let mut upload =
        Box::pin(
            rig.store
                .put_stream(rig.tenant, rig.workflow, artifact(2), &rig.data_key, pending, u64::MAX),
        );
    while rig.files().len() < 2 {
        assert!(futures_util::poll!(&mut upload).is_pending());
        tokio::task::yield_now().await;
    }
    // A crash does not run destructors.
    std::mem::forget(upload);
    let again = BlobStore::local(&rig.dir.path().join("blobs")).unwrap();
    assert_eq!(rig.files().len(), 1);
    let reader = again
        .get_stream(rig.tenant, rig.workflow, artifact(1), &rig.data_key, None)
        .await
        .unwrap();
    assert_eq!(reader.size_bytes(), 4);
}

#[tokio::test]
async fn deleting_takes_one_workflow_and_can_be_repeated() {
    let rig = rig();
    rig.put(artifact(1), b"one", 4, 10).await.unwrap();
    rig.put(artifact(2), b"two", 4, 10).await.unwrap();
    let other = WorkflowId::new(2, PartitionId::new(1).unwrap(), 2);
    let pieces = || stream::iter(vec![Ok(Bytes::from_static(b"other"))]);
    rig.store
        .put_stream(rig.tenant, other, artifact(1), &rig.data_key, pieces(), 10)
        .await
        .unwrap();
    for _ in 0..2 {
        rig.store.delete_workflow(rig.tenant, rig.workflow).await.unwrap();
        assert!(matches!(rig.get(artifact(1), None).await, Err(BlobError::NotFound)));
    }
    assert_eq!(rig.files().len(), 1);
    assert!(
        rig.store
            .get_stream(rig.tenant, other, artifact(1), &rig.data_key, None)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn uploads_and_staged_workflows_are_listed_until_they_are_gone() {
    let rig = rig();
    let upload = UploadId::new(1, PartitionId::new(1).unwrap(), 9);
    let body = || stream::iter([Ok(Bytes::from_static(b"text"))]);
    assert!(rig.store.uploads().await.unwrap().is_empty() && rig.store.staged().await.unwrap().is_empty());
    for n in [1, 2] {
        let put = rig
            .store
            .put_stream(rig.tenant, upload, artifact(n), &rig.data_key, body(), 4);
        put.await.unwrap();
    }
    rig.put(artifact(3), b"of a workflow", 4, 99).await.unwrap();
    rig.store.stage(rig.tenant, rig.workflow).await.unwrap();
    assert_eq!(rig.store.uploads().await.unwrap(), [(rig.tenant, upload)].into());
    assert_eq!(rig.store.staged().await.unwrap(), [(rig.tenant, rig.workflow)].into());
    for _ in 0..2 {
        rig.store.delete_upload(rig.tenant, upload).await.unwrap();
        rig.store.unstage(rig.tenant, rig.workflow).await.unwrap();
    }
    assert!(rig.store.uploads().await.unwrap().is_empty() && rig.store.staged().await.unwrap().is_empty());
    assert_eq!(rig.get(artifact(3), None).await.unwrap(), b"of a workflow");
}

#[tokio::test]
async fn an_upload_that_a_crash_cut_is_removed_at_the_next_start() {
    let rig = rig();
    let upload = UploadId::new(1, PartitionId::new(1).unwrap(), 9);
    let dir = rig.dir.path().join(format!("blobs/uploads/{}/{upload}", rig.tenant));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("art_1#1"), b"half").unwrap();
    BlobStore::local(&rig.dir.path().join("blobs")).unwrap();
    assert!(fs::read_dir(&dir).unwrap().next().is_none());
}
