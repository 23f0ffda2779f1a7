//! What the core does, one situation at a time.

use gantry_proto::limits::INFRASTRUCTURE_ATTEMPTS_MAX;
use gantry_proto::v1::{Artifact, EndCause};
use gantry_proto::{ArtifactId, NodeId};

use super::table::{Fate, Table, dropped, failed, lost, partition, reconcile, refuse, run_out};
use super::world::{candidate, ended, node_id, ok, with_outputs};
use crate::api::{Order, StepState, TaskState, Verdict, WorkflowState};
use crate::core::{Rejection, Reply};

const ONE: &str = "{name: one, tasks: {t: {steps: [{key: a, run: 'true'}, {key: b, run: 'true'}]}}}";
const RETRY: &str =
    "{name: r, tasks: {t: {steps: [{key: a, run: 'true', retry: {attempts: 3, backoff: 1s, factor: 2}}]}}}";
const PAIR: &str = "
name: pair
tasks:
  bad: {steps: [{run: 'false'}]}
  needs-it: {needs: [bad], steps: [{run: 'true'}]}
  apart: {steps: [{run: 'true'}]}
  report: {needs: [bad, needs-it, apart], run_on: always, steps: [{run: 'true'}]}
";

fn one_node() -> Vec<crate::api::Candidate> {
    vec![candidate(1, 8)]
}

#[test]
fn a_failed_step_is_retried_with_growing_pauses_and_then_fails() {
    let mut table = Table::new();
    let id = table.submit(RETRY, &one_node());
    for pause in [1_000, 2_000] {
        let assignment = table.the_assignment();
        table.finish(&assignment, failed(), &one_node());
        let task = table.task(id, "t");
        assert_eq!(
            task.row.state(),
            TaskState::Pending,
            "the lease is given back while it waits"
        );
        assert_eq!(task.row.holder, None);
        assert_eq!(task.row.wait_until_ms, Some(table.now_ms + pause));
        table.pass(pause - 1, &one_node());
        assert!(table.assigned().is_empty(), "not early");
        table.pass(1, &one_node());
    }
    let assignment = table.the_assignment();
    assert_eq!(assignment.1.assignee.attempt, 3);
    table.finish(&assignment, failed(), &one_node());
    let task = table.task(id, "t");
    assert_eq!(
        (task.row.state(), task.row.end_code.as_deref()),
        (TaskState::Failed, Some("step-exit"))
    );
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
    table.verify();
}

#[test]
fn the_idempotency_key_of_a_step_is_the_same_in_every_attempt() {
    let mut table = Table::new();
    table.submit(RETRY, &one_node());
    let first = table.the_assignment();
    table.finish(&first, failed(), &one_node());
    table.pass(1_000, &one_node());
    let second = table.the_assignment();
    assert_eq!(first.1.plan.idempotency_key, second.1.plan.idempotency_key);
}

#[test]
fn attempts_lost_to_infrastructure_do_not_count_but_are_bounded() {
    let mut table = Table::new();
    let id = table.submit(RETRY, &one_node());
    for attempt in 1..=INFRASTRUCTURE_ATTEMPTS_MAX {
        let assignment = table.the_assignment();
        assert_eq!(assignment.1.assignee.attempt, attempt);
        match attempt % 3 {
            0 => table.finish(&assignment, lost(), &one_node()) as usize,
            1 => {
                table.expire(&assignment.1.assignee, &one_node());
                0
            }
            _ => table
                .batch(vec![dropped(&assignment).into()], &one_node(), Fate::Done)
                .len(),
        };
        if attempt < INFRASTRUCTURE_ATTEMPTS_MAX && attempt > 1 {
            table.pass(10_000, &one_node());
        }
    }
    let task = table.task(id, "t");
    assert_eq!(
        (task.row.state(), task.row.end_code.as_deref()),
        (TaskState::Failed, Some("infrastructure-lost"))
    );
    assert_eq!(task.row.steps[0].failed, 0);
    table.verify();
}

#[test]
fn an_expired_lease_fences_the_old_holder() {
    let mut table = Table::new();
    let id = table.submit(ONE, &one_node());
    let old = table.the_assignment();
    table.expire(&old.1.assignee, &one_node());
    let new = table.the_assignment();
    assert!(new.1.assignee.fence > old.1.assignee.fence);
    assert_eq!(table.finish(&old, ok(), &[]), Verdict::Stale);
    assert_eq!(
        table.task(id, "t").row.steps[0].state(),
        StepState::Assigned,
        "the stale result changed nothing"
    );
    let refused = table.batch(vec![refuse(&old).into()], &[], Fate::Done);
    assert_eq!(refused, [Ok(Reply::Verdict(Verdict::Stale))]);
    assert_eq!(table.finish(&new, ok(), &[]), Verdict::Accepted);
    table.verify();
}

