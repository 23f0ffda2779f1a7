//! Tasks that a person lets run elsewhere.

use std::collections::BTreeMap;

use gantry_proto::ErrorCode;
use gantry_proto::v1::EndCause;

use super::pauses::pause;
use super::table::{Fate, Table};
use super::waits::decision;
use super::world::{candidate, ended, node_id, ok};
use crate::api::{Candidate, Order, Reassignment, Requires, TaskDecision, TaskState, Verdict, WorkflowState};
use crate::core::Rejection;

const SOURCE: &str = "{name: r, tasks: {t: {steps: [{run: 'true'}, {run: 'true'}]}}}";

fn both() -> Vec<Candidate> {
    vec![candidate(1, 1), candidate(2, 1)]
}

fn away() -> TaskDecision {
    TaskDecision::Reassign(Reassignment {
        away: true,
        ..Reassignment::default()
    })
}

fn to(number: u64) -> TaskDecision {
    TaskDecision::Reassign(Reassignment {
        node: Some(node_id(number)),
        ..Reassignment::default()
    })
}

fn code_of(refused: Result<TaskState, Rejection>) -> ErrorCode {
    match refused {
        Err(Rejection::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn stops(table: &mut Table) -> usize {
    let before = table.orders.len();
    table.orders.retain(|order| !matches!(order, Order::Cancel(..)));
    before - table.orders.len()
}

#[test]
fn what_runs_is_ended_and_runs_elsewhere_under_a_newer_fence() {
    let mut table = Table::new();
    let id = table.submit(SOURCE, &[candidate(1, 1)]);
    let first = table.the_assignment();
    assert_eq!(table.decided(decision(id, "t", away())), Ok(TaskState::Claimed));
    assert_eq!(stops(&mut table), 1);
    table.crash();
    assert_eq!(
        table.finish(&first, ended(EndCause::Cancelled, None), &[candidate(1, 1)]),
        Verdict::Accepted
    );
    assert!(table.assigned().is_empty(), "not there");
    table.batch(Vec::new(), &both(), Fate::Done);
    let second = table.the_assignment();
    assert_eq!(second.0, node_id(2));
    assert!(second.1.assignee.fence > first.1.assignee.fence);
    assert_eq!(second.1.plan.idempotency_key, first.1.plan.idempotency_key);
    assert_eq!(
        table.finish(&first, ok(), &both()),
        Verdict::Accepted,
        "its end was reported"
    );
    table.finish(&second, ok(), &both());
    let third = table.the_assignment();
    table.finish(&third, ok(), &both());
    let row = table.task(id, "t").row;
    assert_eq!((row.state(), row.steps[0].failed), (TaskState::Completed, 0));
    assert_eq!(row.decision.unwrap().by, super::waits::principal(8));
    table.verify();
}

#[test]
fn a_holder_that_does_not_answer_loses_its_lease_and_its_result_counts_no_more() {
    let mut table = Table::new();
    let id = table.submit(SOURCE, &[candidate(1, 1)]);
    let first = table.the_assignment();
    table.decided(decision(id, "t", to(2))).unwrap();
    table.expire(&first.1.assignee, &both());
    let second = table.the_assignment();
    assert_eq!(second.0, node_id(2));
    assert_eq!(table.finish(&first, ok(), &both()), Verdict::Stale);
    table.verify();
}

#[test]
fn a_task_that_waits_goes_where_it_was_assigned_and_any_place_again() {
    let mut table = Table::new();
    let id = table.submit(SOURCE, &[]);
    table.decided(decision(id, "t", to(7))).unwrap();
    table.batch(Vec::new(), &both(), Fate::Done);
    assert!(table.assigned().is_empty(), "node 7 offers nothing");
    table.crash();
    table.batch(Vec::new(), &both(), Fate::Done);
    assert!(table.assigned().is_empty(), "nor after a crash");
    table
        .decided(decision(id, "t", TaskDecision::Reassign(Reassignment::default())))
        .unwrap();
    table.batch(Vec::new(), &both(), Fate::Done);
    assert_eq!(table.assigned().len(), 1);
    table.verify();
}

#[test]
fn other_requirements_take_the_place_of_the_definitions() {
    let mut table = Table::new();
    let source = "{name: r, tasks: {t: {requires: {capabilities: [gpu]}, run: 'true'}, u: {requires: {capabilities: [gpu]}, run: 'true'}}}";
    let id = table.submit(source, &both());
    assert!(table.assigned().is_empty());
    let requires = Requires {
        labels: BTreeMap::from([("zone".to_owned(), "b".to_owned())])
            .into_iter()
            .collect(),
        ..Requires::default()
    };
    let other = TaskDecision::Reassign(Reassignment {
        requires: Some(requires),
        ..Reassignment::default()
    });
    table.decided(decision(id, "t", other)).unwrap();
    table.crash();
    let mut nodes = both();
    nodes[1].labels.insert("zone".to_owned(), "b".to_owned());
    table.batch(Vec::new(), &nodes, Fate::Done);
    let (node, assignment) = table.the_assignment();
    assert_eq!(
        (node, assignment.plan.task_name.as_str()),
        (node_id(2), "t"),
        "and `u` waits on"
    );
    table.verify();
}

#[test]
fn a_workspace_stays_where_it_is_unless_all_of_it_begins_anew() {
    let mut table = Table::new();
    let id = table.submit(SOURCE, &[candidate(1, 1)]);
    let first = table.the_assignment();
    table.finish(&first, ok(), &[]);
    let second = table.the_assignment();
    assert_eq!(code_of(table.decided(decision(id, "t", away()))), ErrorCode::Conflict);
    let restart = TaskDecision::Reassign(Reassignment {
        away: true,
        restart: true,
        ..Reassignment::default()
    });
    table.decided(decision(id, "t", restart)).unwrap();
    assert_eq!(stops(&mut table), 1);
    table.verify();
    table.crash();
    table.finish(&second, ended(EndCause::Cancelled, None), &both());
    let again = table.the_assignment();
    assert_eq!((again.0, again.1.assignee.step), (node_id(2), 0));
    assert_ne!(again.1.plan.idempotency_key, first.1.plan.idempotency_key);
    let row = table.task(id, "t").row;
    assert_eq!((row.home, row.round, row.restart), (None, 1, false));
    table.finish(&again, ok(), &both());
    let last = table.the_assignment();
    assert_eq!(last.0, node_id(2));
    table.finish(&last, ok(), &both());
    assert_eq!(table.workflow(id).row.state(), WorkflowState::Completed);
    table.verify();
}

#[test]
fn what_cannot_be_reassigned_says_so() {
    let mut table = Table::new();
    let id = table.submit(
        "{name: r, tasks: {s: {sleep: 1h}, t: {requires: {capabilities: [gpu]}, run: 'true'}}}",
        &[],
    );
    assert_eq!(code_of(table.decided(decision(id, "s", to(1)))), ErrorCode::Conflict);
    assert_eq!(
        code_of(table.decided(decision(id, "t", away()))),
        ErrorCode::Conflict,
        "it is nowhere"
    );
    table
        .batch(vec![pause(id, false).into()], &both(), Fate::Done)
        .remove(0)
        .unwrap();
    table.decided(decision(id, "t", to(2))).unwrap();
    let mut nodes = both();
    nodes[1].capabilities.insert("gpu".to_owned());
    table.batch(Vec::new(), &nodes, Fate::Done);
    assert!(table.assigned().is_empty(), "held is held");
    table.verify();
}
