//! A gateway over a scripted engine, a real directory in a real file, and the real bus. The engine has its own tests; here it must be possible to say
//! exactly what storage holds at each moment.

#![allow(dead_code, unreachable_pub)] // each test binary includes this module and uses its part

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use gantry_directory::{Directory, NewKey, NewNodeToken, Scope, SqliteDirectory};
use gantry_engine::api::*;
use gantry_events::{EventBus, MemoryBus, Topic};
use gantry_gateway::{Gateway, GatewayConfig, gateway};
use gantry_proto::v1::OutputStream;
use gantry_proto::{ArtifactId, ErrorCode, NodeId, PartitionId, TaskId, TenantId, WorkflowId};
use http::{Request, Response};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

mod answers;
pub mod bulk;
mod events;
mod keep;
mod limits;
mod maintenance;
mod pauses;
mod queries;
mod schedules;
mod uploads;
#[allow(unused_imports)] // only some test binaries send files, read streams or query
pub use {answers::*, events::*, queries::*, uploads::*};

pub const ARTIFACT: &[u8] = b"0123456789";

/// One workflow of one tenant, changed by tests as they go.
#[derive(Default)]
pub struct Script {
    pub tenant: TenantId,
    pub workflow: WorkflowId,
    pub task: TaskId,
    pub state: Option<WorkflowState>,
    pub records: Vec<EventView>,
    /// By attempt at step 0.
    pub output: HashMap<u32, (Vec<Chunk>, bool)>,
    pub submitted: Vec<Submit>,
    pub cancelled: Vec<Option<u64>>,
    /// Holds and releases.
    pub kept: Vec<String>,
    pub reads: usize,
    /// Name, media type, lifetime, key and content of each.
    pub uploaded: Vec<(NewUpload, Vec<u8>)>,
}

#[derive(Default)]
pub struct Engine(pub Mutex<Script>);

fn not_found() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "there is no such workflow")
}

pub fn artifact_id() -> ArtifactId {
    ArtifactId::new(1, PartitionId::default(), 77)
}

pub fn node_id() -> NodeId {
    NodeId::new(1, PartitionId::default(), 5)
}

impl Script {
    fn check(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(), Refusal> {
        if tenant == self.tenant && workflow == self.workflow {
            Ok(())
        } else {
            Err(not_found())
        }
    }

    fn view(&self) -> WorkflowView {
        let mut attempts = self
            .output
            .keys()
            .map(|attempt| AttemptView {
                attempt: *attempt,
                state: StepState::Running,
                node: node_id(),
                sandbox: None,
                assigned_at_ms: 1,
                started_at_ms: None,
                finished_at_ms: None,
                cause: None,
                exit_code: None,
                signal: None,
                oom_seen: false,
                failure: None,
                progress: None,
                cpu_us: None,
                max_rss_bytes: None,
            })
            .collect::<Vec<_>>();
        attempts.sort_by_key(|attempt| attempt.attempt);
        let artifact = ArtifactView {
            id: artifact_id().to_string(),
            name: "out/re\"port.txt".into(),
            task: "build".into(),
            step: "compile".into(),
            size_bytes: ARTIFACT.len() as u64,
            sha256: "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882".into(),
            content_type: Some("text/html".into()),
        };
        let step = StepView {
            key: "compile".into(),
            index: 0,
            state: StepState::Running,
            attempts,
            outputs: json!({}),
            attrs: json!({}),
            artifacts: vec![artifact],
        };
        let task = TaskView {
            handles: None,
            round: 0,
            feedback: None,
            assigned_to: None,
            excluded: Vec::new(),
            id: self.task,
            name: "build".into(),
            state: TaskState::InProgress,
            kind: "steps".into(),
            deadline_ms: None,
            outcome: None,
            carried: false,
            decision: None,
            outputs: None,
            needs: Vec::new(),
            waiting: None,
            refused: None,
            component: None,
            attempt: 1,
            node: None,
            ready_at_ms: None,
            started_at_ms: None,
            ended_at_ms: None,
            failure: None,
            child: None,
            items: None,
            item_of: None,
            item_index: None,
            item: None,
            steps: vec![step],
        };
        WorkflowView {
            ending: None,
            summary: WorkflowSummary {
                id: self.workflow,
                name: "demo".into(),
                state: self.state.unwrap_or(WorkflowState::Active),
                created_at_ms: 1,
                ended_at_ms: None,
                tasks_total: 1,
                tasks_ended: 0,
                priority: 4,
                lineage: None,
                failure: None,
                playbook: None,
                origin: None,
                attributes: Default::default(),
            },
            definition_digest: "00".into(),
            parameters: json!({}),
            outputs: json!({}),
            labels: Default::default(),
            deadline_ms: None,
            held: None,
            paused: None,
            tasks: vec![task],
            position: self.records.last().map_or(0, |record| record.position),
            hold: None,
            erased_at_ms: None,
        }
    }

    pub fn record(&mut self, kind: &str, data: Value) {
        let position = self.records.last().map_or(0, |record| record.position) + 3;
        self.records.push(EventView {
            position,
            at_ms: position,
            kind: kind.into(),
            data,
        });
    }

    pub fn assign(&mut self, attempt: u32) {
        self.output.entry(attempt).or_default();
        let task = self.task.to_string();
        self.record(
            "step_assigned",
            json!({ "task": task, "fence": 1, "step": 0, "attempt": attempt }),
        );
    }

    pub fn print(&mut self, attempt: u32, data: &'static [u8]) {
        let chunks = &mut self.output.entry(attempt).or_default().0;
        let seq = chunks.len() as u64 + 1;
        let stream = if seq.is_multiple_of(3) {
            OutputStream::Stderr
        } else {
            OutputStream::Stdout
        };
        chunks.push(Chunk {
            seq,
            stream,
            at_ms: seq,
            data: Bytes::from_static(data),
        });
    }

    pub fn end(&mut self, attempt: u32, end: &str) {
        self.output.entry(attempt).or_default().1 = true;
        let task = self.task.to_string();
        self.record(
            "step_ended",
            json!({ "task": task, "fence": 1, "step": 0, "attempt": attempt, "end": end }),
        );
    }

    pub fn end_workflow(&mut self) {
        self.state = Some(WorkflowState::Completed);
        self.record("workflow_ended", json!({ "end": "completed" }));
    }
}

#[async_trait::async_trait]
impl Backend for Engine {
    async fn submit(&self, submit: Submit) -> Result<SubmitReceipt, Refusal> {
        if submit.source.as_ref() == b"panic" {
            panic!("a handler's fault");
        }
        if submit.source.as_ref() == b"hang" {
            std::future::pending::<()>().await;
        }
        let mut script = self.0.lock();
        let replayed = submit.idempotency_key.is_some()
            && script
                .submitted
                .iter()
                .any(|other| other.idempotency_key == submit.idempotency_key);
        script.submitted.push(submit);
        Ok(SubmitReceipt {
            workflow: script.workflow,
            replayed,
        })
    }

