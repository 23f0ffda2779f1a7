//! Starting a bulk operation.

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, BulkOperation, Payload};
use gantry_proto::{BulkId, ErrorCode, PrincipalId, TenantId, WorkflowId, limits};

use crate::core::commands::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};

/// Start a bulk operation; its filter was checked before.
#[derive(Debug, Clone)]
pub struct StartBulk {
    /// Its id; with an idempotency key it follows from that.
    pub bulk: BulkId,
    /// Whose.
    pub tenant: TenantId,
    /// By whom.
    pub by: PrincipalId,
    /// What is done.
    pub operation: BulkOperation,
    /// To which workflows.
    pub filter: String,
    /// To so many per second at most.
    pub rate: u32,
    /// Hash of the request.
    pub request_hash: [u8; 32],
    /// Of a cancellation.
    pub grace_ms: Option<u64>,
    /// Of a pause.
    pub interrupt: Option<bool>,
    /// Of a signal.
    pub signal: Option<String>,
    /// What users wrote, to be sealed: a comment, a signal's payload.
    pub payload: Option<Payload>,
}

impl StartBulk {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, inputs: Inputs) -> Outcome {
        let refused = |code, message| Ok(Err(Rejection::Refused { code, message }));
        if let Some(known) = batch.state.bulks.get(&self.bulk) {
            if known.tenant == self.tenant && known.request_hash[..] == self.request_hash {
                return Ok(Ok(Reply::Done));
            }
            let message = format!(
                "the idempotency key belongs to {}, which was asked for otherwise",
                self.bulk
            );
            return refused(ErrorCode::IdempotencyMismatch, message);
        }
        let open = batch
            .state
            .bulks
            .values()
            .filter(|row| row.ended_at_ms.is_none())
            .count();
        if open >= limits::BULKS_OPEN_MAX || batch.state.bulks.len() >= limits::BULKS_KEPT_MAX {
            let message = format!("{open} bulk operations run here; wait for one to end");
            return refused(ErrorCode::Overloaded, message);
        }
        let event = v1::BulkRequested {
            bulk: self.bulk,
            by: self.by,
            operation: self.operation.into(),
            filter: self.filter,
            rate: self.rate,
            request_hash: Bytes::copy_from_slice(&self.request_hash),
            grace_ms: self.grace_ms,
            interrupt: self.interrupt,
            signal: self.signal,
        };
        let content = WorkflowId::new(batch.now_ms, batch.state.partition, inputs.entropy);
        batch.emit(self.tenant, Some(content), Kind::BulkRequested(event), self.payload)?;
        Ok(Ok(Reply::Done))
    }
}
