//! Records about a step and its attempts.

use std::sync::Arc;

use gantry_proto::v1::{self, Payload, StepEnd};
use serde_json::{Map, Value};

use super::task::{change_task, task};
use super::{ApplyError, Place, end};
use crate::api::StepState;
use crate::core::body::StepResultBody;
use crate::core::rows::{AttemptRow, TaskRow};
use crate::core::state::{PartitionState, Task};
use crate::lifecycle::task::{TaskState, TaskTrigger};

pub(super) fn step_assigned(
    state: &mut PartitionState,
    place: Place,
    event: &v1::StepAssigned,
) -> Result<(), ApplyError> {
    let (_, task) = task(state, place, event.task)?;
    let Some(holder) = task.row.holder.filter(|_| task.row.fence == event.fence) else {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "an assignment without a live lease",
        });
    };
    if task.row.current().map(|(index, _)| index) != Some(event.step as usize) || task.row.open().is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "an assignment out of turn",
        });
    }
    let step = &mut task.row.steps[event.step as usize];
    if step.attempts.last().map_or(0, |last| last.attempt) >= event.attempt {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "an attempt number that is not newer",
        });
    }
    let mut attempt = AttemptRow {
        attempt: event.attempt,
        fence: event.fence,
        node: holder,
        assigned_at_ms: place.at_ms,
        epoch: task.row.epoch,
        ..AttemptRow::default()
    };
    attempt.set_state(StepState::Assigned);
    step.attempts.push(attempt);
    step.set_state(StepState::Assigned);
    Ok(())
}

/// The open attempt that an event names.
pub(super) fn open(
    task: &mut Task,
    place: Place,
    (fence, step, attempt): (u64, u32, u32),
) -> Result<(&mut TaskRow, usize), ApplyError> {
    let named = task.row.open().is_some_and(|(index, open)| {
        index == step as usize && open.fence == fence && open.attempt == attempt && task.row.fence == fence
    });
    if named {
        Ok((&mut task.row, step as usize))
    } else {
        Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "the attempt is not the open one",
        })
    }
}

pub(in crate::core) fn began(row: &mut TaskRow) -> Result<(), ApplyError> {
    if row.state() == TaskState::Claimed {
        change_task(row, TaskTrigger::Began)?;
    }
    row.refusals = 0;
    row.refused_seq = None;
    row.refused_by = None;
    row.refused_code = None;
    Ok(())
}

pub(super) fn step_running(
    state: &mut PartitionState,
    place: Place,
    event: &v1::StepRunning,
) -> Result<(), ApplyError> {
    let (_, task) = task(state, place, event.task)?;
    let (row, index) = open(task, place, (event.fence, event.step, event.attempt))?;
    began(row)?;
    let step = &mut row.steps[index];
    step.set_state(StepState::Running);
    if let Some(attempt) = step.attempts.last_mut() {
        attempt.set_state(StepState::Running);
        attempt.sandbox = Some(event.sandbox);
        attempt.started_at_ms = Some(event.started_at_ms);
    }
    Ok(())
}

pub(super) fn step_ended(
    state: &mut PartitionState,
    place: Place,
    event: &v1::StepEnded,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let how = end(place, event.end, StepEnd::try_from)?;
    end(place, event.cause, v1::EndCause::try_from)?;
    let (_, task) = task(state, place, event.task)?;
    if event.attempt == 0 {
        // It could not even be assigned: its plan cannot be made.
        let Some(step) = task
            .row
            .steps
            .get_mut(event.step as usize)
            .filter(|_| how == StepEnd::Failed)
        else {
            return Err(ApplyError::Contradiction {
                seq: place.seq,
                what: "an end without an attempt",
            });
        };
        step.set_state(StepState::Failed);
        step.failed += 1;
        return Ok(());
    }
    let index = open(task, place, (event.fence, event.step, event.attempt))?.1;
    if how == StepEnd::Completed || event.started_at_ms.is_some() {
        began(&mut task.row)?;
    } else if task.row.state() == TaskState::Claimed && how != StepEnd::Lost {
        // The holder reported on it, though no process ever ran.
        began(&mut task.row)?;
    }
    let holder = task.row.holder;
    let step = &mut task.row.steps[index];
    let outcome = match how {
        StepEnd::Completed => StepState::Completed,
        StepEnd::Failed => StepState::Failed,
        StepEnd::Lost => StepState::Lost,
        StepEnd::Cancelled => StepState::Cancelled,
    };
    match how {
        StepEnd::Failed => step.failed += 1,
        StepEnd::Lost => step.lost += 1,
        StepEnd::Completed => {
            step.result_seq = Some(place.seq);
            task.row.home = holder;
            task.results[index] = payload.map(|payload| Arc::new(result_body(payload)));
        }
        StepEnd::Cancelled => {}
    }
    step.set_state(outcome);
    if let Some(attempt) = step.attempts.last_mut() {
        attempt.set_state(outcome);
        attempt.sandbox = event.sandbox.or(attempt.sandbox);
        attempt.started_at_ms = event.started_at_ms.or(attempt.started_at_ms);
        attempt.finished_at_ms = event.finished_at_ms;
        attempt.cause = Some(event.cause);
        attempt.code.clone_from(&event.code);
        attempt.exit_code = event.exit_code;
        attempt.signal = event.signal;
        attempt.oom_seen = event.oom_seen;
        attempt.end_seq = Some(place.seq);
        attempt.last_seq = event.last_seq;
        attempt.cpu_us = match (event.user_cpu_us, event.system_cpu_us) {
            (None, None) => None,
            (user, system) => Some(user.unwrap_or(0).saturating_add(system.unwrap_or(0))),
        };
        attempt.max_rss_bytes = event.max_rss_bytes;
    }
    Ok(())
}

/// Outputs were checked to be an object of bounded size before they were journaled; what does not parse reads as empty.
pub(crate) fn result_body(payload: &Payload) -> StepResultBody {
    let outputs = payload
        .outputs_json
        .as_deref()
        .and_then(|json| serde_json::from_slice::<Map<String, Value>>(json).ok());
    StepResultBody {
        outputs: outputs.unwrap_or_default(),
        artifacts: payload.artifacts.clone(),
    }
}
