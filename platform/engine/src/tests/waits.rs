//! Tasks that wait: for a time, a signal, a decision; and conditions that let them not run at all.

use bytes::Bytes;
use gantry_proto::{ErrorCode, PartitionId, PrincipalId, WorkflowId, limits};
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use super::table::{Fate, Table, failed, submission};
use super::world::{candidate, tenant, with_outputs};
use crate::api::{Candidate, DeciderScope, TaskDecision, TaskState, WorkflowState};
use crate::core::commands::{Signal, TaskDecide};
use crate::core::state::Task;
use crate::core::{Rejection, Reply};

pub(super) fn nodes() -> Vec<Candidate> {
    vec![candidate(1, 8)]
}

pub(super) fn principal(number: u64) -> PrincipalId {
    PrincipalId::new(1, PartitionId::default(), number)
}

pub(super) fn signal(workflow: WorkflowId, name: &str, id: Option<u8>, payload: &Value) -> Signal {
    Signal {
        tenant: tenant(),
        workflow,
        by: principal(8),
        name: name.to_owned(),
        id: id.map(|id| [id; 16]),
        outputs_json: Bytes::from(payload.to_string()),
    }
}

pub(super) fn decision(workflow: WorkflowId, task: &str, decision: TaskDecision) -> TaskDecide {
    TaskDecide {
        tenant: tenant(),
        workflow,
        task: task.to_owned(),
        by: principal(8),
        scope: DeciderScope::Operate,
        decision,
        comment: Some("because".to_owned()),
    }
}

pub(super) fn retry() -> TaskDecision {
    TaskDecision::Retry {
        env: IndexMap::new(),
        params: Map::new(),
    }
}

impl Table {
    fn signalled(&mut self, signal: Signal) -> Result<bool, Rejection> {
        match self.batch(vec![signal.into()], &nodes(), Fate::Done).remove(0) {
            Ok(Reply::Signalled { duplicate }) => Ok(duplicate),
            Ok(other) => panic!("{other:?}"),
            Err(rejection) => Err(rejection),
        }
    }

    pub(super) fn decided(&mut self, decide: TaskDecide) -> Result<TaskState, Rejection> {
        match self.batch(vec![decide.into()], &nodes(), Fate::Done).remove(0) {
            Ok(Reply::Task(state)) => Ok(state),
            Ok(other) => panic!("{other:?}"),
            Err(rejection) => Err(rejection),
        }
    }

    pub(super) fn state_of(&self, id: WorkflowId, task: &str) -> TaskState {
        self.task(id, task).row.state()
    }
}

fn code_of(rejection: Rejection) -> ErrorCode {
    match rejection {
        Rejection::Refused { code, .. } => code,
        other => panic!("{other:?}"),
    }
}

fn outputs(task: &Task) -> Value {
    Value::Object(task.result.as_ref().unwrap().outputs.clone())
}

#[test]
fn a_sleeping_task_holds_nothing_and_goes_on_in_time_also_after_a_crash() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: s, tasks: {nap: {sleep: 10m}, after: {needs: nap, run: 'true'}}}",
        &nodes(),
    );
    assert_eq!(table.state_of(id, "nap"), TaskState::Pending);
    assert!(table.assigned().is_empty() && table.state.ready.is_empty() && table.state.held.is_empty());
    table.pass(599_999, &nodes());
    table.crash();
    assert_eq!(table.state_of(id, "nap"), TaskState::Pending, "not early");
    table.pass(1, &nodes());
    assert_eq!(table.state_of(id, "nap"), TaskState::Completed);
    assert_eq!(table.the_assignment().1.plan.task_name, "after");
    table.verify();
}

#[test]
fn a_time_can_be_a_parameter_and_one_that_has_passed_is_no_wait() {
    let mut table = Table::new();
    let source = "{name: s, parameters: {at: {type: string, default: '2024-01-01T00:00:00Z'}}, tasks: {nap: {sleep: {until: '{{ params.at }}'}}}}";
    for (at, expected) in [
        ("2001-01-01T00:00:00+02:00", WorkflowState::Completed),
        ("2023-12-01T00:00:00Z", WorkflowState::Active),
        ("tomorrow", WorkflowState::Failed),
        ("3023-12-01T00:00:00Z", WorkflowState::Failed),
    ] {
        let mut submit = submission(source);
        let parameters = Map::from_iter([("at".to_owned(), json!(at))]);
        let definition = submit.body.definition.clone();
        submit.body = std::sync::Arc::new(crate::core::Body::new(definition, parameters));
        let reply = table
            .batch(vec![submit.into()], &nodes(), Fate::Done)
            .remove(0)
            .unwrap();
        let Reply::Submitted(receipt) = reply else {
            panic!("{reply:?}")
        };
        assert_eq!(table.workflow(receipt.workflow).row.state(), expected, "{at}");
    }
    table.verify();
}

