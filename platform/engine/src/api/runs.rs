//! Calling code on workers: one task of code as a workflow of its own.

use bytes::Bytes;
use gantry_proto::WorkflowId;
use serde::Serialize;
use utoipa::ToSchema;

use super::backend::Caller;
use super::view::{FailureView, WaitingView, WorkflowState};

/// A component to be run now.
#[derive(Debug, Clone)]
pub struct Run {
    /// Who asks.
    pub caller: Caller,
    /// What workers registered it as.
    pub component: String,
    /// JSON.
    pub input: Bytes,
    /// Makes a repeated call return the first one's run for 24 h.
    pub idempotency_key: Option<String>,
    /// Free labels, shown and filtered by.
    pub labels: Vec<(String, String)>,
    /// W3C trace context of the caller.
    pub traceparent: Option<String>,
    /// How long to wait for its end, bounded by `RUN_WAIT_MS_MAX`; 0: not at all. What keeps it from ending is answered earlier.
    pub wait_ms: u64,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RunView {
    /// The workflow that it is, `wf_...`.
    #[schema(value_type = String)]
    pub id: WorkflowId,
    /// The idempotency key was known: nothing new was started.
    pub replayed: bool,
    /// Lifecycle state of the workflow.
    pub state: WorkflowState,
    /// What the code returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<serde_json::Value>,
    /// Why it failed; of a run that has not ended: why its last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// When it is tried again after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at_ms: Option<u64>,
    /// Why it does not run, when it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<WaitingView>,
}
