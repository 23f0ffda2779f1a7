//! The engine as a whole on the model store: submit, claim, steps, completion; restarts; failed commits.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use gantry_journal::{CommitFault, StreamKey};
use gantry_proto::ErrorCode;
use gantry_proto::v1::{EndCause, Fault, HeldState, HeldStep, NodeHealth, OutputStream, ProcessOutput, Register};

use super::world::{World, caller, candidate, ended, node_id, ok, started, submission, tenant, with_outputs};
use crate::api::{
    Backend as _, NodePort as _, Serves, StepState, TaskState, Verdict, WaitingView, WorkflowQuery, WorkflowState,
};

const THREE_STEPS: &str = "
name: three
tasks:
  build:
    steps:
      - key: one
        run: echo one
      - key: two
        run: echo {{ steps.one.outputs.word }}
      - key: three
        run: echo three
";

const CHAIN: &str = "
name: chain
tasks:
  first:
    steps: [{run: 'true'}]
  second:
    needs: [first]
    steps: [{run: 'true'}]
outputs:
  word: '{{ tasks.first.outputs.word }}'
";

fn register(number: u64, holding: Vec<HeldStep>) -> Register {
    Register {
        protocol: 1,
        node: node_id(number),
        name: format!("node-{number}"),
        version: "1".to_owned(),
        slots: 8,
        cpu_millis: 64_000,
        memory_bytes: 64 << 30,
        arch: "x86_64".to_owned(),
        os: "linux".to_owned(),
        holding,
        ..Register::default()
    }
}

