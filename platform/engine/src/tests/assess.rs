//! Tasks whose result is judged: accepted, reworked, rejected.

use gantry_proto::{ErrorCode, WorkflowId};

use super::pauses::{pause, resume};
use super::table::{Fate, Table, failed, lost};
use super::waits::{decision, nodes, retry};
use super::world::{ok, with_outputs};
use crate::api::{DeciderScope, StepState, TaskDecision, TaskState, WorkflowState};
use crate::core::Rejection;
use crate::core::commands::TaskDecide;

const SOURCE: &str = "
name: judged
tasks:
  write:
    assess: {message: 'See {{ steps.draft.outputs.n }}', deadline: 1d, max_reworks: 2}
    steps:
      - {key: draft, run: 'echo {{ rework.round }} {{ rework.feedback }}', retry: 2}
      - {key: polish, run: 'echo {{ steps.draft.outputs.n }}'}
  print: {needs: write, run: 'echo {{ tasks.write.outputs.n }}'}
";

fn accept() -> TaskDecision {
    TaskDecision::Accept { round: None }
}

fn rework(workflow: WorkflowId, feedback: &str) -> TaskDecide {
    TaskDecide {
        comment: Some(feedback.to_owned()),
        ..decision(workflow, "write", TaskDecision::Rework { round: None })
    }
}

/// Shell, environment and idempotency key of a step.
type Ran = (String, Vec<(String, String)>, String);

/// Runs both steps of `write`.
fn round(table: &mut Table, n: u32) -> Vec<Ran> {
    let mut seen = Vec::new();
    for outputs in [format!("{{\"n\": {n}}}"), "{}".to_owned()] {
        let next = table.the_assignment();
        let plan = &next.1.plan;
        let env = plan.env.iter().map(|var| (var.name.clone(), var.value.clone()));
        seen.push((
            plan.command.shell.clone().unwrap(),
            env.collect(),
            plan.idempotency_key.clone(),
        ));
        table.finish(&next, with_outputs(&outputs), &nodes());
    }
    seen
}

