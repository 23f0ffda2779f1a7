//! History: sealed once and never twice, kept, removed, erased; and each of it after crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_journal::archive::{ArchiveSource as _, ArchiveStore, FileReader, Value};
use gantry_journal::{CommitFault, ErasureList, Erasures};
use gantry_proto::v1::ProcessOutput;
use gantry_proto::{ErrorCode, PartitionId, TenantId, WorkflowId};

use super::world::{World, caller, ok, tenant, with_outputs};
use crate::api::{Backend, Keeping, NewUpload, NodePort, StreamKey, Uploads as _, WorkflowState};
use crate::archive::keeper::Round;
use crate::archive::tables::TABLES;
use crate::archive::{ArchiveConfig, ArchiveParts, KeepError, Retention};

const ONE_STEP: &str = "
name: one
tasks:
  build:
    steps:
      - run: echo a-canary-in-the-definition
";

fn config(retention_ms: Option<u64>) -> ArchiveConfig {
    ArchiveConfig {
        seal_after_ms: 0,
        interval_ms: 1_000,
        retention: Retention {
            default_ms: retention_ms,
            tenants: BTreeMap::new(),
        },
    }
}

pub(super) fn attach(world: &World, retention_ms: Option<u64>) {
    world.engine.attach_archive(ArchiveParts {
        objects: ArchiveStore::local(&world.path("archive")).unwrap(),
        erasures: ErasureList::open(&world.path("erasures")).unwrap(),
        config: config(retention_ms),
    });
}

async fn completed(world: &World) -> WorkflowId {
    let workflow = world.submit(ONE_STEP).await;
    world.run_all(workflow).await;
    workflow
}

