//! Nothing is paused until somebody pauses it, and nobody remembers.

use gantry_engine::api::*;
use gantry_proto::TenantId;

use super::Engine;

#[async_trait::async_trait]
impl Pauses for Engine {
    async fn pauses(&self, _: TenantId) -> Result<Vec<HeldView>, Refusal> {
        Ok(Vec::new())
    }

    async fn pause_scope(
        &self,
        caller: Caller,
        definition: Option<&str>,
        comment: Option<String>,
    ) -> Result<HeldView, Refusal> {
        Ok(HeldView {
            scope: definition.map_or(PauseScope::Tenant, |_| PauseScope::Definition),
            definition: definition.map(str::to_owned),
            pause: PauseView {
                by: Some(caller.principal.to_string()),
                since_ms: 1,
                why: comment,
            },
        })
    }

    async fn resume_scope(&self, _: Caller, _: Option<&str>) -> Result<(), Refusal> {
        Ok(())
    }
}
