//! Records about a task over a list.

use std::sync::Arc;

use gantry_proto::v1::{self, Payload, WaitKind};
use serde_json::Value;

use super::task::task;
use super::workflow::{seeded, workflow};
use super::{ApplyError, Place};
use crate::core::state::PartitionState;

pub(super) fn task_fanned_out(
    state: &mut PartitionState,
    place: Place,
    event: &v1::TaskFannedOut,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let (reference, task) = task(state, place, event.task)?;
    let row = &mut task.row;
    if !row.is_unbegun() || row.origin.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "items are made twice, or for a task that does not wait",
        });
    }
    row.fan_seq = Some(place.seq);
    row.ready_at_ms.get_or_insert(place.at_ms);
    row.started_at_ms.get_or_insert(place.at_ms);
    row.set_wait_kind(WaitKind::Items);
    task.items = payload.map(|payload| Arc::new(item_values(payload)));
    let workflow = workflow(state, place)?;
    let first = u32::try_from(workflow.tasks.len()).unwrap_or(u32::MAX);
    for (number, seed) in (0u32..).zip(&event.items) {
        let mut item = seeded(seed, first.saturating_add(number));
        item.row.origin = Some(reference.1);
        item.row.item = Some(number);
        workflow.tasks.push(item);
    }
    if let Some(parent) = workflow.tasks.get_mut(reference.1 as usize) {
        parent.row.first_item = Some(first);
    }
    workflow.row.tasks_total = u32::try_from(workflow.tasks.len()).unwrap_or(u32::MAX);
    let last = workflow.row.tasks_total;
    state
        .dirty
        .tasks
        .extend((first..last).map(|index| (reference.0, index)));
    Ok(())
}

/// The list was checked before it was journaled; what does not parse reads as empty.
pub(crate) fn item_values(payload: &Payload) -> Vec<Value> {
    let json = payload.items_json.as_deref();
    json.and_then(|json| serde_json::from_slice(json).ok())
        .unwrap_or_default()
}
