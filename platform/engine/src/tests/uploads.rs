//! Uploads: stored, taken into workflows, ended, and swept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_journal::BlobStore;
use gantry_journal::keys;
use gantry_proto::v1::EndCause;
use gantry_proto::{ArtifactId, ErrorCode, PartitionId, TenantId, UploadId, WorkflowId, limits};
use serde_json::json;

use super::world::{World, caller, ended, ok, submission, tenant};
use crate::api::{
    Backend as _, Caller, NewUpload, NodePort as _, Refusal, Submit, UploadReceipt, Uploads as _, WorkflowState,
};

const TAKES: &str = "
name: takes
parameters:
  file: {type: string}
tasks:
  read:
    inputs: [{upload: '{{ params.file }}', path: in/data.csv}]
    steps: [{run: cat in/data.csv, retry: 3}]
";

fn new(name: &str, key: Option<&str>) -> NewUpload {
    NewUpload {
        caller: caller(),
        name: name.to_owned(),
        content_type: None,
        ttl_ms: None,
        idempotency_key: key.map(str::to_owned),
    }
}

fn takes(upload: UploadId) -> Submit {
    let mut submit = submission(TAKES);
    submit.parameters.insert("file".into(), json!(upload.to_string()));
    submit
}

fn other() -> Caller {
    let tenant = TenantId::new(1, PartitionId::default(), 99);
    Caller { tenant, ..caller() }
}

impl World {
    async fn send(&self, new: NewUpload, content: &[u8]) -> Result<UploadReceipt, Refusal> {
        let parts: Vec<_> = content
            .chunks(1_000)
            .map(|part| Ok(Bytes::copy_from_slice(part)))
            .collect();
        self.engine.upload(new, stream::iter(parts).boxed()).await
    }

    /// Names of all objects that are files.
    fn objects(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
                    _ => found.push(entry.path()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.dir().join("blobs"), &mut found);
        found
    }

    /// Waits until so many objects are left: the sweep is a task of its own.
    async fn swept_to(&self, left: usize) {
        let swept = async {
            while self.objects().len() != left {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let patience = tokio::time::timeout(Duration::from_secs(30), swept);
        assert!(patience.await.is_ok(), "{:?} instead of {left}", self.objects());
    }
}

fn content() -> Vec<u8> {
    (0..200_000u32).flat_map(u32::to_be_bytes).collect()
}

#[tokio::test]
async fn an_upload_reaches_every_attempt_of_the_step_also_when_it_has_ended() {
    let world = World::new().await;
    let sent = world.send(new("data.csv", None), &content()).await.unwrap().upload;
    assert_eq!((sent.name.as_str(), sent.size_bytes), ("data.csv", 800_000));
    let workflow = world.engine.submit(takes(sent.id)).await.unwrap().workflow;
    world.engine.delete_upload(caller(), sent.id).await.unwrap();
    world.swept_to(1).await;

    let (node, first) = world.desk.assignment().await;
    let world = world.restart().await;
    world
        .finish(node, &first.assignee, ended(EndCause::Exited, Some(1)))
        .await;
    let (node, second) = world.desk.assignment().await;
    assert_eq!(second.assignee.attempt, 2);
    let input = &second.plan.inputs[0];
    assert_eq!((input.path.as_str(), input.size_bytes), ("in/data.csv", 800_000));
    assert_eq!(hex::encode(&input.sha256), sent.sha256);
    let read = world
        .engine
        .get_artifact(node, second.assignee.clone(), input.artifact)
        .await;
    let read: Vec<Bytes> = read.unwrap().try_collect().await.unwrap();
    assert_eq!(read.concat(), content());
    world.finish(node, &second.assignee, ok()).await;
    assert_eq!(world.view(workflow).await.summary.state, WorkflowState::Completed);
    world.verify();
}

#[tokio::test]
async fn an_upload_that_is_not_there_is_named_and_nothing_is_started() {
    let world = World::new().await;
    let sent = world.send(new("data.csv", None), b"mine").await.unwrap().upload.id;
    let unknown = UploadId::new(1, sent.partition(), 5);
    let elsewhere = UploadId::new(1, PartitionId::new(4_000).unwrap(), 5);
    for (who, upload) in [(caller(), unknown), (caller(), elsewhere), (other(), sent)] {
        let refused = world
            .engine
            .submit(Submit {
                caller: who,
                ..takes(upload)
            })
            .await
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::UploadMissing);
        assert!(refused.message.contains(&upload.to_string()), "{refused}");
        assert_eq!(refused.issues[0].path.as_deref(), Some("/tasks/read/inputs/0/upload"));
    }
    let mut text = takes(sent);
    text.parameters.insert("file".into(), json!("data.csv"));
    let refused = world.engine.submit(text).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::InvalidParameters);
    let all = world.engine.workflows(tenant(), Default::default()).await.unwrap();
    assert!(all.items.is_empty());
    assert!(world.engine.uploads(other().tenant).await.unwrap().is_empty());
    let missing = world.engine.upload_content(other().tenant, sent).await;
    assert_eq!(missing.err().unwrap().code, ErrorCode::NotFound);
    let missing = world.engine.delete_upload(other(), sent).await;
    assert_eq!(missing.unwrap_err().code, ErrorCode::NotFound);
    world.swept_to(1).await;
}

