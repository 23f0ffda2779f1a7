//! What readers see. Serialised as they are by the gateway: field names are API.

use gantry_proto::{NodeId, PrincipalId, SandboxId, TaskId, WorkflowId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::decisions::DeciderScope;
pub use crate::lifecycle::node::NodeState;
pub use crate::lifecycle::task::TaskState;
pub use crate::lifecycle::workflow::WorkflowState;

/// One page of a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Page<T: ToSchema> {
    /// The items.
    pub items: Vec<T>,
    /// Pass as `cursor` to get the next page; absent on the last.
    pub next_cursor: Option<String>,
    /// The page was cut short because many did not match: everything made at this time or later has been looked at.
    pub searched_to_ms: Option<u64>,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureView {
    /// Error code; each has a page in the documentation.
    pub code: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// A workflow in a list.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WorkflowSummary {
    /// Id, `wf_...`.
    #[schema(value_type = String)]
    pub id: WorkflowId,
    /// Name from the definition.
    pub name: String,
    /// Lifecycle state.
    pub state: WorkflowState,
    /// Submission.
    pub created_at_ms: u64,
    /// End, when it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Tasks in all.
    pub tasks_total: u32,
    /// Tasks that have ended.
    pub tasks_ended: u32,
    /// How soon its tasks go among those of its tenant, 0 to 9.
    pub priority: u32,
    /// Where it comes from, when another workflow started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<LineageView>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// The playbook version that it runs, `name@version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub playbook: Option<String>,
    /// Which workflow it has earlier results of, when it is a restart or a fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginView>,
    /// Search attributes: texts, numbers, true, false, times as `{"time": ...}`.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub attributes: std::collections::BTreeMap<String, serde_json::Value>,
}

/// What a definition says, for people who look at it before they run it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DefinitionView {
    /// Name of its workflows.
    pub name: String,
    /// One sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// blake3 of the compiled definition, hexadecimal. Layout and comments do not change it.
    pub digest: String,
    /// JSON Schema of its parameters.
    pub parameters: serde_json::Value,
    /// In the order of the definition.
    pub tasks: Vec<TaskOutline>,
    /// Names of its outputs.
    pub outputs: Vec<String>,
}

/// One task of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TaskOutline {
    /// Name.
    pub name: String,
    /// Names of needed tasks.
    pub needs: Vec<String>,
    /// Keys of its steps.
    pub steps: Vec<String>,
    /// blake3 of its compiled form, hexadecimal: tells whether two versions differ in it.
    pub digest: String,
}

/// Which workflow a restarted or forked one has earlier results of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct OriginView {
    /// That one.
    #[schema(value_type = String)]
    pub workflow: WorkflowId,
    /// `restart` or `fork`.
    pub kind: String,
    /// From which task on things are done again, when one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// Where a workflow comes from that another one started.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LineageView {
    /// The workflow that started it.
    #[schema(value_type = String)]
    pub parent: WorkflowId,
    /// The task of it.
    #[schema(value_type = String)]
    pub task: TaskId,
    /// The first ancestor, which no workflow started.
    #[schema(value_type = String)]
    pub root: WorkflowId,
    /// 1 for a child of the root.
    pub depth: u32,
    /// Its parent does not wait for it.
    pub detached: bool,
}

/// Items of a task over a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct ItemsView {
    /// In the list.
    pub total: u32,
    /// Completed.
    pub completed: u32,
    /// Ended otherwise.
    pub failed: u32,
    /// Begun and not ended.
    pub open: u32,
}

