//! Tasks of code against a real engine, with a worker that the test plays.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_journal::keys::{self, Kind};
use gantry_journal::{Direction, Store as _};
use gantry_proto::v1::{ActivationKind, ActivationWhat, Assignee, Fault, RecoveryPolicy, RetryPolicy};
use gantry_proto::{ErrorCode, NodeId, WorkflowId};
use serde_json::json;

use super::archive;
use super::world::{World, caller, candidate, node_id, tenant};
use crate::api::{
    Backend as _, Candidate, NodePort as _, Run, RunOp, RunReply, RunView, StepState, Verdict, WaitingView, Work,
    WorkerPort as _, WorkflowState,
};

fn worker(number: u64) -> Candidate {
    Candidate {
        work: Work::Code(Arc::new(BTreeSet::from(["greet".to_owned()]))),
        cpu_millis: 0,
        memory_bytes: 0,
        ..candidate(number, 64)
    }
}

async fn world() -> World {
    let world = World::new().await;
    world.desk.offer(vec![worker(5)]);
    world
}

fn run(wait_ms: u64) -> Run {
    Run {
        caller: caller(),
        component: "greet".to_owned(),
        input: Bytes::from_static(br#"{"who":"you"}"#),
        idempotency_key: None,
        labels: Vec::new(),
        traceparent: None,
        wait_ms,
    }
}

fn what(key: &str, policy: RecoveryPolicy) -> ActivationWhat {
    let mut what = ActivationWhat {
        key: key.to_owned(),
        definition: Bytes::from_static(&[1; 16]),
        input: Bytes::from_static(&[2; 16]),
        ..ActivationWhat::default()
    };
    what.set_kind(ActivationKind::Step);
    what.set_policy(policy);
    what
}

fn id(key: &str) -> [u8; 16] {
    let mut id = [0; 16];
    id.copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..16]);
    id
}

const REPEAT: RecoveryPolicy = RecoveryPolicy::IdempotentRetry;
const ONCE: RecoveryPolicy = RecoveryPolicy::UnknownOutcome;

fn begin(key: &str, policy: RecoveryPolicy) -> RunOp {
    RunOp::Begin {
        activation: id(key),
        what: what(key, policy),
        again: false,
    }
}

fn complete(key: &str, attempt: u32, output: &'static str) -> RunOp {
    RunOp::Complete {
        activation: id(key),
        what: what(key, REPEAT),
        attempt,
        output: Bytes::from_static(output.as_bytes()),
    }
}

fn finish(output: &'static str) -> RunOp {
    RunOp::Return {
        output: Bytes::from_static(output.as_bytes()),
    }
}

fn fault(message: &str) -> Fault {
    Fault::new(ErrorCode::WorkerFailed, message)
}

fn raise(message: &str, attempts: u32) -> RunOp {
    RunOp::Raise {
        fault: fault(message),
        retry: Some(RetryPolicy {
            attempts,
            backoff_ms: 5_000,
            factor_percent: 200,
            max_backoff_ms: 60_000,
        }),
    }
}

fn replayed(attempt: u32, output: &'static str) -> RunReply {
    RunReply::Replay {
        attempt,
        end: Ok(Bytes::from_static(output.as_bytes())),
    }
}

/// So much time passes. Only here is it not the real one: paused time runs ahead whenever the commit thread takes a moment.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

impl World {
    async fn call(&self) -> WorkflowId {
        self.engine.run(run(0)).await.unwrap().id
    }

    async fn steps(&self, worker: NodeId, assignee: &Assignee, ops: Vec<RunOp>) -> Option<Vec<RunReply>> {
        self.engine.steps(worker, assignee.clone(), ops).await.unwrap()
    }

    async fn result(&self, id: WorkflowId) -> RunView {
        self.engine.run_result(tenant(), id, 0).await.unwrap()
    }

    /// The worker is not heard of until its lease has expired.
    async fn expire(&self) {
        pass(31).await;
    }
}

