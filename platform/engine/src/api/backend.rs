//! What gateways call.

use bytes::Bytes;
use futures_util::stream::BoxStream;
pub use gantry_journal::segments::{Chunk, StreamKey};
use gantry_proto::{ArtifactId, ErrorCode, NodeId, PrincipalId, TenantId, WorkflowId};

use super::again::AgainRequest;
use super::bulk::Bulks;
use super::decisions::{DecisionRequest, SignalReceipt, SignalRequest};
use super::limits::Limits;
use super::pauses::Pauses;
use super::runs::{Run, RunView};
use super::schedules::Schedules;
use super::trace::Trace;
use super::uploads::Uploads;
pub use crate::filter::TimeRange;

use super::node_view::NodeView;
use super::view::{DefinitionView, EventView, Page, TaskState, WorkflowState, WorkflowSummary, WorkflowView};

/// Who asks: the tenant comes from the credential alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The wall that the call stays behind.
    pub tenant: TenantId,
    /// Recorded with everything the caller changes.
    pub principal: PrincipalId,
}

/// A definition to run now.
#[derive(Debug, Clone)]
pub struct Submit {
    /// Who submits.
    pub caller: Caller,
    /// The definition, YAML or JSON (JSON is YAML), at most `DEFINITION_BYTES_MAX`.
    pub source: Bytes,
    /// Values for the definition's parameters.
    pub parameters: serde_json::Map<String, serde_json::Value>,
    /// Makes a repeated submission return the first one's workflow, as long as the key is remembered.
    pub idempotency_key: Option<String>,
    /// How long that is, from `IDEMPOTENCY_TTL_MS_MIN` to `IDEMPOTENCY_TTL_MS_MAX`; none: 24 h.
    pub idempotency_ttl_ms: Option<u64>,
    /// Free labels, shown and filtered by.
    pub labels: Vec<(String, String)>,
    /// What it is found by, beside what its definition says, and winning over that: texts, numbers, true, false, or `{"time": ...}`.
    pub attributes: serde_json::Map<String, serde_json::Value>,
    /// W3C trace context of the caller.
    pub traceparent: Option<String>,
    /// How soon its tasks go among those of its tenant, 0 to `PRIORITY_MAX`; none: as the definition says.
    pub priority: Option<u32>,
    /// The playbook version that `source` is, when it is one.
    pub playbook: Option<PlaybookPin>,
}

/// Where a definition comes from. The workflow keeps what the version said; the directory is not asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaybookPin {
    /// Its name.
    pub name: String,
    /// The version that was found.
    pub version: u32,
    /// The version that was asked for; none: whichever is the newest. A repeated request asks for the same, even when a newer version has come meanwhile.
    pub asked: Option<u32>,
}

/// What became of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubmitReceipt {
    /// The workflow, durable by now.
    pub workflow: WorkflowId,
    /// The idempotency key was known: nothing new was started.
    pub replayed: bool,
}

/// One place in a definition or request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Issue {
    /// What is wrong and what would be right.
    pub message: String,
    /// JSON pointer, or path of keys, where it is known.
    pub path: Option<String>,
    /// Line in the source, from 1.
    pub line: Option<u32>,
    /// Column in the source, from 1.
    pub column: Option<u32>,
}

/// A refused call: nothing was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What programs match on.
    pub code: ErrorCode,
    /// What went wrong, in a sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Every place found wrong.
    pub issues: Vec<Issue>,
}

impl Refusal {
    /// A refusal without places or hint.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            issues: Vec::new(),
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Which workflows a list shows.
#[derive(Debug, Clone, Default)]
pub struct WorkflowQuery {
    /// Only these states; empty: all.
    pub states: Vec<WorkflowState>,
    /// Only this name.
    pub name: Option<String>,
    /// Only runs of this playbook, any version.
    pub playbook: Option<String>,
    /// Only runs of the schedule of this name.
    pub schedule: Option<String>,
    /// Only those with all of these labels.
    pub labels: Vec<(String, String)>,
    /// Only those that were submitted then.
    pub created: TimeRange,
    /// Only those that ended then.
    pub ended: TimeRange,
    /// Only those that this filter fits, see [`crate::Filter`].
    pub filter: Option<String>,
    /// Only those that this workflow started.
    pub parent: Option<WorkflowId>,
    /// Continue after this workflow (exclusive); newest first.
    pub after: Option<WorkflowId>,
    /// At most so many, bounded by `PAGE_ITEMS_MAX`.
    pub limit: u32,
}

/// A stretch of a step attempt's output.
#[derive(Debug, Clone)]
pub struct OutputPage {
    /// Chunks after the asked position, in order, without gap.
    pub chunks: Vec<Chunk>,
    /// The attempt has ended and these are its last chunks.
    pub finished: bool,
}

/// A stored artifact, opened for reading.
pub struct ArtifactBody {
    /// What it is.
    pub artifact: gantry_proto::v1::Artifact,
    /// Its bytes, decrypted.
    pub stream: BoxStream<'static, std::io::Result<Bytes>>,
}

/// What gateways call. Reads serve only durable state; writes return when durable.
#[async_trait::async_trait]
pub trait Backend: Limits + Pauses + Schedules + Uploads + Bulks + super::Keeping {
    /// Starts a workflow.
    async fn submit(&self, submit: Submit) -> Result<SubmitReceipt, Refusal>;

