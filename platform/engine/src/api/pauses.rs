//! What gateways call about pauses of definitions and tenants.

use gantry_proto::TenantId;

use super::backend::{Caller, Refusal};
use super::view::HeldView;

/// Pauses of definitions and tenants.
#[async_trait::async_trait]
pub trait Pauses: Send + Sync {
    /// What is paused, the tenant itself first, then definitions by name.
    async fn pauses(&self, tenant: TenantId) -> Result<Vec<HeldView>, Refusal>;

    /// Holds a definition (by the name of a workflow or a playbook), or without a name everything of the tenant: nothing new starts, what runs ends by itself.
    /// Returns when every partition knows, or after `PAUSE_SPREAD_MS`. Repeating it changes nothing.
    async fn pause_scope(
        &self,
        caller: Caller,
        definition: Option<&str>,
        comment: Option<String>,
    ) -> Result<HeldView, Refusal>;

    /// Lets it go on. One that is not paused is no error.
    async fn resume_scope(&self, caller: Caller, definition: Option<&str>) -> Result<(), Refusal>;
}
