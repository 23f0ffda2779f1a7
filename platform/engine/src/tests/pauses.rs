//! Pauses, deadlines, and what happens when attempts run out.

use gantry_proto::v1::EndCause;
use gantry_proto::{NodeId, WorkflowId};
use serde_json::json;

use super::table::{Fate, Table, failed, run_out};
use super::waits::{decision, nodes, principal, retry, signal};
use super::world::{ended, ok, tenant};
use crate::api::{Order, StepState, TaskDecision, TaskState, Verdict, WorkflowState};
use crate::core::commands::{Pause, Resume};
use crate::core::{Command, Rejection, Reply};

pub(super) fn pause(workflow: WorkflowId, interrupt: bool) -> Pause {
    Pause {
        tenant: tenant(),
        workflow,
        by: principal(8),
        interrupt,
        comment: Some("look first".to_owned()),
    }
}

pub(super) fn resume(workflow: WorkflowId) -> Resume {
    Resume {
        tenant: tenant(),
        workflow,
        by: principal(8),
    }
}

impl Table {
    fn held(&mut self, command: impl Into<Command>) -> Result<WorkflowState, Rejection> {
        match self.batch(vec![command.into()], &nodes(), Fate::Done).remove(0) {
            Ok(Reply::State(state)) => Ok(state),
            Ok(other) => panic!("{other:?}"),
            Err(rejection) => Err(rejection),
        }
    }

    fn cancels(&mut self) -> Vec<NodeId> {
        let mut found = Vec::new();
        self.orders.retain(|order| match order {
            Order::Cancel(node, _) => {
                found.push(*node);
                false
            }
            _ => true,
        });
        found
    }
}

const TWO: &str = "{name: two, tasks: {a: {steps: [{run: 'true'}, {run: 'true'}]}, b: {needs: a, run: 'true'}}}";

#[test]
fn a_paused_workflow_starts_nothing_and_what_runs_ends_by_itself() {
    let mut table = Table::new();
    let id = table.submit(TWO, &nodes());
    let first = table.the_assignment();
    assert_eq!(table.held(pause(id, false)), Ok(WorkflowState::Paused));
    assert_eq!(table.held(pause(id, false)), Ok(WorkflowState::Paused), "said again");
    assert!(table.cancels().is_empty());
    assert_eq!(table.finish(&first, ok(), &nodes()), Verdict::Accepted);
    assert!(table.assigned().is_empty() && table.state.ready.is_empty());
    table.crash();
    table.verify();
    table.pass(60_000, &nodes());
    assert!(table.assigned().is_empty(), "also after a crash");
    assert_eq!(table.held(resume(id)), Ok(WorkflowState::Active));
    assert_eq!(run_out(&mut table, &nodes()), ["a/step-2", "b/step-1"]);
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    table.verify();
}

#[test]
fn an_interrupted_step_runs_again_and_what_it_did_not_do_does_not_count() {
    let mut table = Table::new();
    let id = table.submit(TWO, &nodes());
    let first = table.the_assignment();
    table.held(pause(id, true)).unwrap();
    assert_eq!(table.cancels().len(), 1);
    table.finish(&first, ended(EndCause::Cancelled, None), &nodes());
    let task = table.task(id, "a");
    assert_eq!((task.row.state(), task.row.holder), (TaskState::Ready, None));
    assert_eq!(task.row.steps[0].failed, 0);
    assert!(table.assigned().is_empty());
    table.crash();
    table.held(resume(id)).unwrap();
    let again = table.the_assignment();
    assert_eq!(again.1.assignee.attempt, 2);
    table.finish(&again, ok(), &nodes());
    assert_eq!(run_out(&mut table, &nodes()), ["a/step-2", "b/step-1"]);
    table.verify();
}

