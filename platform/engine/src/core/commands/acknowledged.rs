//! Letters have arrived.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self};
use gantry_proto::{PartitionId, TenantId};

use super::{Outcome, Reply};
use crate::core::decide::{Batching, Inputs};

/// The receiver has made all letters up to a number durable.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// The receiver.
    pub to: PartitionId,
    /// The newest one.
    pub through: u64,
}

impl Acknowledged {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let sent = batch.state.mail.sent.get(&self.to).copied().unwrap_or_default();
        let through = self.through.min(sent.number);
        if through > sent.acknowledged {
            let event = v1::MessagesAcknowledged {
                to: self.to.index().into(),
                through,
            };
            batch.emit(TenantId::nil(), None, Kind::MessagesAcknowledged(event), None)?;
        }
        Ok(Ok(Reply::Done))
    }
}
