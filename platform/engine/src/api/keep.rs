//! Keeping workflows, and destroying what users wrote.

use gantry_proto::{TenantId, WorkflowId};

use super::backend::{Caller, Refusal};

/// Legal holds and erasure.
#[async_trait::async_trait]
pub trait Keeping: Send + Sync + 'static {
    /// Keeps a workflow whatever its retention, and refuses to erase it, until [`Keeping::release`]. Holding one that is held changes nothing.
    async fn hold(&self, caller: Caller, workflow: WorkflowId, reason: Option<String>) -> Result<(), Refusal>;

    /// Ends a hold. One that is not there is no error.
    async fn release(&self, caller: Caller, workflow: WorkflowId) -> Result<(), Refusal>;

    /// Destroys what users wrote in an ended workflow, for good: its data key, output and artifacts. States and times stay. Returns when it can be
    /// opened from no store, and no backup. Repeating is harmless, and finishes what an error left.
    ///
    /// [`gantry_proto::ErrorCode::Conflict`] when it has not ended, [`gantry_proto::ErrorCode::LegalHold`] when it is held.
    async fn erase(&self, caller: Caller, workflow: WorkflowId) -> Result<(), Refusal>;

    /// [`Keeping::erase`] for every workflow of the caller's tenant; refused as a whole when one has not ended or is held. Returns how many were erased
    /// by this call. What is submitted meanwhile is not touched.
    async fn erase_tenant(&self, caller: Caller, tenant: TenantId) -> Result<u64, Refusal>;
}