#[test]
fn timers_keep_their_due_time_and_signals_are_kept_while_paused() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: t, deadline: 10h, tasks: {nap: {sleep: 1h}, sig: {signal: {name: go}}, ask: {approval: {message: ok}}, end: {needs: [nap, sig, ask], run: 'true'}}}",
        &nodes(),
    );
    table.held(pause(id, false)).unwrap();
    assert!(table.state.timers.is_empty());
    table.pass(3_600_000, &nodes());
    let signalled = table.batch(vec![signal(id, "go", None, &json!({})).into()], &nodes(), Fate::Done);
    assert_eq!(signalled, [Ok(Reply::Signalled { duplicate: false })]);
    assert_eq!(
        table.decided(decision(id, "ask", TaskDecision::Approve)),
        Ok(TaskState::Completed)
    );
    assert_eq!(table.state_of(id, "nap"), TaskState::Pending);
    assert_eq!(table.state_of(id, "sig"), TaskState::Pending);
    table.crash();
    table.held(resume(id)).unwrap();
    assert_eq!(table.state_of(id, "sig"), TaskState::Completed);
    table.pass(0, &nodes());
    assert_eq!(table.state_of(id, "nap"), TaskState::Completed, "overdue, so at once");
    assert_eq!(run_out(&mut table, &nodes()), ["end/step-1"]);
    table.verify();
}

#[test]
fn a_paused_workflow_can_be_cancelled() {
    let mut table = Table::new();
    let id = table.submit(TWO, &nodes());
    let first = table.the_assignment();
    table.held(pause(id, true)).unwrap();
    table.cancel(id).unwrap();
    assert!(matches!(table.held(pause(id, false)), Err(Rejection::Refused { .. })));
    table.finish(&first, ended(EndCause::Cancelled, None), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Cancelled);
    table.verify();
}

#[test]
fn past_its_deadline_a_running_task_is_ended_and_fails() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: d, tasks: {a: {deadline: 1m, run: 'true'}, w: {deadline: 1m, signal: {name: go}}}, on_task_failure: continue}",
        &nodes(),
    );
    let a = table.the_assignment();
    table.pass(59_999, &nodes());
    assert!(table.cancels().is_empty());
    table.crash();
    table.pass(1, &nodes());
    assert_eq!(table.cancels().len(), 1);
    assert_eq!(table.task(id, "w").row.end_code.as_deref(), Some("deadline-exceeded"));
    table.crash();
    table.pass(0, &nodes());
    table.finish(&a, ended(EndCause::Cancelled, None), &nodes());
    let row = table.task(id, "a").row;
    assert_eq!(
        (row.state(), row.end_code.as_deref()),
        (TaskState::Failed, Some("deadline-exceeded"))
    );
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
    table.verify();
}

#[test]
fn past_its_deadline_a_workflow_ends_whatever_its_tasks_do() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: d, deadline: 1h, tasks: {a: {run: 'true'}, s: {sleep: 2h}, e: {signal: {name: x, timeout: 1m, on_timeout: escalate}}, r: {needs: a, run_on: always, run: 'true'}}}",
        &nodes(),
    );
    let a = table.the_assignment();
    table.pass(3_600_000, &nodes());
    assert_eq!(table.state_of(id, "e"), TaskState::Cancelled);
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Active, "one still runs");
    table.finish(&a, ended(EndCause::Cancelled, None), &nodes());
    let row = table.workflow(id).row;
    assert_eq!(
        (row.state(), row.end_code.as_deref()),
        (WorkflowState::Failed, Some("deadline-exceeded"))
    );
    assert!(table.state.timers.is_empty());
    table.verify();
}

fn retrying(policy: &str) -> String {
    format!("{{name: r, tasks: {{t: {{retry: {policy}, steps: [{{run: 'true'}}, {{run: 'true'}}]}}}}}}")
}

/// Runs the first step to success and takes the second.
fn second(table: &mut Table, source: &str) -> WorkflowId {
    let id = table.submit(source, &nodes());
    let first = table.the_assignment();
    table.finish(&first, ok(), &nodes());
    id
}

#[test]
fn each_class_of_failure_has_its_own_budget() {
    let mut table = Table::new();
    let id = second(
        &mut table,
        &retrying("{attempts: 2, backoff: 1s, on: {timeout: {attempts: 3, backoff: 10s, factor: 1}, oom: false}}"),
    );
    for (result, wait) in [
        (ended(EndCause::Timeout, None), 10_000),
        (failed(), 1_000),
        (ended(EndCause::Timeout, None), 10_000),
    ] {
        let next = table.the_assignment();
        table.finish(&next, result, &nodes());
        assert_eq!(table.task(id, "t").row.wait_until_ms, Some(table.now_ms + wait));
        table.pass(wait, &nodes());
    }
    let last = table.the_assignment();
    table.finish(&last, ended(EndCause::Oom, None), &nodes());
    assert_eq!(table.task(id, "t").row.end_code.as_deref(), Some("step-out-of-memory"));
    table.verify();
}

