//! Bodies of signals and decisions.

use std::collections::BTreeMap;

use gantry_engine::api::TaskState;
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
