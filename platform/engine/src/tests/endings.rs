//! What runs before a workflow ends: `on_failure` and `on_cancel`.

use gantry_proto::v1::{EndCause, WorkflowEnd};
use gantry_proto::{ErrorCode, NodeId, WorkflowId, limits};

use super::pauses::pause;
use super::table::{Fate, Table, cancel, failed};
use super::waits::nodes;
use super::world::{ended, ok, with_outputs};
use crate::api::{Order, TaskState, WorkflowState};
use crate::core::Rejection;
use crate::core::commands::Cancel;

const BOTH: &str = "
name: both
on_failure:
  deadline: 5m
  env: {TEXT: '{{ failure.task }} {{ failure.task_code }} {{ tasks.a.state }} {{ tasks.b.state }}'}
  steps: [{run: 'echo {{ failure.code }}'}, {run: 'true'}]
on_cancel: {run: 'echo {{ failure.code }}'}
tasks:
  a: {run: 'true'}
  b: {needs: a, run: 'true', grace: 3s}
";

fn grace(workflow: WorkflowId, grace_ms: u64) -> Cancel {
    Cancel {
        grace_ms: Some(grace_ms),
        ..cancel(workflow)
    }
}

/// The shell of the only assignment, and what it is told of the failure.
fn told(table: &mut Table) -> ((NodeId, gantry_proto::v1::Assignment), String, Vec<(String, String)>) {
    let assignment = table.the_assignment();
    let plan = &assignment.1.plan;
    let shell = plan.command.shell.clone().unwrap();
    let env = plan
        .env
        .iter()
        .map(|var| (var.name.clone(), var.value.clone()))
        .collect();
    (assignment, shell, env)
}

fn value<'e>(env: &'e [(String, String)], name: &str) -> &'e str {
    env.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

/// Task `a` is done and `b` has failed.
fn failing(table: &mut Table) -> WorkflowId {
    let id = table.submit(BOTH, &nodes());
    let a = table.the_assignment();
    table.finish(&a, ok(), &nodes());
    let b = table.the_assignment();
    table.finish(&b, failed(), &nodes());
    id
}

fn end_of(table: &Table, id: WorkflowId) -> (WorkflowState, Option<String>) {
    let row = table.workflow(id).row;
    (row.state(), row.end_code)
}

fn stops(table: &mut Table) -> usize {
    let before = table.orders.len();
    table.orders.retain(|order| !matches!(order, Order::Cancel(..)));
    before - table.orders.len()
}

#[test]
fn a_failed_workflow_runs_what_handles_that_and_then_has_failed() {
    let mut table = Table::new();
    let id = failing(&mut table);
    assert_eq!(end_of(&table, id), (WorkflowState::Active, None), "not over yet");
    let (first, shell, env) = told(&mut table);
    assert_eq!(shell, "echo task-failed");
    assert_eq!(value(&env, "TEXT"), "b step-exit completed failed");
    assert_eq!(value(&env, "GANTRY_FAILURE_CODE"), "task-failed");
    assert_eq!(value(&env, "GANTRY_FAILURE_TASK"), "b");
    let message = value(&env, "GANTRY_FAILURE_MESSAGE").to_owned();
    assert!(message.contains("exit code 1"), "{message}");
    table.crash();
    table.finish(&first, ok(), &nodes());
    let second = table.the_assignment();
    assert_eq!(
        value(&told_env(&second), "GANTRY_FAILURE_MESSAGE"),
        message,
        "known also after a crash"
    );
    table.verify();
    table.finish(&second, ok(), &nodes());
    assert_eq!(
        end_of(&table, id),
        (WorkflowState::Failed, Some("task-failed".to_owned()))
    );
    assert_eq!(table.state_of(id, "on_failure"), TaskState::Completed);
    let other = table.task(id, "on_cancel").row;
    assert_eq!(
        (other.state(), other.end_code.as_deref()),
        (TaskState::Completed, Some("skipped"))
    );
    assert!(table.state.timers.is_empty(), "{:?}", table.state.timers);
    table.verify();
}

