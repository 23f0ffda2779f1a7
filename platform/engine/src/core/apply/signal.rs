//! Records about signals.

use std::sync::Arc;

use gantry_proto::limits;
use gantry_proto::v1::{self, Payload};

use super::step::result_body;
use super::task::task;
use super::workflow::workflow;
use super::{ApplyError, Place};
use crate::core::rows::SignalRow;
use crate::core::state::PartitionState;

pub(super) fn signal_received(
    state: &mut PartitionState,
    place: Place,
    event: &v1::SignalReceived,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let workflow = workflow(state, place)?;
    let row = &mut workflow.row;
    row.signals.push(SignalRow {
        name: event.name.clone(),
        seq: place.seq,
    });
    if let Some(id) = &event.id_hash {
        if row.signal_ids.len() >= limits::SIGNAL_IDS_MAX {
            row.signal_ids.remove(0);
        }
        row.signal_ids.push(id.clone());
    }
    if let Some(payload) = payload {
        workflow.signals.insert(place.seq, Arc::new(result_body(payload)));
    }
    Ok(())
}

pub(super) fn signal_delivered(
    state: &mut PartitionState,
    place: Place,
    event: &v1::SignalDelivered,
) -> Result<(), ApplyError> {
    let workflow = workflow(state, place)?;
    let kept = workflow
        .row
        .signals
        .iter()
        .position(|each| each.seq == event.signal_seq);
    let Some(kept) = kept else {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "signal",
        });
    };
    workflow.row.signals.remove(kept);
    let content = workflow.signals.remove(&event.signal_seq);
    let (_, task) = task(state, place, event.task)?;
    task.row.result_seq = Some(event.signal_seq);
    task.result = content;
    Ok(())
}
