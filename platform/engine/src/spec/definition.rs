//! A definition as the engine runs it: parsed, checked and normalised. Pinned into the journal as JSON, so every field that is added has a default.

pub use super::assess_def::{AssessmentDef, OnAssessmentDeadline, ReworksExhausted};
use gantry_proto::v1::WorkflowEnd;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A workflow definition that passed every check: needs are acyclic and known, names are unique, templates parse, limits hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// Name of the workflow.
    pub name: String,
    /// One sentence for people.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON Schema of the parameters, an object schema.
    pub parameters: Value,
    /// In the order of the source. Keys are task names.
    pub tasks: IndexMap<String, TaskDef>,
    /// Outputs of the workflow: templates over tasks' outputs, rendered when all tasks have completed.
    #[serde(default)]
    pub outputs: IndexMap<String, String>,
    /// How soon its tasks go among those of its tenant, 0 to 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// What its workflows are found by: a text (template), a number, true or false, or `{"time": ...}` (template). Filled in when one is submitted.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub attributes: IndexMap<String, Value>,
    /// What a failed task does to the rest.
    #[serde(default)]
    pub on_task_failure: FailurePolicy,
    /// Longest time from submission to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What keeps it from beginning.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitDef>,
}

/// A concurrency key or a rate limit of a workflow or a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitDef {
    /// What is shared (template): whoever renders the same one in the same tenant.
    pub key: String,
    /// Holders at once, or starts in a period.
    pub limit: u32,
    /// That period; none: a concurrency key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_ms: Option<u64>,
    /// Of a rate: starts that may come at once; none: as many as `limit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// What happens when the limit is reached.
    #[serde(default)]
    pub on_limit: OnLimit,
}

/// What happens when a limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLimit {
    /// It waits for its turn, by priority and age.
    #[default]
    Wait,
    /// It fails.
    Refuse,
    /// The oldest ones end for it.
    CancelRunning,
}

/// What a failed task does to tasks that do not need it. Tasks that need it (directly or not) never run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// Running ones are cancelled, waiting ones do not start.
    #[default]
    Stop,
    /// They run to their end; then the workflow fails.
    Continue,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDef {
    /// Names of tasks that must have completed.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Run even though a needed task failed or was skipped (`always`), as a report does.
    #[serde(default)]
    pub run_on: RunOn,
    /// Runs only before its workflow ends so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handles: Option<Handles>,
    /// What it is.
    #[serde(default, skip_serializing_if = "TaskKind::is_steps")]
    pub kind: TaskKind,
    /// Once for each item of a list, instead of once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_each: Option<FanOutDef>,
    /// A condition (CEL); when it is false as the task would begin, the task is skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Longest time from when it could begin to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Its result is judged before it completes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assess: Option<AssessmentDef>,
    /// In order; at least one with [`TaskKind::Steps`]. Keys are unique in the task.
    #[serde(default)]
    pub steps: Vec<StepDef>,
    /// Sources of the tree, by name; one with name "" is the root itself. Empty: an empty tree.
    #[serde(default)]
    pub workspace: Vec<WorkspaceDef>,
    /// Artifacts of needed tasks, put into the workspace before the first step.
    #[serde(default)]
    pub inputs: Vec<InputDef>,
    /// What an executor must offer.
    #[serde(default)]
    pub requires: Requires,
    /// What keeps it from starting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitDef>,
}

/// Code on a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodeDef {
    /// Name of a function or workflow that workers register.
    pub component: String,
    /// Its input; texts in it are templates.
    #[serde(default)]
    pub input: Value,
}

impl TaskDef {
    /// What it is when it is code.
    #[must_use]
    pub fn code(&self) -> Option<&CodeDef> {
        match &self.kind {
            TaskKind::Code(code) => Some(code),
            _ => None,
        }
    }
}

/// An end of a workflow before which a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handles {
    /// It failed.
    Failure,
    /// It was cancelled.
    Cancel,
}

impl Handles {
    /// Name of the task, and field of the definition.
    #[must_use]
    pub const fn task(self) -> &'static str {
        match self {
            Self::Failure => "on_failure",
            Self::Cancel => "on_cancel",
        }
    }
}

/// Name of the one task of a workflow that is code alone.
pub const CODE_TASK: &str = "run";

impl Definition {
    /// Of one task of code, whose input is kept apart.
    #[must_use]
    pub fn code(component: &str) -> Self {
        let task = TaskDef {
            limits: Vec::new(),
            needs: Vec::new(),
            for_each: None,
            when: None,
            deadline_ms: None,
            handles: None,
            run_on: RunOn::default(),
            kind: TaskKind::Code(CodeDef {
                component: component.to_owned(),
                input: Value::Null,
            }),
            assess: None,
            steps: Vec::new(),
            workspace: Vec::new(),
            inputs: Vec::new(),
            requires: Requires::default(),
        };
        Self {
            limits: Vec::new(),
            name: component.to_owned(),
            priority: None,
            deadline_ms: None,
            description: None,
            parameters: Value::Null,
            tasks: IndexMap::from_iter([(CODE_TASK.to_owned(), task)]),
            outputs: IndexMap::new(),
            attributes: IndexMap::new(),
            on_task_failure: FailurePolicy::default(),
        }
    }
}

