//! Records about bulk operations.

use gantry_proto::BulkId;
use gantry_proto::v1::{self, BulkOperation};

use super::{ApplyError, Place, end};
use crate::core::bulk::BulkRow;
use crate::core::state::{PartitionState, Timer};
use crate::lifecycle::Lifecycle as _;
use crate::lifecycle::bulk::{BulkState, BulkTrigger};

fn bulk(state: &mut PartitionState, place: Place, id: BulkId) -> Result<&mut BulkRow, ApplyError> {
    let found = state.bulks.get_mut(&id).filter(|row| row.tenant == place.tenant);
    let row = found.ok_or(ApplyError::Unknown {
        seq: place.seq,
        what: "bulk operation",
    })?;
    state.dirty.bulks.insert((row.tenant, id));
    Ok(row)
}

pub(super) fn bulk_requested(
    state: &mut PartitionState,
    place: Place,
    event: &v1::BulkRequested,
) -> Result<(), ApplyError> {
    end(place, event.operation, BulkOperation::try_from)?;
    let content = place.workflow.ok_or(ApplyError::Contradiction {
        seq: place.seq,
        what: "a bulk operation without content",
    })?;
    if state.bulks.contains_key(&event.bulk) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "the bulk operation exists",
        });
    }
    let mut row = BulkRow {
        id: event.bulk,
        tenant: place.tenant,
        by: event.by,
        operation: event.operation,
        filter: event.filter.clone(),
        rate: event.rate,
        request_hash: event.request_hash.clone(),
        grace_ms: event.grace_ms,
        interrupt: event.interrupt,
        signal: event.signal.clone(),
        content,
        requested_seq: place.seq,
        created_at_ms: place.at_ms,
        ..BulkRow::default()
    };
    row.set_state(BulkState::Running);
    state.dirty.bulks.insert((row.tenant, row.id));
    state.insert_bulk(row);
    Ok(())
}

pub(super) fn bulk_advanced(
    state: &mut PartitionState,
    place: Place,
    event: &v1::BulkAdvanced,
) -> Result<(), ApplyError> {
    let row = bulk(state, place, event.bulk)?;
    if !row.searches() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a bulk operation goes on that was complete",
        });
    }
    row.matched += u64::from(event.matched);
    row.looked_at += u64::from(event.looked_at);
    row.through = event.through.or(row.through);
    row.complete = event.complete;
    Ok(())
}

pub(super) fn bulk_reported(
    state: &mut PartitionState,
    place: Place,
    event: &v1::BulkReported,
) -> Result<(), ApplyError> {
    let row = bulk(state, place, event.bulk)?;
    if row.open() < u64::from(event.done) + event.others.len() as u64 {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "more workflows are reported of than were sent for",
        });
    }
    row.count(event.done, &event.others);
    Ok(())
}

pub(super) fn bulk_cancelled(
    state: &mut PartitionState,
    place: Place,
    event: &v1::BulkCancelRequested,
) -> Result<(), ApplyError> {
    let row = bulk(state, place, event.bulk)?;
    let next = row.state().step(BulkTrigger::CancelRequested)?;
    row.set_state(next);
    row.cancelled_by = Some(event.by);
    Ok(())
}

pub(super) fn bulk_ended(state: &mut PartitionState, place: Place, event: &v1::BulkEnded) -> Result<(), ApplyError> {
    let row = bulk(state, place, event.bulk)?;
    let next = row.state().step(BulkTrigger::Ended)?;
    row.set_state(next);
    row.ended_at_ms = Some(place.at_ms);
    row.expires_at_ms = Some(event.expires_at_ms);
    state.timers.insert((event.expires_at_ms, Timer::Bulk(event.bulk)));
    Ok(())
}

pub(super) fn bulk_expired(
    state: &mut PartitionState,
    place: Place,
    event: &v1::BulkExpired,
) -> Result<(), ApplyError> {
    let expires_at_ms = bulk(state, place, event.bulk)?.expires_at_ms;
    let expires_at_ms = expires_at_ms.ok_or(ApplyError::Contradiction {
        seq: place.seq,
        what: "a bulk operation is forgotten that has not ended",
    })?;
    state.timers.remove(&(expires_at_ms, Timer::Bulk(event.bulk)));
    state.bulks.remove(&event.bulk);
    Ok(())
}
