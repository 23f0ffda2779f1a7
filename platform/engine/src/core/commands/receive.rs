//! Letters of another partition.

use std::sync::Arc;

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Letter, Payload, letter};
use gantry_proto::{ErrorCode, PartitionId, TenantId};

use super::{Outcome, Rejection, Reply};
use crate::core::apply::ApplyError;
use crate::core::body::Body;
use crate::core::decide::{Batching, Inputs};

/// A letter with what goes beside it, opened.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its number among those of its sender to this receiver.
    pub number: u64,
    /// Whose it is.
    pub tenant: TenantId,
    /// What it says.
    pub letter: Letter,
    /// What users wrote; absent when it was erased.
    pub payload: Option<Payload>,
    /// With `ChildStart`: the payload's definition and parameters, taken apart.
    pub body: Option<Arc<Body>>,
}

/// Letters of one sender, in order and without gap. Those that were received before have no effect.
#[derive(Debug, Clone)]
pub struct Receive {
    /// The sender.
    pub from: PartitionId,
    /// At least one.
    pub letters: Vec<Delivery>,
}

impl Receive {
    pub(super) fn decide(self, batch: &mut Batching<'_>, inputs: Inputs) -> Outcome {
        let mark = batch.state.mail.mark(self.from);
        let new: Vec<Delivery> = self.letters.into_iter().filter(|each| each.number > mark).collect();
        if !(mark + 1..).zip(&new).all(|(wanted, each)| each.number == wanted) {
            return Ok(Err(Rejection::Refused {
                code: ErrorCode::Internal,
                message: format!("letters of partition {} after {mark} are missing", self.from),
            }));
        }
        let through = new.last().map_or(mark, |last| last.number);
        if through > mark {
            let event = v1::MessagesReceived {
                from: self.from.index().into(),
                through,
            };
            batch.emit(TenantId::nil(), None, Kind::MessagesReceived(event), None)?;
        }
        for delivery in new {
            read(batch, delivery, inputs)?;
        }
        Ok(Ok(Reply::Received { through }))
    }
}

fn read(batch: &mut Batching<'_>, delivery: Delivery, inputs: Inputs) -> Result<(), ApplyError> {
    let Delivery {
        tenant,
        letter,
        payload,
        body,
        ..
    } = delivery;
    match letter.kind {
        Some(letter::Kind::ChildStart(start)) => batch.start_child(tenant, start, payload.zip(body)),
        Some(letter::Kind::ChildCancel(cancel)) => batch.cancel_child(tenant, cancel),
        Some(letter::Kind::ChildResult(result)) => batch.child_ended(tenant, result, payload),
        Some(letter::Kind::BulkItems(items)) => batch.bulk_items(tenant, items, payload, inputs),
        Some(letter::Kind::BulkResults(results)) => batch.bulk_reported(tenant, results),
        Some(letter::Kind::LimitRequest(request)) => batch.limit_asked(tenant, request),
        Some(letter::Kind::LimitRelease(release)) => batch.limit_released(tenant, &release.claim),
        Some(letter::Kind::LimitGrant(grant)) => batch.limit_granted(tenant, grant.claim),
        Some(letter::Kind::LimitRefusal(refusal)) => batch.limit_refused(tenant, refusal),
        Some(letter::Kind::ScopePause(letter)) => batch.scope_told(tenant, letter),
        Some(letter::Kind::LimitProbe(probe)) => batch.limit_probed(tenant, probe.claim),
        // A sender of a newer version; one process has one version, and a newer log is refused when it is opened.
        None => Err(ApplyError::Newer {
            seq: batch.state.next_seq,
            what: "letter",
        }),
    }
}