    async fn signal(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        request: SignalRequest,
    ) -> Result<SignalReceipt, Refusal> {
        self.0.lock().check(caller.tenant, workflow)?;
        Ok(SignalReceipt {
            duplicate: request.id.is_some(),
        })
    }

    async fn pause(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        _: bool,
        _: Option<String>,
    ) -> Result<WorkflowState, Refusal> {
        self.0.lock().check(caller.tenant, workflow)?;
        Ok(WorkflowState::Paused)
    }

    async fn resume(&self, caller: Caller, workflow: WorkflowId) -> Result<WorkflowState, Refusal> {
        self.0.lock().check(caller.tenant, workflow)?;
        Ok(WorkflowState::Active)
    }

    async fn decide(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        request: DecisionRequest,
    ) -> Result<TaskState, Refusal> {
        self.0.lock().check(caller.tenant, workflow)?;
        match request.task.as_str() {
            "build" => Ok(TaskState::Completed),
            _ => Err(Refusal::new(ErrorCode::DecisionForbidden, "others decide")),
        }
    }

    async fn run(&self, run: Run) -> Result<RunView, Refusal> {
        let script = self.0.lock();
        let result = serde_json::from_slice(&run.input).ok().filter(|_| run.wait_ms > 0);
        Ok(RunView {
            id: script.workflow,
            replayed: run.idempotency_key.is_some(),
            state: if result.is_some() {
                WorkflowState::Completed
            } else {
                WorkflowState::Active
            },
            result,
            failure: None,
            retry_at_ms: None,
            waiting: None,
        })
    }

    async fn run_result(&self, tenant: TenantId, workflow: WorkflowId, _: u64) -> Result<RunView, Refusal> {
        let script = self.0.lock();
        script.check(tenant, workflow)?;
        Ok(RunView {
            id: workflow,
            replayed: false,
            state: WorkflowState::Active,
            result: None,
            failure: None,
            retry_at_ms: None,
            waiting: None,
        })
    }

    async fn validate(&self, source: Bytes, _: Option<serde_json::Map<String, Value>>) -> Result<(), Refusal> {
        if source.starts_with(b"bad") {
            let mut refusal = Refusal::new(ErrorCode::InvalidDefinition, "one thing is wrong").with_hint("change it");
            refusal.issues.push(Issue {
                message: "unknown field".into(),
                path: None,
                line: Some(3),
                column: Some(5),
            });
            return Err(refusal);
        }
        Ok(())
    }

