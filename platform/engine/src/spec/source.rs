//! The source form: what people write. From these types come the JSON Schema and the check of shapes; `compile` turns them into a `Definition`.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

mod attribute;
mod sleep;

pub(super) use attribute::AttributeSource;
pub(super) use sleep::SleepSource;

use super::assess_source::AssessSource;
use super::definition::{FailurePolicy, ItemFailure, RunOn};
use super::handler_source::HandlerSource;
use super::retry_source::RetrySource;
use super::source_limits::{ConcurrencySource, RateSource};
use super::source_waits::{ApprovalSource, SignalSource};

/// A Gantry workflow: tasks that run durably, each step in a fresh sandbox.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Gantry workflow definition, version 1", example = example())]
pub(super) struct WorkflowSource {
    /// Version of this format.
    #[serde(default)]
    #[allow(dead_code)] // checked by shape: an enum of one value
    pub(super) gantry: Option<FormatVersion>,
    /// Name of the workflow: letters, digits, `.`, `_` and `-`, at most 128 bytes.
    pub(super) name: String,
    /// One sentence for people.
    #[serde(default)]
    pub(super) description: Option<String>,
    /// Parameters by name. Each is a JSON Schema; one without `default` is required.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, BTreeMap<String, Value>>", example = example_parameters())]
    pub(super) parameters: IndexMap<String, Value>,
    /// Settings of all steps that do not say otherwise.
    #[serde(default)]
    pub(super) defaults: DefaultsSource,
    /// What a failed task does to tasks that do not need it: `stop` cancels them, `continue` lets them run to their end. Either way the workflow fails.
    #[serde(default)]
    pub(super) on_task_failure: FailurePolicy,
    /// How soon its tasks get nodes among those of the same tenant: 0 (last) to 9, 4 when absent. Waiting half a minute outweighs one level.
    #[serde(default)]
    pub(super) priority: Option<u64>,
    /// What its workflows are found by (`gantry workflow ls --where`), in the clear. Templates over `params`, filled in at submission.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, AttributeSource>")]
    pub(super) attributes: IndexMap<String, AttributeSource>,
    /// Longest time from submission to the end, waits included.
    #[serde(default)]
    pub(super) deadline: Option<Duration>,
    /// Keys that only so many workflows and tasks of a tenant may hold at once: this workflow begins when it holds them, and holds them to its end.
    #[serde(default)]
    pub(super) concurrency: Option<ConcurrencySource>,
    /// Rates at which workflows and tasks of a tenant may start: this workflow begins when they let it.
    #[serde(default)]
    pub(super) rate_limit: Option<RateSource>,
    /// Runs when it is decided that the workflow fails, before it has failed: told why, and in an own sandbox as any task.
    #[serde(default)]
    pub(super) on_failure: Option<HandlerSource>,
    /// The same, when it was cancelled.
    #[serde(default)]
    pub(super) on_cancel: Option<HandlerSource>,
    /// Tasks by name, at least one. Tasks that do not need each other run in parallel.
    #[schemars(with = "BTreeMap<String, TaskSource>")]
    pub(super) tasks: IndexMap<String, TaskSource>,
    /// Outputs of the workflow: templates over `params`, `tasks.<task>.outputs` and `workflow`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(super) outputs: IndexMap<String, Scalar>,
}

/// Version of the format.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(super) enum FormatVersion {
    /// The first.
    #[serde(rename = "v1")]
    V1,
}

/// Settings that a task or the whole workflow sets for its steps.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DefaultsSource {
    /// Local image by name or digest (template).
    #[serde(default)]
    pub(super) image: Option<String>,
    /// Environment; a step's own values win (templates).
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(super) env: IndexMap<String, Scalar>,
    /// Working directory (template): relative to the workspace, or absolute in the sandbox.
    #[serde(default)]
    pub(super) workdir: Option<String>,
    /// Longest time of one attempt, from the start of its process.
    #[serde(default)]
    pub(super) timeout: Option<Duration>,
    /// What happens after a failed attempt.
    #[serde(default)]
    pub(super) retry: Option<RetrySource>,
    /// Size of the sandbox.
    #[serde(default)]
    pub(super) resources: Option<ResourcesSource>,
    /// Most that one attempt may print.
    #[serde(default)]
    pub(super) output_limit: Option<Size>,
    /// Time between the polite signal and SIGKILL when a step is ended.
    #[serde(default)]
    pub(super) grace: Option<Duration>,
}