impl From<Handles> for WorkflowEnd {
    fn from(handles: Handles) -> Self {
        match handles {
            Handles::Failure => Self::Failed,
            Handles::Cancel => Self::Cancelled,
        }
    }
}

/// What a task is: what begins once its needs have ended.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// Steps in sandboxes, under a lease of a node.
    #[default]
    Steps,
    /// Another workflow, in a partition of its own.
    Workflow(Box<ChildDef>),
    /// Waits for a time.
    Sleep(SleepDef),
    /// Waits for a signal, whose payload becomes its outputs.
    Signal(SignalDef),
    /// Waits for a decision.
    Approval(ApprovalDef),
    /// Code, under a lease of a worker.
    Code(CodeDef),
}

impl TaskKind {
    /// Whether steps are what it does. Definitions of before there were kinds have no other.
    #[must_use]
    pub const fn is_steps(&self) -> bool {
        matches!(self, Self::Steps)
    }

    /// The key of a definition that makes a task this.
    #[must_use]
    pub const fn text(&self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Workflow(_) => "workflow",
            Self::Sleep(_) => "sleep",
            Self::Signal(_) => "signal",
            Self::Approval(_) => "approval",
            Self::Code(_) => "component",
        }
    }
}

/// How long a sleeping task sleeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SleepDef {
    /// So long, from when it begins.
    ForMs(u64),
    /// Until a time (template, RFC 3339 when rendered).
    Until(String),
}

/// What a task waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalDef {
    /// Name of the signal.
    pub name: String,
    /// Longest wait; none: as long as it takes.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// What happens then.
    #[serde(default)]
    pub on_timeout: OnTimeout,
}

/// What happens when a signal does not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// The task fails.
    #[default]
    Fail,
    /// The task completes without outputs.
    Continue,
    /// The task is given to a person.
    Escalate,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalDef {
    /// The question (template).
    pub message: String,
    /// Longest wait; none: as long as it takes.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// What happens then.
    #[serde(default)]
    pub on_deadline: OnApprovalDeadline,
    /// Who may decide.
    #[serde(default)]
    pub by: DecidersDef,
}

/// What happens when nobody decides in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnApprovalDeadline {
    /// The task completes, as if approved.
    Approve,
    /// The task fails, as if rejected.
    Reject,
    /// The task fails.
    #[default]
    Fail,
    /// The task is given to a person.
    Escalate,
}

/// Who may decide; both lists empty: every key that may operate. A key that is in either list may.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DecidersDef {
    /// Scopes of keys.
    #[serde(default)]
    pub scopes: Vec<DeciderScope>,
    /// Ids of keys, `key_...`.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// A scope of a key that may decide at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeciderScope {
    /// Keys that may operate.
    Operate,
    /// Keys that administer.
    Admin,
}

/// A workflow that a task starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChildDef {
    /// What it is.
    pub definition: Definition,
    /// The same as it was written, as JSON.
    pub source: String,
    /// Values for its parameters; texts in them are templates, and one that is a single expression keeps the type of its value.
    #[serde(default)]
    pub parameters: IndexMap<String, Value>,
    /// The task does not wait for it.
    #[serde(default)]
    pub detached: bool,
    /// Another one is started when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryDef>,
}

/// A task over a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FanOutDef {
    /// The list: a template that is a single expression, or a list whose texts are templates.
    pub items: Value,
    /// Items that run at once; none: all.
    #[serde(default)]
    pub max_parallel: Option<u32>,
    /// What a failed item does to the others, once there are more than tolerated.
    #[serde(default)]
    pub on_failure: ItemFailure,
    /// Failed items that do not fail the task.
    #[serde(default)]
    pub tolerated: Tolerated,
}

/// What a failed item does to the others, once more failed than are tolerated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemFailure {
    /// Running ones are cancelled, waiting ones do not start.
    #[default]
    Stop,
    /// They run to their end; then the task fails.
    Continue,
}

/// How many items may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerated {
    /// So many.
    Items(u32),
    /// So many of a hundred, rounded down.
    Percent(u32),
}

impl Default for Tolerated {
    fn default() -> Self {
        Self::Items(0)
    }
}

impl Tolerated {
    /// Of a number of items.
    #[must_use]
    pub const fn of(self, total: usize) -> usize {
        match self {
            Self::Items(items) => items as usize,
            Self::Percent(percent) => total * percent as usize / 100,
        }
    }
}

/// When a task whose needs have ended may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunOn {
    /// All needed tasks completed.
    #[default]
    Success,
    /// All needed tasks ended, however; not after cancellation.
    Always,
}

