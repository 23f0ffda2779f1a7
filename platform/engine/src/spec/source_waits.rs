//! The source form of tasks that wait.

use schemars::JsonSchema;
use serde::Deserialize;

use super::definition::{DeciderScope, OnApprovalDeadline, OnTimeout};
use super::source::Duration;

/// A signal to wait for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SignalSource {
    /// Its name. Signals that come early are kept, and each goes to one task.
    pub(super) name: String,
    /// Longest wait; no limit when absent.
    #[serde(default)]
    pub(super) timeout: Option<Duration>,
    /// What happens then: the task fails, goes on without outputs, or is given to a person.
    #[serde(default)]
    pub(super) on_timeout: Option<OnTimeout>,
}

/// A decision to wait for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalSource {
    /// What is asked (template).
    pub(super) message: String,
    /// Longest wait; no limit when absent.
    #[serde(default)]
    pub(super) deadline: Option<Duration>,
    /// What happens then: `fail` when absent.
    #[serde(default)]
    pub(super) on_deadline: Option<OnApprovalDeadline>,
    /// Who may decide; every key that may operate, when absent.
    #[serde(default)]
    pub(super) by: Option<DecidersSource>,
}

/// Who may decide: keys that are named here, or have a scope that is.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DecidersSource {
    /// Scopes.
    #[serde(default)]
    pub(super) scopes: Vec<DeciderScope>,
    /// Ids of keys, `key_...`.
    #[serde(default)]
    pub(super) keys: Vec<String>,
}
