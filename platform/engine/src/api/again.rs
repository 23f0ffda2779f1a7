//! Restarting a workflow, or forking it, from a task: a new workflow that has the earlier results of another one.

use serde_json::{Map, Value};

use gantry_proto::WorkflowId;

use super::backend::Caller;

/// What the new workflow may have that the old one had not.
#[derive(Debug, Clone, PartialEq)]
pub enum Again {
    /// Nothing: the same again. The old one must have ended.
    Restart,
    /// Other input. The old one may still run; it goes on.
    Fork {
        /// Parameters that win over the old one's.
        parameters: Map<String, Value>,
        /// Search attributes that win over the old one's, as in a submission.
        attributes: Map<String, Value>,
        /// Labels that win over the old one's.
        labels: Vec<(String, String)>,
        /// Instead of the old one's.
        priority: Option<u32>,
    },
}

/// A task from which on things are done again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgainFrom {
    /// Name or id of the task.
    pub task: String,
    /// Key or position of the step in it; its first one when absent.
    pub step: Option<String>,
}

/// A restart or a fork.
#[derive(Debug, Clone)]
pub struct AgainRequest {
    /// Who asks; the new workflow is theirs.
    pub caller: Caller,
    /// Of which workflow.
    pub workflow: WorkflowId,
    /// How.
    pub again: Again,
    /// This task and all that need it run again, and whatever did not complete. None: only what did not complete, and what needs that.
    pub from: Option<AgainFrom>,
    /// Makes a repeated request return the first one's workflow for 24 h.
    pub idempotency_key: Option<String>,
}