fn told_env((_, assignment): &(NodeId, gantry_proto::v1::Assignment)) -> Vec<(String, String)> {
    let env = assignment.plan.env.iter();
    env.map(|var| (var.name.clone(), var.value.clone())).collect()
}

#[test]
fn the_reason_outlives_a_crash_between_the_failure_and_the_end() {
    let mut table = Table::new();
    let source = "{name: slow, on_task_failure: continue, on_failure: {run: 'true'}, tasks: {a: {run: 'true'}, b: {run: 'true'}}}";
    let id = table.submit(source, &nodes());
    let mut both = table.assigned();
    let b = both.remove(1);
    table.finish(&both.remove(0), failed(), &nodes());
    table.crash();
    table.finish(&b, ok(), &nodes());
    let (handler, _, env) = told(&mut table);
    assert!(value(&env, "GANTRY_FAILURE_MESSAGE").contains("exit code 1"), "{env:?}");
    table.finish(&handler, ok(), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
    table.verify();
}

#[test]
fn a_completed_workflow_runs_neither() {
    let mut table = Table::new();
    let id = table.submit(BOTH, &nodes());
    assert_eq!(super::table::run_out(&mut table, &nodes()), ["a/step-1", "b/step-1"]);
    assert_eq!(end_of(&table, id), (WorkflowState::Completed, None));
    let row = table.workflow(id).row;
    assert_eq!((row.tasks_total, row.tasks_ended), (4, 4));
    for name in ["on_failure", "on_cancel"] {
        assert_eq!(table.task(id, name).row.end_code.as_deref(), Some("skipped"));
    }
    table.verify();
}

#[test]
fn what_handles_an_end_and_fails_changes_nothing_about_it() {
    let mut table = Table::new();
    let id = failing(&mut table);
    let handler = table.the_assignment();
    table.finish(&handler, failed(), &nodes());
    assert_eq!(
        end_of(&table, id),
        (WorkflowState::Failed, Some("task-failed".to_owned()))
    );
    assert_eq!(table.state_of(id, "on_failure"), TaskState::Failed);
    assert!(table.assigned().is_empty(), "once");
    table.verify();
}

#[test]
fn the_end_waits_only_so_long_for_it_whether_it_runs_or_not() {
    // No node takes it.
    let mut table = Table::new();
    let id = table.submit(BOTH, &nodes());
    let a = table.the_assignment();
    table.finish(&a, ok(), &nodes());
    let b = table.the_assignment();
    table.finish(&b, failed(), &[]);
    table.pass(299_999, &[]);
    table.crash();
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Active);
    table.pass(1, &[]);
    assert_eq!(
        end_of(&table, id),
        (WorkflowState::Failed, Some("task-failed".to_owned()))
    );
    let row = table.task(id, "on_failure").row;
    assert_eq!(row.end_code.as_deref(), Some("deadline-exceeded"));
    table.verify();
    // It runs too long; without a deadline of its own it has the default one.
    let mut table = Table::new();
    let id = table.submit("{name: c, on_cancel: {run: 'true'}, tasks: {a: {sleep: 1h}}}", &nodes());
    table.cancel(id).unwrap();
    table.batch(Vec::new(), &nodes(), Fate::Done);
    let handler = table.the_assignment();
    table.pass(limits::HANDLER_MS_DEFAULT, &nodes());
    assert_eq!(stops(&mut table), 1);
    table.finish(&handler, ended(EndCause::Cancelled, None), &nodes());
    assert_eq!(
        end_of(&table, id),
        (WorkflowState::Cancelled, Some("workflow-cancelled".to_owned()))
    );
    table.verify();
}

