//! Pauses of definitions and tenants, over several partitions.

use super::limits::Town;
use super::table::submission;
use super::waits::principal;
use super::world::tenant;
use crate::core::Reply;
use crate::core::commands::{PauseScope, Submit};
use crate::lifecycle::workflow::WorkflowState;

fn set(definition: Option<&str>, paused: bool) -> PauseScope {
    PauseScope {
        tenant: tenant(),
        definition: definition.map(str::to_owned),
        by: principal(8),
        paused,
        comment: Some("wait for the audit".to_owned()),
    }
}

const TWO: &str = "{name: two, deadline: 1h, tasks: {nap: {sleep: 10m}, a: {steps: [{run: 'true'}, {run: 'true'}]}}}";
const OTHER: &str = "{name: other, tasks: {a: {run: 'true'}}}";

#[test]
fn nothing_new_of_a_paused_definition_starts_in_any_partition_also_after_a_crash() {
    let mut town = Town::new();
    let before = town.start(1, TWO);
    let running = town.assigned();
    assert_eq!(running.len(), 1);
    assert!(matches!(town.order(0, set(Some("two"), true)), Reply::Spread(_)));
    assert!(
        matches!(town.order(0, set(Some("two"), true)), Reply::Spread(_)),
        "said again"
    );
    town.carry();
    town.crash();
    let during = town.start(2, TWO);
    let other = town.start(2, OTHER);
    assert_eq!(town.assigned().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [other]);
    // What runs ends by itself, and its next step does not begin.
    let home = usize::from(before.partition().index());
    town.offices[home].finish(&running[0].1, super::world::ok(), &[super::world::candidate(1, 5)]);
    town.pass(7_200_000);
    assert!(town.assigned().is_empty());
    assert_eq!(town.state(before), WorkflowState::Active, "its deadline waits");
    town.crash();
    town.order(0, set(Some("two"), false));
    town.carry();
    town.pass(0);
    // Both are overdue by now, and what began with the resumption is asked to end.
    for id in [before, during] {
        let home = usize::from(id.partition().index());
        assert!(town.offices[home].workflow(id).row.deadline_passed);
    }
    assert!(town.offices.iter().all(|office| office.state.scopes.0.is_empty()));
    town.crash();
}

#[test]
fn a_tenant_is_paused_beside_a_definition_and_a_workflow() {
    let mut town = Town::new();
    town.order(0, set(None, true));
    town.carry();
    let id = town.start(1, OTHER);
    town.order(0, set(Some("other"), true));
    town.carry();
    town.order(0, set(None, false));
    town.carry();
    assert!(town.assigned().is_empty(), "its definition is paused still");
    town.order(0, set(Some("other"), false));
    town.carry();
    assert_eq!(town.assigned().iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id]);
    town.crash();
}

#[test]
fn a_playbook_is_paused_by_its_name() {
    let mut town = Town::new();
    town.order(0, set(Some("book"), true));
    town.carry();
    let submit = Submit {
        playbook: Some(gantry_proto::v1::PlaybookRef {
            name: "book".to_owned(),
            version: 3,
        }),
        ..submission(OTHER)
    };
    town.order(1, submit);
    assert!(town.assigned().is_empty());
    town.order(0, set(Some("book"), false));
    town.carry();
    assert_eq!(town.assigned().len(), 1);
    town.crash();
}