#[tokio::test]
async fn a_task_of_three_steps_completes_with_four_syncs() {
    let world = World::new().await;
    let before = world.engine.counters().syncs;
    let workflow = world.submit(THREE_STEPS).await;
    let (node, one) = world.desk.assignment().await;
    assert_eq!(one.plan.command.shell.as_deref(), Some("echo one"));
    assert_eq!(
        world.engine.started(node, started(&one.assignee)).await.unwrap(),
        Verdict::Accepted
    );
    assert_eq!(
        world
            .finish(node, &one.assignee, with_outputs(r#"{"word": "hi"}"#))
            .await,
        Verdict::Accepted
    );
    let (again, two) = world.desk.assignment().await;
    assert_eq!(
        (again, two.assignee.fence),
        (node, one.assignee.fence),
        "the next step runs under the same lease"
    );
    assert_eq!(
        two.plan.command.shell.as_deref(),
        Some("echo hi"),
        "rendered with the outputs of the step before"
    );
    assert_eq!(world.finish(node, &two.assignee, ok()).await, Verdict::Accepted);
    let (_, three) = world.desk.assignment().await;
    assert!(three.plan.last && !two.plan.last);
    assert_eq!(world.finish(node, &three.assignee, ok()).await, Verdict::Accepted);

    let view = world.view(workflow).await;
    assert_eq!(view.summary.state, WorkflowState::Completed);
    assert_eq!(view.tasks[0].state, TaskState::Completed);
    assert!(
        view.tasks[0]
            .steps
            .iter()
            .all(|step| step.state == StepState::Completed)
    );
    assert_eq!(view.tasks[0].steps[0].outputs["word"], "hi");
    assert_eq!(view.tasks[0].steps[0].attempts[0].started_at_ms, Some(4));
    assert_eq!(
        world.engine.counters().syncs - before,
        4,
        "submit and three results; a start costs nothing of its own"
    );
    assert_eq!(world.desk.released(), vec![(node, vec![view.tasks[0].id])]);
    let events = world.engine.events(tenant(), workflow, 0, 500).await.unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds.first(), Some(&"workflow_submitted"));
    assert_eq!(kinds.last(), Some(&"workflow_ended"));
    assert_eq!(events.last().unwrap().position, view.position);
    assert_eq!(kinds.iter().filter(|kind| **kind == "step_running").count(), 1);
    let rest = world
        .engine
        .events(tenant(), workflow, events[3].position, 500)
        .await
        .unwrap();
    assert_eq!(rest.len(), events.len() - 4, "continues without gap or repeat");
    world.verify();
}

#[tokio::test]
async fn a_chain_hands_outputs_on_and_renders_its_own() {
    let world = World::new().await;
    let workflow = world.submit(CHAIN).await;
    let view = world.view(workflow).await;
    assert_eq!(
        view.tasks[1].waiting,
        Some(WaitingView::Needs {
            tasks: vec!["first".to_owned()]
        })
    );
    let (node, first) = world.desk.assignment().await;
    world
        .finish(node, &first.assignee, with_outputs(r#"{"word": "done"}"#))
        .await;
    let (node, second) = world.desk.assignment().await;
    world.finish(node, &second.assignee, ok()).await;
    let view = world.view(workflow).await;
    assert_eq!(view.outputs["word"], "done");
    let page = world
        .engine
        .workflows(tenant(), WorkflowQuery::default())
        .await
        .unwrap();
    assert_eq!(page.items.len(), 1);
    assert_eq!(page.items[0].tasks_ended, 2);
    world.verify();
}

#[tokio::test]
async fn work_goes_on_after_a_restart_and_a_result_is_accepted_twice() {
    let world = World::new().await;
    let workflow = world.submit(THREE_STEPS).await;
    let (node, one) = world.desk.assignment().await;
    world
        .finish(node, &one.assignee, with_outputs(r#"{"word": "hi"}"#))
        .await;
    let (_, two) = world.desk.assignment().await;
    let world = world.restart().await;

    let held = |assignee: &gantry_proto::v1::Assignee, state: HeldState| {
        let mut held = HeldStep {
            assignee: assignee.clone(),
            ..HeldStep::default()
        };
        held.set_state(state);
        held
    };
    let holding = vec![
        held(&one.assignee, HeldState::Finished),
        held(&two.assignee, HeldState::Running),
    ];
    let registration = world.engine.register(Serves::All, register(1, holding)).await.unwrap();
    assert!(
        registration.verdicts.iter().all(|verdict| verdict.keep),
        "an accepted result is acknowledged again, running work goes on"
    );
    assert_eq!(
        world.finish(node, &one.assignee, ok()).await,
        Verdict::Accepted,
        "accepted before"
    );
    assert_eq!(world.finish(node, &two.assignee, ok()).await, Verdict::Accepted);
    let (_, three) = world.desk.assignment().await;
    assert_eq!(world.finish(node, &three.assignee, ok()).await, Verdict::Accepted);
    assert_eq!(
        world.finish(node, &three.assignee, ok()).await,
        Verdict::Accepted,
        "also when the workflow has ended"
    );
    let view = world.view(workflow).await;
    assert_eq!(view.summary.state, WorkflowState::Completed);
    assert!(
        view.tasks[0].steps.iter().all(|step| step.attempts.len() == 1),
        "nothing ran twice"
    );
    world.verify();
}

#[tokio::test]
async fn a_node_that_comes_back_without_its_step_loses_it() {
    let world = World::new().await;
    let workflow = world.submit(THREE_STEPS).await;
    let (node, one) = world.desk.assignment().await;
    world
        .engine
        .register(Serves::All, register(1, Vec::new()))
        .await
        .unwrap();
    let (_, again) = world.desk.assignment().await;
    assert_eq!(again.assignee.attempt, 2);
    assert!(again.assignee.fence > one.assignee.fence);
    assert_eq!(world.finish(node, &one.assignee, ok()).await, Verdict::Stale);
    let view = world.view(workflow).await;
    assert_eq!(view.tasks[0].steps[0].attempts[0].state, StepState::Lost);
    world.verify();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_not_renewed_expires_and_one_that_is_renewed_does_not() {
    let world = World::new().await;
    let workflow = world.submit(THREE_STEPS).await;
    let (node, one) = world.desk.assignment().await;
    for _ in 0..10 {
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(
            world.engine.renew(node, vec![one.assignee.clone()]).await.unwrap(),
            [Verdict::Accepted]
        );
    }
    assert!(world.desk.try_assignment().is_none());
    let (_, again) = world.desk.assignment().await;
    assert_eq!(again.assignee.attempt, 2, "time went on until the lease expired");
    assert_eq!(
        world.engine.renew(node, vec![one.assignee.clone()]).await.unwrap(),
        [Verdict::Stale]
    );
    let view = world.view(workflow).await;
    assert_eq!(view.tasks[0].steps[0].attempts[0].state, StepState::Lost);
    world.verify();
}

#[tokio::test]
async fn a_failed_commit_is_never_visible_and_the_partition_recovers() {
    for fault in [CommitFault::BeforeApply, CommitFault::AfterApply] {
        let world = World::with_partitions(1).await;
        let workflow = world.submit(THREE_STEPS).await;
        let (node, one) = world.desk.assignment().await;
        world.store.fail_next_commit(fault);
        let refused = world
            .engine
            .finished(node, one.assignee.clone(), with_outputs(r#"{"word": "hi"}"#))
            .await
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::StorageUnavailable);
        // The node sends it again until it is answered, as nodes do.
        loop {
            match world
                .engine
                .finished(node, one.assignee.clone(), with_outputs(r#"{"word": "hi"}"#))
                .await
            {
                Ok(verdict) => break assert_eq!(verdict, Verdict::Accepted),
                Err(refused) => {
                    assert_eq!(refused.code, ErrorCode::StorageUnavailable);
                    tokio::task::yield_now().await;
                }
            }
        }
        assert_eq!(
            world.desk.resets(),
            (1, 1),
            "nodes connect anew, since orders may have been lost; credits are given up"
        );
        // With the commit applied, the assignment of step two was lost with the memory. Here it is dropped either way: the node does not name it.
        while world.desk.try_assignment().is_some() {}
        world
            .engine
            .register(Serves::All, register(1, Vec::new()))
            .await
            .unwrap();
        world.run_all(workflow).await;
        let view = world.view(workflow).await;
        assert_eq!(view.summary.state, WorkflowState::Completed);
        assert_eq!(
            view.tasks[0].steps[0].attempts.len(),
            1,
            "completed once, whatever the outcome of the commit"
        );
        world.verify();
    }
}

#[tokio::test]
async fn a_store_that_takes_no_more_writes_is_reported_as_fatal() {
    let world = World::with_partitions(2).await;
    let workflow = world.submit(THREE_STEPS).await;
    let (node, one) = world.desk.assignment().await;
    {
        let failed = world.engine.failed();
        tokio::pin!(failed);
        assert!(futures_util::poll!(&mut failed).is_pending());
        world.store.break_down();
        let refused = world
            .engine
            .finished(node, one.assignee.clone(), ok())
            .await
            .unwrap_err();
        assert_eq!(refused.code, ErrorCode::StorageUnavailable);
        let reason = failed.await;
        assert!(reason.contains("breakdown"), "{reason}");
    }
    // The process is started again, and goes on where it was.
    let world = world.restart().await;
    let word = with_outputs(r#"{"word": "hi"}"#);
    assert_eq!(world.finish(node, &one.assignee, word).await, Verdict::Accepted);
    assert_eq!(world.view(workflow).await.tasks[0].steps[0].state, StepState::Completed);
    world.verify();
}

#[tokio::test]
async fn draining_outlives_a_registration_without_docker() {
    let world = World::new().await;
    let well = || register(1, Vec::new());
    world.engine.register(Serves::All, well()).await.unwrap();
    world.engine.drain_node(caller(), node_id(1), true).await.unwrap();
    // The daemon was killed, so nobody recorded a departure.
    let sick = Register {
        health: Some(NodeHealth::default()),
        ..well()
    };
    world.engine.register(Serves::All, sick).await.unwrap();
    let world = world.restart().await;
    world.engine.register(Serves::All, well()).await.unwrap();
    let node = world.engine.node(tenant(), node_id(1)).await.unwrap();
    assert_eq!(node.state.to_string(), "draining");
    world.verify();
}

#[tokio::test]
async fn a_submission_is_idempotent_by_key_and_refuses_another_body() {
    let world = World::new().await;
    let mut asked = submission(THREE_STEPS);
    asked.idempotency_key = Some("k".to_owned());
    let first = world.engine.submit(asked.clone()).await.unwrap();
    let world = world.restart().await;
    let second = world.engine.submit(asked.clone()).await.unwrap();
    assert!(!first.replayed && second.replayed);
    assert_eq!(first.workflow, second.workflow);
    asked.source = Bytes::from_static(CHAIN.as_bytes());
    assert_eq!(
        world.engine.submit(asked).await.unwrap_err().code,
        ErrorCode::IdempotencyMismatch
    );
    world.verify();
}

#[tokio::test]
async fn cancelling_asks_what_runs_and_ends_what_waits() {
    let world = World::new().await;
    let workflow = world.submit(CHAIN).await;
    let (node, first) = world.desk.assignment().await;
    let state = world.engine.cancel(caller(), workflow, Some(500)).await.unwrap();
    assert_eq!(state, WorkflowState::Active, "the running step was asked to end");
    let (asked, cancel) = world.desk.cancel().await;
    assert_eq!((asked, cancel.grace_ms, &cancel.assignee), (node, 500, &first.assignee));
    assert_eq!(world.view(workflow).await.tasks[1].state, TaskState::Cancelled);
    let result = ended(gantry_proto::v1::EndCause::Cancelled, None);
    assert_eq!(world.finish(node, &first.assignee, result).await, Verdict::Accepted);
    assert_eq!(world.view(workflow).await.summary.state, WorkflowState::Cancelled);
    assert_eq!(
        world.engine.cancel(caller(), workflow, None).await.unwrap(),
        WorkflowState::Cancelled,
        "idempotent"
    );
    world.verify();
}

#[tokio::test]
async fn output_is_durable_before_the_result_and_readable_to_its_end() {
    let world = World::new().await;
    let workflow = world.submit(CHAIN).await;
    let (node, first) = world.desk.assignment().await;
    let mut chunk = ProcessOutput {
        run: 1,
        seq: 1,
        data: Bytes::from_static(b"hello"),
        at_ms: 1,
        ..ProcessOutput::default()
    };
    chunk.set_stream(OutputStream::Stdout);
    let mut result = ok();
    result.last_seq = Some(1);
    let refused = world
        .engine
        .finished(node, first.assignee.clone(), result.clone())
        .await
        .unwrap_err();
    assert_eq!(refused.code, ErrorCode::Conflict, "its output is missing");
    let stored = crate::api::NodePort::output(world.engine.as_ref(), node, first.assignee.clone(), vec![chunk.clone()])
        .await
        .unwrap();
    assert_eq!(stored, (Verdict::Accepted, 1));
    let again = crate::api::NodePort::output(world.engine.as_ref(), node, first.assignee.clone(), vec![chunk])
        .await
        .unwrap();
    assert_eq!(again, (Verdict::Accepted, 1), "a repeat is dropped");
    let stream = StreamKey {
        tenant: tenant(),
        workflow,
        task: first.assignee.task,
        step: 0,
        attempt: 1,
    };
    let page = crate::api::Backend::output(world.engine.as_ref(), stream, 0, 1 << 20)
        .await
        .unwrap();
    assert_eq!(page.chunks[0].data, "hello");
    assert!(!page.finished);
    assert_eq!(world.finish(node, &first.assignee, result).await, Verdict::Accepted);
    let page = crate::api::Backend::output(world.engine.as_ref(), stream, 1, 1 << 20)
        .await
        .unwrap();
    assert!(page.chunks.is_empty() && page.finished);
}

#[tokio::test]
async fn artifacts_are_stored_under_a_live_lease_and_found_once_the_step_completed() {
    let world = World::new().await;
    let workflow = world.submit(CHAIN).await;
    let (node, first) = world.desk.assignment().await;
    let data = || futures_util::stream::iter([Ok(Bytes::from_static(b"content"))]).boxed();
    let put = |name: &str| {
        world
            .engine
            .put_artifact(node, first.assignee.clone(), name.to_owned(), None, data())
    };
    let artifact = put("out/report.md").await.unwrap();
    assert_eq!(put("out/report.md").await.unwrap(), artifact, "idempotent by name");
    assert_eq!(put("../passwd").await.unwrap_err().code, ErrorCode::ArtifactRefused);
    let mut result = ok();
    result.artifacts = vec![artifact.clone()];
    assert!(
        world
            .engine
            .artifact(tenant(), workflow, artifact.id, None)
            .await
            .is_err(),
        "not before its step completed"
    );
    world.finish(node, &first.assignee, result).await;
    assert_eq!(put("late").await.unwrap_err().code, ErrorCode::StaleFence);
    let mut body = world
        .engine
        .artifact(tenant(), workflow, artifact.id, None)
        .await
        .unwrap();
    assert_eq!(body.stream.next().await.unwrap().unwrap(), "content");
    let (_, second) = world.desk.assignment().await;
    let mut read = world
        .engine
        .get_artifact(node, second.assignee.clone(), artifact.id)
        .await
        .unwrap();
    assert_eq!(read.next().await.unwrap().unwrap(), "content");
}

#[tokio::test]
async fn waiting_is_explained() {
    let world = World::new().await;
    world.desk.offer(Vec::new());
    let workflow = world
        .submit("{name: w, tasks: {t: {requires: {capabilities: [gpu]}, steps: [{run: 'true'}]}}}")
        .await;
    assert_eq!(world.view(workflow).await.tasks[0].waiting, Some(WaitingView::NoNode));
    world.desk.offer(vec![candidate(1, 1)]);
    assert_eq!(
        world.view(workflow).await.tasks[0].waiting,
        Some(WaitingView::Unplaceable {
            missing: vec!["capability `gpu`".to_owned()]
        })
    );
    let mut fitting = candidate(2, 0);
    fitting.capabilities.insert("gpu".to_owned());
    world.desk.offer(vec![fitting.clone()]);
    assert_eq!(
        world.view(workflow).await.tasks[0].waiting,
        Some(WaitingView::Capacity { queue_position: 0 })
    );
    fitting.credits = 1;
    world.desk.offer(vec![fitting]);
    world.engine.wake(&[workflow.partition()]);
    let (node, _) = world.desk.assignment().await;
    assert_eq!(node, node_id(2));
}

#[tokio::test]
async fn work_waits_for_a_degraded_node_and_goes_on_when_it_has_recovered() {
    let world = World::new().await;
    let fault = Fault::new(ErrorCode::DockerUnavailable, "Docker does not answer");
    let mut sick = register(1, Vec::new());
    sick.health = Some(NodeHealth {
        docker_ok: false,
        fault: Some(fault.clone()),
        ..NodeHealth::default()
    });
    world.engine.register(Serves::All, sick).await.unwrap();
    // It has credits left all the same: they were given before Docker went away.
    let workflow = world.submit(CHAIN).await;
    let waiting = world.view(workflow).await.tasks[0].waiting.clone();
    assert!(
        matches!(&waiting, Some(WaitingView::NodesDegraded { faults }) if faults.len() == 1 && faults[0].code == fault.code),
        "{waiting:?}"
    );
    assert!(world.desk.try_assignment().is_none(), "a degraded node gets nothing");
    // Another node that could do it, but has no room: then it is capacity that is waited for.
    world.desk.offer(vec![candidate(1, 8), candidate(2, 0)]);
    assert!(matches!(
        world.view(workflow).await.tasks[0].waiting,
        Some(WaitingView::Capacity { .. })
    ));
    let well = NodeHealth {
        docker_ok: true,
        ..NodeHealth::default()
    };
    world.engine.health(node_id(1), well).await.unwrap();
    assert_eq!(world.desk.assignment().await.0, node_id(1));
    world.verify();
}

#[tokio::test(start_paused = true)]
async fn connecting_renews_the_leases_of_what_is_kept_and_repeats_lost_orders() {
    let world = World::new().await;
    let workflow = world.submit(THREE_STEPS).await;
    let (node, one) = world.desk.assignment().await;
    world.engine.cancel(caller(), workflow, None).await.unwrap();
    world.desk.cancel().await;
    // While something blocks, paused time moves only when it is told to, however long a commit takes.
    let (release, held_back) = std::sync::mpsc::channel::<()>();
    let blocking = tokio::task::spawn_blocking(move || held_back.recv());
    // Sessions that are too short for a heartbeat, for longer than a lease.
    for _ in 0..20 {
        tokio::time::advance(Duration::from_secs(2)).await;
        let held = HeldStep {
            assignee: one.assignee.clone(),
            ..HeldStep::default()
        };
        let kept = world
            .engine
            .register(Serves::All, register(1, vec![held]))
            .await
            .unwrap();
        assert!(kept.verdicts[0].keep);
        let (to, cancel) = world.desk.cancel().await;
        assert_eq!((to, &cancel.assignee), (node, &one.assignee));
    }
    assert!(world.desk.try_assignment().is_none());
    assert_eq!(world.finish(node, &one.assignee, ok()).await, Verdict::Accepted);
    drop(release);
    assert!(blocking.await.unwrap().is_err());
    world.verify();
}

#[tokio::test]
async fn nodes_are_listed_drained_and_survive_a_restart() {
    let world = World::new().await;
    world
        .engine
        .register(Serves::All, register(1, Vec::new()))
        .await
        .unwrap();
    let drained = world.engine.drain_node(caller(), node_id(1), true).await.unwrap();
    assert_eq!(drained.state.to_string(), "draining");
    world.submit(CHAIN).await;
    assert!(
        world.desk.try_assignment().is_none(),
        "a draining node gets nothing new"
    );
    let world = world.restart().await;
    assert_eq!(world.engine.nodes(tenant()).await.unwrap().len(), 1);
    world
        .engine
        .register(Serves::All, register(1, Vec::new()))
        .await
        .unwrap();
    let node = world.engine.node(tenant(), node_id(1)).await.unwrap();
    assert_eq!(node.state.to_string(), "draining", "draining outlives a reconnection");
    world.engine.drain_node(caller(), node_id(1), false).await.unwrap();
    world.desk.assignment().await;
    world.verify();
}

#[tokio::test]
async fn a_wait_stays_short_when_the_wall_clock_goes_back() {
    let world = World::new().await;
    let workflow = world
        .submit("name: x\ntasks: {t: {run: 'false', retry: {attempts: 2, backoff: 200ms}}}")
        .await;
    let (node, first) = world.desk.assignment().await;
    world
        .finish(node, &first.assignee, ended(EndCause::Exited, Some(1)))
        .await;
    let view = world.view(workflow).await;
    assert!(
        matches!(view.tasks[0].waiting, Some(WaitingView::RetryBackoff { .. })),
        "{:?}",
        view.tasks[0].waiting
    );
    world.set_back(Duration::from_hours(1));
    let again = tokio::time::timeout(Duration::from_mins(1), world.desk.assignment()).await;
    let (node, second) = again.expect("a wait of 200 ms takes no hour");
    assert_eq!(second.assignee.attempt, 2);
    world.finish(node, &second.assignee, ok()).await;
    world.verify();

    // The next process begins with the clock as it is then.
    let world = world.restart().await;
    let workflow = world
        .submit("name: y\ntasks: {t: {run: 'false', retry: {attempts: 2, backoff: 200ms}}}")
        .await;
    let (node, first) = world.desk.assignment().await;
    world
        .finish(node, &first.assignee, ended(EndCause::Exited, Some(1)))
        .await;
    let again = tokio::time::timeout(Duration::from_mins(1), world.desk.assignment()).await;
    let (node, second) = again.expect("a wait of 200 ms takes no hour");
    world.finish(node, &second.assignee, ok()).await;
    assert_eq!(world.view(workflow).await.summary.state, WorkflowState::Completed);
    world.verify();
}

#[tokio::test]
async fn a_result_past_its_limits_fails_once_and_is_not_lost() {
    let world = World::new().await;
    let workflow = world.submit("name: x\ntasks: {t: {run: 'true'}}").await;
    let (node, assignment) = world.desk.assignment().await;
    let long = format!(r#"{{"a": "{}"}}"#, "x".repeat(600 << 10));
    assert_eq!(
        world.finish(node, &assignment.assignee, with_outputs(&long)).await,
        Verdict::Accepted
    );
    let view = world.view(workflow).await;
    assert_eq!(view.summary.state, WorkflowState::Failed);
    let step = &view.tasks[0].steps[0];
    assert_eq!(step.attempts.len(), 1);
    let failure = step.attempts[0].failure.as_ref().unwrap();
    assert_eq!(failure.code, "step-bad-output");
    assert!(
        failure.message.contains("$GANTRY_OUTPUT") && failure.message.contains("limit"),
        "{failure:?}"
    );
    world.verify();
}
