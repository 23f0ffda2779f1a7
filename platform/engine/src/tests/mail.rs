//! Letters between partitions, played by hand: lost, repeated, out of order.

use std::sync::Arc;

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, ChildEnd, Letter, letter};
use gantry_proto::{PartitionId, PrincipalId, TaskId, WorkflowId};

use super::table::{Fate, Table, partition};
use super::world::{candidate, ok, tenant};
use crate::core::commands::{Acknowledged, Delivery, Receive};
use crate::core::{Rejection, Reply};
use crate::lifecycle::workflow::WorkflowState;

fn elsewhere() -> PartitionId {
    PartitionId::new(5).unwrap()
}

/// The start of a child, as another partition would send it.
fn start(number: u64, child: WorkflowId) -> Delivery {
    let submitted = super::table::submission("{name: child, tasks: {t: {run: 'true'}}}");
    let start = v1::ChildStart {
        child,
        lineage: v1::Lineage {
            parent: WorkflowId::new(1, elsewhere(), 1),
            task: TaskId::new(1, elsewhere(), 2),
            root: WorkflowId::new(1, elsewhere(), 1),
            depth: 1,
            detached: false,
        },
        submitted_by: PrincipalId::new(1, elsewhere(), 3),
        definition_digest: submitted.digest,
        traceparent: None,
        labels: Vec::new(),
        priority: None,
        attributes: Vec::new(),
    };
    Delivery {
        number,
        tenant: tenant(),
        letter: Letter {
            kind: Some(letter::Kind::ChildStart(start)),
        },
        payload: Some(submitted.payload),
        body: Some(Arc::clone(&submitted.body)),
    }
}

fn cancel(number: u64, child: WorkflowId) -> Delivery {
    let cancel = v1::ChildCancel {
        child,
        by: PrincipalId::new(1, elsewhere(), 3),
        grace_ms: None,
    };
    Delivery {
        letter: Letter {
            kind: Some(letter::Kind::ChildCancel(cancel)),
        },
        payload: None,
        body: None,
        ..start(number, child)
    }
}

fn receive(table: &mut Table, letters: Vec<Delivery>, fate: Fate) -> Option<Result<Reply, Rejection>> {
    let command = Receive {
        from: elsewhere(),
        letters,
    };
    table.batch(vec![command.into()], &[candidate(1, 1)], fate).pop()
}

fn through(number: u64) -> Option<Result<Reply, Rejection>> {
    Some(Ok(Reply::Received { through: number }))
}

#[test]
fn a_letter_has_its_effect_once_however_often_it_comes() {
    let mut table = Table::new();
    let child = WorkflowId::new(9, partition(), 9);
    assert_eq!(receive(&mut table, vec![start(1, child)], Fate::DiesBefore), None);
    assert!(table.state.workflows.is_empty(), "a batch that died leaves nothing");
    assert_eq!(receive(&mut table, vec![start(1, child)], Fate::DiesAfter), None);
    let assigned = |table: &Table| table.task(child, "t").row.attempt;
    assert_eq!(assigned(&table), 1);
    assert_eq!(
        receive(&mut table, vec![start(1, child)], Fate::Done),
        through(1),
        "the sender asks again"
    );
    assert_eq!(assigned(&table), 1);
    assert_eq!(table.state.mail.mark(elsewhere()), 1);
    table.verify();
}

#[test]
fn letters_out_of_order_are_refused_whole() {
    let mut table = Table::new();
    let child = WorkflowId::new(9, partition(), 9);
    let answer = receive(&mut table, vec![cancel(2, child)], Fate::Done);
    assert!(matches!(answer, Some(Err(Rejection::Refused { .. }))), "{answer:?}");
    let answer = receive(&mut table, vec![start(1, child), cancel(3, child)], Fate::Done);
    assert!(matches!(answer, Some(Err(Rejection::Refused { .. }))), "{answer:?}");
    assert!(table.state.workflows.is_empty());
    assert_eq!(
        receive(&mut table, vec![start(1, child), cancel(2, child)], Fate::Done),
        through(2)
    );
    assert_eq!(table.workflow(child).row.state(), WorkflowState::Cancelled);
    assert!(table.assigned().is_empty(), "cancelled in the batch that bore it");
    // It has ended: what comes for it now is nothing.
    assert_eq!(receive(&mut table, vec![cancel(3, child)], Fate::Done), through(3));
    table.verify();
}

#[test]
fn a_result_stays_in_the_outbox_until_it_is_acknowledged() {
    let mut table = Table::new();
    let child = WorkflowId::new(9, partition(), 9);
    receive(&mut table, vec![start(1, child)], Fate::Done);
    let assignment = table.the_assignment();
    table.finish(&assignment, ok(), &[]);
    let letters = |table: &Table| table.state.mail.open.keys().copied().collect::<Vec<_>>();
    assert_eq!(letters(&table), [(elsewhere(), 1)]);
    table.crash();
    assert_eq!(letters(&table), [(elsewhere(), 1)], "recovery sends it again");
    let acknowledged = Acknowledged {
        to: elsewhere(),
        through: 1,
    };
    table.batch(vec![acknowledged.into()], &[], Fate::DiesBefore);
    assert_eq!(letters(&table), [(elsewhere(), 1)]);
    table.batch(vec![acknowledged.into()], &[], Fate::DiesAfter);
    assert_eq!(letters(&table), []);
    table.batch(vec![acknowledged.into()], &[], Fate::Done);
    table.verify();
}

#[test]
fn a_result_that_nobody_waits_for_is_an_orphan() {
    let mut table = Table::new();
    let parent = WorkflowId::new(4, partition(), 4);
    let result = v1::ChildResult {
        parent,
        task: TaskId::new(4, partition(), 5),
        child: WorkflowId::new(9, elsewhere(), 9),
        end: ChildEnd::Completed.into(),
        code: None,
    };
    let delivery = Delivery {
        letter: Letter {
            kind: Some(letter::Kind::ChildResult(result)),
        },
        ..cancel(1, parent)
    };
    assert_eq!(receive(&mut table, vec![delivery], Fate::Done), through(1));
    let entries: Vec<_> = gantry_journal::LogReader::from_start(table.store.as_ref(), partition())
        .collect::<Result<_, _>>()
        .unwrap();
    let orphans = entries
        .iter()
        .flat_map(|entry| &entry.records)
        .filter(|record| matches!(&record.event.kind, Some(Kind::ChildOrphaned(orphan)) if orphan.parent == parent));
    assert_eq!(orphans.count(), 1);
    table.verify();
}