    async fn inspect(&self, source: Bytes) -> Result<DefinitionView, Refusal> {
        self.validate(source.clone(), None).await?;
        let text = String::from_utf8_lossy(&source);
        let name = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("name: "))
            .unwrap_or("demo");
        Ok(DefinitionView {
            name: name.into(),
            description: None,
            digest: blake3::hash(&source).to_hex().to_string(),
            parameters: json!({"type": "object"}),
            tasks: text
                .lines()
                .filter_map(|line| line.strip_prefix("task: "))
                .map(|line| {
                    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
                    TaskOutline {
                        name: name.into(),
                        needs: Vec::new(),
                        steps: Vec::new(),
                        digest: rest.into(),
                    }
                })
                .collect(),
            outputs: Vec::new(),
        })
    }

    async fn again(&self, request: AgainRequest) -> Result<SubmitReceipt, Refusal> {
        let script = self.0.lock();
        script.check(request.caller.tenant, request.workflow)?;
        Ok(SubmitReceipt {
            workflow: script.workflow,
            replayed: false,
        })
    }

    async fn cancel(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        grace_ms: Option<u64>,
    ) -> Result<WorkflowState, Refusal> {
        let mut script = self.0.lock();
        script.check(caller.tenant, workflow)?;
        script.cancelled.push(grace_ms);
        Ok(WorkflowState::Active)
    }

    async fn workflow(&self, tenant: TenantId, workflow: WorkflowId) -> Result<WorkflowView, Refusal> {
        let script = self.0.lock();
        script.check(tenant, workflow)?;
        Ok(script.view())
    }

    async fn workflows(&self, tenant: TenantId, query: WorkflowQuery) -> Result<Page<WorkflowSummary>, Refusal> {
        let script = self.0.lock();
        let shown =
            tenant == script.tenant && (query.states.is_empty() || query.states.contains(&WorkflowState::Active));
        Ok(Page {
            items: shown.then(|| script.view().summary).into_iter().collect(),
            next_cursor: None,
            searched_to_ms: None,
        })
    }

