//! Ending a workflow on request.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self};
use gantry_proto::{ErrorCode, PrincipalId, TenantId, WorkflowId, limits};

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
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch
            .state
            .workflows
            .get(&self.workflow)
            .filter(|found| found.row.tenant == self.tenant);
        let Some(workflow) = found.filter(|found| !found.row.is_ended()) else {
            return Ok(Err(Rejection::NotFound));
        };
        let grace_ms = self.grace_ms.map(|grace| grace.min(limits::STEP_TIMEOUT_MS_MAX));
        let tasks = u32::try_from(workflow.tasks.len()).unwrap_or(u32::MAX);
        let before = workflow.row.cancel_by.map(|_| workflow.row.cancel_grace_ms);
        if before.is_none() || grace_ms.is_some_and(|grace| before.flatten().is_none_or(|before| grace < before)) {
            let event = v1::WorkflowCancelRequested {
                by: self.by,
                grace_ms: grace_ms.unwrap_or(limits::CANCEL_GRACE_MS_DEFAULT),
            };
            batch.record(self.workflow, Kind::WorkflowCancelRequested(event), None)?;
        }
        for index in 0..tasks {
            batch.stop_task((self.workflow, index), grace_ms, ErrorCode::WorkflowCancelled, None)?;
        }
        batch.settle(self.workflow)?;
        let state = batch
            .state
            .workflows
            .get(&self.workflow)
            .map(|workflow| workflow.row.state());
        Ok(state.map(Reply::State).ok_or(Rejection::NotFound))
    }
}
