//! What gateways call.

use std::sync::Arc;

use bytes::Bytes;
use gantry_journal::StreamKey;
use gantry_proto::v1::{Label, Payload, PlaybookRef};
use gantry_proto::{ArtifactId, ErrorCode, NodeId, PartitionId, TenantId, WorkflowId, limits};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::content::segment_refusal;
use super::uploads::Taken;
use super::{CallRefusal, Engine, not_found, unexpected, unreadable};
use crate::api::{
    AgainRequest, ArtifactBody, Backend, Caller, DecisionRequest, DefinitionView, EventView, Issue, NodeView,
    OutputPage, Page, PlaybookPin, Refusal, Run, RunView, SignalReceipt, SignalRequest, Submit, SubmitReceipt,
    TaskState, Trace, WorkflowQuery, WorkflowState, WorkflowSummary, WorkflowView,
};
use crate::core::commands::{self, Cancel, Drain};
use crate::core::{Body, Rejection, Reply};
use crate::processor::Message;
use crate::processor::load::workflow_rows;
use crate::read;
use crate::spec;

fn invalid(code: ErrorCode, what: &str, issues: Vec<Issue>) -> Refusal {
    let first = issues
        .first()
        .map_or_else(String::new, |issue| format!(": {}", issue.message));
    Refusal {
        issues,
        ..Refusal::new(code, format!("{what}{first}"))
    }
}

fn check_sizes(source: &Bytes, parameters: &Map<String, Value>) -> Result<Vec<u8>, Refusal> {
    if source.len() > limits::DEFINITION_BYTES_MAX {
        let message = format!(
            "the definition has {} bytes; the limit is {}",
            source.len(),
            limits::DEFINITION_BYTES_MAX
        );
        return Err(Refusal::new(ErrorCode::TooLarge, message));
    }
    let json = serde_json::to_vec(parameters).map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
    if json.len() > limits::PARAMETERS_BYTES_MAX {
        let message = format!(
            "the parameters have {} bytes; the limit is {}",
            json.len(),
            limits::PARAMETERS_BYTES_MAX
        );
        return Err(Refusal::new(ErrorCode::TooLarge, message));
    }
    Ok(json)
}

/// Labels are names and short texts; their number is bounded like a definition's entries.
pub(super) fn check_labels(labels: &[(String, String)]) -> Result<(), Refusal> {
    const LABELS_MAX: usize = 64;
    let fits = |(key, value): &(String, String)| {
        !key.is_empty() && key.len() <= limits::NAME_BYTES_MAX && value.len() <= limits::NAME_BYTES_MAX
    };
    if labels.len() > LABELS_MAX || !labels.iter().all(fits) {
        let message = format!(
            "at most {LABELS_MAX} labels, each key and value at most {} bytes",
            limits::NAME_BYTES_MAX
        );
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    Ok(())
}

/// The same request has the same hash: source (or the playbook as it was asked for), parameters and labels, each with its length.
pub(super) fn request_hash(
    source: &[u8],
    playbook: Option<&PlaybookPin>,
    parameters: &[u8],
    labels: &[(String, String)],
    priority: Option<u32>,
    attributes: &Map<String, Value>,
) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    };
    match playbook {
        None => part(source),
        Some(pin) => {
            part(b"playbook");
            part(pin.name.as_bytes());
            part(&pin.asked.unwrap_or(0).to_be_bytes());
        }
    }
    part(parameters);
    for (key, value) in labels {
        part(key.as_bytes());
        part(value.as_bytes());
    }
    if let Some(priority) = priority {
        part(b"priority");
        part(&priority.to_be_bytes());
    }
    if !attributes.is_empty() {
        part(b"attributes");
        part(Value::Object(attributes.clone()).to_string().as_bytes());
    }
    *hasher.finalize().as_bytes()
}

