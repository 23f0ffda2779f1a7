//! Records about what people decided, or are to decide.

use std::sync::Arc;

use gantry_proto::v1::{self, Decision, Payload};

use super::task::{change_task, task, waited};
use super::{ApplyError, Place, end};
use crate::api::StepState;
use crate::core::body::Changes;
use crate::core::rows::DecisionRow;
use crate::core::state::PartitionState;
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
    let by = match (decision, task.row.state()) {
        (Decision::Approve, _) => TaskTrigger::Approved,
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
    if decision == Decision::Retry {
        task.row.epoch += 1;
        // What it holds it holds on; it starts anew, which a rate counts.
        task.row.limits.retain(|limit| limit.terms.per_ms.is_none());
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