const SIGNAL: &str = "
name: sig
tasks:
  first: {run: 'true'}
  wait: {needs: first, signal: {name: go, timeout: 1h}}
  then: {needs: wait, run: 'echo {{ tasks.wait.outputs.n }}'}
";

#[test]
fn a_signal_becomes_the_outputs_of_the_task_that_waits_for_it() {
    let mut table = Table::new();
    let id = table.submit(SIGNAL, &nodes());
    let first = table.the_assignment();
    table.finish(&first, with_outputs("{}"), &nodes());
    assert_eq!(table.state_of(id, "wait"), TaskState::Pending);
    table.crash();
    assert_eq!(table.signalled(signal(id, "go", Some(1), &json!({"n": 7}))), Ok(false));
    assert_eq!(table.state_of(id, "wait"), TaskState::Completed);
    let then = table.the_assignment();
    assert_eq!(then.1.plan.command.shell.as_deref(), Some("echo 7"));
    assert_eq!(
        table.signalled(signal(id, "go", Some(1), &json!({"n": 8}))),
        Ok(true),
        "the same id counts once"
    );
    table.crash();
    assert_eq!(outputs(&table.state.task((id, 1)).unwrap().clone()), json!({"n": 7}));
    table.verify();
}

#[test]
fn early_signals_are_kept_in_order_and_in_bounds() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: two, tasks: {hold: {sleep: 1h}, a: {needs: hold, signal: {name: go}}, b: {needs: a, signal: {name: go}}}}",
        &nodes(),
    );
    for number in 0..limits::SIGNALS_KEPT_MAX {
        table.signalled(signal(id, "go", None, &json!({"n": number}))).unwrap();
    }
    let refused = table.signalled(signal(id, "go", None, &json!({}))).unwrap_err();
    assert_eq!(code_of(refused), ErrorCode::SignalsFull);
    let refused = table.signalled(signal(id, "gone", None, &json!({}))).unwrap_err();
    assert_eq!(code_of(refused), ErrorCode::SignalUnknown);
    table.crash();
    table.pass(3_600_000, &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    table.verify();
    let rows = table.workflow(id).row.signals;
    assert_eq!(rows.len(), limits::SIGNALS_KEPT_MAX - 2, "each went to one task");
}

#[test]
fn a_signal_that_does_not_come_fails_the_task_or_not() {
    for (what, state, code) in [
        ("", TaskState::Failed, Some("signal-timeout")),
        (", on_timeout: continue", TaskState::Completed, Some("timed_out")),
        (", on_timeout: escalate", TaskState::Escalated, None),
    ] {
        let mut table = Table::new();
        let id = table.submit(
            &format!("{{name: s, tasks: {{w: {{signal: {{name: go, timeout: 1m{what}}}}}}}}}"),
            &nodes(),
        );
        table.pass(60_000, &nodes());
        let row = table.task(id, "w").row;
        assert_eq!((row.state(), row.end_code.as_deref()), (state, code), "{what}");
        table.verify();
        if state == TaskState::Escalated {
            assert_eq!(row.escalated.as_deref(), Some("signal-timeout"));
            table.crash();
            assert_eq!(
                table.decided(decision(id, "w", retry())),
                Ok(TaskState::Pending),
                "it waits anew"
            );
            table.pass(60_000, &nodes());
            let outputs = Map::from_iter([("n".to_owned(), json!(1))]);
            let resolve = TaskDecision::Resolve { outputs };
            assert_eq!(table.decided(decision(id, "w", resolve)), Ok(TaskState::Completed));
            assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
            table.verify();
        }
    }
}

const APPROVAL: &str = "
name: app
tasks:
  ask: {approval: {message: 'Release {{ workflow.name }}?', deadline: 1d}}
  ship: {needs: ask, run: 'echo {{ tasks.ask.outputs.comment }}'}
