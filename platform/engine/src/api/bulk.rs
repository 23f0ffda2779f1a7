//! What gateways call about bulk operations: one command for every workflow that a filter fits.

use std::collections::BTreeMap;

use gantry_proto::{BulkId, PrincipalId, TenantId, WorkflowId};
use serde::Serialize;
use utoipa::ToSchema;

use super::backend::{Caller, Refusal};
use super::view::Page;
pub use crate::lifecycle::bulk::BulkState;

/// What is done to each workflow.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum BulkAction {
    /// It is asked to end.
    Cancel {
        /// Time between the polite signal and SIGKILL; each step's own when absent.
        grace_ms: Option<u64>,
    },
    /// Nothing new of it starts.
    Pause {
        /// Running steps end too, and run again later.
        interrupt: bool,
    },
    /// It goes on.
    Resume,
    /// It is given a signal.
    Signal {
        /// Name of the signal.
        signal: String,
        /// Any JSON.
        payload: serde_json::Value,
    },
    /// Tasks of it that were given to a person, ran out of attempts or wait for their next one start now.
    Retry,
    /// It is kept whatever its retention; the comment is the reason.
    Hold,
    /// It is kept no longer than its retention.
    Release,
    /// What users wrote in it is destroyed, if it has ended and is not held.
    Erase,
}

/// A bulk operation to be.
#[derive(Debug, Clone)]
pub struct BulkRequest {
    /// Who asks.
    pub caller: Caller,
    /// What is done.
    pub action: BulkAction,
    /// To which workflows, see [`crate::Filter`].
    pub filter: String,
    /// Why, in words; recorded where the action takes a comment.
    pub comment: Option<String>,
    /// To so many workflows per second at most; `BULK_RATE_DEFAULT` when absent.
    pub rate: Option<u32>,
    /// Makes a repeated request return the first one's operation.
    pub idempotency_key: Option<String>,
}

/// What a bulk operation would be about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkPreview {
    /// Workflows that match, as far as was looked.
    pub matched: u64,
    /// The same by lifecycle state.
    pub by_state: BTreeMap<String, u64>,
    /// The newest of them.
    #[schema(value_type = Vec<String>)]
    pub newest: Vec<WorkflowId>,
    /// Workflows that were looked at.
    pub looked_at: u64,
    /// All were looked at. Otherwise there may be more than `matched`.
    pub complete: bool,
}

/// Why workflows were not acted upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkReasonView {
    /// `ended`, `changed` (the filter fitted it no more), `nothing_to_do`, or an error code.
    pub reason: String,
    /// They were refused, not skipped.
    pub failed: bool,
    /// How many.
    pub count: u64,
}

/// A workflow that was not acted upon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BulkItemView {
    /// Which.
    #[schema(value_type = String)]
    pub workflow: WorkflowId,
    /// It was refused, not skipped.
    pub failed: bool,
    /// Why.
    pub reason: String,
}

/// A bulk operation.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct BulkView {
    /// Id, `bulk_...`.
    #[schema(value_type = String)]
    pub id: BulkId,
    /// What is done: `cancel`, `pause`, `resume`, `signal`, `retry`, `hold`, `release` or `erase`.
    pub operation: String,
    /// To which workflows.
    #[serde(rename = "where")]
    pub filter: String,
    /// Where it stands.
    pub state: BulkState,
    /// To so many workflows per second at most.
    pub rate: u32,
    /// When it was asked for. Workflows that were submitted later are not looked at.
    pub created_at_ms: u64,
    /// By whom.
    #[schema(value_type = String)]
    pub created_by: PrincipalId,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// When it is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
    /// Who ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub cancelled_by: Option<PrincipalId>,
    /// Workflows looked at.
    pub looked_at: u64,
    /// All have been looked at.
    pub searched: bool,
    /// Workflows that matched.
    pub matched: u64,
    /// Acted upon.
    pub done: u64,
    /// Nothing was to be done, or not any more.
    pub skipped: u64,
    /// Refused.
    pub failed: u64,
    /// Why they were skipped or refused.
    pub reasons: Vec<BulkReasonView>,
    /// The newest of them.
    pub others: Vec<BulkItemView>,
}

/// Bulk operations of a tenant. They go on by themselves, also over restarts, and act upon each workflow once.
#[async_trait::async_trait]
pub trait Bulks: Send + Sync + 'static {
    /// Starts one; durable on return.
    async fn start_bulk(&self, request: BulkRequest) -> Result<BulkView, Refusal>;

    /// Counts what a filter fits, without doing anything.
    async fn preview_bulk(&self, tenant: TenantId, filter: String) -> Result<BulkPreview, Refusal>;

    /// Newest first, after `after` (exclusive), at most `limit`.
    async fn bulks(&self, tenant: TenantId, after: Option<BulkId>, limit: usize) -> Result<Page<BulkView>, Refusal>;

    /// One.
    async fn bulk(&self, tenant: TenantId, bulk: BulkId) -> Result<BulkView, Refusal>;

    /// Lets one take no further workflows. What was done stays done. Idempotent.
    async fn cancel_bulk(&self, caller: Caller, bulk: BulkId) -> Result<BulkView, Refusal>;
}
