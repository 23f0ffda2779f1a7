//! Holding workflows and letting them go on, from the API to commands.

use gantry_proto::{ErrorCode, WorkflowId, limits};

use super::{CallRefusal, Engine, unexpected};
use crate::api::{Caller, Refusal, WorkflowState};
use crate::core::commands::{Pause, Resume};
use crate::core::{Command, Rejection, Reply};

impl Engine {
    pub(super) async fn pause_workflow(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        interrupt: bool,
        comment: Option<String>,
    ) -> Result<WorkflowState, Refusal> {
        if let Some(comment) = comment.as_ref().filter(|text| text.len() > limits::COMMENT_BYTES_MAX) {
            let message = format!(
                "the comment has {} bytes; the limit is {}",
                comment.len(),
                limits::COMMENT_BYTES_MAX
            );
            return Err(Refusal::new(ErrorCode::TooLarge, message));
        }
        let command = Pause {
            tenant: caller.tenant,
            workflow,
            by: caller.principal,
            interrupt,
            comment,
        };
        self.hold_workflow(caller, workflow, command.into()).await
    }

    pub(super) async fn resume_workflow(&self, caller: Caller, workflow: WorkflowId) -> Result<WorkflowState, Refusal> {
        let command = Resume {
            tenant: caller.tenant,
            workflow,
            by: caller.principal,
        };
        self.hold_workflow(caller, workflow, command.into()).await
    }

    async fn hold_workflow(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        command: Command,
    ) -> Result<WorkflowState, Refusal> {
        match self.call(workflow.partition(), command).await {
            Ok(Reply::State(state)) => Ok(state),
            Ok(other) => Err(unexpected(&other)),
            Err(CallRefusal::Rejection(Rejection::NotFound)) => {
                let state = self.ended(caller, workflow).await?.row.state();
                Err(Refusal::new(
                    ErrorCode::Conflict,
                    format!("the workflow is {state} already"),
                ))
            }
            Err(other) => Err(other.into()),
        }
    }
}