";

#[test]
fn an_approval_waits_for_a_decision_which_is_recorded() {
    let mut table = Table::new();
    let id = table.submit(APPROVAL, &nodes());
    assert_eq!(table.state_of(id, "ask"), TaskState::AwaitingApproval);
    assert!(table.assigned().is_empty());
    table.crash();
    let refused = table.decided(decision(id, "ask", TaskDecision::Resolve { outputs: Map::new() }));
    assert_eq!(code_of(refused.unwrap_err()), ErrorCode::Conflict);
    assert_eq!(
        table.decided(decision(id, "ask", TaskDecision::Approve)),
        Ok(TaskState::Completed)
    );
    assert_eq!(
        table.the_assignment().1.plan.command.shell.as_deref(),
        Some("echo because")
    );
    let made = table.task(id, "ask").row.decision.unwrap();
    assert_eq!(made.by, principal(8));
    assert_eq!(
        table.decided(decision(id, "ask", TaskDecision::Approve)),
        Ok(TaskState::Completed),
        "said again"
    );
    let other = table.decided(decision(id, "ask", TaskDecision::Reject)).unwrap_err();
    assert_eq!(code_of(other), ErrorCode::Conflict);
    table.verify();
}

#[test]
fn a_rejection_fails_the_task_and_stops_the_workflow() {
    let mut table = Table::new();
    let id = table.submit(APPROVAL, &nodes());
    assert_eq!(
        table.decided(decision(id, "ask", TaskDecision::Reject)),
        Ok(TaskState::Failed)
    );
    assert_eq!(table.task(id, "ask").row.end_code.as_deref(), Some("approval-rejected"));
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
    table.verify();
}

#[test]
fn what_happens_when_nobody_decides_is_the_definitions_to_say() {
    for (on, state, code) in [
        ("approve", TaskState::Completed, None),
        ("reject", TaskState::Failed, Some("approval-rejected")),
        ("fail", TaskState::Failed, Some("deadline-exceeded")),
        ("escalate", TaskState::Escalated, None),
    ] {
        let mut table = Table::new();
        let source =
            format!("{{name: s, tasks: {{w: {{approval: {{message: ok, deadline: 1m, on_deadline: {on}}}}}}}}}");
        let id = table.submit(&source, &nodes());
        table.pass(59_999, &nodes());
        assert_eq!(table.state_of(id, "w"), TaskState::AwaitingApproval, "not early");
        table.pass(1, &nodes());
        let row = table.task(id, "w").row;
        assert_eq!((row.state(), row.end_code.as_deref()), (state, code), "{on}");
        table.verify();
    }
}

#[test]
fn only_who_is_named_decides_and_skipping_is_no_way_round() {
    let mut table = Table::new();
    let key = principal(9);
    let source =
        format!("{{name: s, tasks: {{w: {{approval: {{message: ok, by: {{scopes: [admin], keys: [{key}]}}}}}}}}}}");
    let id = table.submit(&source, &nodes());
    for forbidden in [
        TaskDecision::Approve,
        TaskDecision::Reject,
        TaskDecision::Skip,
        TaskDecision::Fail,
    ] {
        let refused = table.decided(decision(id, "w", forbidden)).unwrap_err();
        assert_eq!(code_of(refused), ErrorCode::DecisionForbidden);
    }
    let by_scope = TaskDecide {
        scope: DeciderScope::Admin,
        ..decision(id, "w", TaskDecision::Approve)
    };
    assert_eq!(table.decided(by_scope), Ok(TaskState::Completed));
    let other = table.submit(&source, &nodes());
    let by_key = TaskDecide {
        by: key,
        ..decision(other, "w", TaskDecision::Approve)
    };
    assert_eq!(table.decided(by_key), Ok(TaskState::Completed));
    table.verify();
}

