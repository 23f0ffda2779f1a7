//! What records about activations and runs change.

use bytes::Bytes;
use gantry_proto::v1::{self, ActivationEnd, ActivationWhat};

use super::row::{ActivationKey, ActivationRow, ActivationState};
use crate::core::apply::{ApplyError, Place, began as step_began};
use crate::core::rows::TaskRow;
use crate::core::state::{PartitionState, TaskRef};
use crate::lifecycle::task::{TaskState, TaskTrigger};

fn contradiction(place: Place, what: &'static str) -> ApplyError {
    ApplyError::Contradiction { seq: place.seq, what }
}

fn key(place: Place, bytes: &Bytes) -> Result<ActivationKey, ApplyError> {
    bytes[..]
        .try_into()
        .map_err(|_| contradiction(place, "the id of an activation is not 16 bytes"))
}

/// Enum fields are numbers on the wire; one that this version does not know stops it.
fn known_enums(place: Place, what: &ActivationWhat) -> Result<(), ApplyError> {
    let known = v1::ActivationKind::try_from(what.kind).is_ok() && v1::RecoveryPolicy::try_from(what.policy).is_ok();
    known.then_some(()).ok_or(ApplyError::Newer {
        seq: place.seq,
        what: "kind or policy of an activation",
    })
}

/// The task of code that a record names. Not marked as changed: its row says nothing of its activations.
fn task(state: &mut PartitionState, place: Place, index: u32) -> Result<(TaskRef, &mut TaskRow), ApplyError> {
    let unknown = ApplyError::Unknown {
        seq: place.seq,
        what: "task of code",
    };
    let workflow = place.workflow.and_then(|id| state.workflows.get_mut(&id));
    let workflow = workflow.filter(|workflow| workflow.row.tenant == place.tenant);
    let Some(workflow) = workflow else { return Err(unknown) };
    let id = workflow.row.id;
    let task = workflow.tasks.get_mut(index as usize).map(|task| &mut task.row);
    task.filter(|row| row.component.is_some())
        .map(|row| ((id, index), row))
        .ok_or(unknown)
}

/// The holder showed that it works on the task. Returns whether the row changed.
fn began(row: &mut TaskRow) -> Result<bool, ApplyError> {
    let changed = row.state() == TaskState::Claimed || row.refusals > 0 || row.code_lost.is_some();
    step_began(row)?;
    row.code_lost = None;
    Ok(changed)
}

/// A task of code may end without having begun anything.
pub(in crate::core) fn ending(row: &mut TaskRow, by: TaskTrigger) -> Result<(), ApplyError> {
    if row.component.is_some() && row.state() == TaskState::Claimed && by == TaskTrigger::Completed {
        began(row)?;
    }
    Ok(())
}

pub(in crate::core) fn activation_begun(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ActivationBegun,
) -> Result<(), ApplyError> {
    known_enums(place, &event.what)?;
    let key = key(place, &event.activation)?;
    let (reference, row) = task(state, place, event.task)?;
    if row.holder.is_none() || row.fence != event.fence {
        return Err(contradiction(place, "an activation is begun without a live lease"));
    }
    if began(row)? {
        state.dirty.tasks.insert(reference);
    }
    let all = state.activations.entry(reference).or_default();
    let row = all
        .entry(key)
        .or_insert_with(|| ActivationRow::begun(event.task, &event.what, place.seq));
    if !row.is_open() || event.attempt <= row.attempt {
        return Err(contradiction(
            place,
            "an activation is begun that has ended, or not anew",
        ));
    }
    row.set_state(ActivationState::Active);
    row.attempt = event.attempt;
    row.fence = event.fence;
    row.begun_at_ms = place.at_ms;
    row.end_seq = None;
    row.ended_at_ms = None;
    row.due_ms = event.due_ms;
    state.dirty.activations.insert((reference, key));
    Ok(())
}

pub(in crate::core) fn activation_ended(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ActivationEnded,
) -> Result<(), ApplyError> {
    let end = ActivationEnd::try_from(event.end).map_err(|_| ApplyError::Newer {
        seq: place.seq,
        what: "end of an activation",
    })?;
    let key = key(place, &event.activation)?;
    let (reference, task) = task(state, place, event.task)?;
    let leased = task.holder.is_some();
    if task.fence != event.fence {
        return Err(contradiction(
            place,
            "an activation ends under a fence that is not the newest",
        ));
    }
    if leased && began(task)? {
        state.dirty.tasks.insert(reference);
    }
    let all = state.activations.entry(reference).or_default();
    let row = match (all.get_mut(&key), &event.what) {
        (Some(row), _) => row,
        (None, Some(what)) => {
            known_enums(place, what)?;
            all.entry(key).or_insert(ActivationRow {
                begun_at_ms: place.at_ms,
                ..ActivationRow::begun(event.task, what, place.seq)
            })
        }
        (None, None) => {
            return Err(ApplyError::Unknown {
                seq: place.seq,
                what: "activation",
            });
        }
    };
    // Without a lease only the time of a timer can come.
    if !row.is_open() || !(leased || row.due_ms.is_some()) || event.attempt < row.attempt {
        return Err(contradiction(place, "an activation ends twice, or without a lease"));
    }
    row.set_state(end.into());
    row.attempt = event.attempt;
    row.fence = event.fence;
    row.end_seq = Some(place.seq);
    row.ended_at_ms = Some(place.at_ms);
    row.due_ms = None;
    state.dirty.activations.insert((reference, key));
    Ok(())
}

pub(in crate::core) fn run_failed(
    state: &mut PartitionState,
    place: Place,
    event: &v1::RunFailed,
) -> Result<(), ApplyError> {
    let (reference, row) = task(state, place, event.task)?;
    if row.holder.is_none() || row.fence != event.fence {
        return Err(contradiction(place, "code fails without a live lease"));
    }
    began(row)?;
    row.code_failures = Some(row.code_failures.unwrap_or(0) + 1);
    row.code_error_seq = Some(place.seq);
    state.dirty.tasks.insert(reference);
    Ok(())
}
