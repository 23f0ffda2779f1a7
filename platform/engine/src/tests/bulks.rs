//! Bulk operations on the model store: what they act upon, that they do so once, and that they go on after a crash.

use std::time::Duration;

use gantry_proto::{BulkId, ErrorCode, WorkflowId};
use serde_json::json;

use super::world::{World, caller, submission, tenant};
use crate::api::{
    Backend as _, BulkAction, BulkRequest, BulkState, BulkView, Bulks as _, WorkflowQuery, WorkflowState,
};

const WAITS: &str = "
name: waits
tasks:
  first: {signal: {name: go}}
  second: {needs: first, signal: {name: go}}
";

fn request(action: BulkAction, filter: &str) -> BulkRequest {
    BulkRequest {
        caller: caller(),
        action,
        filter: filter.to_owned(),
        comment: None,
        rate: Some(1_000),
        idempotency_key: None,
    }
}

fn signal() -> BulkAction {
    BulkAction::Signal {
        signal: "go".to_owned(),
        payload: json!({"n": 7}),
    }
}

async fn submit(world: &World, source: &str, count: usize) -> Vec<WorkflowId> {
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        ids.push(world.engine.submit(submission(source)).await.unwrap().workflow);
    }
    // Whatever was submitted in the same millisecond was submitted before.
    world.forward(Duration::from_millis(5));
    ids
}

async fn until(world: &World, bulk: BulkId, wanted: impl Fn(&BulkView) -> bool) -> BulkView {
    for _ in 0..2_000 {
        let view = world.engine.bulk(tenant(), bulk).await.unwrap();
        if wanted(&view) {
            return view;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to that: {:?}", world.engine.bulk(tenant(), bulk).await);
}

async fn ended(world: &World, bulk: BulkId) -> BulkView {
    until(world, bulk, |view| view.ended_at_ms.is_some()).await
}

async fn run(world: &World, action: BulkAction, filter: &str) -> BulkView {
    let view = world.engine.start_bulk(request(action, filter)).await.unwrap();
    ended(world, view.id).await
}

async fn in_state(world: &World, state: WorkflowState) -> usize {
    let query = WorkflowQuery {
        states: vec![state],
        limit: 500,
        ..WorkflowQuery::default()
    };
    world.engine.workflows(tenant(), query).await.unwrap().items.len()
}

#[tokio::test]
async fn every_workflow_that_matches_is_acted_upon_and_counted() {
    let world = World::with_partitions(3).await;
    submit(&world, WAITS, 30).await;
    let others = submit(&world, "{name: other, tasks: {t: {approval: {message: '?'}}}}", 5).await;
    world.engine.cancel(caller(), others[0], None).await.unwrap();

    let preview = world
        .engine
        .preview_bulk(tenant(), "name == 'waits'".to_owned())
        .await
        .unwrap();
    assert_eq!(
        (preview.matched, preview.complete, preview.by_state["active"]),
        (30, true, 30)
    );
    let paused = run(&world, BulkAction::Pause { interrupt: false }, "name == 'waits'").await;
    assert_eq!(
        (paused.matched, paused.done, paused.state),
        (30, 30, BulkState::Completed)
    );
    assert_eq!(in_state(&world, WorkflowState::Paused).await, 30);
    let again = run(&world, BulkAction::Pause { interrupt: false }, "state != 'cancelled'").await;
    assert_eq!((again.done, again.skipped, again.failed), (4, 30, 0));
    assert_eq!(
        (again.reasons[0].reason.as_str(), again.reasons[0].count),
        ("nothing_to_do", 30)
    );
    let resumed = run(&world, BulkAction::Resume, "true").await;
    assert_eq!((resumed.done, resumed.skipped), (34, 1), "one has ended: {resumed:?}");
    assert_eq!(resumed.others.len(), 1);
    assert_eq!(
        (resumed.others[0].workflow, resumed.others[0].reason.as_str()),
        (others[0], "ended")
    );

    let signalled = run(&world, signal(), "state == 'active'").await;
    assert_eq!((signalled.done, signalled.failed), (30, 4));
    let reason = signalled.reasons.iter().find(|reason| reason.failed).unwrap();
    assert_eq!((reason.reason.as_str(), reason.count), ("signal-unknown", 4));
    let cancelled = run(&world, BulkAction::Cancel { grace_ms: None }, "state == 'active'").await;
    assert_eq!((cancelled.done, cancelled.matched), (34, 34));
    assert_eq!(in_state(&world, WorkflowState::Cancelled).await, 35);
    let nothing = run(&world, BulkAction::Cancel { grace_ms: None }, "state == 'active'").await;
    assert_eq!((nothing.matched, nothing.state), (0, BulkState::Completed));
    let page = world.engine.bulks(tenant(), None, 3).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].id), (3, nothing.id));
    world.verify();
}

