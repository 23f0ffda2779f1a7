//! What gateways call about limits.

use gantry_proto::{TaskId, TenantId, WorkflowId};
use serde::Serialize;
use utoipa::ToSchema;

use super::backend::Refusal;
use super::view::LimitKind;

/// A concurrency key or a rate that somebody uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LimitView {
    /// What it is known by: a hash of the key, in hex. The key itself is what users wrote, and is kept with their workflows only.
    pub id: String,
    /// What it is.
    pub kind: LimitKind,
    /// How many hold it.
    pub holders: u32,
    /// How many wait.
    pub waiters: u32,
    /// When the next one may start, of a rate that somebody waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_ms: Option<u64>,
}

/// Somebody who holds a limit, or waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClaimView {
    /// The workflow.
    #[schema(value_type = String)]
    pub workflow: WorkflowId,
    /// Its task; absent: the workflow as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub task: Option<TaskId>,
    /// When it asked.
    pub asked_at_ms: u64,
    /// Since when it holds; absent: it waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// It was asked to end, for one that is newer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub evicted: bool,
}

/// A limit with those who hold it or wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LimitDetail {
    /// What it is.
    #[serde(flatten)]
    pub limit: LimitView,
    /// Those who hold it, at most 500.
    pub holding: Vec<ClaimView>,
    /// Those who wait, the next one first, at most 500.
    pub waiting: Vec<ClaimView>,
}

/// Concurrency keys and rates, and shares of tenants.
#[async_trait::async_trait]
pub trait Limits: Send + Sync {
    /// Limits of a tenant that somebody uses, by id; with `key`, those that it is the key of: a concurrency key, a rate, or both.
    async fn limits(
        &self,
        tenant: TenantId,
        key: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<LimitView>, Refusal>;

    /// Sets what a tenant weighs when tenants share nodes, from the next placement on. Who is asked keeps it; this process forgets it.
    fn weigh_tenant(&self, tenant: TenantId, weight: u32);

    /// One of them.
    ///
    /// # Errors
    /// `not-found`, also when nobody uses it any more.
    async fn limit(&self, tenant: TenantId, id: &str) -> Result<LimitDetail, Refusal>;
}
