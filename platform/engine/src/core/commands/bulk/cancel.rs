//! Ending a bulk operation.

use gantry_proto::v1;
use gantry_proto::v1::event::Kind;
use gantry_proto::{BulkId, PrincipalId, TenantId};

use crate::core::commands::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::lifecycle::bulk::BulkState;

/// Let a bulk operation take no further workflows. What was done stays done.
#[derive(Debug, Clone, Copy)]
pub struct CancelBulk {
    /// Which.
    pub bulk: BulkId,
    /// Whose.
    pub tenant: TenantId,
    /// By whom.
    pub by: PrincipalId,
}

impl CancelBulk {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch
            .state
            .bulks
            .get(&self.bulk)
            .filter(|row| row.tenant == self.tenant);
        let Some(row) = found else {
            return Ok(Err(Rejection::NotFound));
        };
        if row.state() == BulkState::Running {
            let event = v1::BulkCancelRequested {
                bulk: self.bulk,
                by: self.by,
            };
            batch.record_bulk(self.bulk, Kind::BulkCancelRequested(event), None)?;
            batch.settle_bulk(self.bulk)?;
        }
        Ok(Ok(Reply::Done))
    }
}
