//! Records about a workflow as a whole.

use gantry_proto::v1::{self, WorkflowEnd};

use super::schedule::{schedule_run_ended, schedule_started};
use super::{ApplyError, Place, end};
use crate::api::StepState;
use crate::core::rows::{StepRow, TaskRow, WorkflowRow};
use crate::core::state::{PartitionState, Task, Timer, Workflow};
use crate::lifecycle::Lifecycle as _;
use crate::lifecycle::task::TaskState;
use crate::lifecycle::workflow::{WorkflowState, WorkflowTrigger};

pub(super) fn workflow(state: &mut PartitionState, place: Place) -> Result<&mut Workflow, ApplyError> {
    let unknown = ApplyError::Unknown {
        seq: place.seq,
        what: "workflow",
    };
    let Some(workflow) = place.workflow.and_then(|id| state.workflows.get_mut(&id)) else {
        return Err(unknown);
    };
    if workflow.row.tenant != place.tenant {
        return Err(unknown);
    }
    state.dirty.workflows.insert(workflow.row.id);
    Ok(workflow)
}

pub(super) fn change_workflow(
    state: &mut PartitionState,
    place: Place,
    by: WorkflowTrigger,
) -> Result<&mut Workflow, ApplyError> {
    let workflow = workflow(state, place)?;
    let next = workflow.row.state().step(by)?;
    workflow.row.set_state(next);
    Ok(workflow)
}

pub(super) fn submitted(
    state: &mut PartitionState,
    place: Place,
    event: &v1::WorkflowSubmitted,
) -> Result<(), ApplyError> {
    let Some(id) = place.workflow else {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "workflow",
        });
    };
    if state.workflows.contains_key(&id) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "the workflow exists",
        });
    }
    let mut tasks = Vec::with_capacity(event.tasks.len());
    for (index, seed) in (0u32..).zip(&event.tasks) {
        tasks.push(seeded(seed, index));
        state.dirty.tasks.insert((id, index));
    }
    let mut row = WorkflowRow {
        id,
        tenant: place.tenant,
        name: event.name.clone(),
        digest: event.definition_digest.clone(),
        submitted_by: event.submitted_by,
        labels: event.labels.clone(),
        traceparent: event.traceparent.clone(),
        playbook: event.playbook.clone(),
        schedule: event.schedule.clone(),
        created_at_ms: place.at_ms,
        submit_seq: place.seq,
        code: event.code,
        tasks_total: u32::try_from(event.tasks.len()).unwrap_or(u32::MAX),
        lineage: event.lineage.clone(),
        priority: event.priority,
        attributes: event.attributes.clone(),
        origin: event.origin.clone(),
        ..WorkflowRow::default()
    };
    row.set_state(WorkflowState::Pending);
    row.deadline_ms = event.deadline_ms;
    state.workflows.insert(id, Workflow::of(row, tasks));
    if let Some(deadline) = event.deadline_ms.filter(|_| !state.is_paused(id)) {
        state.timers.insert((deadline, Timer::WorkflowDeadline(id)));
    }
    state.dirty.workflows.insert(id);
    state.dirty.begun.insert(id);
    if let Some(run) = &event.schedule {
        schedule_started(state, place, run, id)?;
    }
    Ok(())
}

/// A task that has not begun.
pub(super) fn seeded(seed: &v1::TaskSeed, index: u32) -> Task {
    let mut row = TaskRow {
        id: seed.task,
        index,
        name: seed.name.clone(),
        component: seed.component.clone(),
        ..TaskRow::default()
    };
    row.set_state(TaskState::Pending);
    row.handles = seed.handles;
    row.steps = vec![StepRow::default(); seed.steps as usize];
    row.steps.iter_mut().for_each(|step| step.set_state(StepState::Pending));
    Task::of(row)
}

pub(super) fn workflow_ended(
    state: &mut PartitionState,
    place: Place,
    event: &v1::WorkflowEnded,
) -> Result<(), ApplyError> {
    let by = match end(place, event.end, WorkflowEnd::try_from)? {
        WorkflowEnd::Completed => WorkflowTrigger::Completed,
        WorkflowEnd::Failed => WorkflowTrigger::Failed,
        WorkflowEnd::Cancelled => WorkflowTrigger::Cancelled,
    };
    let workflow = change_workflow(state, place, by)?;
    if workflow.tasks.iter().any(|task| !task.row.is_ended()) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a workflow ends before its tasks",
        });
    }
    workflow.row.ended_at_ms = Some(place.at_ms);
    workflow.row.end_code.clone_from(&event.code);
    workflow.row.end_seq = Some(place.seq);
    workflow.row.paused = None;
    workflow.row.limits.clear();
    let (id, run) = (workflow.row.id, workflow.row.schedule.clone());
    let deadline = workflow.row.deadline_ms;
    if let Some(deadline) = deadline {
        state.timers.remove(&(deadline, Timer::WorkflowDeadline(id)));
    }
    state.dirty.ended.insert(id);
    if let Some(run) = run {
        schedule_run_ended(state, &run, id);
    }
    Ok(())
}
