//! Forgetting the bulk operations of a tenant, with what was written in them.

use gantry_proto::v1;
use gantry_proto::v1::event::Kind;
use gantry_proto::{BulkId, ErrorCode, TenantId};

use crate::core::commands::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};

/// Forget every bulk operation of a tenant; refused while one runs.
#[derive(Debug, Clone, Copy)]
pub struct ForgetBulks {
    /// Whose.
    pub tenant: TenantId,
}

impl ForgetBulks {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let rows = batch.state.bulks.values().filter(|row| row.tenant == self.tenant);
        if let Some(open) = rows.clone().find(|row| row.ended_at_ms.is_none()) {
            return Ok(Err(Rejection::Refused {
                code: ErrorCode::Conflict,
                message: format!("bulk operation {} has not ended; cancel it first", open.id),
            }));
        }
        let ended: Vec<BulkId> = rows.map(|row| row.id).collect();
        for bulk in ended {
            batch.record_bulk(bulk, Kind::BulkExpired(v1::BulkExpired { bulk }), None)?;
        }
        Ok(Ok(Reply::Done))
    }
}