    async fn source(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Bytes, Refusal> {
        self.0.lock().check(tenant, workflow)?;
        Ok(Bytes::from_static(b"name: demo"))
    }

    async fn events(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EventView>, Refusal> {
        let mut script = self.0.lock();
        script.check(tenant, workflow)?;
        script.reads += 1;
        Ok(script
            .records
            .iter()
            .filter(|record| record.position > after)
            .take(limit)
            .cloned()
            .collect())
    }

    async fn output(&self, stream: StreamKey, after: u64, max_bytes: usize) -> Result<OutputPage, Refusal> {
        let script = self.0.lock();
        script.check(stream.tenant, stream.workflow)?;
        let (all, ended) = script
            .output
            .get(&stream.attempt)
            .filter(|_| stream.step == 0 && stream.task == script.task)
            .ok_or_else(not_found)?;
        let mut chunks = Vec::new();
        let mut bytes = 0;
        for chunk in all.iter().filter(|chunk| chunk.seq > after) {
            bytes += chunk.data.len();
            if bytes > max_bytes && !chunks.is_empty() {
                break;
            }
            chunks.push(chunk.clone());
        }
        let finished = *ended && chunks.last().map_or(after, |chunk| chunk.seq) >= all.len() as u64;
        Ok(OutputPage { chunks, finished })
    }

    async fn artifact(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        artifact: ArtifactId,
        range: Option<Range<u64>>,
    ) -> Result<ArtifactBody, Refusal> {
        self.0.lock().check(tenant, workflow)?;
        let range = range.map_or(0..ARTIFACT.len(), |range| range.start as usize..range.end as usize);
        let parts: Vec<std::io::Result<Bytes>> = ARTIFACT[range]
            .chunks(4)
            .map(|part| Ok(Bytes::from_static(part)))
            .collect();
        let artifact = gantry_proto::v1::Artifact {
            id: artifact,
            name: "out/report.txt".into(),
            size_bytes: ARTIFACT.len() as u64,
            sha256: Vec::new().into(),
            content_type: None,
        };
        Ok(ArtifactBody {
            artifact,
            stream: Box::pin(stream::iter(parts)),
        })
    }

    async fn nodes(&self, _: TenantId) -> Result<Vec<NodeView>, Refusal> {
        Ok(vec![node(node_id())])
    }

    async fn node(&self, tenant: TenantId, id: NodeId) -> Result<NodeView, Refusal> {
        if id == node_id() && tenant == self.0.lock().tenant {
            Ok(node(id))
        } else {
            Err(not_found())
        }
    }

    async fn drain_node(&self, caller: Caller, id: NodeId, _: bool) -> Result<NodeView, Refusal> {
        self.node(caller.tenant, id).await
    }

    async fn ready(&self) -> Result<(), Refusal> {
        Ok(())
    }

    async fn trace(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Trace, Refusal> {
        self.0.lock().check(tenant, workflow)?;
        let span = |id: &str, parent: Option<&str>, kind, end_ms, status| Span {
            id: id.repeat(8),
            parent: parent.map(|parent| parent.repeat(8)),
            kind,
            name: "build".to_owned(),
            start_ms: 1_795_219_200_123,
            end_ms,
            status,
            attributes: [("gantry.attempt", json!(2)), ("gantry.cause", json!("exited"))].into(),
        };
        let failed = SpanStatus::Error("step-exit".to_owned());
        Ok(Trace {
            trace_id: "0a".repeat(16),
            spans: vec![
                span("01", None, SpanKind::Workflow, None, SpanStatus::Unset),
                span("02", Some("01"), SpanKind::Attempt, Some(1_795_219_200_124), failed),
            ],
        })
    }
}

pub struct World {
    pub router: Router,
    pub engine: Arc<Engine>,
    pub directory: Arc<SqliteDirectory>,
    pub bus: Arc<MemoryBus>,
    pub queries: Arc<Queries>,
    pub shutdown: CancellationToken,
    pub tenant: TenantId,
    pub admin: String,
    pub operate: String,
    pub read: String,
    /// Admin of another tenant.
    pub other: String,
    pub revoked: String,
    pub node_token: String,
    dir: TempDir,
}

pub fn config() -> GatewayConfig {
    let mut config = GatewayConfig::new("9.9.9", json!({ "title": "workflow" }));
    // Only the bus may wake a reader in tests that do not say otherwise.
    config.reread = Duration::from_secs(3_600);
    config
}

impl World {
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: GatewayConfig) -> Self {
        let dir = TempDir::new().unwrap();
        let directory = Arc::new(SqliteDirectory::open(dir.path().join("directory.db")).await.unwrap());
        let made = directory.ensure_bootstrap().await.unwrap();
        let tenant = made.tenant;
        let other = directory.create_tenant("other").await.unwrap().id;
        let key = |tenant, scope| {
            let directory = directory.clone();
            async move {
                directory
                    .create_key(NewKey {
                        tenant,
                        name: "k".into(),
                        scope,
                        expires_at_ms: None,
                        created_by: None,
                    })
                    .await
                    .unwrap()
            }
        };
        let text = |issued: gantry_directory::Issued<gantry_directory::ApiKey>| issued.token.expose_secret().to_owned();
        let gone = key(tenant, Scope::Admin).await;
        directory.revoke_key(tenant, gone.record.id, None).await.unwrap();
        let node_token = directory
            .create_node_token(NewNodeToken {
                tenant,
                name: "n".into(),
                shared: false,
                created_by: None,
            })
            .await
            .unwrap();

        let engine = Arc::new(Engine::default());
        {
            let mut script = engine.0.lock();
            script.tenant = tenant;
            script.workflow = WorkflowId::new(5, PartitionId::default(), 5);
            script.task = TaskId::new(5, PartitionId::default(), 6);
        }
        let bus = Arc::new(MemoryBus::new());
        let queries = Arc::new(Queries::default());
        let shutdown = CancellationToken::new();
        let parts = Gateway {
            backend: engine.clone(),
            directory: directory.clone(),
            bus: bus.clone(),
            maintenance: Some(Arc::new(maintenance::OneChunk)),
            query: Some(queries.clone()),
            config,
        };
        Self {
            router: gateway(parts, shutdown.clone()),
            operate: text(key(tenant, Scope::Operate).await),
            read: text(key(tenant, Scope::Read).await),
            other: text(key(other, Scope::Admin).await),
            admin: text(made.admin.unwrap()),
            revoked: text(gone),
            node_token: node_token.token.expose_secret().to_owned(),
            engine,
            directory,
            bus,
            queries,
            shutdown,
            tenant,
            dir,
        }
    }

    /// Makes a playbook with one version.
    pub async fn playbook(&self, name: &str) {
        let body = json!({ "name": name, "definition": format!("name: {name}\ntask: a 1") });
        assert_eq!(self.post("/api/v1/playbooks", body).await.status(), 201);
    }

    pub fn workflow(&self) -> WorkflowId {
        self.engine.0.lock().workflow
    }

    /// Changes what storage holds, then wakes readers.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.engine.0.lock());
        self.bus.publish(Topic::Workflow(self.tenant, self.workflow()));
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Response<Body> {
        self.send(self.request("GET", path).body(Body::empty()).unwrap()).await
    }

    /// A request of the admin.
    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.admin))
    }

    pub async fn post(&self, path: &str, body: Value) -> Response<Body> {
        self.send(
            self.request("POST", path)
                .header("content-type", "application/json")
                .body(Body::from(body.to_string()))
                .unwrap(),
        )
        .await
    }

    pub async fn sse(&self, path: &str, last_id: Option<&str>) -> Response<Body> {
        let mut request = self.request("GET", path).header("accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }
}
