//! Records about the child of a task.

use std::sync::Arc;

use gantry_proto::v1::{self, ChildEnd, Payload, WaitKind};

use super::step::result_body;
use super::task::{task, waited};
use super::{ApplyError, Place, end};
use crate::core::state::PartitionState;
use crate::lifecycle::task::TaskState;

pub(super) fn child_requested(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ChildRequested,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let (reference, found) = task(state, place, event.task)?;
    let backs_off = found.row.wait_kind == Some(WaitKind::RetryBackoff.into());
    if !(found.row.is_unbegun() || found.row.state() == TaskState::Pending && backs_off) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a child is asked for twice, or by a task that does not wait",
        });
    }
    waited(state, reference);
    let (_, task) = task(state, place, event.task)?;
    task.row.children += 1;
    task.row.child = Some(event.child);
    task.row.ready_at_ms.get_or_insert(place.at_ms);
    task.row.started_at_ms.get_or_insert(place.at_ms);
    if event.detached {
        task.row.result_seq = Some(place.seq);
        task.result = payload.map(|payload| Arc::new(result_body(payload)));
    } else {
        task.row.set_wait_kind(WaitKind::Child);
    }
    Ok(())
}

pub(super) fn child_ended(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ChildEnded,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let how = end(place, event.end, ChildEnd::try_from)?;
    let (_, task) = task(state, place, event.task)?;
    if task.row.open_child() != Some(event.child) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a child ends that its task does not wait for",
        });
    }
    task.row.wait_kind = None;
    if how == ChildEnd::Failed {
        task.row.child_failures += 1;
    }
    if how == ChildEnd::Completed {
        task.row.result_seq = Some(place.seq);
        task.result = payload.map(|payload| Arc::new(result_body(payload)));
    }
    Ok(())
}