#[test]
fn another_node_cannot_report_with_a_stolen_fence() {
    let mut table = Table::new();
    table.submit(ONE, &one_node());
    let (_, assignment) = table.the_assignment();
    assert_eq!(table.finish(&(node_id(2), assignment), ok(), &[]), Verdict::Stale);
}

#[test]
fn a_repeated_result_is_accepted_and_changes_nothing() {
    let mut table = Table::new();
    let id = table.submit(ONE, &one_node());
    let assignment = table.the_assignment();
    table.finish(&assignment, with_outputs(r#"{"k": 1}"#), &[]);
    let before = table.workflow(id).tasks[0].row.clone();
    assert_eq!(table.finish(&assignment, failed(), &[]), Verdict::Accepted);
    assert_eq!(table.workflow(id).tasks[0].row, before);
}

#[test]
fn a_refused_assignment_counts_for_nothing_and_waits_a_little() {
    let mut table = Table::new();
    let id = table.submit(ONE, &one_node());
    let assignment = table.the_assignment();
    table.batch(vec![refuse(&assignment).into()], &one_node(), Fate::Done);
    assert!(table.assigned().is_empty(), "no hot loop");
    let task = table.task(id, "t");
    assert_eq!((task.row.steps[0].lost, task.row.steps[0].failed), (0, 0));
    table.pass(200, &one_node());
    for _ in 0..100 {
        let again = table.the_assignment();
        assert_eq!(
            again.1.assignee.attempt, 1,
            "nothing ran, so it is the first attempt still"
        );
        table.batch(vec![refuse(&again).into()], &[], Fate::Done);
        table.pass(10_000, &one_node());
    }
    let last = table.the_assignment();
    assert!(last.1.assignee.fence > 100);
    assert_eq!(
        table.task(id, "t").row.steps[0].attempts.len(),
        1,
        "the row does not grow"
    );
    assert_eq!(table.finish(&assignment, ok(), &[]), Verdict::Stale);
    assert_eq!(table.finish(&last, ok(), &[]), Verdict::Accepted);
    table.verify();
}

#[test]
fn a_failed_task_stops_the_rest_but_not_what_always_runs() {
    let mut table = Table::new();
    let id = table.submit(PAIR, &one_node());
    let running = table.assigned();
    assert_eq!(running.len(), 2);
    let bad = running.iter().find(|(_, each)| each.plan.task_name == "bad").unwrap();
    let apart = running.iter().find(|(_, each)| each.plan.task_name == "apart").unwrap();
    table.finish(bad, failed(), &one_node());
    assert_eq!(
        table.task(id, "needs-it").row.end_code.as_deref(),
        Some("dependency-failed")
    );
    assert!(matches!(&table.orders[..], [Order::Cancel(_, cancel)] if cancel.assignee == apart.1.assignee));
    assert_eq!(
        table.task(id, "report").row.state(),
        TaskState::Pending,
        "not before everything it needs has ended"
    );
    table.finish(apart, ended(EndCause::Cancelled, None), &one_node());
    let report = table.the_assignment();
    assert_eq!(report.1.plan.task_name, "report");
    table.finish(&report, ok(), &[]);
    let workflow = table.workflow(id);
    assert_eq!(
        (workflow.row.state(), workflow.row.end_code.as_deref()),
        (WorkflowState::Failed, Some("task-failed"))
    );
    table.verify();
}

#[test]
fn with_continue_what_does_not_need_the_failed_task_runs_on() {
    let mut table = Table::new();
    let id = table.submit(&format!("{PAIR}on_task_failure: continue\n"), &one_node());
    let running = table.assigned();
    let bad = running.iter().find(|(_, each)| each.plan.task_name == "bad").unwrap();
    let apart = running.iter().find(|(_, each)| each.plan.task_name == "apart").unwrap();
    table.finish(bad, failed(), &one_node());
    assert!(table.orders.is_empty(), "nothing is cancelled");
    table.finish(apart, ok(), &one_node());
    assert_eq!(table.task(id, "apart").row.state(), TaskState::Completed);
    assert_eq!(run_out(&mut table, &one_node()), ["report/step-1"]);
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
}

#[test]
fn cancelling_ends_waiting_tasks_at_once_and_always_tasks_too() {
    let mut table = Table::new();
    let id = table.submit(PAIR, &one_node());
    let running = table.assigned();
    assert_eq!(table.cancel(id), Ok(WorkflowState::Active));
    assert_eq!(table.task(id, "report").row.state(), TaskState::Cancelled);
    // One ends politely, one is lost with its node: both are over, and neither is repeated.
    table.finish(&running[0], ended(EndCause::Cancelled, None), &one_node());
    table.expire(&running[1].1.assignee, &one_node());
    assert!(table.assigned().is_empty());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Cancelled);
    assert_eq!(table.cancel(id), Err(Rejection::NotFound), "it is in storage only");
    table.verify();
}

#[test]
fn an_order_to_cancel_is_said_again_until_it_is_heard() {
    let mut table = Table::new();
    let id = table.submit(ONE, &one_node());
    let (node, assignment) = table.the_assignment();
    let cancels = |table: &mut Table| -> Vec<(NodeId, u64)> {
        let orders = std::mem::take(&mut table.orders);
        orders
            .iter()
            .filter_map(|order| match order {
                Order::Cancel(node, cancel) if cancel.assignee == assignment.assignee => Some((*node, cancel.grace_ms)),
                _ => None,
            })
            .collect()
    };
    table.cancel(id).unwrap();
    let first = cancels(&mut table);
    assert_eq!(first.len(), 1);
    // Every one of them is lost on its way, the first with the process.
    table.crash();
    table.batch(
        vec![reconcile(node, vec![assignment.assignee.clone()]).into()],
        &[],
        Fate::Done,
    );
    assert_eq!(cancels(&mut table), first, "a node that connects hears of it");
    let seq = table.state.next_seq;
    table.cancel(id).unwrap();
    assert_eq!(cancels(&mut table), first, "asked again, it is ordered again");
    assert_eq!(table.state.next_seq, seq, "and nothing new is recorded");
    table.verify();
}

#[test]
fn a_step_that_completes_although_it_was_cancelled_stays_completed() {
    let mut table = Table::new();
    let id = table.submit(ONE, &one_node());
    let assignment = table.the_assignment();
    table.cancel(id).unwrap();
    table.finish(&assignment, ok(), &one_node());
    let task = table.task(id, "t");
    assert_eq!(task.row.steps[0].state(), StepState::Completed);
    assert_eq!(task.row.steps[1].state(), StepState::Skipped);
    assert_eq!(task.row.state(), TaskState::Cancelled);
}

#[test]
fn recovery_finds_everything_again() {
    let mut table = Table::new();
    let id = table.submit(RETRY, &one_node());
    let assignment = table.the_assignment();
    table.finish(&assignment, failed(), &[]);
    let ready = table.submit(ONE, &[]);
    let before = (table.state.clone(), table.workflow(id));
    table.crash();
    assert_eq!((table.state.ready.len(), before.0.ready.len()), (1, 1));
    assert_eq!(table.state.ready.position((ready, 0)), Some(0));
    assert_eq!(table.state.timers, before.0.timers);
    assert_eq!(table.state.next_seq, before.0.next_seq);
    assert_eq!(table.workflow(id).tasks[0].row, before.1.tasks[0].row);
    assert_eq!(
        table.workflow(ready).body.unwrap().definition,
        before.0.workflows[&ready].body.as_ref().unwrap().definition
    );
    table.pass(1_000, &one_node());
    assert_eq!(table.assigned().len(), 2);
}

#[test]
fn a_crash_before_the_commit_leaves_no_trace_and_one_after_it_loses_nothing() {
    let mut table = Table::new();
    table.submit(ONE, &one_node());
    let assignment = table.the_assignment();
    let finish = |assignment: &(NodeId, gantry_proto::v1::Assignment)| crate::core::commands::StepFinished {
        node: assignment.0,
        assignee: assignment.1.assignee.clone(),
        result: ok(),
    };
    table.batch(vec![finish(&assignment).into()], &[], Fate::DiesBefore);
    assert_eq!(table.finish(&assignment, ok(), &[]), Verdict::Accepted);
    table.assigned();
    table.batch(vec![reconcile(node_id(1), Vec::new()).into()], &one_node(), Fate::Done);
    let second = table.the_assignment();
    assert_eq!((second.1.assignee.step, second.1.assignee.attempt), (1, 2));
    table.batch(vec![finish(&second).into()], &[], Fate::DiesAfter);
    table.verify();
    assert!(table.state.workflows.is_empty(), "it had completed");
}

#[test]
fn a_template_error_fails_the_step_and_not_the_engine() {
    let mut table = Table::new();
    let source =
        "{name: e, tasks: {t: {steps: [{key: a, run: 'true'}, {key: b, run: 'echo {{ steps.a.outputs.absent }}'}]}}}";
    let id = table.submit(source, &one_node());
    let first = table.the_assignment();
    table.finish(&first, ok(), &one_node());
    let task = table.task(id, "t");
    assert_eq!(
        (task.row.state(), task.row.end_code.as_deref()),
        (TaskState::Failed, Some("template-error"))
    );
    assert_eq!(task.row.steps[1].state(), StepState::Failed);
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
    table.verify();
}

#[test]
fn a_task_stays_where_its_workspace_is() {
    let mut table = Table::new();
    table.submit(ONE, &[candidate(1, 1)]);
    let first = table.the_assignment();
    table.finish(&first, ok(), &[]);
    let second = table.the_assignment();
    assert_eq!(second.0, node_id(1));
    table.expire(&second.1.assignee, &[candidate(2, 8)]);
    assert!(table.assigned().is_empty(), "node 2 does not have the tree");
    table.batch(Vec::new(), &[candidate(1, 1), candidate(2, 8)], Fate::Done);
    assert_eq!(table.the_assignment().0, node_id(1));
}

#[test]
fn tasks_that_hand_a_workspace_over_run_on_one_node() {
    let mut table = Table::new();
    let source = "
name: hand
tasks:
  a: {steps: [{run: 'true'}]}
  b: {steps: [{run: 'true'}]}
  c: {needs: [a, b], workspace: {mounts: {left: {from: a}, right: {from: b}}}, steps: [{run: 'true'}]}
  free: {steps: [{run: 'true'}]}
";
    table.submit(source, &[candidate(1, 1), candidate(2, 8)]);
    let placed = table.assigned();
    let node_of = |name: &str| {
        placed
            .iter()
            .find(|(_, each)| each.plan.task_name == name)
            .map(|(node, _)| *node)
    };
    assert_eq!(node_of("a"), node_of("b"));
    assert!(node_of("a").is_some());
}

#[test]
fn artifacts_of_needed_tasks_become_inputs() {
    let mut table = Table::new();
    let source = "
name: inputs
tasks:
  make: {steps: [{run: 'true', artifacts: ['out/*.txt']}]}
  use: {needs: [make], inputs: [{task: make, artifact: 'out/*.txt', path: in/}], steps: [{run: 'true'}]}
";
    table.submit(source, &one_node());
    let make = table.the_assignment();
    let artifact = |name: &str, number: u64| Artifact {
        id: ArtifactId::new(1, partition(), number),
        name: name.to_owned(),
        size_bytes: 3,
        sha256: vec![1; 32].into(),
        content_type: None,
    };
    let mut result = ok();
    result.artifacts = vec![
        artifact("out/a.txt", 1),
        artifact("out/deep/b.txt", 2),
        artifact("c.txt", 3),
    ];
    table.finish(&make, result, &[]);
    table.crash();
    table.batch(Vec::new(), &one_node(), Fate::Done);
    let inputs = table.the_assignment().1.plan.inputs;
    assert_eq!(
        inputs.iter().map(|input| input.path.as_str()).collect::<Vec<_>>(),
        ["in/out/a.txt"]
    );
}

#[test]
fn reconciliation_keeps_what_is_live_and_what_was_reported() {
    let mut table = Table::new();
    table.submit(ONE, &one_node());
    let first = table.the_assignment();
    table.finish(&first, ok(), &[]);
    let second = table.the_assignment();
    let mut stale = second.1.assignee.clone();
    stale.fence -= 1;
    let holding = vec![first.1.assignee.clone(), second.1.assignee.clone(), stale];
    let replies = table.batch(vec![reconcile(node_id(1), holding).into()], &[], Fate::Done);
    let Ok(Reply::Held { verdicts, .. }) = &replies[0] else {
        panic!("{replies:?}")
    };
    assert_eq!(
        verdicts.iter().map(|verdict| verdict.keep).collect::<Vec<_>>(),
        [true, true, false]
    );
}

#[test]
fn the_record_of_a_newer_version_is_refused() {
    use gantry_proto::v1::event::Kind;
    let mut table = Table::new();
    let id = table.submit(ONE, &[]);
    let place = crate::core::apply::Place {
        seq: table.state.next_seq,
        at_ms: table.now_ms,
        tenant: super::world::tenant(),
        workflow: Some(id),
    };
    let event = gantry_proto::v1::WorkflowEnded { end: 99, code: None };
    let refused = crate::core::apply::apply(&mut table.state, place, &Kind::WorkflowEnded(event), None).unwrap_err();
    assert!(matches!(refused, crate::core::ApplyError::Newer { .. }));
}