/// One workflow.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct WorkflowView {
    /// Id, name, state, times.
    #[serde(flatten)]
    pub summary: WorkflowSummary,
    /// blake3 of the definition, hexadecimal.
    pub definition_digest: String,
    /// Parameters as submitted, defaults filled in.
    pub parameters: serde_json::Value,
    /// Outputs of the definition, once completed.
    pub outputs: serde_json::Value,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// When it has to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Its definition or its tenant is paused: who did it and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldView>,
    /// Who holds it and why, while it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<PauseView>,
    /// How it ends, while a task runs that handles its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<EndingView>,
    /// In the order of the definition; items of tasks over lists follow behind.
    pub tasks: Vec<TaskView>,
    /// Position of the newest record that this view includes.
    pub position: u64,
    /// It is kept whatever its retention, and cannot be erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldView>,
    /// When what users wrote in it was destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erased_at_ms: Option<u64>,
}

/// A legal hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HoldView {
    /// Who asked for it.
    #[schema(value_type = String)]
    pub by: PrincipalId,
    /// Since when.
    pub at_ms: u64,
}

/// The decided end of a workflow that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct EndingView {
    /// What it will be: failed, cancelled.
    pub state: WorkflowState,
    /// Why.
    pub failure: FailureView,
    /// Since when.
    pub since_ms: u64,
}

/// Why a task does not run though it has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum WaitingView {
    /// Needed tasks have not completed.
    Needs {
        /// Their names.
        tasks: Vec<String>,
    },
    /// Backs off before the next attempt.
    RetryBackoff {
        /// When it goes on.
        until_ms: u64,
        /// Number of the attempt that comes then.
        attempt: u32,
        /// How the last attempt ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        failure: Option<FailureView>,
    },
    /// Sleeps, as its definition says.
    Sleep {
        /// When it goes on.
        until_ms: u64,
    },
    /// Waits for a signal.
    Signal {
        /// Its name.
        name: String,
        /// When it waits no longer; absent: as long as it takes.
        #[serde(skip_serializing_if = "Option::is_none")]
        until_ms: Option<u64>,
    },
    /// Waits for somebody to approve or reject.
    Approval {
        /// What is asked.
        message: String,
        /// Scopes of keys that may decide; with `keys` empty too: every key that may operate.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<DeciderScope>,
        /// Keys that may decide.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
        /// When it waits no longer; absent: as long as it takes.
        #[serde(skip_serializing_if = "Option::is_none")]
        until_ms: Option<u64>,
    },
    /// Its steps are done; waits for somebody to accept their result, to have it reworked, or to reject it.
    Assessment {
        /// What to look at.
        #[serde(skip_serializing_if = "String::is_empty")]
        message: String,
        /// Scopes of keys that may decide; with `keys` empty too: every key that may operate.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<DeciderScope>,
        /// Keys that may decide.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
        /// Which round it is the result of, from 0.
        round: u32,
        /// How often it may be reworked still.
        reworks_left: u32,
        /// When it waits no longer; absent: as long as it takes.
        #[serde(skip_serializing_if = "Option::is_none")]
        until_ms: Option<u64>,
    },
    /// Its workflow is held: nothing new starts.
    Paused {
        /// What is held: the workflow itself, its definition, or its tenant.
        scope: PauseScope,
        /// Who, why and since when.
        #[serde(flatten)]
        pause: PauseView,
    },
    /// Has no attempts left, which paused its workflow; with the workflow it goes on, with a new budget.
    Exhausted {
        /// How the last attempt failed.
        failure: FailureView,
    },
    /// Was given to a person, who decides what becomes of it.
    Escalated {
        /// Why.
        failure: FailureView,
    },
    /// Its code sleeps.
    CodeSleeps {
        /// When it goes on.
        until_ms: u64,
    },
    /// Nodes that could run it exist, and all are at capacity.
    Capacity {
        /// Tasks of its partition that go before it when slots become free one by one and nothing new comes, by priority, age and tenants' shares.
        queue_position: u32,
    },
    /// The workflow that it started has not ended.
    Child {
        /// That workflow.
        #[schema(value_type = String)]
        workflow: WorkflowId,
    },
    /// Its items have not all ended.
    Items {
        /// How many have.
        done: u32,
        /// How many there are.
        total: u32,
    },
    /// A concurrency key is held as often as it may be, or a rate has no start left.
    Limit {
        /// Which key; empty when it cannot be read any more.
        key: String,
        /// What it is.
        kind: LimitKind,
        /// What asked for it: the workflow before it begins, or this task.
        scope: LimitScope,
        /// How many may hold it at once, or start in a period.
        limit: u32,
        /// That period, of a rate.
        #[serde(skip_serializing_if = "Option::is_none")]
        per_ms: Option<u64>,
        /// How many hold it, of a concurrency key; absent while its owner does not answer.
        #[serde(skip_serializing_if = "Option::is_none")]
        holders: Option<u32>,
        /// How many go before it, by priority and age; absent while its owner does not answer or has not heard of it.
        #[serde(skip_serializing_if = "Option::is_none")]
        queue_position: Option<u32>,
        /// When the next one may start, of a rate.
        #[serde(skip_serializing_if = "Option::is_none")]
        next_ms: Option<u64>,
    },
    /// As many items run as its task lets run at once.
    Parallelism {
        /// Items that are ahead of it.
        ahead: u32,
    },
    /// Runs only if its workflow fails, or is cancelled.
    Standby {
        /// The end that it is for: failed, cancelled.
        end: WorkflowState,
    },
    /// No node is connected.
    NoNode,
    /// No connected node has what it requires.
    Unplaceable {
        /// Each thing that is missing, in words: capability, label, size.
        missing: Vec<String>,
    },
    /// Its workspace is on a node that is not available.
    WorkspaceNode {
        /// That node.
        #[schema(value_type = String)]
        node: NodeId,
    },
    /// A person decided that it runs on a node that is not available.
    AssignedNode {
        /// That node.
        #[schema(value_type = String)]
        node: NodeId,
    },
    /// Every node that could run it is degraded, for example because Docker does not answer.
    NodesDegraded {
        /// What the nodes report.
        faults: Vec<FailureView>,
    },
}