#[test]
fn only_listed_exit_codes_are_tried_again_and_only_for_so_long() {
    let mut table = Table::new();
    let id = second(
        &mut table,
        &retrying("{attempts: 9, backoff: 40s, factor: 1, max_age: 1m, on: {exit_codes: [75]}}"),
    );
    let one = table.the_assignment();
    table.finish(&one, ended(EndCause::Exited, Some(75)), &nodes());
    table.pass(40_000, &nodes());
    let two = table.the_assignment();
    table.finish(&two, ended(EndCause::Exited, Some(75)), &nodes());
    assert_eq!(
        table.state_of(id, "t"),
        TaskState::Failed,
        "the third would come after more than a minute"
    );
    let id = second(&mut table, &retrying("{attempts: 9, on: {exit_codes: [75]}}"));
    let one = table.the_assignment();
    table.finish(&one, ended(EndCause::Exited, Some(1)), &nodes());
    assert_eq!(table.state_of(id, "t"), TaskState::Failed);
    table.verify();
}

#[test]
fn jitter_takes_a_part_off_and_the_same_part_each_time_it_is_reckoned() {
    let mut waits = Vec::new();
    for _ in 0..2 {
        let mut table = Table::new();
        let id = second(
            &mut table,
            &retrying("{attempts: 2, backoff: 100s, max_backoff: 100s, jitter: 0.5}"),
        );
        let one = table.the_assignment();
        table.finish(&one, failed(), &nodes());
        let wait = table.task(id, "t").row.wait_until_ms.unwrap() - table.now_ms;
        assert!((50_000..=100_000).contains(&wait), "{wait}");
        waits.push(wait);
    }
    assert_eq!(waits[0], waits[1]);
}

#[test]
fn when_attempts_run_out_the_task_can_be_given_to_a_person() {
    let mut table = Table::new();
    let id = second(&mut table, &retrying("{attempts: 1, exhausted: escalate}"));
    let one = table.the_assignment();
    table.finish(&one, failed(), &nodes());
    let row = table.task(id, "t").row;
    assert_eq!(
        (row.state(), row.escalated.as_deref()),
        (TaskState::Escalated, Some("step-exit"))
    );
    assert_eq!(row.holder, None);
    table.crash();
    assert_eq!(table.decided(decision(id, "t", retry())), Ok(TaskState::Ready));
    let again = table.the_assignment();
    assert_eq!((again.1.assignee.step, again.1.assignee.attempt), (1, 2));
    table.finish(&again, failed(), &nodes());
    assert_eq!(table.state_of(id, "t"), TaskState::Escalated);
    let resolve = TaskDecision::Resolve {
        outputs: serde_json::Map::new(),
    };
    assert_eq!(table.decided(decision(id, "t", resolve)), Ok(TaskState::Completed));
    let steps: Vec<_> = table.task(id, "t").row.steps.iter().map(|step| step.state()).collect();
    assert_eq!(steps, [StepState::Completed, StepState::Failed]);
    table.verify();
}

#[test]
fn when_attempts_run_out_the_workflow_can_be_paused_and_goes_on_with_a_new_budget() {
    let mut table = Table::new();
    let id = second(&mut table, &retrying("{attempts: 1, exhausted: pause}"));
    let one = table.the_assignment();
    table.finish(&one, failed(), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Paused);
    assert_eq!(
        table.workflow(id).row.paused.unwrap().code.as_deref(),
        Some("step-exit")
    );
    table.crash();
    table.verify();
    assert_eq!(table.held(resume(id)), Ok(WorkflowState::Active));
    let again = table.the_assignment();
    assert_eq!(again.1.assignee.attempt, 2);
    table.finish(&again, ok(), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    table.verify();
}