/// A unit of work with one holder at a time: its steps run in order on one node, each in a fresh sandbox over the same workspace.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskSource {
    /// Tasks that must have completed before this one starts.
    #[serde(default)]
    pub(super) needs: Option<OneOrMany>,
    /// `success`: only when all needed tasks completed. `always`: when they have ended, however.
    #[serde(default)]
    pub(super) run_on: RunOn,
    /// Instead of steps: start another workflow and wait for it. Holds no sandbox.
    #[serde(default)]
    pub(super) workflow: Option<ChildSource>,
    /// Run the task once for each item of a list, which is one expression or is written here. `item` and `item_index` are there in its templates.
    #[serde(default)]
    pub(super) for_each: Option<ListSource>,
    /// With `for_each`: items that run at once; all when absent.
    #[serde(default)]
    pub(super) max_parallel: Option<u64>,
    /// With `for_each`: what a failed item does, once more failed than are tolerated: `stop` cancels the others, `continue` lets them run to their end.
    /// Either way the task fails.
    #[serde(default)]
    pub(super) on_item_failure: Option<ItemFailure>,
    /// With `for_each`: failed items that do not fail the task, as a number or as a percentage; none when absent.
    #[serde(default)]
    pub(super) tolerated_failures: Option<ToleratedSource>,
    /// A condition (CEL) over `params`, `tasks` and `workflow`: when it is false as the task would begin, the task is skipped, and those that need it run.
    #[serde(default)]
    #[schemars(example = example_condition())]
    pub(super) when: Option<String>,
    /// Longest time from when the task could begin to its end, waits included.
    #[serde(default)]
    pub(super) deadline: Option<Duration>,
    /// Keys that only so many workflows and tasks of a tenant may hold at once: this task starts when it holds them, and holds them to its end. With
    /// `for_each`, each item does.
    #[serde(default)]
    pub(super) concurrency: Option<ConcurrencySource>,
    /// Rates at which workflows and tasks of a tenant may start: this task starts when they let it. With `for_each`, each item does.
    #[serde(default)]
    pub(super) rate_limit: Option<RateSource>,
    /// Instead of steps: wait for a time. Holds no sandbox.
    #[serde(default)]
    pub(super) sleep: Option<SleepSource>,
    /// Instead of steps: wait for a signal; its payload becomes the outputs.
    #[serde(default)]
    pub(super) signal: Option<SignalSource>,
    /// Instead of steps: wait for a decision.
    #[serde(default)]
    pub(super) approval: Option<ApprovalSource>,
    /// With steps: somebody judges the result before the task completes, and may let it be done again.
    #[serde(default)]
    pub(super) assess: Option<AssessSource>,
    /// The tree that the steps work on; empty when absent.
    #[serde(default)]
    pub(super) workspace: Option<WorkspaceSource>,
    /// Artifacts of needed tasks and uploads, put into the workspace before the first step.
    #[serde(default)]
    pub(super) inputs: Vec<InputSource>,
    /// What a node must offer.
    #[serde(default)]
    pub(super) requires: RequiresSource,
    /// Steps in order.
    #[serde(default)]
    pub(super) steps: Option<Vec<StepSource>>,
    /// Short form of a task with one step: what it runs.
    #[serde(default)]
    pub(super) run: Option<RunSource>,
    /// Instead of steps: code on a worker, by the name that it is registered with.
    #[serde(default)]
    pub(super) component: Option<String>,
    /// With `component` only: what the code is given; texts in it are templates.
    #[serde(default)]
    pub(super) with: Option<serde_json::Value>,
    /// Local image of the steps (template).
    #[serde(default)]
    pub(super) image: Option<String>,
    /// Environment of the steps (templates).
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(super) env: IndexMap<String, Scalar>,
    /// Working directory of the steps (template).
    #[serde(default)]
    pub(super) workdir: Option<String>,
    /// Longest time of one attempt at a step.
    #[serde(default)]
    pub(super) timeout: Option<Duration>,
    /// What happens after a failed attempt at a step.
    #[serde(default)]
    pub(super) retry: Option<RetrySource>,
    /// Size of the sandboxes.
    #[serde(default)]
    pub(super) resources: Option<ResourcesSource>,
    /// Most that one attempt at a step may print.
    #[serde(default)]
    pub(super) output_limit: Option<Size>,
    /// Time between the polite signal and SIGKILL.
    #[serde(default)]
    pub(super) grace: Option<Duration>,
    /// With `run` only: names that `$GANTRY_OUTPUT` must set.
    #[serde(default)]
    pub(super) outputs: Option<OneOrMany>,
    /// With `run` only: files to keep.
    #[serde(default)]
    pub(super) artifacts: Option<Vec<ArtifactSource>>,
}

/// A workflow that a task starts. Its outputs become the task's.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChildSource {
    /// The definition, as it would be submitted.
    pub(super) definition: Box<WorkflowSource>,
    /// Values for its parameters. Texts are templates; one that is a single expression keeps the type of its value.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub(super) parameters: IndexMap<String, Value>,
    /// Do not wait for it: the task completes when it is started, with its id as output `workflow`.
    #[serde(default)]
    pub(super) detached: bool,
}

