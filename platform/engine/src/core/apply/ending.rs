//! The record of how a workflow ends, before the task runs that handles such an end.

use std::sync::Arc;

use gantry_proto::v1::{self, Payload, WorkflowEnd};

use super::workflow::{change_workflow, workflow};
use super::{ApplyError, Place, end};
use crate::core::rows::EndingRow;
use crate::core::state::{PartitionState, Timer};
use crate::lifecycle::workflow::{WorkflowState, WorkflowTrigger};

pub(super) fn workflow_ending(
    state: &mut PartitionState,
    place: Place,
    event: &v1::WorkflowEnding,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let how = end(place, event.end, WorkflowEnd::try_from)?;
    let contradicts = |what| Err(ApplyError::Contradiction { seq: place.seq, what });
    let found = workflow(state, place)?;
    if found.row.ending.is_some() || !found.handles(how) {
        return contradicts("a workflow's end is decided twice, or nothing handles it");
    }
    let open = |task: &crate::core::state::Task| task.row.handles.is_none() && !task.row.is_ended();
    if found.tasks.iter().any(open) {
        return contradicts("a workflow's end is decided before its tasks have ended");
    }
    found.row.ending = Some(EndingRow {
        end: event.end,
        code: event.code.clone(),
        at_ms: place.at_ms,
        seq: place.seq,
    });
    found.ending = payload.and_then(|payload| payload.message.as_deref()).map(Arc::from);
    let (id, paused) = (found.row.id, found.row.state() == WorkflowState::Paused);
    // What handles the end has a deadline of its own.
    if let Some(deadline) = found.row.deadline_ms {
        state.timers.remove(&(deadline, Timer::WorkflowDeadline(id)));
    }
    if paused {
        change_workflow(state, place, WorkflowTrigger::Resumed)?.row.paused = None;
        state.arm(id);
    }
    Ok(())
}