/// Keeps history until a round is through: a partition may have to be recovered before.
pub(super) async fn keep(world: &World) -> Round {
    loop {
        match world.engine.keep_history().await {
            Ok(round) => return round,
            Err(KeepError::NotOwned(_) | KeepError::Refused(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Rows of each table by the id of their workflow, sealed and tail together.
pub(super) async fn history(world: &World, tenant: TenantId) -> BTreeMap<&'static str, Vec<String>> {
    let objects = ArchiveStore::local(&world.path("archive")).unwrap();
    let snapshot = world.engine.snapshot(tenant).unwrap();
    let mut rows: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let mut add = |batch: &gantry_journal::archive::Batch| {
        let id = batch.table.schema.position("workflow_id").unwrap_or(0);
        for row in 0..batch.rows() {
            let Value::Text(workflow) = batch.columns[id].value(row) else {
                panic!("a row without a workflow")
            };
            rows.entry(batch.table.name).or_default().push(workflow);
        }
    };
    for object in &snapshot.objects {
        let table = TABLES.iter().find(|table| table.name == object.table).unwrap();
        let bytes = objects.get(&object.name, &object.digest).await.unwrap();
        let mut reader = FileReader::open(table, bytes).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            add(&batch);
        }
    }
    let names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    world
        .engine
        .tail(&snapshot, &names, &mut |batch| {
            add(&batch);
            Ok(())
        })
        .unwrap();
    for ids in rows.values_mut() {
        ids.sort();
    }
    rows
}

#[tokio::test]
async fn sealed_history_and_the_tail_are_everything_once() {
    let world = World::new().await;
    attach(&world, None);
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(completed(&world).await);
    }
    let active = world.submit(ONE_STEP).await;
    all.push(active);
    let before = history(&world, tenant()).await;
    let mut ids: Vec<String> = all.iter().map(ToString::to_string).collect();
    ids.sort();
    assert_eq!(before["workflows"], ids);
    assert!(world.engine.snapshot(tenant()).unwrap().objects.is_empty());

    let round = keep(&world).await;
    assert_eq!((round.sealed, round.removed), (5, 0));
    let snapshot = world.engine.snapshot(tenant()).unwrap();
    assert!(!snapshot.objects.is_empty());
    assert_eq!(
        history(&world, tenant()).await,
        before,
        "the same rows, wherever they are"
    );
    let mut tail = BTreeSet::new();
    let sink = &mut |batch: gantry_journal::archive::Batch| {
        tail.extend(
            (0..batch.rows())
                .map(|row| batch.columns[0].value(row))
                .map(|id| format!("{id:?}")),
        );
        Ok(())
    };
    world.engine.tail(&snapshot, &["workflows"], sink).unwrap();
    assert_eq!(tail.len(), 1, "what is sealed is not in the tail");
    assert_eq!(keep(&world).await.sealed, 0, "nothing is sealed twice");

    let other = TenantId::new(1, PartitionId::default(), 99);
    assert!(history(&world, other).await.is_empty());
    assert!(world.engine.snapshot(other).unwrap().objects.is_empty());
    world.verify();
    let world = world.restart().await;
    attach(&world, None);
    assert_eq!(keep(&world).await.sealed, 0);
    assert_eq!(history(&world, tenant()).await, before);
}

#[tokio::test]
async fn many_small_objects_become_few_and_the_old_ones_go_when_nobody_reads_them() {
    let world = World::with_partitions(1).await;
    attach(&world, None);
    for _ in 0..9 {
        completed(&world).await;
        keep(&world).await;
    }
    let before = history(&world, tenant()).await;
    let snapshot = world.engine.snapshot(tenant()).unwrap();
    let of_workflows = snapshot.objects.iter().filter(|object| object.table == "workflows");
    assert!(of_workflows.count() < 8, "they were compacted");
    let stored = ArchiveStore::local(&world.path("archive")).unwrap();
    let listed = stored.list(1_000).await.unwrap().len();
    assert!(listed > snapshot.objects.len(), "the old ones can still be read");
    tokio::time::pause();
    tokio::time::advance(Duration::from_millis(600_001)).await;
    tokio::time::resume();
    assert!(keep(&world).await.swept > 0);
    let left = stored.list(1_000).await.unwrap();
    let valid: BTreeSet<_> = world
        .engine
        .snapshot(tenant())
        .unwrap()
        .objects
        .iter()
        .map(|each| each.name.clone())
        .collect();
    assert_eq!(left.into_iter().collect::<BTreeSet<_>>(), valid);
    assert_eq!(history(&world, tenant()).await, before);
    world.verify();
}

#[tokio::test]
async fn a_crash_between_upload_and_manifest_leaves_orphans_that_are_swept() {
    for fault in [CommitFault::BeforeApply, CommitFault::AfterApply] {
        let world = World::with_partitions(1).await;
        attach(&world, None);
        completed(&world).await;
        let before = history(&world, tenant()).await;
        world.store.fail_next_commit(fault);
        assert!(matches!(world.engine.keep_history().await, Err(KeepError::NotOwned(_))));
        let stored = ArchiveStore::local(&world.path("archive")).unwrap();
        let uploaded = stored.list(1_000).await.unwrap().len();
        assert!(uploaded > 0);
        assert_eq!(history(&world, tenant()).await, before, "{fault:?}");
        let round = keep(&world).await;
        assert_eq!(round.sealed, u64::from(fault == CommitFault::BeforeApply), "{fault:?}");
        // What was not committed is gone, what was counts.
        assert_eq!(stored.list(1_000).await.unwrap().len(), uploaded, "{fault:?}");
        assert_eq!(history(&world, tenant()).await, before, "{fault:?}");
        world.verify();
    }
}

#[tokio::test]
async fn retention_removes_everything_of_a_workflow_but_what_is_held() {
    let world = World::with_partitions(1).await;
    attach(&world, None);
    let (gone, held, active) = (
        completed(&world).await,
        completed(&world).await,
        world.submit(ONE_STEP).await,
    );
    assert_eq!(keep(&world).await.sealed, 2);
    let reason = Some("case 17".to_owned());
    Keeping::hold(world.engine.as_ref(), caller(), held, reason.clone())
        .await
        .unwrap();
    Keeping::hold(world.engine.as_ref(), caller(), held, reason)
        .await
        .unwrap();
    assert_eq!(world.view(held).await.hold.unwrap().by, caller().principal);
    let world = world.restart().await;
    attach(&world, Some(0));
    let round = keep(&world).await;
    assert_eq!((round.removed, round.destroyed), (1, 1));
    let refused = world.engine.workflow(tenant(), gone).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::NotFound);
    assert_eq!(world.view(held).await.summary.state, WorkflowState::Completed);
    assert_eq!(world.view(active).await.summary.state, WorkflowState::Active);
    let rows = history(&world, tenant()).await;
    let mut left = vec![held.to_string(), active.to_string()];
    left.sort();
    assert_eq!(rows["workflows"], left);
    assert!(rows.values().flatten().all(|id| *id != gone.to_string()), "{rows:?}");
    world.verify();

    let refused = world.engine.erase(caller(), held).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::LegalHold);
    assert_eq!(
        world.engine.erase_tenant(caller(), tenant()).await.unwrap_err().code,
        ErrorCode::Conflict
    );
    world.engine.release(caller(), held).await.unwrap();
    world.engine.release(caller(), held).await.unwrap();
    assert_eq!(keep(&world).await.removed, 1);
    assert_eq!(history(&world, tenant()).await["workflows"], [active.to_string()]);
    world.verify();
    let world = world.restart().await;
    world.verify();
}

