//! What the API answers, as far as tests look at it. Missing fields are errors: these types check the contract too.

use serde::Deserialize;
use serde_json::Value;

/// Why something failed.
#[derive(Debug, Clone, Deserialize)]
pub struct Failure {
    /// Error code.
    pub code: String,
    /// In words.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// One workflow.
#[derive(Debug, Clone, Deserialize)]
pub struct Workflow {
    /// `wf_...`.
    pub id: String,
    /// From the definition.
    pub name: String,
    /// Lifecycle state.
    pub state: String,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Outputs, once completed.
    pub outputs: Value,
    /// In the order of the definition.
    pub tasks: Vec<Task>,
}

impl Workflow {
    /// Whether it has ended.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(self.state.as_str(), "completed" | "failed" | "cancelled")
    }

    /// Every step with its task, in order.
    pub fn steps(&self) -> impl Iterator<Item = (&Task, &Step)> {
        self.tasks
            .iter()
            .flat_map(|task| task.steps.iter().map(move |step| (task, step)))
    }

    /// Every attempt in every step.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.steps().flat_map(|(_, step)| &step.attempts)
    }

    /// The error code that it, a task or an attempt failed with.
    #[must_use]
    pub fn codes(&self) -> Vec<&str> {
        let tasks = self.tasks.iter().filter_map(|task| task.failure.as_ref());
        let attempts = self.attempts().filter_map(|attempt| attempt.failure.as_ref());
        self.failure
            .iter()
            .chain(tasks)
            .chain(attempts)
            .map(|failure| failure.code.as_str())
            .collect()
    }
}

/// One task.
#[derive(Debug, Clone, Deserialize)]
pub struct Task {
    /// From the definition.
    pub name: String,
    /// Lifecycle state.
    pub state: String,
    /// Why it waits: `{reason, ...}`.
    pub waiting: Option<Value>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// In order.
    pub steps: Vec<Step>,
}

impl Task {
    /// The waiting reason, if it waits.
    #[must_use]
    pub fn waiting_reason(&self) -> Option<&str> {
        self.waiting.as_ref()?.get("reason")?.as_str()
    }
}

/// One step.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// Unique in its task.
    pub key: String,
    /// Where it stands.
    pub state: String,
    /// Tries.
    pub attempts: Vec<Attempt>,
    /// Outputs of the completed attempt.
    pub outputs: Value,
}

/// One try.
#[derive(Debug, Clone, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub attempt: u32,
    /// Where it stands.
    pub state: String,
    /// In which sandbox.
    pub sandbox: Option<String>,
    /// Exit code.
    pub exit_code: Option<i32>,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// One artifact.
#[derive(Debug, Clone, Deserialize)]
pub struct Artifact {
    /// `art_...`.
    pub id: String,
    /// Path in the workspace.
    pub name: String,
    /// Size.
    pub size_bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// One journal record.
#[derive(Debug, Clone, Deserialize)]
pub struct Event {
    /// Position in the log.
    pub position: u64,
    /// In snake_case.
    pub kind: String,
    /// Fields of the record.
    pub data: Value,
}

/// One node.
#[derive(Debug, Clone, Deserialize)]
pub struct Node {
    /// `node_...`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Lifecycle state.
    pub state: String,
    /// What is wrong with it.
    pub fault: Option<Failure>,
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Pass as `cursor` to go on.
    pub next_cursor: Option<String>,
}
