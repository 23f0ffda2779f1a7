//! What people and other programs tell a running workflow: signals and decisions.

use gantry_proto::NodeId;
use indexmap::IndexMap;
use serde_json::{Map, Value};

pub use crate::spec::definition::{DeciderScope, Requires};

/// A signal for a workflow.
#[derive(Debug, Clone)]
pub struct SignalRequest {
    /// Its name: one that a task of the workflow waits for, now or later.
    pub name: String,
    /// The caller's id for it: a second signal with it changes nothing.
    pub id: Option<String>,
    /// Becomes outputs of the task that takes it: the fields of an object, or `value` for anything else. At most `SIGNAL_BYTES_MAX`.
    pub payload: Value,
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalReceipt {
    /// The id was known: nothing new was recorded.
    pub duplicate: bool,
}

/// What is decided on a task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskDecision {
    /// Yes: an approval completes.
    Approve,
    /// No: the task fails.
    Reject,
    /// The result of a task is good: it completes.
    Accept {
        /// The round that was looked at; any when absent.
        round: Option<u32>,
    },
    /// The result of a task is to be made again, with the comment as feedback.
    Rework {
        /// The round that was looked at; any when absent.
        round: Option<u32>,
    },
    /// A task of steps runs elsewhere; what runs is ended, and runs there. Replaces what an earlier one said.
    Reassign(Reassignment),
    /// An escalated task, or one that backs off, starts again, perhaps with other input.
    Retry {
        /// Environment that wins over the definition's.
        env: IndexMap<String, String>,
        /// Values that win over the workflow's parameters.
        params: Map<String, Value>,
    },
    /// The task completes without (further) running.
    Skip,
    /// An escalated task completes with these outputs.
    Resolve {
        /// Its outputs.
        outputs: Map<String, Value>,
    },
    /// The task fails.
    Fail,
}

/// Where a task is to run. With nothing said: on any node that fits.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reassignment {
    /// Only there.
    pub node: Option<NodeId>,
    /// Not where it is, or was last.
    pub away: bool,
    /// What a node must offer, instead of what the definition says.
    pub requires: Option<Requires>,
    /// All its steps begin anew, without the tree that it has: it may then leave the node that keeps that.
    pub restart: bool,
}

/// A decision on a task.
#[derive(Debug, Clone)]
pub struct DecisionRequest {
    /// Name or id of the task.
    pub task: String,
    /// What the decider's key may do.
    pub scope: DeciderScope,
    /// What is decided.
    pub decision: TaskDecision,
    /// Why, in words; at most `COMMENT_BYTES_MAX`.
    pub comment: Option<String>,
}