#[tokio::test]
async fn a_repeated_submission_is_known_although_its_upload_has_ended() {
    let world = World::new().await;
    let sent = world.send(new("data.csv", None), b"text").await.unwrap().upload.id;
    let keyed = || Submit {
        idempotency_key: Some("once".into()),
        ..takes(sent)
    };
    let first = world.engine.submit(keyed()).await.unwrap();
    world.engine.delete_upload(caller(), sent).await.unwrap();
    let again = world.engine.submit(keyed()).await.unwrap();
    assert_eq!((again.workflow, again.replayed), (first.workflow, true));
    let mut changed = keyed();
    changed.labels.push(("a".into(), "b".into()));
    let refused = world.engine.submit(changed).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::IdempotencyMismatch);
}

#[tokio::test]
async fn a_repeated_upload_is_the_first_one_and_leaves_nothing_of_its_own() {
    let world = World::new().await;
    let first = world.send(new("a", Some("k")), b"text").await.unwrap();
    let again = world.send(new("a", Some("k")), b"text").await.unwrap();
    assert_eq!((again.upload, again.replayed), (first.upload.clone(), true));
    for (name, content) in [("b", b"text"), ("a", b"TEXT")] {
        let refused = world.send(new(name, Some("k")), content).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::IdempotencyMismatch);
        assert!(refused.message.contains(&first.upload.id.to_string()));
    }
    world.swept_to(1).await;
    assert_eq!(world.engine.uploads(tenant()).await.unwrap(), [first.upload]);
    world.verify();
}

#[tokio::test]
async fn a_broken_or_odd_upload_leaves_nothing() {
    let world = World::new().await;
    let broken = stream::iter([
        Ok(Bytes::from_static(b"half")),
        Err(std::io::Error::other("the client went away")),
    ]);
    assert!(world.engine.upload(new("a", None), broken.boxed()).await.is_err());
    for odd in [
        new("", None),
        new("a\nb", None),
        new("a", Some("")),
        NewUpload {
            ttl_ms: Some(999),
            ..new("a", None)
        },
        NewUpload {
            ttl_ms: Some(limits::UPLOAD_TTL_MS_MAX + 1),
            ..new("a", None)
        },
    ] {
        let refused = world.send(odd, b"x").await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
    }
    world.swept_to(0).await;
    assert!(world.engine.uploads(tenant()).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_upload_expires_with_its_key_and_its_object() {
    let world = World::new().await;
    let short = NewUpload {
        ttl_ms: Some(3_000),
        ..new("short", None)
    };
    let short = world.send(short, b"short").await.unwrap().upload;
    let long = world.send(new("long", None), b"long").await.unwrap().upload;
    assert_eq!(short.expires_at_ms - short.created_at_ms, 3_000);
    world.swept_to(1).await;
    let refused = world.engine.submit(takes(short.id)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UploadMissing);
    assert_eq!(world.engine.uploads(tenant()).await.unwrap(), [long]);
    let owner = WorkflowId::from_bytes(*short.id.as_bytes());
    for key in [
        keys::upload(short.id.partition(), tenant(), short.id),
        keys::data_key(short.id.partition(), tenant(), owner),
    ] {
        assert_eq!(gantry_journal::Store::get(world.store.as_ref(), &key).unwrap(), None);
    }
    world.verify();
}

#[tokio::test]
async fn objects_that_a_crash_left_are_removed_at_the_next_start_and_others_stay() {
    let world = World::new().await;
    let sent = world.send(new("kept", None), b"kept").await.unwrap().upload.id;
    let workflow = world.engine.submit(takes(sent)).await.unwrap().workflow;
    world.swept_to(2).await;
    // As if the process had died between the objects and their records; of `workflow`, between its record and its marker's end.
    let blobs = BlobStore::local(&world.dir().join("blobs")).unwrap();
    let key = gantry_journal::DataKey::from_bytes(&[1; 32]);
    let (lost, unborn) = (
        UploadId::new(1, sent.partition(), 5),
        WorkflowId::new(1, sent.partition(), 5),
    );
    let id = ArtifactId::new(1, sent.partition(), 5);
    let body = || stream::iter([Ok(Bytes::from_static(b"left"))]);
    blobs.put_stream(tenant(), lost, id, &key, body(), 4).await.unwrap();
    blobs.put_stream(tenant(), unborn, id, &key, body(), 4).await.unwrap();
    blobs.stage(tenant(), unborn).await.unwrap();
    blobs.stage(tenant(), workflow).await.unwrap();
    assert_eq!(world.objects().len(), 6);
    let world = world.restart().await;
    world.swept_to(2).await;
    let (_, assignment) = world.desk.assignment().await;
    let input = &assignment.plan.inputs[0];
    let read = blobs.get_stream(tenant(), workflow, input.artifact, &key, None).await;
    assert!(read.is_ok(), "the workflow's copy is there");
    world.engine.upload_info(tenant(), sent).await.unwrap();
}