/// Assignments that nodes gave back unstarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefusedView {
    /// How many, one after the other.
    pub times: u32,
    /// The node that refused last.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// Why.
    pub failure: FailureView,
}

/// What a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitKind {
    /// So many may hold it at once.
    Concurrency,
    /// So many may start in a period.
    Rate,
}

/// What is kept back by a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// A workflow as a whole.
    Workflow,
    /// A task.
    Task,
}

/// What is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PauseScope {
    /// One workflow.
    Workflow,
    /// All workflows of a definition.
    Definition,
    /// Everything of the tenant.
    Tenant,
}

/// What a workflow is of that is paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct HeldView {
    /// Its definition, or its tenant.
    pub scope: PauseScope,
    /// Name of the definition or playbook; absent: the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Who, why and since when.
    #[serde(flatten)]
    pub pause: PauseView,
}

/// Who holds something, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PauseView {
    /// Who, `key_...`; absent: a task that ran out of attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Since when.
    pub since_ms: u64,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One task.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskView {
    /// Id, `task_...`.
    #[schema(value_type = String)]
    pub id: TaskId,
    /// Name from the definition.
    pub name: String,
    /// Lifecycle state.
    pub state: TaskState,
    /// What it is: steps, sleep, signal, approval.
    pub kind: String,
    /// It did not run here: it has the results of the workflow that this one restarts or forks.
    pub carried: bool,
    /// The end of its workflow that it is for, `failed` or `cancelled`, if it runs only before such an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handles: Option<WorkflowState>,
    /// How it completed, if not by its own work: skipped, resolved, timed_out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// When it has to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Names of needed tasks.
    pub needs: Vec<String>,
    /// Why it waits, when it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<WaitingView>,
    /// Nodes refused it since it last began: shown as soon as it happens, whatever it waits for by now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedView>,
    /// Of a task of code: what a worker runs. Its steps are those that the code has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Leases so far.
    pub attempt: u32,
    /// Holder of the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub node: Option<NodeId>,
    /// The only node that may run it, as a person decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub assigned_to: Option<NodeId>,
    /// Nodes that may not run it, as a person decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub excluded: Vec<NodeId>,
    /// When it became ready for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_at_ms: Option<u64>,
    /// When its first step attempt was assigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Why it failed; of code that will be tried again: why it failed last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// The workflow that it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub child: Option<WorkflowId>,
    /// How far its items are, when it is a task over a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<ItemsView>,
    /// The task over a list that it is an item of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub item_of: Option<TaskId>,
    /// Which item, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item_index: Option<u32>,
    /// The item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<serde_json::Value>,
    /// The newest decision of a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<DecisionView>,
    /// Which round of its work it is, from 0: how often it was begun anew to be done otherwise.
    #[serde(skip_serializing_if = "is_first")]
    pub round: u32,
    /// What is to be done otherwise in this round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedback: Option<String>,
    /// Its own outputs, beside those of its steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs: Option<serde_json::Value>,
    /// In order.
    pub steps: Vec<StepView>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
const fn is_first(round: &u32) -> bool {
    *round == 0
}

/// What a person decided on a task.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DecisionView {
    /// What: approve, reject, accept, rework, reassign, retry, skip, resolve, fail.
    pub decision: String,
    /// Who, `key_...`.
    pub by: String,
    /// When.
    pub at_ms: u64,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// State of a step or of one attempt at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[repr(i32)]
pub enum StepState {
    /// Not begun.
    Pending = 0,
    /// Assigned to a node, sandbox being prepared.
    Assigned = 1,
    /// Its process runs.
    Running = 2,
    /// Done; never executed again.
    Completed = 3,
    /// Failed for good (step), or this try failed (attempt).
    Failed = 4,
    /// This try was lost to infrastructure and does not count.
    Lost = 5,
    /// Ended on request.
    Cancelled = 6,
    /// Will not run: an earlier step or task failed.
    Skipped = 7,
}

/// One step.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StepView {
    /// Key from the definition, unique in its task.
    pub key: String,
    /// Position in the task, from 0.
    pub index: u32,
    /// Where it stands.
    pub state: StepState,
    /// Tries, in order.
    pub attempts: Vec<AttemptView>,
    /// Outputs of the completed attempt.
    pub outputs: serde_json::Value,
    /// Search attributes that it reported.
    pub attrs: serde_json::Value,
    /// Artifacts of the completed attempt.
    pub artifacts: Vec<ArtifactView>,
}

