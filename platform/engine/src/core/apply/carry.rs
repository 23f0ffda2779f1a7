//! Records about results that a workflow has from another one.

use std::sync::Arc;

use gantry_proto::v1::{self, Payload};

use super::step::result_body;
use super::task::task;
use super::{ApplyError, Place};
use crate::api::StepState;
use crate::core::state::PartitionState;

pub(super) fn step_carried(
    state: &mut PartitionState,
    place: Place,
    event: &v1::StepCarried,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let (_, task) = task(state, place, event.task)?;
    let position = event.step as usize;
    let next = task.row.current().map(|(position, _)| position);
    let fresh = task.row.is_unbegun() && task.row.attempt == 0;
    let Some(step) = task
        .row
        .steps
        .get_mut(position)
        .filter(|_| fresh && next == Some(position))
    else {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a step is carried over that is not the next one of a task that has not begun",
        });
    };
    step.set_state(StepState::Completed);
    step.result_seq = Some(place.seq);
    task.row.carried = true;
    if let Some(result) = task.results.get_mut(position) {
        *result = payload.map(|payload| Arc::new(result_body(payload)));
    }
    Ok(())
}
