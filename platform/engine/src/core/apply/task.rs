//! Records about a task and its lease.

use std::sync::Arc;

use gantry_proto::v1::{self, LeaseEnd, Payload, TaskEnd};
use gantry_proto::{NodeId, TaskId};

use super::decision::restarted;
use super::step::result_body;
use super::workflow::workflow;
use super::{ApplyError, Place, end};
use crate::api::StepState;
use crate::core::code::apply as code;
use crate::core::rows::TaskRow;
use crate::core::state::{PartitionState, Task, TaskRef, Timer};
use crate::lifecycle::Lifecycle as _;
use crate::lifecycle::task::{TaskState, TaskTrigger};

pub(super) fn task(state: &mut PartitionState, place: Place, id: TaskId) -> Result<(TaskRef, &mut Task), ApplyError> {
    let unknown = ApplyError::Unknown {
        seq: place.seq,
        what: "task",
    };
    let Some(workflow) = place.workflow.and_then(|id| state.workflows.get_mut(&id)) else {
        return Err(unknown);
    };
    let workflow_id = workflow.row.id;
    let Some(task) = workflow.tasks.iter_mut().find(|task| task.row.id == id) else {
        return Err(unknown);
    };
    let reference = (workflow_id, task.row.index);
    state.dirty.tasks.insert(reference);
    Ok((reference, task))
}

pub(super) fn change_task(row: &mut TaskRow, by: TaskTrigger) -> Result<(), ApplyError> {
    let next = row.state().step(by)?;
    row.set_state(next);
    Ok(())
}

pub(super) fn task_readied(state: &mut PartitionState, place: Place, id: TaskId) -> Result<(), ApplyError> {
    let (reference, task) = task(state, place, id)?;
    if task.row.holder.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a leased task becomes ready",
        });
    }
    restarted(task, place, None);
    let by = if task.row.state() == TaskState::Pending {
        TaskTrigger::Readied
    } else {
        TaskTrigger::Returned
    };
    change_task(&mut task.row, by)?;
    task.row.ready_at_ms.get_or_insert(place.at_ms);
    task.row.queued_at_ms = Some(place.at_ms);
    // Whatever its running step was asked to end for has come.
    (task.row.cancel_grace_ms, task.row.stop_for) = (None, None);
    waited(state, reference);
    if !state.is_paused(reference.0) {
        state.enqueue(reference);
    }
    Ok(())
}

pub(super) fn unqueue(state: &mut PartitionState, reference: TaskRef) {
    let Some(task) = state
        .workflows
        .get_mut(&reference.0)
        .and_then(|w| w.tasks.get_mut(reference.1 as usize))
    else {
        return;
    };
    if task.row.queued_at_ms.take().is_some() {
        state.ready.remove(reference);
    }
    waited(state, reference);
}

/// Whatever the task waited for, it waits no more.
pub(super) fn waited(state: &mut PartitionState, reference: TaskRef) {
    let found = state.workflows.get_mut(&reference.0);
    let Some(task) = found.and_then(|workflow| workflow.tasks.get_mut(reference.1 as usize)) else {
        return;
    };
    task.row.wait_kind = None;
    task.row.wait_seq = None;
    task.row.escalated = None;
    if let Some(until) = task.row.wait_until_ms.take() {
        state.timers.remove(&(until, Timer::Task(reference)));
    }
}

pub(super) fn task_claimed(
    state: &mut PartitionState,
    place: Place,
    event: &v1::TaskClaimed,
) -> Result<(), ApplyError> {
    let (reference, task) = task(state, place, event.task)?;
    change_task(&mut task.row, TaskTrigger::Claimed)?;
    if event.fence <= task.row.fence || task.row.holder.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a second live lease, or a fence that is not newer",
        });
    }
    task.row.attempt = event.attempt;
    task.row.fence = event.fence;
    task.row.holder = Some(event.holder);
    task.row.lease_ms = Some(event.lease_ms);
    task.row.started_at_ms.get_or_insert(place.at_ms);
    state.ready.charge(place.tenant);
    unqueue(state, reference);
    state.held.entry(event.holder).or_default().insert(reference);
    Ok(())
}