#[tokio::test]
async fn three_steps_take_four_syncs_and_the_caller_hears_of_the_end() {
    let world = world().await;
    let waiting = tokio::spawn({
        let engine = Arc::clone(&world.engine);
        async move { engine.run(run(20_000)).await.unwrap() }
    });
    let (holder, assignment) = world.desk.run().await;
    assert_eq!((holder, assignment.component.as_str()), (node_id(5), "greet"));
    assert_eq!(assignment.input, Bytes::from_static(br#"{"who":"you"}"#));
    assert_eq!(assignment.activations, 0);
    let after_submit = world.engine.counters().syncs;
    let assignee = &assignment.assignee;
    for ops in [
        vec![complete("a", 1, "1")],
        vec![complete("b", 1, "2")],
        vec![complete("c", 1, "3"), finish(r#"{"sum":6}"#)],
    ] {
        let count = ops.len();
        assert_eq!(
            world.steps(holder, assignee, ops).await,
            Some(vec![RunReply::Recorded; count])
        );
    }
    let ended = waiting.await.unwrap();
    assert_eq!(
        (ended.state, ended.result),
        (WorkflowState::Completed, Some(json!({"sum": 6})))
    );
    assert_eq!(world.engine.counters().syncs - after_submit, 3);
    world.verify();
    // From storage it is the same, with its steps.
    assert_eq!(world.result(ended.id).await.result, Some(json!({"sum": 6})));
    let view = world.view(ended.id).await;
    assert_eq!(view.tasks[0].component.as_deref(), Some("greet"));
    let steps: Vec<_> = view.tasks[0]
        .steps
        .iter()
        .map(|step| (step.key.as_str(), step.state))
        .collect();
    assert_eq!(steps, ["a", "b", "c"].map(|key| (key, StepState::Completed)));
    let events = world.engine.events(tenant(), ended.id, 0, 100).await.unwrap();
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "activation_ended").count(), 3);

    // Queries find its steps, and removing the workflow leaves none of their rows.
    archive::attach(&world, Some(0));
    let rows = archive::history(&world, tenant()).await;
    assert_eq!(rows["steps"], vec![ended.id.to_string(); 3]);
    let range = keys::all_of(Kind::Activation, ended.id.partition());
    let left = || {
        world
            .store
            .scan(&range.from, &range.to, Direction::Forward, 10)
            .unwrap()
            .len()
    };
    assert_eq!(left(), 3);
    assert_eq!(archive::keep(&world).await.removed, 1);
    assert_eq!(left(), 0);
    world.verify();
}

#[tokio::test]
async fn what_completed_is_replayed_after_the_worker_and_the_daemon_died() {
    let mut world = world().await;
    let id = world.call().await;
    let (holder, first) = world.desk.run().await;
    let done = vec![complete("a", 1, "1"), begin("b", REPEAT)];
    let replies = world.steps(holder, &first.assignee, done).await.unwrap();
    assert_eq!(replies, [RunReply::Recorded, RunReply::Execute(1)]);
    world = world.restart().await;
    world.desk.offer(vec![worker(6)]);
    // The lease survives the daemon: nobody else gets it while it lives, and its holder goes on.
    assert_eq!(
        world.steps(holder, &first.assignee, vec![begin("a", REPEAT)]).await,
        Some(vec![replayed(1, "1")])
    );
    world.expire().await;
    let (holder, second) = world.desk.run().await;
    assert_eq!((holder, second.activations), (node_id(6), 2));
    assert!(second.assignee.fence > first.assignee.fence);
    assert_eq!(
        world
            .steps(node_id(5), &first.assignee, vec![complete("b", 1, "late")])
            .await,
        None,
        "the first lease is over"
    );
    let again = vec![begin("a", REPEAT), begin("b", REPEAT)];
    assert_eq!(
        world.steps(holder, &second.assignee, again).await,
        Some(vec![replayed(1, "1"), RunReply::Execute(2)])
    );
    let end = vec![complete("b", 2, "2"), finish("true")];
    world.steps(holder, &second.assignee, end).await.unwrap();
    assert_eq!(world.result(id).await.result, Some(json!(true)));
    world.verify();
    world = world.restart().await;
    assert_eq!(world.result(id).await.state, WorkflowState::Completed);
    world.verify();
}

#[tokio::test]
async fn a_changed_digest_is_a_conflict_and_records_nothing() {
    let world = world().await;
    world.call().await;
    let (holder, run) = world.desk.run().await;
    world
        .steps(holder, &run.assignee, vec![complete("a", 1, "1")])
        .await
        .unwrap();
    let mut changed = what("a", REPEAT);
    changed.input = Bytes::from_static(&[9; 16]);
    let ops = vec![
        RunOp::Begin {
            activation: id("a"),
            what: changed,
            again: false,
        },
        complete("b", 1, "2"),
    ];
    let syncs = world.engine.counters().syncs;
    let replies = world.steps(holder, &run.assignee, ops).await.unwrap();
    assert!(
        matches!(&replies[0], RunReply::Conflict(why) if why.contains("another input")),
        "{replies:?}"
    );
    assert_eq!(replies[1], RunReply::Skipped);
    assert_eq!(world.engine.counters().syncs, syncs);
    world.verify();
}

#[tokio::test]
async fn what_must_not_be_done_twice_is_begun_durably_and_unknown_after_a_loss() {
    let world = world().await;
    world.call().await;
    let (holder, run) = world.desk.run().await;
    let refused = vec![RunOp::Complete {
        activation: id("pay"),
        what: what("pay", ONCE),
        attempt: 1,
        output: Bytes::from_static(b"1"),
    }];
    let replies = world.steps(holder, &run.assignee, refused).await.unwrap();
    assert!(
        matches!(&replies[0], RunReply::Conflict(why) if why.contains("begun before")),
        "{replies:?}"
    );
    let replies = world.steps(holder, &run.assignee, vec![begin("pay", ONCE)]).await;
    assert_eq!(replies, Some(vec![RunReply::Execute(1)]));
    let twice = world.steps(holder, &run.assignee, vec![begin("pay", ONCE)]).await;
    assert_eq!(twice, Some(vec![RunReply::Wait(None)]));
    world.expire().await;
    let (holder, run) = world.desk.run().await;
    for _ in 0..2 {
        let replies = world.steps(holder, &run.assignee, vec![begin("pay", ONCE)]).await;
        assert_eq!(replies, Some(vec![RunReply::Unknown(1)]));
    }
    world.verify();
}

#[tokio::test]
async fn sleeping_frees_the_slot_and_goes_on_by_replay() {
    let mut world = world().await;
    let workflow = world.call().await;
    let (holder, run) = world.desk.run().await;
    let sleep = |delay_ms| RunOp::Sleep {
        activation: id("nap"),
        what: what("nap", REPEAT),
        delay_ms,
    };
    let ops = vec![complete("a", 1, "1"), sleep(60_000)];
    assert_eq!(
        world.steps(holder, &run.assignee, ops).await,
        Some(vec![RunReply::Recorded, RunReply::Recorded])
    );
    let task = &world.view(workflow).await.tasks[0];
    assert_eq!(task.node, None);
    assert!(matches!(task.waiting, Some(WaitingView::CodeSleeps { .. })), "{task:?}");
    assert_eq!(
        world.steps(holder, &run.assignee, vec![begin("a", REPEAT)]).await,
        None,
        "its lease has ended"
    );
    world = world.restart().await;
    world.desk.offer(vec![worker(7)]);
    pass(61).await;
    let (holder, run) = world.desk.run().await;
    let ops = vec![begin("a", REPEAT), sleep(60_000), finish("0")];
    assert_eq!(
        world.steps(holder, &run.assignee, ops).await,
        Some(vec![replayed(1, "1"), replayed(1, "null"), RunReply::Recorded])
    );
    assert_eq!(world.result(workflow).await.state, WorkflowState::Completed);
    world.verify();
}

#[tokio::test]
async fn code_that_fails_is_reported_at_once_and_then_tried_again() {
    let world = world().await;
    let begun = tokio::time::Instant::now();
    let waiting = tokio::spawn({
        let engine = Arc::clone(&world.engine);
        async move { engine.run(run(20_000)).await.unwrap() }
    });
    let (holder, first) = world.desk.run().await;
    world
        .steps(holder, &first.assignee, vec![raise("no such table", 2)])
        .await
        .unwrap();
    let told = waiting.await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(told.state, WorkflowState::Active);
    assert_eq!(told.failure.unwrap().message, "no such table");
    assert!(told.retry_at_ms.is_some());
    let view = world.view(told.id).await;
    assert_eq!(view.tasks[0].failure.as_ref().unwrap().message, "no such table");
    assert!(matches!(view.tasks[0].waiting, Some(WaitingView::RetryBackoff { .. })));
    pass(6).await;
    let (holder, second) = world.desk.run().await;
    assert_eq!(second.failures, 1);
    world
        .steps(holder, &second.assignee, vec![raise("still none", 2)])
        .await
        .unwrap();
    let ended = world.result(told.id).await;
    assert_eq!(
        (ended.state, ended.failure.unwrap().message.as_str()),
        (WorkflowState::Failed, "still none")
    );
    world.verify();
}

#[tokio::test]
async fn a_worker_that_gives_every_run_back_is_told_to_the_caller() {
    let world = world().await;
    let waiting = tokio::spawn({
        let engine = Arc::clone(&world.engine);
        async move { engine.run(run(20_000)).await.unwrap() }
    });
    let (holder, first) = world.desk.run().await;
    let full = Fault::new(ErrorCode::Overloaded, "no memory for it");
    let taken = world.engine.run_refused(holder, first.assignee, full).await.unwrap();
    assert_eq!(taken, Verdict::Accepted);
    let told = waiting.await.unwrap();
    assert_eq!(told.state, WorkflowState::Active);
    assert_eq!(told.failure.unwrap().message, "no memory for it");
    assert!(told.retry_at_ms.is_some());
    // Asked again, it says that it is tried again.
    let asked = world.result(told.id).await;
    assert!(
        matches!(asked.waiting, Some(WaitingView::RetryBackoff { .. })),
        "{asked:?}"
    );
    world.verify();
}

#[tokio::test]
async fn interrupting_a_paused_workflow_takes_the_lease_and_resuming_replays() {
    let world = world().await;
    let workflow = world.call().await;
    let (holder, run) = world.desk.run().await;
    world
        .steps(holder, &run.assignee, vec![complete("a", 1, "1")])
        .await
        .unwrap();
    world.engine.pause(caller(), workflow, true, None).await.unwrap();
    let (told, cancel) = world.desk.cancel().await;
    assert_eq!((told, &cancel.assignee), (holder, &run.assignee));
    assert_eq!(world.steps(holder, &run.assignee, vec![finish("1")]).await, None);
    world.engine.resume(caller(), workflow).await.unwrap();
    let (holder, again) = world.desk.run().await;
    assert_eq!(again.activations, 1);
    let ops = vec![begin("a", REPEAT), finish("0")];
    assert_eq!(
        world.steps(holder, &again.assignee, ops).await,
        Some(vec![replayed(1, "1"), RunReply::Recorded])
    );
    world.verify();
}

#[tokio::test]
async fn a_component_that_nobody_serves_is_said_within_a_second() {
    let world = World::new().await;
    let begun = tokio::time::Instant::now();
    let told = world.engine.run(run(20_000)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(
        told.waiting,
        Some(WaitingView::Unplaceable {
            missing: vec!["a worker with component `greet`".to_owned()]
        })
    );
}

#[tokio::test]
async fn cancelling_fences_the_worker_at_once() {
    let world = world().await;
    let workflow = world.call().await;
    let (holder, run) = world.desk.run().await;
    world.engine.cancel(caller(), workflow, None).await.unwrap();
    let (told, cancel) = world.desk.cancel().await;
    assert_eq!((told, &cancel.assignee), (holder, &run.assignee));
    assert_eq!(world.steps(holder, &run.assignee, vec![finish("1")]).await, None);
    assert_eq!(world.result(workflow).await.state, WorkflowState::Cancelled);
    world.verify();
}

#[tokio::test]
async fn a_worker_that_comes_back_keeps_what_it_names_and_loses_the_rest() {
    let world = world().await;
    world.call().await;
    world.call().await;
    let (holder, kept) = world.desk.run().await;
    let (_, lost) = world.desk.run().await;
    let verdicts = world
        .engine
        .reconcile(holder, vec![kept.assignee.clone()])
        .await
        .unwrap();
    assert_eq!(verdicts.len(), 1);
    assert!(verdicts[0].keep);
    let (_, again) = world.desk.run().await;
    assert_eq!(again.assignee.task, lost.assignee.task);
    assert!(again.assignee.fence > lost.assignee.fence);
    let renewed = world
        .engine
        .renew(holder, vec![kept.assignee, lost.assignee])
        .await
        .unwrap();
    assert_eq!(renewed, [Verdict::Accepted, Verdict::Stale]);
    world.verify();
}

#[tokio::test]
async fn a_failed_step_is_begun_again_when_its_worker_says_so_and_stands_when_not() {
    let world = world().await;
    world.call().await;
    let (holder, run) = world.desk.run().await;
    let fail = |attempt, retry| RunOp::Fail {
        activation: id("a"),
        what: what("a", REPEAT),
        attempt,
        fault: fault("flaky"),
        retry,
    };
    let steps = async |ops| world.steps(holder, &run.assignee, ops).await.unwrap();
    assert_eq!(steps(vec![fail(1, true)]).await, [RunReply::Recorded]);
    assert_eq!(steps(vec![begin("a", REPEAT)]).await, [RunReply::Execute(2)]);
    assert_eq!(steps(vec![fail(2, false), begin("a", REPEAT)]).await.len(), 2);
    let replies = steps(vec![begin("a", REPEAT)]).await;
    assert!(
        matches!(&replies[0], RunReply::Replay { attempt: 2, end: Err(fault) } if fault.message == "flaky"),
        "{replies:?}"
    );
    world.verify();
}

const CHAIN: &str = "
name: chain
tasks:
  first:
    component: greet
    with: {who: '{{ workflow.name }}'}
  second:
    needs: first
    component: greet
    with: {said: '{{ tasks.first.outputs.said }}', n: 1}
outputs:
  said: '{{ tasks.second.outputs.result }}'
";

#[tokio::test]
async fn code_among_other_tasks_gets_what_those_before_it_returned() {
    let world = world().await;
    let workflow = world.submit(CHAIN).await;
    let waiting = tokio::spawn({
        let engine = Arc::clone(&world.engine);
        async move { engine.run_result(tenant(), workflow, 20_000).await.unwrap() }
    });
    let (holder, first) = world.desk.run().await;
    assert_eq!(first.input, Bytes::from_static(br#"{"who":"chain"}"#));
    assert_eq!(first.run, first.assignee.task.to_string());
    let syncs = world.engine.counters().syncs;
    world
        .steps(holder, &first.assignee, vec![finish(r#"{"said":"hello"}"#)])
        .await
        .unwrap();
    let (holder, second) = world.desk.run().await;
    assert_eq!(second.input, Bytes::from_static(br#"{"said":"hello","n":1}"#));
    world
        .steps(holder, &second.assignee, vec![finish(r#""bye""#)])
        .await
        .unwrap();
    assert_eq!(world.engine.counters().syncs - syncs, 2);
    let told = waiting.await.unwrap();
    assert_eq!(
        (told.state, told.result),
        (WorkflowState::Completed, Some(json!({"said": "bye"})))
    );
    let view = world.view(workflow).await;
    assert_eq!(
        (view.summary.state, view.outputs),
        (WorkflowState::Completed, json!({"said": "bye"}))
    );
    world.verify();
}