#[tokio::test]
async fn what_was_erased_can_be_read_nowhere_and_does_not_come_back_with_an_older_journal() {
    let world = World::with_partitions(1).await;
    attach(&world, None);
    let workflow = world.submit(ONE_STEP).await;
    let (node, one) = world.desk.assignment().await;
    let early = world.engine.erase(caller(), workflow).await.unwrap_err();
    assert_eq!(early.code, ErrorCode::Conflict);
    assert!(early.hint.unwrap().contains("gantry workflow cancel"));
    let chunk = ProcessOutput {
        run: 1,
        seq: 1,
        at_ms: 1,
        data: Bytes::from_static(b"a canary in the output"),
        ..ProcessOutput::default()
    };
    NodePort::output(world.engine.as_ref(), node, one.assignee.clone(), vec![chunk])
        .await
        .unwrap();
    let data = futures_util::stream::iter([Ok(Bytes::from_static(b"a canary in an artifact"))]).boxed();
    let stored = world
        .engine
        .put_artifact(node, one.assignee.clone(), "report.txt".to_owned(), None, data)
        .await
        .unwrap();
    let mut result = with_outputs(r#"{"word": "a canary in an output"}"#);
    result.artifacts = vec![stored.clone()];
    result.last_seq = Some(1);
    world.finish(node, &one.assignee, result).await;
    keep(&world).await;
    let rows = history(&world, tenant()).await;
    // As a backup would have it.
    let older = world.store.reopened();

    world.engine.erase(caller(), workflow).await.unwrap();
    world.engine.erase(caller(), workflow).await.unwrap();
    let stream = StreamKey {
        tenant: tenant(),
        workflow,
        task: one.assignee.task,
        step: 0,
        attempt: 1,
    };
    let codes = [
        world.engine.source(tenant(), workflow).await.unwrap_err().code,
        Backend::output(world.engine.as_ref(), stream, 0, 1_000)
            .await
            .unwrap_err()
            .code,
        world
            .engine
            .artifact(tenant(), workflow, stored.id, None)
            .await
            .err()
            .unwrap()
            .code,
        Keeping::hold(world.engine.as_ref(), caller(), workflow, None)
            .await
            .unwrap_err()
            .code,
    ];
    assert_eq!(codes, [ErrorCode::ContentErased; 4]);
    let view = world.view(workflow).await;
    assert_eq!(
        (view.summary.state, view.parameters),
        (WorkflowState::Completed, serde_json::Value::Null)
    );
    assert!(view.erased_at_ms.is_some() && view.tasks[0].steps[0].artifacts.is_empty());
    for place in ["segments", "blobs"] {
        let dir = world.path(place).join(tenant().to_string()).join(workflow.to_string());
        assert!(!dir.exists(), "{}", dir.display());
    }
    assert!(
        Erasures::read(&world.path("erasures"))
            .unwrap()
            .covers(tenant(), workflow)
    );
    assert_eq!(history(&world, tenant()).await, rows, "states and times stay");
    let events = world.engine.events(tenant(), workflow, 0, 500).await.unwrap();
    assert_eq!(events.last().unwrap().kind, "workflow_erased");
    world.verify();

    let restored = world.restart_on(older).await;
    assert!(
        restored.engine.source(tenant(), workflow).await.is_ok(),
        "the older journal has its key"
    );
    attach(&restored, None);
    keep(&restored).await;
    let again = restored.engine.source(tenant(), workflow).await.unwrap_err();
    assert_eq!(again.code, ErrorCode::ContentErased);
    restored.verify();
}

#[tokio::test]
async fn a_tenant_is_erased_as_a_whole_or_not_at_all() {
    let world = World::new().await;
    attach(&world, None);
    let mut all = Vec::new();
    for _ in 0..3 {
        all.push(completed(&world).await);
    }
    let last = world.submit(ONE_STEP).await;
    let refused = world.engine.erase_tenant(caller(), tenant()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains(&last.to_string()));
    assert!(
        world.engine.source(tenant(), all[0]).await.is_ok(),
        "nothing was touched"
    );
    let (node, one) = world.desk.assignment().await;
    world.finish(node, &one.assignee, ok()).await;
    let other = TenantId::new(1, PartitionId::default(), 99);
    assert_eq!(
        world.engine.erase_tenant(caller(), other).await.unwrap_err().code,
        ErrorCode::NotFound
    );
    let new = NewUpload {
        caller: caller(),
        name: "a-canary.csv".to_owned(),
        content_type: None,
        ttl_ms: None,
        idempotency_key: None,
    };
    let content = futures_util::stream::iter([Ok(Bytes::from_static(b"a canary in an upload"))]).boxed();
    let upload = world.engine.upload(new, content).await.unwrap().upload.id;
    assert_eq!(world.engine.erase_tenant(caller(), tenant()).await.unwrap(), 4);
    let gone = world.engine.upload_info(tenant(), upload).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound);
    let blobs = world.path("blobs").join(tenant().to_string());
    assert!(
        std::fs::read_dir(&blobs).map_or(true, |mut left| left.next().is_none()),
        "{}",
        blobs.display()
    );
    let list = Erasures::read(&world.path("erasures")).unwrap();
    let key = WorkflowId::from_bytes(*upload.as_bytes());
    assert!(list.covers(tenant(), last) && list.covers(tenant(), key));
    let next = WorkflowId::new(world.engine.now_ms() + 1, PartitionId::default(), 1);
    assert!(!list.covers(tenant(), next), "the tenant goes on");
    for workflow in all.into_iter().chain([last]) {
        assert_eq!(
            world.engine.source(tenant(), workflow).await.unwrap_err().code,
            ErrorCode::ContentErased
        );
    }
    assert_eq!(world.engine.erase_tenant(caller(), tenant()).await.unwrap(), 0);
    world.verify();
}