/// One try at a step.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AttemptView {
    /// Number, from 1.
    pub attempt: u32,
    /// Where it stands.
    pub state: StepState,
    /// Where it ran.
    #[schema(value_type = String)]
    pub node: NodeId,
    /// In which sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sandbox: Option<SandboxId>,
    /// When it was assigned.
    pub assigned_at_ms: u64,
    /// When its process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<u64>,
    /// When its process ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// How it ended, in words: exited, signalled, timeout, cancelled, oom, output_limit, invalid, contract, lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Something in the sandbox was killed for memory, though perhaps not the step's own process.
    pub oom_seen: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// Last content of its progress file, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// CPU time, user and system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us: Option<u64>,
    /// Greatest resident memory of its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_rss_bytes: Option<u64>,
}

/// One artifact.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ArtifactView {
    /// Id, `art_...`.
    pub id: String,
    /// Path in the workspace.
    pub name: String,
    /// Task that made it.
    pub task: String,
    /// Step that made it.
    pub step: String,
    /// Size.
    pub size_bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Media type, guessed from the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// One journal record as readers see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EventView {
    /// Position in the partition's log; ascending within a workflow, with gaps.
    pub position: u64,
    /// When it was decided.
    pub at_ms: u64,
    /// Kind, in snake_case: workflow_submitted, task_claimed, step_ended, ...
    pub kind: String,
    /// Fields of the record; ids as text, enums in snake_case.
    pub data: serde_json::Value,
}
