//! Records about what people decided, or are to decide.

use std::sync::Arc;

use gantry_proto::v1::{self, Decision, Payload};

use super::task::{change_task, task, waited};
use super::{ApplyError, Place, end};
use crate::api::StepState;
use crate::core::body::Changes;
use crate::core::rows::DecisionRow;
use crate::core::state::{PartitionState, Task};
use crate::lifecycle::task::{TaskState, TaskTrigger};

/// Changes were checked before they were journaled; what does not parse reads as none.
pub(crate) fn changes_of(payload: &Payload) -> Changes {
    let json = payload.changes_json.as_deref();
    json.and_then(|json| serde_json::from_slice(json).ok())
        .unwrap_or_default()
}

pub(super) fn task_decided(
    state: &mut PartitionState,
    place: Place,
    event: &v1::TaskDecided,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let decision = end(place, event.decision, Decision::try_from)?;
    let (reference, task) = task(state, place, event.task)?;
    task.row.decision = Some(DecisionRow {
        decision: event.decision,
        by: event.by,
        at_ms: place.at_ms,
        seq: place.seq,
    });
    if event.changed() {
        task.row.changes_seq = Some(place.seq);
        task.changes = payload.map(|payload| Arc::new(changes_of(payload)));
    }
    if decision == Decision::Reassign {
        reassigned(task, place, event, payload);
        // What it asks of a node has changed, and with it where it stands in the queue.
        if task.row.queued_at_ms.is_some() && !state.is_paused(reference.0) {
            state.ready.remove(reference);
            state.enqueue(reference);
        }
        return Ok(());
    }
    let by = match (decision, task.row.state()) {
        (Decision::Approve, _) => TaskTrigger::Approved,
        (Decision::Rework, _) if !event.over() => TaskTrigger::ReworkAsked,
        (Decision::Retry, TaskState::Escalated) => TaskTrigger::Retried,
        // It waits, and will wait for something else.
        (Decision::Retry, _) => TaskTrigger::Waited,
        // The end that follows is the change.
        _ => return Ok(()),
    };
    if task.row.holder.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a leased task begins anew",
        });
    }
    change_task(&mut task.row, by)?;
    // What was given to a person with its work done begins with all of it again.
    let anew = decision == Decision::Rework || task.row.is_done();
    if decision != Decision::Approve && anew {
        new_round(task, place, payload);
        task.row.reworks = if decision == Decision::Rework {
            task.row.reworks + 1
        } else {
            0
        };
    }
    if decision != Decision::Approve {
        task.row.epoch += 1;
        // What it holds it holds on; it starts anew, which a rate counts.
        task.row.limits.retain(|limit| limit.terms.per_ms.is_none());
        task.row.child_failures = 0;
        for step in &mut task.row.steps {
            (step.failed, step.lost) = (0, 0);
            if step.state() != StepState::Completed {
                step.set_state(StepState::Pending);
            }
        }
    }
    waited(state, reference);
    Ok(())
}

fn reassigned(task: &mut Task, place: Place, event: &v1::TaskDecided, payload: Option<&Payload>) {
    task.row.assigned_to = event.node;
    task.row.excluded.clone_from(&event.excluded);
    task.row.restart |= event.restart();
    if task.row.holder.is_none() {
        restarted(task, place, payload);
    }
}

/// The steps of a task that nobody holds begin anew, if that was decided, and so does its tree.
pub(super) fn restarted(task: &mut Task, place: Place, payload: Option<&Payload>) {
    if std::mem::take(&mut task.row.restart) {
        let (feedback, seq) = (task.feedback.take(), task.row.feedback_seq);
        new_round(task, place, payload);
        (task.feedback, task.row.feedback_seq) = (feedback, seq);
        task.row.home = None;
    }
}

/// All steps begin anew: on the tree as it was before the first, which the node keeps.
fn new_round(task: &mut Task, place: Place, payload: Option<&Payload>) {
    task.row.round += 1;
    for (step, result) in task.row.steps.iter_mut().zip(&mut task.results) {
        (step.result_seq, *result) = (None, None);
        step.set_state(StepState::Pending);
    }
    let feedback = payload.and_then(|payload| payload.message.as_deref());
    task.row.feedback_seq = Some(place.seq);
    task.feedback = feedback.map(Arc::from);
}

pub(super) fn task_escalated(
    state: &mut PartitionState,
    place: Place,
    event: &v1::TaskEscalated,
) -> Result<(), ApplyError> {
    let (reference, task) = task(state, place, event.task)?;
    if task.row.holder.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a leased task is given to a person",
        });
    }
    change_task(&mut task.row, TaskTrigger::Escalated)?;
    waited(state, reference);
    let (_, task) = super::task::task(state, place, event.task)?;
    task.row.escalated = Some(event.code.clone());
    task.row.wait_seq = Some(place.seq);
    Ok(())
}