    /// Runs one component on a worker.
    async fn run(&self, run: Run) -> Result<RunView, Refusal>;

    /// Where a run stands; waits for its end up to `wait_ms`, or until there is something else to say.
    async fn run_result(&self, tenant: TenantId, workflow: WorkflowId, wait_ms: u64) -> Result<RunView, Refusal>;

    /// Starts a workflow that has the earlier results of another one: a restart or a fork. [`ErrorCode::WorkspaceGone`] when it would need the tree of a task,
    /// [`ErrorCode::ContentErased`] when what the old one did was erased.
    async fn again(&self, request: AgainRequest) -> Result<SubmitReceipt, Refusal>;

    /// Checks a definition (and parameters, when given) without starting anything.
    async fn validate(
        &self,
        source: Bytes,
        parameters: Option<serde_json::Map<String, serde_json::Value>>,
    ) -> Result<(), Refusal>;

    /// What a definition says, once it has passed every check.
    async fn inspect(&self, source: Bytes) -> Result<DefinitionView, Refusal>;

    /// Asks a workflow to end: running steps get a polite signal, then SIGKILL after `grace_ms`. Idempotent; [`ErrorCode::Conflict`] when it has ended
    /// otherwise.
    async fn cancel(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        grace_ms: Option<u64>,
    ) -> Result<WorkflowState, Refusal>;

    /// Gives a workflow a signal. [`ErrorCode::SignalUnknown`] when no task of it waits for that name, [`ErrorCode::SignalsFull`] when it keeps too many
    /// already, [`ErrorCode::Conflict`] when it has ended.
    async fn signal(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        request: SignalRequest,
    ) -> Result<SignalReceipt, Refusal>;

    /// Holds a workflow: nothing new starts, what runs ends by itself, or on request (`interrupt`) to run again later. Idempotent;
    /// [`ErrorCode::Conflict`] when it is ending or has ended.
    async fn pause(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        interrupt: bool,
        comment: Option<String>,
    ) -> Result<WorkflowState, Refusal>;

    /// Lets a workflow go on. Idempotent; [`ErrorCode::Conflict`] when it has ended.
    async fn resume(&self, caller: Caller, workflow: WorkflowId) -> Result<WorkflowState, Refusal>;

    /// Decides on a task. Idempotent; [`ErrorCode::Conflict`] when its state does not take the decision, [`ErrorCode::DecisionForbidden`] when the
    /// definition names others.
    async fn decide(
        &self,
        caller: Caller,
        workflow: WorkflowId,
        request: DecisionRequest,
    ) -> Result<TaskState, Refusal>;

    /// One workflow with tasks, steps and attempts.
    async fn workflow(&self, tenant: TenantId, workflow: WorkflowId) -> Result<WorkflowView, Refusal>;

    /// One workflow as spans: workflow, tasks, steps, attempts, with queue time apart from run time.
    async fn trace(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Trace, Refusal>;

    /// Newest first.
    async fn workflows(&self, tenant: TenantId, query: WorkflowQuery) -> Result<Page<WorkflowSummary>, Refusal>;

    /// The definition as it was submitted.
    async fn source(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Bytes, Refusal>;

    /// Journal records of one workflow after position `after` (0: from the first), in order, at most `limit`.
    async fn events(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<EventView>, Refusal>;

    /// Output of one step attempt after chunk `after` (0: from the first byte), at most `max_bytes` but at least one chunk if there is one.
    async fn output(&self, stream: StreamKey, after: u64, max_bytes: usize) -> Result<OutputPage, Refusal>;

    /// Opens an artifact; `range` in bytes.
    async fn artifact(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        artifact: ArtifactId,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<ArtifactBody, Refusal>;

    /// Nodes that serve the tenant.
    async fn nodes(&self, tenant: TenantId) -> Result<Vec<NodeView>, Refusal>;

    /// One node.
    async fn node(&self, tenant: TenantId, node: NodeId) -> Result<NodeView, Refusal>;

    /// Sets or lifts draining: a draining node finishes what it holds and gets nothing new.
    async fn drain_node(&self, caller: Caller, node: NodeId, drain: bool) -> Result<NodeView, Refusal>;

    /// What the journal's write-ahead log has cost since the process started.
    fn journal_cost(&self) -> Option<gantry_journal::WalCounters> {
        None
    }

    /// Whether every partition is owned and recovered.
    async fn ready(&self) -> Result<(), Refusal>;
}
