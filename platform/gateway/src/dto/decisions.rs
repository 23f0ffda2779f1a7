//! Bodies of signals and decisions.

use std::collections::BTreeMap;

use gantry_engine::api::TaskState;
use gantry_proto::NodeId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A signal for a workflow.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalBody {
    /// Its name: one that a task of the workflow waits for, now or later.
    pub(crate) name: String,
    /// Any JSON. The fields of an object become outputs of the task that takes the signal; anything else becomes its output `value`.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) payload: serde_json::Value,
    /// The caller's id for it: a second signal with it changes nothing.
    #[serde(default)]
    pub(crate) id: Option<String>,
}

/// The signal is recorded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignalAnswer {
    /// Its id was known: nothing new was recorded.
    pub(crate) duplicate: bool,
}

/// How to hold a workflow.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseBody {
    /// Why.
    #[serde(default)]
    pub(crate) comment: Option<String>,
    /// End what runs too; it runs again later. Otherwise running steps end by themselves.
    #[serde(default)]
    pub(crate) interrupt: bool,
}

/// A decision, with its reason.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommentBody {
    /// Why.
    #[serde(default)]
    pub(crate) comment: Option<String>,
}

/// A judgement of a task's result.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AssessBody {
    /// Why; for a rework the feedback, which its steps are given.
    #[serde(default)]
    pub(crate) comment: Option<String>,
    /// The round that was looked at: about another one it is refused, and said twice it counts once. Any when absent.
    #[serde(default)]
    pub(crate) round: Option<u32>,
}

/// Where a task is to run. With nothing said: on any node that fits.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReassignBody {
    /// Why.
    #[serde(default)]
    pub(crate) comment: Option<String>,
    /// Only there, `node_...`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) node: Option<NodeId>,
    /// Not where it is, or was last.
    #[serde(default)]
    pub(crate) away: bool,
    /// What a node must offer, instead of what the definition says.
    #[serde(default)]
    pub(crate) requires: Option<RequiresBody>,
    /// All its steps begin anew, without the tree that it has: it may then leave the node that keeps that.
    #[serde(default)]
    pub(crate) restart: bool,
}

/// What a node must offer.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequiresBody {
    /// Capabilities by name.
    #[serde(default)]
    pub(crate) capabilities: Vec<String>,
    /// Labels with these values.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// CPU architecture.
    #[serde(default)]
    pub(crate) arch: Option<String>,
}

/// Another try, perhaps with other input.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryBody {
    /// Why.
    #[serde(default)]
    pub(crate) comment: Option<String>,
    /// Environment of the task's steps that wins over the definition's; no templates.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// Values that win over the workflow's parameters, in this task.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) params: serde_json::Map<String, serde_json::Value>,
}

/// The task is done, by other means.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResolveBody {
    /// Why.
    #[serde(default)]
    pub(crate) comment: Option<String>,
    /// Outputs of the task.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) outputs: serde_json::Map<String, serde_json::Value>,
}

/// Where the task stands now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecisionAnswer {
    /// Lifecycle state.
    pub(crate) state: TaskState,
}
