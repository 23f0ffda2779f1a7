//! Records about holds, erasure and removal. They are about workflows that may have left memory, and change nothing but rows of their own.

use gantry_proto::v1;

use super::{ApplyError, Place};
use crate::core::keep::{ErasedRow, HoldRow};
use crate::core::state::{PartitionState, WorkflowRef};

fn subject(place: Place) -> Result<WorkflowRef, ApplyError> {
    let workflow = place.workflow.ok_or(ApplyError::Unknown {
        seq: place.seq,
        what: "workflow",
    })?;
    Ok((place.tenant, workflow))
}

pub(super) fn held(state: &mut PartitionState, place: Place, event: &v1::WorkflowHeld) -> Result<(), ApplyError> {
    let subject = subject(place)?;
    let row = HoldRow {
        by: event.by,
        at_ms: place.at_ms,
        seq: place.seq,
    };
    state.holds.insert(subject, row);
    state.dirty.holds.insert(subject);
    Ok(())
}

pub(super) fn released(state: &mut PartitionState, place: Place) -> Result<(), ApplyError> {
    let subject = subject(place)?;
    if state.holds.remove(&subject).is_none() {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "hold",
        });
    }
    state.dirty.holds.insert(subject);
    Ok(())
}

pub(super) fn erased(state: &mut PartitionState, place: Place, event: &v1::WorkflowErased) -> Result<(), ApplyError> {
    let subject = subject(place)?;
    refuse_live(state, place, subject)?;
    let row = ErasedRow {
        by: event.by,
        at_ms: place.at_ms,
    };
    state.dirty.erased.insert(subject, row);
    Ok(())
}

pub(super) fn removed(state: &mut PartitionState, place: Place, event: &v1::WorkflowRemoved) -> Result<(), ApplyError> {
    let subject = (place.tenant, event.workflow);
    refuse_live(state, place, subject)?;
    state.dirty.erased.remove(&subject);
    state.dirty.removed.insert(subject);
    Ok(())
}

/// What is held or has not ended is neither erased nor removed.
fn refuse_live(state: &PartitionState, place: Place, subject: WorkflowRef) -> Result<(), ApplyError> {
    let lives = state
        .workflows
        .get(&subject.1)
        .is_some_and(|found| !found.row.is_ended());
    if lives || state.holds.contains_key(&subject) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a workflow that is held or has not ended is destroyed",
        });
    }
    Ok(())
}