fn code_of(refused: Result<TaskState, Rejection>) -> ErrorCode {
    match refused {
        Err(Rejection::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_result_waits_to_be_accepted_and_holds_nothing() {
    let mut table = Table::new();
    let id = table.submit(SOURCE, &nodes());
    round(&mut table, 1);
    assert_eq!(table.state_of(id, "write"), TaskState::OutputPendingAssessment);
    assert!(table.state.held.is_empty() && table.assigned().is_empty());
    table.verify();
    table.crash();
    assert_eq!(
        code_of(table.decided(decision(id, "write", TaskDecision::Skip))),
        ErrorCode::Conflict
    );
    assert_eq!(table.decided(decision(id, "write", accept())), Ok(TaskState::Completed));
    assert_eq!(
        table.decided(decision(id, "write", accept())),
        Ok(TaskState::Completed),
        "said again"
    );
    assert_eq!(table.the_assignment().1.plan.command.shell.as_deref(), Some("echo 1"));
    assert!(table.state.timers.is_empty());
    table.verify();
}

#[test]
fn a_rework_runs_all_steps_again_with_the_feedback_under_other_keys() {
    let mut table = Table::new();
    let id = table.submit(SOURCE, &nodes());
    let first = round(&mut table, 1);
    assert_eq!(first[0].0, "echo 0 ");
    assert_eq!(
        code_of(table.decided(rework(id, "  "))),
        ErrorCode::InvalidRequest,
        "without feedback there is nothing to do otherwise"
    );
    assert_eq!(table.decided(rework(id, "shorter")), Ok(TaskState::Ready));
    table.verify();
    let row = table.task(id, "write").row;
    assert!(row.steps.iter().all(|step| step.result_seq.is_none()));
    assert!(row.home.is_some(), "its tree is there");
    table.crash();
    // Another attempt of the round sees the same, also after a crash.
    let next = table
        .state
        .task((id, 0))
        .unwrap()
        .row
        .open()
        .map(|(_, open)| open.clone())
        .unwrap();
    assert_eq!(next.attempt, 2, "attempts are counted on");
    let assignee = gantry_proto::v1::Assignee {
        tenant: super::world::tenant(),
        workflow: id,
        task: row.id,
        fence: row.fence,
        step: 0,
        attempt: 2,
    };
    table.expire(&assignee, &nodes());
    table
        .orders
        .retain(|order| !matches!(order, crate::api::Order::Assign(_, each) if each.assignee.attempt == 2));
    let second = round(&mut table, 2);
    assert_eq!(second[0].0, "echo 1 shorter");
    let value = |name: &str| {
        second[1]
            .1
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    assert_eq!(
        (value("GANTRY_REWORK"), value("GANTRY_FEEDBACK")),
        (Some("1"), Some("shorter"))
    );
    assert_eq!(second[1].0, "echo 2");
    assert_ne!(first[0].2, second[0].2, "it is to be done once more");
    assert_eq!(table.state_of(id, "write"), TaskState::OutputPendingAssessment);
    assert_eq!(table.decided(decision(id, "write", accept())), Ok(TaskState::Completed));
    assert_eq!(table.the_assignment().1.plan.command.shell.as_deref(), Some("echo 2"));
    table.verify();
}

#[test]
fn a_judgement_of_another_round_is_refused_and_one_said_twice_counts_once() {
    let mut table = Table::new();
    let id = table.submit(SOURCE, &nodes());
    round(&mut table, 1);
    let of = |round, what: fn(Option<u32>) -> TaskDecision| TaskDecide {
        comment: Some("again".to_owned()),
        ..decision(id, "write", what(Some(round)))
    };
    let again = |round| TaskDecision::Rework { round };
    let take = |round| TaskDecision::Accept { round };
    assert_eq!(code_of(table.decided(of(1, again))), ErrorCode::Conflict);
    table.decided(of(0, again)).unwrap();
    round(&mut table, 2);
    assert_eq!(
        table.decided(of(0, again)),
        Ok(TaskState::OutputPendingAssessment),
        "its answer was lost"
    );
    assert_eq!(table.task(id, "write").row.reworks, 1);
    assert_eq!(code_of(table.decided(of(0, take))), ErrorCode::Conflict, "it is stale");
    assert_eq!(table.decided(of(1, take)), Ok(TaskState::Completed));
    table.verify();
}

#[test]
fn reworks_run_out() {
    for (what, state) in [("", TaskState::Failed), (", exhausted: escalate", TaskState::Escalated)] {
        let mut table = Table::new();
        let source = SOURCE.replace("max_reworks: 2", &format!("max_reworks: 1{what}"));
        let id = table.submit(&source, &nodes());
        round(&mut table, 1);
        table.decided(rework(id, "more")).unwrap();
        round(&mut table, 2);
        assert_eq!(table.decided(rework(id, "still more")), Ok(state));
        let row = table.task(id, "write").row;
        assert_eq!((row.round, row.reworks), (1, 1));
        assert_eq!(
            row.decision.as_ref().unwrap().by,
            super::waits::principal(8),
            "recorded"
        );
        table.verify();
        if state == TaskState::Failed {
            assert_eq!(row.end_code.as_deref(), Some("rework-exhausted"));
            assert_eq!(table.workflow(id).row.state(), WorkflowState::Failed);
            continue;
        }
        assert_eq!(row.escalated.as_deref(), Some("rework-exhausted"));
        table.crash();
        // Begun anew it has a new budget; and an escalated result can be accepted as it is.
        table.decided(decision(id, "write", retry())).unwrap();
        let again = round(&mut table, 3);
        assert_eq!(again[0].0, "echo 2 because");
        table.decided(rework(id, "once")).unwrap();
        round(&mut table, 4);
        assert_eq!(table.decided(rework(id, "twice")), Ok(TaskState::Escalated));
        table.crash();
        assert_eq!(table.decided(decision(id, "write", accept())), Ok(TaskState::Completed));
        assert_eq!(table.the_assignment().1.plan.command.shell.as_deref(), Some("echo 4"));
        table.verify();
    }
}

#[test]
fn nobody_judges_in_time() {
    for (what, state, code) in [
        ("", TaskState::Failed, Some("deadline-exceeded")),
        (", on_deadline: accept", TaskState::Completed, None),
        (", on_deadline: reject", TaskState::Failed, Some("assessment-rejected")),
        (", on_deadline: escalate", TaskState::Escalated, None),
    ] {
        let mut table = Table::new();
        let id = table.submit(
            &SOURCE.replace("deadline: 1d", &format!("deadline: 1d{what}")),
            &nodes(),
        );
        round(&mut table, 1);
        table.pass(86_399_999, &nodes());
        table.crash();
        assert_eq!(table.state_of(id, "write"), TaskState::OutputPendingAssessment);
        table.pass(1, &nodes());
        let row = table.task(id, "write").row;
        assert_eq!((row.state(), row.end_code.as_deref()), (state, code), "{what}");
        table.verify();
    }
}

#[test]
fn a_result_can_be_rejected_and_only_by_those_who_are_named() {
    let mut table = Table::new();
    let id = table.submit(&SOURCE.replace("deadline: 1d", "by: {scopes: [admin]}"), &nodes());
    // Another try of its work is everybody's, its assessment is not.
    let first = table.the_assignment();
    table.finish(&first, failed(), &nodes());
    assert_eq!(
        code_of(table.decided(decision(id, "write", TaskDecision::Skip))),
        ErrorCode::DecisionForbidden
    );
    table.decided(decision(id, "write", retry())).unwrap();
    round(&mut table, 1);
    for what in [accept(), TaskDecision::Reject, TaskDecision::Fail] {
        assert_eq!(
            code_of(table.decided(decision(id, "write", what))),
            ErrorCode::DecisionForbidden
        );
    }
    let reject = TaskDecide {
        scope: DeciderScope::Admin,
        ..decision(id, "write", TaskDecision::Reject)
    };
    assert_eq!(table.decided(reject), Ok(TaskState::Failed));
    assert_eq!(
        table.task(id, "write").row.end_code.as_deref(),
        Some("assessment-rejected")
    );
    table.verify();
}

#[test]
fn cancelling_pausing_and_deadlines_find_it_wherever_it_is() {
    // Cancelled while it waits.
    let mut table = Table::new();
    let id = table.submit(SOURCE, &nodes());
    round(&mut table, 1);
    assert_eq!(table.cancel(id), Ok(WorkflowState::Cancelled));
    assert_eq!(table.state_of(id, "write"), TaskState::Cancelled);
    table.verify();
    // Cancelled while its last step was about to complete: nobody is asked any more.
    let mut table = Table::new();
    let id = table.submit(SOURCE, &nodes());
    let draft = table.the_assignment();
    table.finish(&draft, with_outputs("{\"n\": 1}"), &nodes());
    let polish = table.the_assignment();
    table.cancel(id).unwrap();
    table.finish(&polish, ok(), &nodes());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Cancelled);
    table.verify();
    // Reworked while paused: it runs with its workflow.
    let mut table = Table::new();
    let id = table.submit(SOURCE, &nodes());
    round(&mut table, 1);
    table
        .batch(vec![pause(id, false).into()], &nodes(), Fate::Done)
        .remove(0)
        .unwrap();
    assert_eq!(table.decided(rework(id, "later")), Ok(TaskState::Ready));
    assert!(table.assigned().is_empty());
    table.crash();
    table
        .batch(vec![resume(id).into()], &nodes(), Fate::Done)
        .remove(0)
        .unwrap();
    let first = table.the_assignment();
    table.finish(&first, lost(), &nodes());
    table.batch(Vec::new(), &nodes(), Fate::Done);
    round(&mut table, 2);
    assert_eq!(table.state_of(id, "write"), TaskState::OutputPendingAssessment);
    table.verify();
    // The deadline of the task itself passes meanwhile.
    let mut table = Table::new();
    let source = SOURCE.replace("  write:\n", "  write:\n    deadline: 1h\n");
    let id = table.submit(&source, &nodes());
    round(&mut table, 1);
    table.pass(3_600_000, &nodes());
    assert_eq!(
        table.task(id, "write").row.end_code.as_deref(),
        Some("deadline-exceeded")
    );
    table.verify();
}

#[test]
fn each_item_of_a_list_is_judged_by_itself() {
    let mut table = Table::new();
    let source =
        "{name: l, tasks: {each: {for_each: [a, b], assess: {}, run: 'echo {{ item }} {{ rework.feedback }}'}}}";
    let id = table.submit(source, &nodes());
    for assignment in table.assigned() {
        table.finish(&assignment, ok(), &nodes());
    }
    assert_eq!(
        table.decided(decision(id, "each[0]", accept())),
        Ok(TaskState::Completed)
    );
    let again = TaskDecide {
        comment: Some("no".to_owned()),
        ..decision(id, "each[1]", TaskDecision::Rework { round: None })
    };
    table.decided(again).unwrap();
    let second = table.the_assignment();
    assert_eq!(second.1.plan.command.shell.as_deref(), Some("echo b no"));
    table.finish(&second, ok(), &nodes());
    assert_eq!(
        table.decided(decision(id, "each[1]", accept())),
        Ok(TaskState::Completed)
    );
    let row = table.task(id, "each[1]").row;
    assert_eq!(row.steps[0].state(), StepState::Completed);
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    table.verify();
}
