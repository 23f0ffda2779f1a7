//! Holding a workflow, and letting it go on.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Decision, StopFor, WaitKind};
use gantry_proto::{ErrorCode, PrincipalId, TenantId, WorkflowId};

use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::core::flow::said;
use crate::core::state::Workflow;
use crate::lifecycle::workflow::WorkflowState;

/// Hold a workflow: nothing new starts, what runs ends by itself.
#[derive(Debug, Clone)]
pub struct Pause {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub workflow: WorkflowId,
    /// By whom.
    pub by: PrincipalId,
    /// What runs is ended too, and runs again later.
    pub interrupt: bool,
    /// Why, in words.
    pub comment: Option<String>,
}

/// Let a workflow go on.
#[derive(Debug, Clone)]
pub struct Resume {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub workflow: WorkflowId,
    /// By whom.
    pub by: PrincipalId,
}

fn open<'a>(batch: &'a Batching<'_>, tenant: TenantId, id: WorkflowId) -> Result<&'a Workflow, Rejection> {
    let found = batch.workflow(id);
    let open = |workflow: &&Workflow| workflow.row.tenant == tenant && !workflow.row.is_ended();
    found.filter(open).ok_or(Rejection::NotFound)
}

impl Pause {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let workflow = match open(batch, self.tenant, self.workflow) {
            Ok(workflow) => workflow,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if workflow.row.is_ending() {
            return Ok(Err(Rejection::Refused {
                code: ErrorCode::Conflict,
                message: "the workflow is ending; it cannot be paused any more".to_owned(),
            }));
        }
        let tasks = u32::try_from(workflow.tasks.len()).unwrap_or(u32::MAX);
        if workflow.row.state() != WorkflowState::Paused {
            let event = v1::WorkflowPaused {
                by: Some(self.by),
                code: None,
            };
            batch.record(
                self.workflow,
                Kind::WorkflowPaused(event),
                self.comment.clone().and_then(said),
            )?;
        }
        if self.interrupt {
            for index in 0..tasks {
                batch.interrupt((self.workflow, index), StopFor::Pause)?;
            }
        }
        Ok(Ok(Reply::State(WorkflowState::Paused)))
    }
}

impl Resume {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let workflow = match open(batch, self.tenant, self.workflow) {
            Ok(workflow) => workflow,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if workflow.row.state() != WorkflowState::Paused {
            return Ok(Ok(Reply::State(workflow.row.state())));
        }
        // What had no attempts left, and paused the workflow, gets a new budget.
        let exhausted = |workflow: &Workflow| -> Vec<u32> {
            let waits = |kind: Option<i32>| kind == Some(WaitKind::Exhausted.into());
            let tasks = workflow.tasks.iter().map(|task| &task.row);
            tasks.filter(|row| waits(row.wait_kind)).map(|row| row.index).collect()
        };
        let again = exhausted(workflow);
        let event = v1::WorkflowResumed { by: self.by };
        batch.record(self.workflow, Kind::WorkflowResumed(event), None)?;
        for index in again {
            let task = (self.workflow, index);
            let event = v1::TaskDecided {
                task: batch.task_id(task),
                decision: Decision::Retry.into(),
                by: self.by,
                changed: None,
                ..v1::TaskDecided::default()
            };
            batch.record(self.workflow, Kind::TaskDecided(event), None)?;
            batch.start(task)?;
        }
        batch.deliver(self.workflow)?;
        batch.settle(self.workflow)?;
        let state = batch.workflow(self.workflow).map(|workflow| workflow.row.state());
        Ok(state.map(Reply::State).ok_or(Rejection::NotFound))
    }
}
