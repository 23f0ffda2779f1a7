//! Holding workflows, definitions and tenants, and letting them go on, from the API to commands.

use std::time::Duration;

use gantry_proto::{ErrorCode, TenantId, WorkflowId, limits};

use super::{CallRefusal, Engine, not_found, unexpected};
use crate::api::{Caller, HeldView, Pauses, Refusal, WorkflowState};
use crate::core::commands::{Pause, PauseScope, Resume};
use crate::core::scopes::scope_hash;
use crate::core::{Command, Rejection, Reply};
use crate::read;
use crate::spec;

fn check_comment(comment: Option<&String>) -> Result<(), Refusal> {
    let Some(comment) = comment.filter(|text| text.len() > limits::COMMENT_BYTES_MAX) else {
        return Ok(());
    };
    let message = format!(
        "the comment has {} bytes; the limit is {}",
        comment.len(),
        limits::COMMENT_BYTES_MAX
    );
    Err(Refusal::new(ErrorCode::TooLarge, message))
}

impl Engine {
    pub(super) async fn pause_workflow(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        interrupt: bool,
        comment: Option<String>,
    ) -> Result<WorkflowState, Refusal> {
        check_comment(comment.as_ref())?;
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

impl Engine {
    /// Tells the owner of a scope, and waits until all partitions know.
    async fn set_scope(
        &self,
        caller: Caller,
        definition: Option<&str>,
        paused: bool,
        comment: Option<String>,
    ) -> Result<(), Refusal> {
        if let Some(name) = definition {
            spec::check_name(name, true).map_err(|message| Refusal::new(ErrorCode::InvalidRequest, message))?;
        }
        check_comment(comment.as_ref())?;
        let owner = read::scope_owner(caller.tenant, &scope_hash(definition), self.partition_count());
        let command = PauseScope {
            tenant: caller.tenant,
            definition: definition.map(str::to_owned),
            by: caller.principal,
            paused,
            comment,
        };
        let sent = match self.call(owner, command).await? {
            Reply::Spread(sent) => sent,
            other => return Err(unexpected(&other)),
        };
        let spread = self.partition(owner)?.shared.outgoing.delivered(&sent);
        let most = Duration::from_millis(limits::PAUSE_SPREAD_MS);
        if tokio::time::timeout(most, spread).await.is_err() {
            tracing::warn!(%owner, "not every partition knows of a pause yet; its letters are on their way");
        }
        Ok(())
    }

    /// What a workflow is of that is paused: its definition, else its tenant.
    pub(super) async fn held(&self, tenant: TenantId, scopes: Vec<[u8; 16]>) -> Result<Option<HeldView>, Refusal> {
        let partitions = self.partition_count();
        self.blocking(move |storage| {
            // The narrower ones come last.
            for scope in scopes.iter().rev() {
                if let Some(held) = read::scope(storage, partitions, tenant, scope)? {
                    return Ok(Some(held));
                }
            }
            Ok(None)
        })
        .await
    }
}

#[async_trait::async_trait]
impl Pauses for Engine {
    async fn pauses(&self, tenant: TenantId) -> Result<Vec<HeldView>, Refusal> {
        let partitions = self.partition_count();
        self.blocking(move |storage| read::scopes(storage, partitions, tenant))
            .await
    }

    async fn pause_scope(
        &self,
        caller: Caller,
        definition: Option<&str>,
        comment: Option<String>,
    ) -> Result<HeldView, Refusal> {
        self.set_scope(caller, definition, true, comment).await?;
        let held = self.held(caller.tenant, vec![scope_hash(definition)]).await?;
        // Somebody resumed it meanwhile.
        held.ok_or_else(not_found)
    }

    async fn resume_scope(&self, caller: Caller, definition: Option<&str>) -> Result<(), Refusal> {
        self.set_scope(caller, definition, false, None).await
    }
}
