//! Erasing what users wrote in ended workflows, and removing ended workflows whose retention is over.

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self};
use gantry_proto::{ErrorCode, PrincipalId, TenantId, WorkflowId};

use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};

/// Destroy the data keys of workflows of which the caller knows that they exist and are not erased: all of them, or none.
#[derive(Debug, Clone)]
pub struct Erase {
    /// Whose.
    pub tenant: TenantId,
    /// Which; bounded by the caller.
    pub workflows: Vec<WorkflowId>,
    /// By whom.
    pub by: PrincipalId,
}

impl Erase {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        for id in &self.workflows {
            let found = batch.state.workflows.get(id);
            if found.is_some_and(|found| found.row.tenant == self.tenant && !found.row.is_ended()) {
                return Ok(Err(Rejection::Refused {
                    code: ErrorCode::Conflict,
                    message: format!("workflow {id} has not ended; cancel it first, then erase it"),
                }));
            }
            if batch.state.holds.contains_key(&(self.tenant, *id)) {
                return Ok(Err(Rejection::Refused {
                    code: ErrorCode::LegalHold,
                    message: format!("workflow {id} is under a legal hold; release it first, then erase it"),
                }));
            }
        }
        for id in self.workflows {
            let event = v1::WorkflowErased { by: self.by };
            batch.emit(self.tenant, Some(id), Kind::WorkflowErased(event), None)?;
        }
        Ok(Ok(Reply::Done))
    }
}

/// An ended workflow whose retention is over, with the keys of its rows.
#[derive(Debug, Clone)]
pub struct Expired {
    /// Which.
    pub workflow: WorkflowId,
    /// All its rows and indexes. An ended workflow gets no further ones, so they can be gathered before.
    pub keys: Vec<Bytes>,
}

/// Remove workflows whose retention is over. Those that were held meanwhile stay.
#[derive(Debug, Clone)]
pub struct Remove {
    /// Whose.
    pub tenant: TenantId,
    /// How long they were kept.
    pub retention_ms: u64,
    /// Which; bounded by the caller.
    pub workflows: Vec<Expired>,
}

impl Remove {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        for expired in self.workflows {
            let subject = (self.tenant, expired.workflow);
            let lives = batch.state.workflows.contains_key(&expired.workflow);
            if lives || batch.state.holds.contains_key(&subject) {
                continue;
            }
            let event = v1::WorkflowRemoved {
                workflow: expired.workflow,
                retention_ms: self.retention_ms,
            };
            batch.emit(self.tenant, None, Kind::WorkflowRemoved(event), None)?;
            batch.state.dirty.deletes.extend(expired.keys);
        }
        Ok(Ok(Reply::Done))
    }
}