pub(super) fn task_waiting(
    state: &mut PartitionState,
    place: Place,
    event: &v1::TaskWaiting,
) -> Result<(), ApplyError> {
    end(place, event.kind, v1::WaitKind::try_from)?;
    let (reference, task) = task(state, place, event.task)?;
    if task.row.holder.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a leased task waits",
        });
    }
    let by = match event.kind() {
        v1::WaitKind::Approval => TaskTrigger::ApprovalAsked,
        v1::WaitKind::Assessment => TaskTrigger::OutputReported,
        _ => TaskTrigger::Waited,
    };
    if task.row.state() == TaskState::Pending {
        task.row.started_at_ms.get_or_insert(place.at_ms);
    }
    change_task(&mut task.row, by)?;
    task.row.wait_seq = Some(place.seq);
    task.row.wait_kind = Some(event.kind);
    task.row.wait_until_ms = event.until_ms;
    (task.row.cancel_grace_ms, task.row.stop_for) = (None, None);
    if let Some(until) = event.until_ms.filter(|_| !state.is_paused(reference.0)) {
        state.timers.insert((until, Timer::Task(reference)));
    }
    Ok(())
}

pub(super) fn task_ended(
    state: &mut PartitionState,
    place: Place,
    event: &v1::TaskEnded,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let by = match end(place, event.end, TaskEnd::try_from)? {
        TaskEnd::Completed => TaskTrigger::Completed,
        TaskEnd::Failed => TaskTrigger::Failed,
        TaskEnd::Cancelled => TaskTrigger::Cancelled,
    };
    let (reference, task) = task(state, place, event.task)?;
    if task.row.holder.is_some() || task.row.open().is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a task ends while it is leased",
        });
    }
    // One that was skipped, or resolved by a person, did not run its steps.
    if by == TaskTrigger::Completed && event.code.is_none() && task.row.current().is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a task completes before its steps",
        });
    }
    code::ending(&mut task.row, by)?;
    change_task(&mut task.row, by)?;
    task.row.ended_at_ms = Some(place.at_ms);
    task.row.end_code.clone_from(&event.code);
    task.row.end_seq = Some(place.seq);
    task.row.limits.clear();
    if event.outputs() {
        task.row.result_seq = Some(place.seq);
        task.result = payload.map(|payload| Arc::new(result_body(payload)));
    }
    if by == TaskTrigger::Failed {
        task.failure = payload.and_then(|payload| payload.message.as_deref()).map(Arc::from);
    }
    for step in &mut task.row.steps {
        match step.state() {
            StepState::Pending => step.set_state(StepState::Skipped),
            // A try was lost or ended, and no other will follow.
            StepState::Lost | StepState::Assigned | StepState::Running => step.set_state(match by {
                TaskTrigger::Failed => StepState::Failed,
                TaskTrigger::Completed => StepState::Skipped,
                _ => StepState::Cancelled,
            }),
            _ => {}
        }
    }
    if let Some(deadline) = task.row.deadline_ms {
        state.timers.remove(&(deadline, Timer::TaskDeadline(reference)));
    }
    unqueue(state, reference);
    workflow(state, place)?.row.tasks_ended += 1;
    Ok(())
}

pub(super) fn lease_ended(state: &mut PartitionState, place: Place, event: &v1::LeaseEnded) -> Result<(), ApplyError> {
    let how = end(place, event.end, LeaseEnd::try_from)?;
    let (reference, task) = task(state, place, event.task)?;
    let Some(holder) = task.row.holder.take().filter(|_| task.row.fence == event.fence) else {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a lease ends that is not the live one",
        });
    };
    task.row.lease_ms = None;
    if task.row.component.is_some() && matches!(how, LeaseEnd::Expired | LeaseEnd::Lost) {
        task.row.code_lost = Some(task.row.code_lost.unwrap_or(0) + 1);
    }
    if how == LeaseEnd::Refused {
        task.row.refusals += 1;
        task.row.refused_seq = Some(place.seq);
        task.row.refused_by = Some(holder);
        task.row.refused_code.clone_from(&event.code);
        // Given back unstarted: it was no attempt, and its number is the next one's. However often nodes refuse, the row does not grow.
        for step in &mut task.row.steps {
            if step
                .attempts
                .last()
                .is_some_and(|last| last.state() == StepState::Assigned)
            {
                step.attempts.pop();
                step.set_state(StepState::Pending);
            } else if let Some(attempt) = step.attempts.last_mut().filter(|attempt| attempt.is_open()) {
                attempt.set_state(StepState::Lost);
                attempt.set_cause(v1::EndCause::Lost);
                attempt.end_seq = Some(place.seq);
                step.set_state(StepState::Pending);
            }
        }
    } else if task.row.open().is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a lease ends before its step",
        });
    }
    release(state, holder, reference);
    Ok(())
}

pub(super) fn release(state: &mut PartitionState, holder: NodeId, reference: TaskRef) {
    if let Some(held) = state.held.get_mut(&holder) {
        held.remove(&reference);
        if held.is_empty() {
            state.held.remove(&holder);
        }
    }
}
