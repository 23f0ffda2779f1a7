//! Records about holding a workflow and letting it go on, and about deadlines.

use gantry_proto::v1;

use super::task::task;
use super::workflow::{change_workflow, workflow};
use super::{ApplyError, Place};
use crate::core::rows::PauseRow;
use crate::core::state::{PartitionState, Timer};
use crate::lifecycle::workflow::WorkflowTrigger;

pub(super) fn workflow_paused(
    state: &mut PartitionState,
    place: Place,
    event: &v1::WorkflowPaused,
) -> Result<(), ApplyError> {
    let workflow = change_workflow(state, place, WorkflowTrigger::Paused)?;
    workflow.row.paused = Some(PauseRow {
        by: event.by,
        code: event.code.clone(),
        at_ms: place.at_ms,
        seq: place.seq,
    });
    let id = workflow.row.id;
    state.disarm(id);
    Ok(())
}

pub(super) fn workflow_resumed(state: &mut PartitionState, place: Place) -> Result<(), ApplyError> {
    let workflow = change_workflow(state, place, WorkflowTrigger::Resumed)?;
    workflow.row.paused = None;
    let id = workflow.row.id;
    if !state.is_paused(id) {
        state.arm(id);
    }
    Ok(())
}

pub(super) fn task_began(state: &mut PartitionState, place: Place, event: &v1::TaskBegan) -> Result<(), ApplyError> {
    let (reference, task) = task(state, place, event.task)?;
    task.row.deadline_ms = event.deadline_ms;
    if let Some(deadline) = event.deadline_ms.filter(|_| !state.is_paused(reference.0)) {
        state.timers.insert((deadline, Timer::TaskDeadline(reference)));
    }
    Ok(())
}

pub(super) fn deadline_passed(
    state: &mut PartitionState,
    place: Place,
    event: &v1::DeadlinePassed,
) -> Result<(), ApplyError> {
    match event.task {
        Some(id) => {
            let (reference, task) = task(state, place, id)?;
            task.row.deadline_passed = true;
            if let Some(deadline) = task.row.deadline_ms {
                state.timers.remove(&(deadline, Timer::TaskDeadline(reference)));
            }
        }
        None => {
            let workflow = workflow(state, place)?;
            workflow.row.deadline_passed = true;
            let (id, deadline) = (workflow.row.id, workflow.row.deadline_ms);
            if let Some(deadline) = deadline {
                state.timers.remove(&(deadline, Timer::WorkflowDeadline(id)));
            }
        }
    }
    Ok(())
}
