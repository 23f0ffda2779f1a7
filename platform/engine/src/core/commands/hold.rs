//! A legal hold on a workflow, and its end.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload};
use gantry_proto::{ErrorCode, PrincipalId, TenantId, WorkflowId, limits};

use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};

/// Keep a workflow whatever its retention, and refuse to erase it. The caller knows that there is such a workflow.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub workflow: WorkflowId,
    /// By whom.
    pub by: PrincipalId,
    /// Why, to be sealed.
    pub reason: Option<String>,
}

impl Hold {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let subject = (self.tenant, self.workflow);
        if batch.state.holds.contains_key(&subject) {
            return Ok(Ok(Reply::Done));
        }
        if batch.state.holds.len() >= limits::HOLDS_PER_PARTITION_MAX {
            return Ok(Err(Rejection::Refused {
                code: ErrorCode::Overloaded,
                message: format!(
                    "{} workflows are held here already, the most there can be; release some",
                    limits::HOLDS_PER_PARTITION_MAX
                ),
            }));
        }
        let payload = self.reason.map(|reason| Payload {
            message: Some(reason),
            ..Payload::default()
        });
        let event = v1::WorkflowHeld { by: self.by };
        batch.emit(self.tenant, Some(self.workflow), Kind::WorkflowHeld(event), payload)?;
        Ok(Ok(Reply::Done))
    }
}

/// End a legal hold. One that is not there is no error.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub workflow: WorkflowId,
    /// By whom.
    pub by: PrincipalId,
}

impl Release {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        if batch.state.holds.contains_key(&(self.tenant, self.workflow)) {
            let event = v1::WorkflowReleased { by: self.by };
            batch.emit(self.tenant, Some(self.workflow), Kind::WorkflowReleased(event), None)?;
        }
        Ok(Ok(Reply::Done))
    }
}
