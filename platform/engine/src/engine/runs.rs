//! Runs of code: submitted, waited for, read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_journal::host;
use gantry_proto::v1::{Label, Payload};
use gantry_proto::{ErrorCode, PartitionId, TenantId, WorkflowId, limits};
use tokio::time::{Instant, timeout_at};

use super::backend::{check_labels, request_hash};
use super::{Engine, not_found, unexpected};
use crate::api::{Backend as _, Refusal, Run, RunView, WaitingView, WorkflowState};
use crate::core::commands::Submit;
use crate::core::{Body, Reply};
use crate::processor::waiters::{Listener, RunEnd};
use crate::read;

/// After so long a caller that waits is told what keeps its run from being executed, if anything does.
const EXPLAIN_AFTER: Duration = Duration::from_millis(400);

fn check(run: &Run) -> Result<(), Refusal> {
    if run.component.is_empty() || run.component.len() > limits::NAME_BYTES_MAX {
        let message = format!("the name of a component has 1 to {} bytes", limits::NAME_BYTES_MAX);
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    if run.input.len() > limits::PARAMETERS_BYTES_MAX {
        let message = format!(
            "the input has {} bytes; the limit is {}",
            run.input.len(),
            limits::PARAMETERS_BYTES_MAX
        );
        return Err(Refusal::new(ErrorCode::TooLarge, message));
    }
    check_labels(&run.labels)
}

fn view(id: WorkflowId, replayed: bool, end: RunEnd) -> RunView {
    RunView {
        id,
        replayed,
        state: end.state,
        result: end.output.map(|json| serde_json::from_slice(&json).unwrap_or_default()),
        failure: end.failure,
        retry_at_ms: end.retry_at_ms,
        waiting: None,
    }
}

fn begun(id: WorkflowId) -> RunView {
    RunView {
        id,
        replayed: false,
        state: WorkflowState::Active,
        result: None,
        failure: None,
        retry_at_ms: None,
        waiting: None,
    }
}

impl Engine {
    pub(super) async fn run_component(&self, run: Run) -> Result<RunView, Refusal> {
        check(&run)?;
        let (partition, key) = self.route_key(run.caller.tenant, run.idempotency_key.as_deref())?;
        let wait_ms = run.wait_ms.min(limits::RUN_WAIT_MS_MAX);
        let tenant = run.caller.tenant;
        let (id, command) = self.command(run, partition, key)?;
        let deadline = Instant::now() + Duration::from_millis(wait_ms);
        let listener = (wait_ms > 0).then(|| self.parts.waiters.listen(id));
        let receipt = match self.call(partition, command).await? {
            Reply::Submitted(receipt) => receipt,
            other => return Err(unexpected(&other)),
        };
        if receipt.replayed {
            drop(listener);
            let mut view = self.wait_for_run(tenant, receipt.workflow, wait_ms).await?;
            view.replayed = true;
            return Ok(view);
        }
        match listener {
            None => Ok(begun(id)),
            Some(listener) => self.wait(tenant, id, listener, deadline).await,
        }
    }

    fn command(
        &self,
        run: Run,
        partition: PartitionId,
        key: Option<[u8; 32]>,
    ) -> Result<(WorkflowId, Submit), Refusal> {
        let entropy = host::entropy().map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
        let id = WorkflowId::new(self.parts.clock.now_ms(), partition, entropy);
        let idempotency = key.map(|key| {
            (
                key,
                request_hash(
                    run.component.as_bytes(),
                    None,
                    &run.input,
                    &run.labels,
                    None,
                    &serde_json::Map::new(),
                ),
            )
        });
        let submit = Submit {
            id: Some(id),
            tenant: run.caller.tenant,
            by: run.caller.principal,
            digest: Bytes::new(),
            body: Arc::new(Body::code(&run.component, run.input.clone())),
            payload: Payload {
                parameters_json: Some(run.input),
                ..Payload::default()
            },
            idempotency,
            idempotency_ttl_ms: None,
            labels: run
                .labels
                .into_iter()
                .map(|(key, value)| Label { key, value })
                .collect(),
            attributes: Vec::new(),
            traceparent: run.traceparent,
            playbook: None,
            schedule: None,
            origin: None,
            carried: Vec::new(),
            priority: None,
        };
        Ok((id, submit))
    }

    /// Waits for what there is to say: the end, a failed attempt, or the reason why nothing happens.
    async fn wait(
        &self,
        tenant: TenantId,
        id: WorkflowId,
        mut listener: Listener,
        deadline: Instant,
    ) -> Result<RunView, Refusal> {
        let explain = deadline.min(Instant::now() + EXPLAIN_AFTER);
        if let Ok(Some(end)) = timeout_at(explain, listener.end()).await {
            return Ok(view(id, false, end));
        }
        if let Some(waiting) = self.why_stuck(tenant, id).await? {
            return Ok(RunView {
                waiting: Some(waiting),
                ..begun(id)
            });
        }
        match timeout_at(deadline, listener.end()).await {
            Ok(Some(end)) => Ok(view(id, false, end)),
            Ok(None) | Err(_) => self.read_run(tenant, id).await,
        }
    }

    /// Why nobody executes a run, unless it is only a matter of time.
    async fn why_stuck(&self, tenant: TenantId, id: WorkflowId) -> Result<Option<WaitingView>, Refusal> {
        let view = self.workflow(tenant, id).await?;
        Ok(view.tasks.into_iter().find_map(|task| {
            let code = task.component.is_some();
            task.waiting.filter(|waiting| match waiting {
                WaitingView::NoNode | WaitingView::Unplaceable { .. } => true,
                // Its worker gave it back, or died of it again and again.
                WaitingView::RetryBackoff { .. } => code,
                _ => false,
            })
        }))
    }

    async fn read_run(&self, tenant: TenantId, id: WorkflowId) -> Result<RunView, Refusal> {
        let mut run = self
            .blocking(move |storage| read::run(storage, tenant, id))
            .await?
            .ok_or_else(not_found)?;
        if run.state == WorkflowState::Active && run.failure.is_none() {
            run.waiting = self.why_stuck(tenant, id).await?;
        }
        Ok(run)
    }

    pub(super) async fn wait_for_run(
        &self,
        tenant: TenantId,
        id: WorkflowId,
        wait_ms: u64,
    ) -> Result<RunView, Refusal> {
        self.partition(id.partition())?;
        let deadline = Instant::now() + Duration::from_millis(wait_ms.min(limits::RUN_WAIT_MS_MAX));
        // Listening first: an end between reading and listening would be missed.
        let listener = (wait_ms > 0).then(|| self.parts.waiters.listen(id));
        let now = self.read_run(tenant, id).await?;
        match listener {
            Some(listener) if now.state == WorkflowState::Active && now.failure.is_none() && now.waiting.is_none() => {
                let told = self.wait(tenant, id, listener, deadline).await?;
                if told.state == WorkflowState::Active {
                    return Ok(told);
                }
                // Of a workflow with other tasks the outputs are its own, not those of the task that ended last.
                self.read_run(tenant, id).await
            }
            _ => Ok(now),
        }
    }
}