#[tokio::test]
async fn many_are_held_released_and_erased_by_one_operation() {
    use crate::api::{BulkAction, BulkRequest, Bulks as _};
    let world = World::new().await;
    attach(&world, None);
    let first = completed(&world).await;
    let second = completed(&world).await;
    world.forward(Duration::from_millis(5));
    let run = async |action: BulkAction, filter: String| {
        let request = BulkRequest {
            caller: caller(),
            action,
            filter,
            comment: Some("case 17".to_owned()),
            rate: None,
            idempotency_key: None,
        };
        let id = world.engine.start_bulk(request).await.unwrap().id;
        loop {
            let view = world.engine.bulk(tenant(), id).await.unwrap();
            if view.ended_at_ms.is_some() {
                break view;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let held = run(BulkAction::Hold, format!("id == '{first}'")).await;
    assert_eq!((held.matched, held.done), (1, 1));
    let erased = run(BulkAction::Erase, "state == 'completed'".to_owned()).await;
    assert_eq!((erased.matched, erased.done, erased.failed), (2, 1, 1));
    assert_eq!(erased.reasons[0].reason, "legal-hold");
    let refusal = world.engine.source(tenant(), second).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::ContentErased);
    let released = run(BulkAction::Release, "true".to_owned()).await;
    assert_eq!(released.done, 2);
    let erased = run(BulkAction::Erase, "true".to_owned()).await;
    assert_eq!((erased.done, erased.failed), (2, 0), "repeating is harmless");
    assert_eq!(
        world.engine.source(tenant(), first).await.unwrap_err().code,
        ErrorCode::ContentErased
    );
    // What was written in them goes with the tenant's.
    world.engine.erase_tenant(caller(), tenant()).await.unwrap();
    assert!(world.engine.bulks(tenant(), None, 10).await.unwrap().items.is_empty());
    world.verify();
}