const WHEN: &str = "
name: cond
parameters: {deploy: {type: boolean, default: false}}
tasks:
  test: {run: 'true'}
  ship: {needs: test, when: 'params.deploy && tasks.test.outputs.n > 1', run: 'true'}
  report: {needs: ship, when: \"tasks.ship.code == 'skipped'\", run: 'true'}
";

#[test]
fn a_false_condition_skips_the_task_and_those_that_need_it_run() {
    let mut table = Table::new();
    let id = table.submit(WHEN, &nodes());
    let test = table.the_assignment();
    table.finish(&test, with_outputs("{\"n\": 2}"), &nodes());
    let ship = table.task(id, "ship").row;
    assert_eq!(
        (ship.state(), ship.end_code.as_deref()),
        (TaskState::Completed, Some("skipped"))
    );
    assert_eq!(table.the_assignment().1.plan.task_name, "report");
    table.verify();
}

#[test]
fn a_condition_without_an_answer_fails_the_task() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: c, tasks: {a: {run: 'true'}, b: {needs: a, when: 'tasks.a.outputs.n > 1', sleep: 1h}}}",
        &nodes(),
    );
    let a = table.the_assignment();
    table.finish(&a, with_outputs("{}"), &nodes());
    assert_eq!(table.task(id, "b").row.end_code.as_deref(), Some("condition-error"));
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
    table.verify();
}

#[test]
fn a_task_that_backs_off_can_be_tried_at_once_with_other_input_or_given_up() {
    let source = "
name: r
parameters: {n: {type: integer, default: 1}}
tasks:
  t: {env: {A: '1', B: '2'}, retry: {attempts: 2, backoff: 1h}, steps: [{run: 'true'}, {run: 'echo {{ params.n }}'}]}
";
    let mut table = Table::new();
    let id = table.submit(source, &nodes());
    let first = table.the_assignment();
    table.finish(&first, with_outputs("{}"), &nodes());
    let second = table.the_assignment();
    table.finish(&second, failed(), &nodes());
    let wrong = TaskDecision::Retry {
        env: IndexMap::new(),
        params: Map::from_iter([("n".to_owned(), json!("many"))]),
    };
    assert_eq!(
        code_of(table.decided(decision(id, "t", wrong)).unwrap_err()),
        ErrorCode::InvalidParameters
    );
    let changed = TaskDecision::Retry {
        env: IndexMap::from_iter([("B".to_owned(), "3".to_owned())]),
        params: Map::from_iter([("n".to_owned(), json!(5))]),
    };
    assert_eq!(table.decided(decision(id, "t", changed)), Ok(TaskState::Ready));
    let plan = table.the_assignment().1.plan;
    assert_eq!(plan.command.shell.as_deref(), Some("echo 5"));
    let env: Vec<_> = plan
        .env
        .iter()
        .map(|each| (each.name.as_str(), each.value.as_str()))
        .collect();
    assert_eq!(env, [("A", "1"), ("B", "3")]);
    table.crash();
    table.verify();
    let task = table.task(id, "t");
    assert_eq!(task.row.steps[0].attempts.len(), 1, "what completed is not done again");
    assert_eq!((task.row.epoch, task.row.steps[1].failed), (1, 0));
    assert!(
        table.state.task((id, 0)).unwrap().changes.is_some(),
        "also after a crash"
    );
}

#[test]
fn skip_and_fail_end_what_does_not_run_and_nothing_that_does() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: s, on_task_failure: continue, tasks: {a: {run: 'true'}, b: {needs: a, run: 'true'}, c: {sleep: 1h}, d: {needs: c, run: 'true'}}}",
        &nodes(),
    );
    let running = table.decided(decision(id, "a", TaskDecision::Skip)).unwrap_err();
    assert_eq!(code_of(running), ErrorCode::Conflict);
    assert_eq!(
        table.decided(decision(id, "b", TaskDecision::Skip)),
        Ok(TaskState::Completed)
    );
    assert_eq!(
        table.decided(decision(id, "c", TaskDecision::Fail)),
        Ok(TaskState::Failed)
    );
    assert_eq!(table.task(id, "c").row.end_code.as_deref(), Some("failed-on-request"));
    assert_eq!(table.state_of(id, "d"), TaskState::Cancelled);
    table.crash();
    table.verify();
}

#[test]
fn cancelling_ends_every_kind_of_wait() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: s, tasks: {a: {sleep: 1h}, b: {signal: {name: go, timeout: 1m}}, c: {approval: {message: ok, deadline: 1m}}, d: {signal: {name: x, timeout: 1s, on_timeout: escalate}}}}",
        &nodes(),
    );
    table.pass(1_000, &nodes());
    assert_eq!(table.state_of(id, "d"), TaskState::Escalated);
    assert_eq!(table.cancel(id), Ok(WorkflowState::Cancelled));
    assert!(table.state.timers.is_empty());
    table.verify();
}
