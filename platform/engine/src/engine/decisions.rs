//! Signals and decisions, from the API to commands.

use gantry_proto::{ErrorCode, WorkflowId, limits};
use serde_json::{Map, Value};

use super::{CallRefusal, Engine, not_found, unexpected, unreadable};
use crate::api::{
    Caller, DecisionRequest, Refusal, SignalReceipt, SignalRequest, TaskDecision, TaskState, WorkflowState,
};
use crate::core::commands::{self, outputs_of, was_made};
use crate::core::rows::TaskRow;
use crate::core::state::Workflow;
use crate::core::{Rejection, Reply};
use crate::processor::load::workflow_rows;

fn too_large(what: &str, bytes: usize, limit: usize) -> Refusal {
    Refusal::new(
        ErrorCode::TooLarge,
        format!("{what} has {bytes} bytes; the limit is {limit}"),
    )
}

fn json_of(what: &str, fields: &Map<String, Value>) -> Result<Vec<u8>, Refusal> {
    let json = serde_json::to_vec(fields).map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
    if json.len() > limits::SIGNAL_BYTES_MAX {
        return Err(too_large(what, json.len(), limits::SIGNAL_BYTES_MAX));
    }
    Ok(json)
}

impl Engine {
    pub(super) async fn give_signal(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        request: SignalRequest,
    ) -> Result<SignalReceipt, Refusal> {
        let SignalRequest { name, id, payload } = request;
        if name.is_empty() || name.len() > limits::NAME_BYTES_MAX {
            let message = format!("the name of a signal has 1 to {} bytes", limits::NAME_BYTES_MAX);
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        if id
            .as_ref()
            .is_some_and(|id| id.is_empty() || id.len() > limits::SIGNAL_ID_BYTES_MAX)
        {
            let message = format!("the id of a signal has 1 to {} bytes", limits::SIGNAL_ID_BYTES_MAX);
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        let outputs_json = json_of("the payload", &outputs_of(payload))?;
        let id = id.and_then(|id| blake3::hash(id.as_bytes()).as_bytes()[..16].try_into().ok());
        let command = commands::Signal {
            tenant: caller.tenant,
            workflow,
            by: caller.principal,
            name,
            id,
            outputs_json: outputs_json.into(),
        };
        match self.call(workflow.partition(), command).await {
            Ok(Reply::Signalled { duplicate }) => Ok(SignalReceipt { duplicate }),
            Ok(other) => Err(unexpected(&other)),
            Err(CallRefusal::Rejection(Rejection::NotFound)) => {
                let state = self.ended(caller, workflow).await?.row.state();
                Err(already(state))
            }
            Err(other) => Err(other.into()),
        }
    }

    pub(super) async fn decide_task(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        request: DecisionRequest,
    ) -> Result<TaskState, Refusal> {
        let DecisionRequest {
            task,
            scope,
            decision,
            comment,
        } = request;
        if let Some(comment) = comment.as_ref().filter(|text| text.len() > limits::COMMENT_BYTES_MAX) {
            return Err(too_large("the comment", comment.len(), limits::COMMENT_BYTES_MAX));
        }
        if let TaskDecision::Resolve { outputs } = &decision {
            json_of("`outputs`", outputs)?;
        }
        let command = commands::TaskDecide {
            tenant: caller.tenant,
            workflow,
            task: task.clone(),
            by: caller.principal,
            scope,
            decision: decision.clone(),
            comment,
        };
        match self.call(workflow.partition(), command).await {
            Ok(Reply::Task(state)) => Ok(state),
            Ok(other) => Err(unexpected(&other)),
            Err(CallRefusal::Rejection(Rejection::NotFound)) => {
                let rows = self.ended(caller, workflow).await?;
                let named = |row: &TaskRow| row.name == task || row.id.to_string() == task;
                let found = rows.tasks.iter().map(|task| &task.row).find(|row| named(row));
                let row = found.ok_or_else(not_found)?;
                if was_made(row, &decision) {
                    return Ok(row.state());
                }
                Err(already(rows.row.state()))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// The rows of a workflow that is not in memory: it has ended, or never was. One whose task alone was not found is there too.
    pub(super) async fn ended(&self, caller: Caller, workflow: WorkflowId) -> Result<Workflow, Refusal> {
        let rows = self.blocking(move |storage| {
            workflow_rows(storage.store().as_ref(), caller.tenant, workflow).map_err(unreadable)
        });
        let rows = rows.await?.ok_or_else(not_found)?;
        if rows.row.is_ended() {
            Ok(rows)
        } else {
            Err(not_found())
        }
    }
}

fn already(state: WorkflowState) -> Refusal {
    Refusal::new(ErrorCode::Conflict, format!("the workflow is {state} already"))
}
