//! Workflows were found for a bulk operation.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, BulkItem, Payload};
use gantry_proto::{BulkId, TenantId, WorkflowId};

use crate::core::commands::{Outcome, Reply};
use crate::core::decide::{Batching, Inputs};

/// The next page of a bulk operation. One that does not begin where the operation stands is left: it was taken before.
#[derive(Debug, Clone)]
pub struct BulkPage {
    /// Which operation.
    pub bulk: BulkId,
    /// Whose.
    pub tenant: TenantId,
    /// Where the search began.
    pub after: Option<WorkflowId>,
    /// Up to where it came.
    pub through: Option<WorkflowId>,
    /// Workflows that match.
    pub workflows: Vec<WorkflowId>,
    /// How many were looked at.
    pub looked_at: u32,
    /// There are no more.
    pub complete: bool,
    /// What became of them, when they were acted upon already: how many were done, and the others. No letters are sent then.
    pub results: Option<(u32, Vec<BulkItem>)>,
    /// What goes beside the letters.
    pub payload: Option<Payload>,
}

impl BulkPage {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch.state.bulks.get(&self.bulk);
        let Some(row) = found.filter(|row| row.tenant == self.tenant && row.searches() && row.through == self.after)
        else {
            return Ok(Ok(Reply::Done));
        };
        let row = row.clone();
        let event = v1::BulkAdvanced {
            bulk: self.bulk,
            matched: u32::try_from(self.workflows.len()).unwrap_or(u32::MAX),
            looked_at: self.looked_at,
            through: self.through,
            complete: self.complete,
        };
        batch.record_bulk(self.bulk, Kind::BulkAdvanced(event), None)?;
        match self.results {
            None => batch.send_bulk(&row, &self.workflows, self.payload.as_ref())?,
            Some((done, others)) if !self.workflows.is_empty() => {
                let event = v1::BulkReported {
                    bulk: self.bulk,
                    done,
                    others,
                };
                batch.record_bulk(self.bulk, Kind::BulkReported(event), None)?;
            }
            Some(_) => {}
        }
        batch.settle_bulk(self.bulk)?;
        Ok(Ok(Reply::Done))
    }
}