#[tokio::test]
async fn a_crash_in_the_middle_makes_nothing_happen_twice() {
    let mut world = World::with_partitions(3).await;
    let ids = submit(&world, WAITS, 60).await;
    let view = world
        .engine
        .start_bulk(request(signal(), "name == 'waits'"))
        .await
        .unwrap();
    for part in [10, 25, 45] {
        until(&world, view.id, |view| view.done >= part || view.ended_at_ms.is_some()).await;
        world = world.restart().await;
    }
    let view = ended(&world, view.id).await;
    assert_eq!((view.matched, view.done, view.looked_at), (60, 60, 60));
    for id in ids {
        let workflow = world.view(id).await;
        assert_eq!(
            workflow.tasks[0].outputs.as_ref().unwrap()["n"],
            7,
            "the first signal was taken"
        );
        assert!(workflow.tasks[1].outputs.is_none(), "and there was no second one");
    }
    world.verify();
}

#[tokio::test]
async fn one_that_is_ended_takes_no_further_workflows() {
    let world = World::with_partitions(2).await;
    submit(&world, WAITS, 40).await;
    let mut slow = request(BulkAction::Pause { interrupt: false }, "true");
    slow.rate = Some(10);
    let view = world.engine.start_bulk(slow).await.unwrap();
    until(&world, view.id, |view| view.done > 0).await;
    world.engine.cancel_bulk(caller(), view.id).await.unwrap();
    let view = ended(&world, view.id).await;
    assert_eq!(view.state, BulkState::Cancelled);
    assert!(view.done < 40 && view.done == view.matched, "{view:?}");
    assert_eq!(in_state(&world, WorkflowState::Paused).await as u64, view.done);
    assert_eq!(
        world.engine.cancel_bulk(caller(), view.id).await.unwrap().state,
        BulkState::Cancelled
    );
    world.verify();
}

#[tokio::test]
async fn a_request_is_checked_and_its_key_remembered() {
    let world = World::new().await;
    let refused = |action, filter: &str, rate| {
        let request = BulkRequest {
            rate,
            ..request(action, filter)
        };
        world.engine.start_bulk(request)
    };
    let wrong = refused(BulkAction::Resume, "stat == 'x'", None).await.unwrap_err();
    assert_eq!(
        (wrong.code, wrong.issues[0].column),
        (ErrorCode::InvalidRequest, Some(1))
    );
    let wrong = refused(BulkAction::Resume, "true", Some(0)).await.unwrap_err();
    assert_eq!(wrong.code, ErrorCode::InvalidRequest);
    let large = BulkAction::Signal {
        signal: "go".to_owned(),
        payload: json!("x".repeat(20_000)),
    };
    assert_eq!(
        refused(large, "true", None).await.unwrap_err().code,
        ErrorCode::TooLarge
    );

    let keyed = |filter: &str| BulkRequest {
        idempotency_key: Some("k".to_owned()),
        ..request(BulkAction::Resume, filter)
    };
    let first = world.engine.start_bulk(keyed("true")).await.unwrap();
    assert_eq!(world.engine.start_bulk(keyed("true")).await.unwrap().id, first.id);
    let other = world.engine.start_bulk(keyed("false")).await.unwrap_err();
    assert_eq!(other.code, ErrorCode::IdempotencyMismatch);
    ended(&world, first.id).await;
    // It is forgotten after a week.
    world.forward(Duration::from_hours(8 * 24));
    world.engine.submit(submission(WAITS)).await.unwrap();
    for _ in 0..500 {
        if world.engine.bulk(tenant(), first.id).await.is_err() {
            break;
        }
        world
            .engine
            .start_bulk(request(BulkAction::Resume, "false"))
            .await
            .unwrap();
    }
    let gone = world.engine.bulk(tenant(), first.id).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::NotFound);
    world.verify();
}

#[tokio::test]
async fn retry_starts_what_waits_for_it() {
    let world = World::new().await;
    let source = "{name: late, tasks: {t: {signal: {name: go, timeout: 0, on_timeout: escalate}}}}";
    let ids = submit(&world, source, 3).await;
    for id in &ids {
        loop {
            let view = world.view(*id).await;
            if view.tasks[0].state.to_string() == "escalated" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let view = run(&world, BulkAction::Retry, "name == 'late'").await;
    assert_eq!(view.done, 3, "{view:?}");
    for id in ids {
        let decision = world.view(id).await.tasks[0].decision.clone().unwrap();
        assert_eq!(decision.decision, "retry");
    }
}
