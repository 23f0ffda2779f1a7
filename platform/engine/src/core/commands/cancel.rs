//! Ending a workflow on request.

use gantry_proto::{PrincipalId, TenantId, WorkflowId};

use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};

/// End a workflow: what runs is asked to, what waits ends at once.
#[derive(Debug, Clone, Copy)]
pub struct Cancel {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub workflow: WorkflowId,
    /// By whom.
    pub by: PrincipalId,
    /// Grace for running steps; `None`: each step's own.
    pub grace_ms: Option<u64>,
}

impl Cancel {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch
            .state
            .workflows
            .get(&self.workflow)
            .filter(|found| found.row.tenant == self.tenant);
        if found.is_none_or(|found| found.row.is_ended()) {
            return Ok(Err(Rejection::NotFound));
        }
        batch.cancel_workflow(self.workflow, self.by, self.grace_ms)?;
        let state = batch
            .state
            .workflows
            .get(&self.workflow)
            .map(|workflow| workflow.row.state());
        Ok(state.map(Reply::State).ok_or(Rejection::NotFound))
    }
}
