//! Records about letters between partitions.

use gantry_proto::PartitionId;
use gantry_proto::v1;

use super::{ApplyError, Place};
use crate::core::mail::OutboxRow;
use crate::core::state::PartitionState;

fn partition(place: Place, index: u32) -> Result<PartitionId, ApplyError> {
    let known = u16::try_from(index).ok().and_then(PartitionId::new);
    known.ok_or(ApplyError::Unknown {
        seq: place.seq,
        what: "partition",
    })
}

pub(super) fn message_sent(
    state: &mut PartitionState,
    place: Place,
    event: &v1::MessageSent,
) -> Result<(), ApplyError> {
    let to = partition(place, event.to)?;
    let sent = state.mail.sent.entry(to).or_default();
    if event.number != sent.number + 1 {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a letter is not the next one to its receiver",
        });
    }
    sent.number = event.number;
    let letter = (to, event.number);
    state.mail.open.insert(
        letter,
        OutboxRow {
            seq: place.seq,
            tenant: place.tenant,
        },
    );
    state.dirty.mail.open.insert((place.tenant, letter));
    state.dirty.mail.sent.insert(to);
    Ok(())
}

pub(super) fn messages_received(
    state: &mut PartitionState,
    place: Place,
    event: &v1::MessagesReceived,
) -> Result<(), ApplyError> {
    let from = partition(place, event.from)?;
    let received = state.mail.received.entry(from).or_default();
    if event.through <= received.through {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "letters are received a second time",
        });
    }
    received.through = event.through;
    state.dirty.mail.received.insert(from);
    Ok(())
}

pub(super) fn messages_acknowledged(
    state: &mut PartitionState,
    place: Place,
    event: &v1::MessagesAcknowledged,
) -> Result<(), ApplyError> {
    let to = partition(place, event.to)?;
    let sent = state.mail.sent.entry(to).or_default();
    if event.through <= sent.acknowledged || event.through > sent.number {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "letters are acknowledged that were not sent, or a second time",
        });
    }
    for number in sent.acknowledged + 1..=event.through {
        let letter = (to, number);
        if let Some(row) = state.mail.open.remove(&letter) {
            state.dirty.mail.open.insert((row.tenant, letter));
        }
    }
    sent.acknowledged = event.through;
    state.dirty.mail.sent.insert(to);
    Ok(())
}
