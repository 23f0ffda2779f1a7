//! Who gets a node first, seen from outside.

use gantry_proto::limits::{PRIORITY_MAX, PRIORITY_STEP_MS};
use gantry_proto::{PartitionId, TenantId};

use super::table::{Fate, Table, submission};
use super::world::{candidate, ok};
use crate::api::Candidate;
use crate::core::Reply;

fn one() -> Vec<Candidate> {
    vec![candidate(1, 1)]
}

/// Submits a workflow of one task that prints its name, and does not place it.
fn wait(table: &mut Table, tenant: TenantId, name: &str, priority: Option<u32>) {
    let mut submit = submission(&format!("{{name: w, tasks: {{t: {{run: 'echo {name}'}}}}}}"));
    (submit.tenant, submit.priority) = (tenant, priority);
    let reply = table.batch(vec![submit.into()], &[], Fate::Done).remove(0);
    assert!(matches!(reply, Ok(Reply::Submitted(_))), "{reply:?}");
}

/// What gets the next slots, one after the other.
fn order(table: &mut Table, slots: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..slots {
        table.batch(Vec::new(), &one(), Fate::Done);
        let next = table.the_assignment();
        let shell = next.1.plan.command.shell.clone().unwrap();
        names.push(shell.strip_prefix("echo ").unwrap().to_owned());
        table.finish(&next, ok(), &[]);
    }
    names
}

fn tenant(number: u64) -> TenantId {
    TenantId::new(1, PartitionId::default(), number)
}

#[test]
fn a_higher_priority_goes_first_until_age_outweighs_it() {
    let mut table = Table::new();
    wait(&mut table, tenant(1), "low", Some(0));
    wait(&mut table, tenant(1), "plain", None);
    wait(&mut table, tenant(1), "high", Some(PRIORITY_MAX));
    assert_eq!(order(&mut table, 1), ["high"]);
    table.now_ms += u64::from(PRIORITY_MAX) * PRIORITY_STEP_MS + 1;
    for number in 0..5 {
        wait(&mut table, tenant(1), &format!("flood-{number}"), Some(PRIORITY_MAX));
    }
    table.crash();
    assert_eq!(
        order(&mut table, 2),
        ["plain", "low"],
        "starvation is bounded, also across a crash"
    );
    table.verify();
}

#[test]
fn one_tenant_cannot_keep_another_waiting() {
    let mut table = Table::new();
    for number in 0..20 {
        wait(&mut table, tenant(1), &format!("a{number}"), Some(PRIORITY_MAX));
    }
    for number in 0..3 {
        wait(&mut table, tenant(2), &format!("b{number}"), Some(0));
    }
    let names = order(&mut table, 6);
    assert_eq!(
        names.iter().filter(|name| name.starts_with('b')).count(),
        3,
        "{names:?}"
    );
    table.verify();
}

#[test]
fn what_cannot_be_placed_holds_nobody_up() {
    let mut table = Table::new();
    for _ in 0..50 {
        let gpu = "{name: w, priority: 9, tasks: {t: {requires: {capabilities: [gpu]}, run: 'echo gpu'}}}";
        table.submit(gpu, &[]);
    }
    wait(&mut table, super::world::tenant(), "cpu", Some(0));
    assert_eq!(order(&mut table, 1), ["cpu"]);
    let mut able = candidate(2, 1);
    able.capabilities.insert("gpu".to_owned());
    table.batch(Vec::new(), &[able], Fate::Done);
    assert_eq!(table.the_assignment().1.plan.command.shell.as_deref(), Some("echo gpu"));
    table.verify();
}

/// A scan of what is ready for each placed task would take minutes here.
#[test]
fn a_hundred_thousand_ready_tasks_are_placed_one_by_one() {
    use crate::core::queue::{Class, Passed, Queue};
    let mut queue = Queue::default();
    let task = |number: u64| (gantry_proto::WorkflowId::new(1, PartitionId::default(), number), 0);
    for number in 0..100_000 {
        queue.insert(tenant(number % 10), Class::default(), number, task(number));
    }
    let mut placed = 0;
    while let Some((next, tenant, _)) = queue.next(&Passed::default()) {
        queue.charge(tenant);
        queue.remove(next);
        placed += 1;
    }
    assert_eq!(placed, 100_000);
    assert!(queue.is_empty());
}