/// One step. Texts marked (template) are rendered with minijinja when the step is assigned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepDef {
    /// Unique in the task; `step-N` when the source names none.
    pub key: String,
    /// What runs.
    pub run: RunDef,
    /// Local image by name or digest (template).
    pub image: String,
    /// Environment: values are templates.
    #[serde(default)]
    pub env: IndexMap<String, String>,
    /// Working directory (template): relative to the workspace, or absolute in the sandbox.
    #[serde(default)]
    pub workdir: Option<String>,
    /// From process start.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// What happens after a failed attempt.
    #[serde(default)]
    pub retry: RetryDef,
    /// Names that `$GANTRY_OUTPUT` must set.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Files to keep (globs).
    #[serde(default)]
    pub artifacts: Vec<ArtifactDef>,
    /// Size of the sandbox.
    pub resources: ResourcesDef,
    /// Most that it may print.
    pub output_limit_bytes: u64,
    /// Grace between the polite signal and SIGKILL.
    pub grace_ms: u64,
}

/// What a step runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunDef {
    /// A script (template) for `/bin/sh -eu -c`.
    Shell(String),
    /// A command without a shell (each a template).
    Argv(Vec<String>),
}

/// Retry of a step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RetryDef {
    /// For failures that have no rule of their own.
    #[serde(flatten)]
    pub rule: RetryRule,
    /// Rules of single classes; none: failures of the class are not tried again.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub on: IndexMap<RetryClass, Option<RetryRule>>,
    /// Exit codes that are tried again; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_codes: Option<Vec<i32>>,
    /// From the first attempt on: none begins later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// What happens when no attempt follows.
    #[serde(default, skip_serializing_if = "Exhausted::is_fail")]
    pub exhausted: Exhausted,
}

/// How often and how fast a failed step is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RetryRule {
    /// Attempts in all, 1 or more. Attempts lost to infrastructure do not count.
    pub attempts: u32,
    /// Before the second attempt.
    pub backoff_ms: u64,
    /// Factor from one back-off to the next, at least 1.
    pub factor: f64,
    /// Longest back-off.
    pub max_backoff_ms: u64,
    /// Part of a back-off that may be taken off by chance, 0 to 1.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub jitter: f64,
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl Default for RetryRule {
    fn default() -> Self {
        Self {
            attempts: 1,
            backoff_ms: 1_000,
            factor: 2.0,
            max_backoff_ms: 60_000,
            jitter: 0.0,
        }
    }
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryClass {
    /// The command ended with another exit code than 0.
    Exit,
    /// The command was ended by a signal.
    Signal,
    /// It ran longer than its timeout.
    Timeout,
    /// It ran out of memory.
    Oom,
    /// It printed too much.
    OutputLimit,
    /// Its outputs or artifacts are not as declared.
    Contract,
    /// It could not be started as asked.
    Invalid,
}

/// What happens when a step failed and no attempt follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exhausted {
    /// The task fails.
    #[default]
    Fail,
    /// The workflow is paused; when it is resumed, the step has a new budget.
    Pause,
    /// The task is given to a person.
    Escalate,
}

impl Exhausted {
    const fn is_fail(&self) -> bool {
        matches!(self, Self::Fail)
    }
}

/// A source of a workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkspaceDef {
    /// Directory that it becomes; "" for the root.
    pub name: String,
    /// What it is.
    pub source: WorkspaceSourceDef,
}

/// Where a tree comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceSourceDef {
    /// A git remote (templates).
    Git {
        /// Remote.
        url: String,
        /// Branch, tag or commit.
        reference: Option<String>,
        /// Commits to fetch; none: all.
        depth: Option<u32>,
    },
    /// A path on the node's allow-list (template); copied.
    Path(String),
    /// A copy of the result of a needed task.
    From(String),
}

/// What is put into the workspace before the first step. Told apart by its fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum InputDef {
    /// Artifacts of a needed task.
    Artifacts(ArtifactInputDef),
    /// An upload.
    Upload(UploadInputDef),
}

/// An upload to put into the workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadInputDef {
    /// Its id (template over parameters).
    pub upload: String,
    /// The file under the workspace that it becomes.
    pub path: String,
}

/// Artifacts to put into the workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactInputDef {
    /// A needed task.
    pub task: String,
    /// Its artifacts (glob over their names).
    pub artifact: String,
    /// Directory or file under the workspace where they go; they keep their names below a directory (which ends with `/`).
    pub path: String,
    /// Missing ones are no error.
    #[serde(default)]
    pub optional: bool,
}

/// Files to keep from a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArtifactDef {
    /// Glob under the workspace, `/` separated, without `..`.
    pub glob: String,
    /// At least one file must match.
    pub required: bool,
}

/// Size of a sandbox, checked against limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcesDef {
    /// CPU in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory, swap included.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
    /// Size of /tmp; counts against memory.
    pub tmp_bytes: u64,
}

/// What an executor must offer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Requires {
    /// Capabilities by name.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Labels with these values.
    #[serde(default)]
    pub labels: IndexMap<String, String>,
    /// CPU architecture.
    #[serde(default)]
    pub arch: Option<String>,
}