/// A list: an expression that gives one, or the list itself, whose texts are templates.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = "{{ params.files }}")]
pub(super) enum ListSource {
    /// One expression.
    Expression(String),
    /// The list.
    Items(Vec<Value>),
}

/// How many items may fail: a number, or a percentage such as `10%`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = 2, example = "10%")]
pub(super) enum ToleratedSource {
    /// So many.
    Items(u64),
    /// So many of a hundred.
    Percent(String),
}

/// One command in a fresh sandbox. Once its completion is journaled it is never executed again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StepSource {
    /// Name, unique in the task; `step-N` when absent.
    #[serde(default)]
    pub(super) key: Option<String>,
    /// Another spelling of `key`.
    #[serde(default)]
    pub(super) name: Option<String>,
    /// What it runs.
    pub(super) run: RunSource,
    /// Local image by name or digest (template).
    #[serde(default)]
    pub(super) image: Option<String>,
    /// Environment (templates). Names that begin with `GANTRY_` are ours.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(super) env: IndexMap<String, Scalar>,
    /// Working directory (template): relative to the workspace, or absolute in the sandbox.
    #[serde(default)]
    pub(super) workdir: Option<String>,
    /// Longest time of one attempt, from the start of its process. No limit when absent everywhere.
    #[serde(default)]
    pub(super) timeout: Option<Duration>,
    /// What happens after a failed attempt.
    #[serde(default)]
    pub(super) retry: Option<RetrySource>,
    /// Names that `$GANTRY_OUTPUT` must set; others may be set too.
    #[serde(default)]
    pub(super) outputs: Option<OneOrMany>,
    /// Files to keep.
    #[serde(default)]
    pub(super) artifacts: Vec<ArtifactSource>,
    /// Size of the sandbox.
    #[serde(default)]
    pub(super) resources: Option<ResourcesSource>,
    /// Most that one attempt may print.
    #[serde(default)]
    pub(super) output_limit: Option<Size>,
    /// Time between the polite signal and SIGKILL.
    #[serde(default)]
    pub(super) grace: Option<Duration>,
}

/// A text is a script for `/bin/sh -eu -c`; a list is a command and its arguments, without a shell. Templates.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = example_script(), example = example_command())]
pub(super) enum RunSource {
    /// A script.
    Shell(String),
    /// A command and its arguments.
    Argv(Vec<Scalar>),
}

/// A text, whole number or boolean; used as text. Other numbers need quotes: YAML would turn 3.10 into 3.1.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Scalar {
    /// A text (template).
    Text(String),
    /// A whole number.
    Int(i64),
    /// A boolean.
    Bool(bool),
}

impl Scalar {
    /// As text.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(value) => value.clone(),
            Self::Int(value) => value.to_string(),
            Self::Bool(value) => value.to_string(),
        }
    }
}

/// One name or a list of names.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    /// As a list.
    pub(super) fn list(&self) -> Vec<String> {
        match self {
            Self::One(name) => vec![name.clone()],
            Self::Many(names) => names.clone(),
        }
    }
}

/// A span of time: `500ms`, `30s`, `10m`, `2h`, `1d`, `1h30m`. A plain number is seconds.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = "30s", example = "1h30m", example = 90)]
pub(super) enum Duration {
    /// Seconds.
    Seconds(u64),
    /// Seconds with a fraction.
    Fraction(f64),
    /// With units.
    Text(String),
}

/// A number of bytes: `64MiB`, `1GB`, `512K`. A plain number is bytes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = "64MiB", example = 1_048_576)]
pub(super) enum Size {
    /// Bytes.
    Bytes(u64),
    /// With a unit.
    Text(String),
}

/// CPU: cores (`2`, `0.5`) or thousandths of a core (`500m`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = 0.5, example = "500m")]
pub(super) enum Cpu {
    /// Cores.
    Cores(u64),
    /// Cores with a fraction.
    Fraction(f64),
    /// With a unit.
    Text(String),
}

/// A class or exact sizes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ResourcesSource {
    /// By name.
    Class(ResourceClass),
    /// Exact; what is absent is as in `medium`.
    Exact(ResourceFields),
}

/// Sizes by name: `small` 0.5 CPU, 256 MiB; `medium` (default) 1 CPU, 512 MiB; `large` 2 CPU, 2 GiB.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ResourceClass {
    /// 0.5 CPU, 256 MiB memory, 128 processes, 32 MiB /tmp.
    Small,
    /// 1 CPU, 512 MiB memory, 256 processes, 64 MiB /tmp.
    Medium,
    /// 2 CPU, 2 GiB memory, 1024 processes, 256 MiB /tmp.
    Large,
}