#[test]
fn a_cancelled_workflow_cleans_up_and_saying_it_again_does_not_cost_that() {
    let mut table = Table::new();
    let id = table.submit(BOTH, &nodes());
    let a = table.the_assignment();
    assert_eq!(table.cancel(id), Ok(WorkflowState::Active));
    assert_eq!(stops(&mut table), 1);
    table.finish(&a, ended(EndCause::Cancelled, None), &nodes());
    let (handler, shell, env) = told(&mut table);
    assert_eq!(shell, "echo workflow-cancelled");
    assert!(
        value(&env, "GANTRY_FAILURE_MESSAGE").starts_with("cancelled by "),
        "{env:?}"
    );
    assert_eq!(table.cancel(id), Ok(WorkflowState::Active), "said again");
    assert_eq!(stops(&mut table), 0);
    table.crash();
    // With a shorter grace it is news, and ends what handles it too.
    table
        .batch(vec![grace(id, 500).into()], &nodes(), Fate::Done)
        .remove(0)
        .unwrap();
    assert_eq!(stops(&mut table), 1);
    table.finish(&handler, ended(EndCause::Cancelled, None), &nodes());
    assert_eq!(
        end_of(&table, id),
        (WorkflowState::Cancelled, Some("workflow-cancelled".to_owned()))
    );
    assert_eq!(table.state_of(id, "on_cancel"), TaskState::Cancelled);
    table.verify();
}

#[test]
fn a_cancellation_of_what_has_failed_ends_only_what_handles_the_failure() {
    let mut table = Table::new();
    let id = failing(&mut table);
    let handler = table.the_assignment();
    assert_eq!(table.cancel(id), Ok(WorkflowState::Active));
    assert_eq!(stops(&mut table), 1);
    table.crash();
    table.finish(&handler, ended(EndCause::Cancelled, None), &nodes());
    assert_eq!(
        end_of(&table, id),
        (WorkflowState::Failed, Some("task-failed".to_owned())),
        "it had failed before"
    );
    assert_eq!(table.task(id, "on_cancel").row.end_code.as_deref(), Some("skipped"));
    table.verify();
}

#[test]
fn a_paused_workflow_that_is_cancelled_goes_on_to_clean_up_and_cannot_be_paused_then() {
    let mut table = Table::new();
    let id = table.submit("{name: p, on_cancel: {run: 'true'}, tasks: {a: {sleep: 1h}}}", &nodes());
    table
        .batch(vec![pause(id, false).into()], &nodes(), Fate::Done)
        .remove(0)
        .unwrap();
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Paused);
    table.cancel(id).unwrap();
    let row = table.workflow(id).row;
    assert_eq!((row.state(), row.paused), (WorkflowState::Active, None));
    assert_eq!(
        row.ending.as_ref().map(|ending| ending.end()),
        Some(WorkflowEnd::Cancelled)
    );
    table.verify();
    table.crash();
    let refused = table
        .batch(vec![pause(id, false).into()], &nodes(), Fate::Done)
        .remove(0);
    assert!(
        matches!(
            &refused,
            Err(Rejection::Refused {
                code: ErrorCode::Conflict,
                ..
            })
        ),
        "{refused:?}"
    );
    let handler = table.the_assignment();
    table.finish(&handler, with_outputs("{}"), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Cancelled);
    table.verify();
}

#[test]
fn a_workflow_past_its_deadline_is_handled_too_and_its_deadline_is_over() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: l, deadline: 1m, on_failure: {run: 'true', deadline: 2m}, tasks: {a: {sleep: 1h}}}",
        &nodes(),
    );
    table.pass(60_000, &nodes());
    let (handler, _, env) = told(&mut table);
    assert_eq!(value(&env, "GANTRY_FAILURE_CODE"), "deadline-exceeded");
    table.crash();
    table.pass(60_000, &nodes());
    assert_eq!(stops(&mut table), 0, "two minutes are its own");
    table.finish(&handler, ok(), &nodes());
    assert_eq!(
        end_of(&table, id),
        (WorkflowState::Failed, Some("deadline-exceeded".to_owned()))
    );
    table.verify();
}

#[test]
fn what_handles_an_end_may_be_skipped_beforehand() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: s, on_failure: {run: 'true'}, tasks: {a: {run: 'true'}}}",
        &nodes(),
    );
    let a = table.the_assignment();
    let skip = super::waits::decision(id, "on_failure", crate::api::TaskDecision::Skip);
    assert_eq!(table.decided(skip), Ok(TaskState::Completed));
    table.finish(&a, failed(), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
    table.verify();
}