impl Engine {
    pub(super) fn route_key(
        &self,
        tenant: TenantId,
        key: Option<&str>,
    ) -> Result<(PartitionId, Option<[u8; 32]>), Refusal> {
        let Some(key) = key else {
            let entropy = gantry_journal::host::entropy()
                .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
            let index = entropy % u64::from(self.partition_count());
            let partition = u16::try_from(index).ok().and_then(PartitionId::new).unwrap_or_default();
            return Ok((partition, None));
        };
        if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
            let message = format!(
                "an idempotency key has 1 to {} bytes",
                limits::IDEMPOTENCY_KEY_BYTES_MAX
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        let partition = PartitionId::of(tenant, "idempotency", key.as_bytes(), self.partition_count());
        Ok((partition, Some(*blake3::hash(key.as_bytes()).as_bytes())))
    }

    async fn queue(&self, workflow: WorkflowId) -> read::Queue {
        let (reply, answer) = oneshot::channel();
        let question = Message::Queue { workflow, reply };
        if self.post(workflow.partition(), question).is_err() {
            return read::Queue::default();
        }
        // A partition that is being recovered has no queue to show.
        answer.await.unwrap_or_default()
    }

    fn node_view(&self, row: &crate::core::rows::NodeRow) -> NodeView {
        let seen = self.seen.read().get(&row.id).copied().unwrap_or_default();
        read::node_view(row, seen.at_ms, seen.running, seen.containers)
    }
}

#[async_trait::async_trait]
impl Backend for Engine {
    async fn submit(&self, submit: Submit) -> Result<SubmitReceipt, Refusal> {
        let asked = check_sizes(&submit.source, &submit.parameters)?;
        check_labels(&submit.labels)?;
        let (partition, key_hash) = self.route_key(submit.caller.tenant, submit.idempotency_key.as_deref())?;
        let Submit {
            caller,
            source,
            parameters,
            labels,
            traceparent,
            playbook,
            priority,
            attributes,
            idempotency_ttl_ms: ttl_ms,
            ..
        } = submit;
        let ttls = limits::IDEMPOTENCY_TTL_MS_MIN..=limits::IDEMPOTENCY_TTL_MS_MAX;
        if ttl_ms.is_some_and(|ttl_ms| !ttls.contains(&ttl_ms)) {
            let message = format!(
                "an idempotency key is remembered for {} to {} ms",
                limits::IDEMPOTENCY_TTL_MS_MIN,
                limits::IDEMPOTENCY_TTL_MS_MAX
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        if priority.is_some_and(|priority| priority > limits::PRIORITY_MAX) {
            let message = format!("the priority is 0 to {}", limits::PRIORITY_MAX);
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
        let idempotency = key_hash.map(|key| {
            (
                key,
                request_hash(&source, playbook.as_ref(), &asked, &labels, priority, &attributes),
            )
        });
        let compiling = source.clone();
        // A megabyte of YAML takes a while: off the async threads.
        let compiled = self
            .blocking(move |_| {
                let compiled = spec::compile(&compiling)
                    .map_err(|issues| invalid(ErrorCode::InvalidDefinition, "the definition is not valid", issues))?;
                let parameters = spec::check_parameters(&compiled.definition, parameters)
                    .map_err(|issues| invalid(ErrorCode::InvalidParameters, "the parameters do not match", issues))?;
                let definition_json = serde_json::to_vec(&compiled.definition)
                    .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
                Ok((compiled, parameters, definition_json))
            })
            .await;
        let (compiled, parameters, definition_json) = compiled?;
        let parameters_json =
            serde_json::to_vec(&parameters).map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
        let attributes = spec::attributes(&compiled.definition, &parameters, &attributes)
            .map_err(|issues| invalid(ErrorCode::InvalidParameters, "a search attribute is not valid", issues))?;
        let uploads = spec::uploads(&compiled.definition, &parameters)
            .map_err(|issues| invalid(ErrorCode::InvalidParameters, "an upload is not named", issues))?;
        let taken = if uploads.is_empty() {
            None
        } else {
            if let Some(asked) = idempotency
                && let Some(known) = self.known_submission(caller.tenant, partition, asked).await?
            {
                return Ok(known);
            }
            Some(self.take_uploads(caller.tenant, partition, uploads).await?)
        };
        let copies = taken.as_ref().map(|taken| taken.copies.clone()).unwrap_or_default();
        let command = commands::Submit {
            id: taken.as_ref().map(|taken| taken.workflow),
            tenant: caller.tenant,
            by: caller.principal,
            digest: Bytes::copy_from_slice(&compiled.digest),
            body: Arc::new(Body::new(compiled.definition, parameters).with_uploads(&copies)),
            payload: Payload {
                definition_json: Some(definition_json.into()),
                parameters_json: Some(parameters_json.into()),
                source: Some(source),
                uploads: copies,
                ..Payload::default()
            },
            idempotency,
            idempotency_ttl_ms: ttl_ms,
            priority,
            labels: labels.into_iter().map(|(key, value)| Label { key, value }).collect(),
            attributes,
            traceparent,
            playbook: playbook.map(|pin| PlaybookRef {
                name: pin.name,
                version: pin.version,
            }),
            schedule: None,
            origin: None,
            carried: Vec::new(),
        };
        let reply = match taken {
            None => self.call(partition, command).await?,
            Some(Taken { workflow, hold, .. }) => {
                let (reply, hold) = self.call_holding(partition, command, hold).await?;
                if matches!(&reply, Reply::Submitted(receipt) if receipt.workflow == workflow) {
                    self.taken(caller.tenant, workflow, hold).await;
                }
                reply
            }
        };
        match reply {
            Reply::Submitted(receipt) => Ok(receipt),
            other => Err(unexpected(&other)),
        }
    }

    async fn run(&self, run: Run) -> Result<RunView, Refusal> {
        self.run_component(run).await
    }

    async fn run_result(&self, tenant: TenantId, workflow: WorkflowId, wait_ms: u64) -> Result<RunView, Refusal> {
        self.wait_for_run(tenant, workflow, wait_ms).await
    }

    async fn again(&self, request: AgainRequest) -> Result<SubmitReceipt, Refusal> {
        self.begin_again(request).await
    }

    async fn validate(&self, source: Bytes, parameters: Option<Map<String, Value>>) -> Result<(), Refusal> {
        check_sizes(&source, parameters.as_ref().unwrap_or(&Map::new()))?;
        self.blocking(move |_| {
            let compiled = spec::compile(&source)
                .map_err(|issues| invalid(ErrorCode::InvalidDefinition, "the definition is not valid", issues))?;
            if let Some(parameters) = parameters {
                spec::check_parameters(&compiled.definition, parameters)
                    .map_err(|issues| invalid(ErrorCode::InvalidParameters, "the parameters do not match", issues))?;
            }
            Ok(())
        })
        .await
    }

    async fn inspect(&self, source: Bytes) -> Result<DefinitionView, Refusal> {
        check_sizes(&source, &Map::new())?;
        self.blocking(move |_| {
            let compiled = spec::compile(&source)
                .map_err(|issues| invalid(ErrorCode::InvalidDefinition, "the definition is not valid", issues))?;
            read::definition_view(&compiled).map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))
        })
        .await
    }

    async fn cancel(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        grace_ms: Option<u64>,
    ) -> Result<WorkflowState, Refusal> {
        let command = Cancel {
            tenant: caller.tenant,
            workflow,
            by: caller.principal,
            grace_ms,
        };
        match self.call(workflow.partition(), command).await {
            Ok(Reply::State(state)) => Ok(state),
            Ok(other) => Err(unexpected(&other)),
            Err(CallRefusal::Rejection(Rejection::NotFound)) => {
                // Not in memory: it has ended, or never was.
                let rows = self.blocking(move |storage| {
                    workflow_rows(storage.store().as_ref(), caller.tenant, workflow).map_err(unreadable)
                });
                match rows.await?.ok_or_else(not_found)?.row.state() {
                    WorkflowState::Cancelled => Ok(WorkflowState::Cancelled),
                    ended => Err(Refusal::new(
                        ErrorCode::Conflict,
                        format!("the workflow is {ended} already"),
                    )),
                }
            }
            Err(other) => Err(other.into()),
        }
    }

    async fn signal(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        request: SignalRequest,
    ) -> Result<SignalReceipt, Refusal> {
        self.give_signal(caller, workflow, request).await
    }

    async fn pause(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        interrupt: bool,
        comment: Option<String>,
    ) -> Result<WorkflowState, Refusal> {
        self.pause_workflow(caller, workflow, interrupt, comment).await
    }

    async fn resume(&self, caller: Caller, workflow: WorkflowId) -> Result<WorkflowState, Refusal> {
        self.resume_workflow(caller, workflow).await
    }

    async fn decide(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        request: DecisionRequest,
    ) -> Result<TaskState, Refusal> {
        self.decide_task(caller, workflow, request).await
    }

    async fn workflow(&self, tenant: TenantId, workflow: WorkflowId) -> Result<WorkflowView, Refusal> {
        self.partition(workflow.partition())?;
        let loaded = self
            .blocking(move |storage| read::load(storage, tenant, workflow))
            .await?;
        let mut loaded = loaded.ok_or_else(not_found)?;
        if loaded.waits() {
            loaded.view.held = self.held(tenant, loaded.scopes()).await?;
            let queue = self.queue(workflow).await;
            let unfit = self.unfit_nodes(tenant).await?;
            let standings = self.standings(tenant, loaded.limits_asked()).await;
            loaded.explain(&self.parts.dispatcher.offers(), &queue, &unfit, &standings);
        }
        let progress = self.progress.lock();
        loaded.show_progress(|task| {
            progress
                .peek(&task)
                .map(|(assignee, text)| (assignee.clone(), text.clone()))
        });
        Ok(loaded.view)
    }

    async fn trace(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Trace, Refusal> {
        self.partition(workflow.partition())?;
        let loaded = self
            .blocking(move |storage| read::load(storage, tenant, workflow))
            .await?;
        Ok(loaded.ok_or_else(not_found)?.trace())
    }

    async fn workflows(&self, tenant: TenantId, query: WorkflowQuery) -> Result<Page<WorkflowSummary>, Refusal> {
        let partitions = self.partition_count();
        let query = read::ListQuery::new(query)?;
        self.blocking(move |storage| read::list(storage, partitions, tenant, &query))
            .await
    }

    async fn source(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Bytes, Refusal> {
        self.partition(workflow.partition())?;
        self.blocking(move |storage| read::source(storage, tenant, workflow))
            .await?
            .ok_or_else(not_found)
    }

    async fn events(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EventView>, Refusal> {
        self.partition(workflow.partition())?;
        self.blocking(move |storage| read::events(storage, tenant, workflow, after, limit))
            .await
    }

    async fn output(&self, stream: StreamKey, after: u64, max_bytes: usize) -> Result<OutputPage, Refusal> {
        self.partition(stream.workflow.partition())?;
        // The row first: when the attempt has ended, everything it will ever have printed is stored by now.
        let ended = self
            .blocking(move |storage| read::attempt_ended(storage, &stream))
            .await?
            .ok_or_else(not_found)?;
        let key = self.data_key(stream.tenant, stream.workflow).await?;
        let chunks = self
            .segments
            .read(&stream, &key, after, max_bytes)
            .await
            .map_err(segment_refusal)?;
        let (durable, _) = self.segments.stream_end(&stream).await.map_err(segment_refusal)?;
        let reached = chunks.last().map_or(after, |last| last.seq);
        Ok(OutputPage {
            chunks,
            finished: ended && reached >= durable,
        })
    }

    async fn artifact(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        artifact: ArtifactId,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<ArtifactBody, Refusal> {
        self.partition(workflow.partition())?;
        let artifact = self.find_artifact(tenant, workflow, artifact).await?;
        let stream = self.open_artifact(tenant, workflow, artifact.id, range).await?;
        Ok(ArtifactBody { artifact, stream })
    }

    async fn nodes(&self, tenant: TenantId) -> Result<Vec<NodeView>, Refusal> {
        let partitions = self.partition_count();
        let rows = self
            .blocking(move |storage| read::nodes(storage, partitions, tenant))
            .await?;
        Ok(rows.iter().map(|row| self.node_view(row)).collect())
    }

    async fn node(&self, tenant: TenantId, node: NodeId) -> Result<NodeView, Refusal> {
        let partition = self.home_of(node);
        let row = self
            .blocking(move |storage| read::node(storage, partition, tenant, node))
            .await?;
        Ok(self.node_view(&row.ok_or_else(not_found)?))
    }

    async fn drain_node(&self, caller: Caller, node: NodeId, drain: bool) -> Result<NodeView, Refusal> {
        self.call(
            self.home_of(node),
            Drain {
                tenant: caller.tenant,
                node,
                drain,
            },
        )
        .await?;
        let changed = {
            let mut draining = self.parts.draining.write();
            if drain {
                draining.insert(node)
            } else {
                draining.remove(&node)
            }
        };
        if changed && !drain {
            self.wake_all();
        }
        self.node(caller.tenant, node).await
    }

    fn journal_cost(&self) -> Option<gantry_journal::WalCounters> {
        self.storage.store().wal()
    }

    async fn ready(&self) -> Result<(), Refusal> {
        match self
            .partitions
            .iter()
            .position(|partition| !partition.shared.live.is_owned())
        {
            None => Ok(()),
            Some(index) => {
                let message = format!("partition {index} is being recovered");
                Err(Refusal::new(ErrorCode::StorageUnavailable, message))
            }
        }
    }
}

impl Engine {
    /// Connected nodes that cannot take work, with what they report.
    async fn unfit_nodes(&self, tenant: TenantId) -> Result<Vec<crate::core::rows::NodeRow>, Refusal> {
        let partitions = self.partition_count();
        let rows = self
            .blocking(move |storage| read::nodes(storage, partitions, tenant))
            .await?;
        Ok(rows
            .into_iter()
            .filter(|row| row.state() == crate::api::NodeState::Degraded)
            .collect())
    }
}
