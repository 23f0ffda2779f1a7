//! Records about limits: at those who ask, and at the owner of a key.

use gantry_proto::TaskId;
use gantry_proto::v1::{self, WaitKind};

use super::task::task;
use super::workflow::workflow;
use super::{ApplyError, Place};
use crate::core::limits::{ClaimRow, Claimant, LimitRef, RateRow};
use crate::core::rows::LimitRow;
use crate::core::state::{PartitionState, Timer};
use crate::lifecycle::task::TaskState;

/// The rows of limits of a task, or of the workflow.
fn rows(state: &mut PartitionState, place: Place, id: Option<TaskId>) -> Result<&mut Vec<LimitRow>, ApplyError> {
    match id {
        Some(id) => task(state, place, id).map(|(_, task)| &mut task.row.limits),
        None => workflow(state, place).map(|workflow| &mut workflow.row.limits),
    }
}

pub(super) fn limits_requested(
    state: &mut PartitionState,
    place: Place,
    event: &v1::LimitsRequested,
) -> Result<(), ApplyError> {
    if let Some(id) = event.task {
        let (_, task) = task(state, place, id)?;
        if !task.row.is_unbegun() || task.row.state() != TaskState::Pending {
            return Err(ApplyError::Contradiction {
                seq: place.seq,
                what: "a task asks for limits that does not begin",
            });
        }
        task.row.ready_at_ms.get_or_insert(place.at_ms);
        task.row.set_wait_kind(WaitKind::Limit);
    }
    let wanted = event.limits.iter().map(|wanted| LimitRow {
        key: wanted.key.clone(),
        terms: wanted.terms,
        position: wanted.position,
        granted: false,
    });
    rows(state, place, event.task)?.extend(wanted);
    Ok(())
}

pub(super) fn limit_granted(
    state: &mut PartitionState,
    place: Place,
    event: &v1::LimitGranted,
) -> Result<(), ApplyError> {
    let rows = rows(state, place, event.task)?;
    let asked = rows.iter_mut().find(|row| !row.granted);
    let Some(asked) = asked.filter(|row| row.key == event.key) else {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a limit is granted that was not asked for",
        });
    };
    asked.granted = true;
    let all = rows.iter().all(|row| row.granted);
    if let Some(id) = event.task.filter(|_| all) {
        task(state, place, id)?.1.row.wait_kind = None;
    }
    Ok(())
}

pub(super) fn limit_lost(state: &mut PartitionState, place: Place, event: &v1::LimitLost) -> Result<(), ApplyError> {
    match event.task {
        Some(id) => task(state, place, id)?.1.row.limit_code = Some(event.code.clone()),
        None => workflow(state, place)?.row.limit_code = Some(event.code.clone()),
    }
    Ok(())
}

fn unknown(place: Place) -> ApplyError {
    ApplyError::Unknown {
        seq: place.seq,
        what: "claim on a limit",
    }
}

fn key_of(place: Place, key: &[u8]) -> Result<LimitRef, ApplyError> {
    let key = key.try_into().map_err(|_| ApplyError::Contradiction {
        seq: place.seq,
        what: "a limit's key is not 16 bytes",
    })?;
    Ok((place.tenant, key))
}

fn claimant(claim: &v1::LimitClaim) -> Claimant {
    (claim.workflow, claim.task.unwrap_or_else(TaskId::nil))
}

/// Its rows are written, and its timer is what follows from them.
fn changed(state: &mut PartitionState, key: LimitRef, who: Option<Claimant>) {
    match who {
        Some(who) => state.dirty.limits.claims.insert((key, who)),
        None => state.dirty.limits.rates.insert(key),
    };
    state.rearm_limit(key);
}

pub(super) fn limit_asked(state: &mut PartitionState, place: Place, event: &v1::LimitAsked) -> Result<(), ApplyError> {
    let (key, who) = (key_of(place, &event.claim.key)?, claimant(&event.claim));
    if state
        .limits
        .key(&key)
        .is_some_and(|limited| limited.claim(&who).is_some())
    {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a limit is asked for twice",
        });
    }
    let row = ClaimRow {
        seq: place.seq,
        asked_at_ms: place.at_ms,
        priority: event.priority,
        terms: event.terms,
        ..ClaimRow::default()
    };
    state.limits.put(key, who, row);
    changed(state, key, Some(who));
    Ok(())
}

/// Changes what is known of a claim.
fn change(
    state: &mut PartitionState,
    place: Place,
    claim: &v1::LimitClaim,
    change: impl FnOnce(&mut ClaimRow) -> bool,
) -> Result<(), ApplyError> {
    let (key, who) = (key_of(place, &claim.key)?, claimant(claim));
    let mut row = state.limits.take(key, &who).ok_or_else(|| unknown(place))?;
    if change(&mut row) {
        state.limits.put(key, who, row);
    }
    changed(state, key, Some(who));
    Ok(())
}

pub(super) fn limit_taken(state: &mut PartitionState, place: Place, event: &v1::LimitTaken) -> Result<(), ApplyError> {
    let mut held = false;
    change(state, place, &event.claim, |row| {
        held = row.taken_at_ms.is_some();
        row.taken_at_ms = Some(place.at_ms);
        // Who started under a rate holds nothing.
        event.arrival_us.is_none()
    })?;
    if held {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a limit is taken twice",
        });
    }
    if let Some(arrival_us) = event.arrival_us {
        let key = key_of(place, &event.claim.key)?;
        state.limits.set_rate(key, Some(RateRow { arrival_us }));
        changed(state, key, None);
    }
    Ok(())
}

pub(super) fn limit_left(state: &mut PartitionState, place: Place, event: &v1::LimitLeft) -> Result<(), ApplyError> {
    change(state, place, &event.claim, |_| false)
}

pub(super) fn limit_evicted(
    state: &mut PartitionState,
    place: Place,
    event: &v1::LimitEvicted,
) -> Result<(), ApplyError> {
    change(state, place, &event.claim, |row| {
        row.evicted = true;
        true
    })
}

pub(super) fn limit_probed(
    state: &mut PartitionState,
    place: Place,
    event: &v1::LimitProbed,
) -> Result<(), ApplyError> {
    for claim in &event.claims {
        change(state, place, claim, |row| {
            row.probed_at_ms = Some(place.at_ms);
            true
        })?;
    }
    Ok(())
}

pub(super) fn limit_forgotten(
    state: &mut PartitionState,
    place: Place,
    event: &v1::LimitForgotten,
) -> Result<(), ApplyError> {
    let key = key_of(place, &event.key)?;
    if state.limits.key(&key).is_none_or(|limited| limited.rate.is_none()) {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "rate",
        });
    }
    state.limits.set_rate(key, None);
    changed(state, key, None);
    Ok(())
}

impl PartitionState {
    /// Sets the timer of a limited key to what follows from its rows.
    pub fn rearm_limit(&mut self, key: LimitRef) {
        let (before, after) = self.limits.rearm(key);
        if before != after {
            self.timers.extend(after.map(|due| (due, Timer::Limit(key))));
        }
        if let Some(due) = before.filter(|_| before != after) {
            self.timers.remove(&(due, Timer::Limit(key)));
        }
    }
}