/// Exact sizes of a sandbox.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceFields {
    /// CPU.
    #[serde(default)]
    pub(super) cpu: Option<Cpu>,
    /// Memory, swap included.
    #[serde(default)]
    pub(super) memory: Option<Size>,
    /// Processes and threads.
    #[serde(default)]
    pub(super) pids: Option<u64>,
    /// Size of /tmp; counts against memory.
    #[serde(default)]
    pub(super) tmp: Option<Size>,
}

/// A file or files to keep: a glob under the workspace. A plain text is a required one.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = "report.md")]
pub(super) enum ArtifactSource {
    /// A glob; at least one file must match.
    Glob(String),
    /// A glob with its options.
    Full(ArtifactFields),
}

/// A file or files to keep.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ArtifactFields {
    /// Glob under the workspace: `*` within a directory, `**` across directories.
    pub(super) glob: String,
    /// At least one file must match; true when absent.
    #[serde(default)]
    pub(super) required: Option<bool>,
}

/// What is put into the workspace: artifacts of a needed `task`, or an `upload`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InputSource {
    /// A needed task.
    #[serde(default)]
    pub(super) task: Option<String>,
    /// Its artifacts: a glob over their names; all when absent.
    #[serde(default)]
    pub(super) artifact: Option<String>,
    /// Where they go: below a directory (ends with `/`) under their own names, or one file under this name; `inputs/<task>/` when absent. An upload needs
    /// the name of a file.
    #[serde(default)]
    pub(super) path: Option<String>,
    /// That nothing matches is no error.
    #[serde(default)]
    pub(super) optional: bool,
    /// Instead of `task`: the id of an upload (template over `params`). Its content is copied when the workflow is submitted.
    #[serde(default)]
    pub(super) upload: Option<String>,
}

/// Where a tree comes from. Exactly one of `git`, `path`, `from`, `mounts`; none for an empty tree.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(example = example_workspace())]
pub(super) struct WorkspaceSource {
    /// A git remote (https, ssh, git) or an allow-listed local repository (template).
    #[serde(default)]
    pub(super) git: Option<String>,
    /// With `git`: branch, tag or commit (template); the remote's HEAD when absent.
    #[serde(default, rename = "ref")]
    pub(super) reference: Option<String>,
    /// With `git`: commits to fetch; all when absent.
    #[serde(default)]
    pub(super) depth: Option<u64>,
    /// A path on the node's allow-list, which is copied (template).
    #[serde(default)]
    pub(super) path: Option<String>,
    /// A copy of the result of a needed task.
    #[serde(default)]
    pub(super) from: Option<String>,
    /// Several trees under names. Merging them is a step's work.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, MountSource>>")]
    pub(super) mounts: Option<IndexMap<String, MountSource>>,
}

/// One of several trees. At most one of `git`, `path`, `from`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MountSource {
    /// A git remote or an allow-listed local repository (template).
    #[serde(default)]
    pub(super) git: Option<String>,
    /// With `git`: branch, tag or commit (template).
    #[serde(default, rename = "ref")]
    pub(super) reference: Option<String>,
    /// With `git`: commits to fetch.
    #[serde(default)]
    pub(super) depth: Option<u64>,
    /// A path on the node's allow-list, which is copied (template).
    #[serde(default)]
    pub(super) path: Option<String>,
    /// A copy of the result of a needed task.
    #[serde(default)]
    pub(super) from: Option<String>,
}

/// What a node must offer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RequiresSource {
    /// Capabilities by name.
    #[serde(default)]
    pub(super) capabilities: Vec<String>,
    /// Labels with these values.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(super) labels: IndexMap<String, Scalar>,
    /// CPU architecture, such as `x86_64` or `aarch64`.
    #[serde(default)]
    pub(super) arch: Option<String>,
}

fn example() -> Value {
    serde_json::json!({
        "name": "hello",
        "parameters": { "who": { "type": "string", "default": "world" } },
        "tasks": { "greet": { "run": "echo \"Hello, $WHO\"", "env": { "WHO": "{{ params.who }}" } } }
    })
}

fn example_condition() -> Value {
    Value::from("params.deploy && tasks.test.outputs.coverage > 80")
}

fn example_script() -> Value {
    Value::from("make test")
}

fn example_command() -> Value {
    serde_json::json!(["python3", "-m", "unittest"])
}

fn example_parameters() -> Value {
    serde_json::json!({ "repo": { "type": "string", "description": "What to look at" }, "depth": { "type": "integer", "default": 1, "minimum": 1 } })
}

fn example_workspace() -> Value {
    serde_json::json!({ "git": "{{ params.repo }}", "ref": "main", "depth": 1 })
}
