//! Holds and erasure of the scripted engine.

use gantry_engine::api::*;
use gantry_proto::{ErrorCode, TenantId, WorkflowId};

use super::{Engine, not_found};

#[async_trait::async_trait]
impl Keeping for Engine {
    async fn hold(&self, caller: Caller, workflow: WorkflowId, reason: Option<String>) -> Result<(), Refusal> {
        let mut script = self.0.lock();
        script.check(caller.tenant, workflow)?;
        script.kept.push(format!("hold {}", reason.unwrap_or_default()));
        Ok(())
    }

    async fn release(&self, caller: Caller, workflow: WorkflowId) -> Result<(), Refusal> {
        let mut script = self.0.lock();
        script.check(caller.tenant, workflow)?;
        script.kept.push("release".into());
        Ok(())
    }

    async fn erase(&self, caller: Caller, workflow: WorkflowId) -> Result<(), Refusal> {
        let script = self.0.lock();
        script.check(caller.tenant, workflow)?;
        match script.kept.last() {
            Some(held) if held.starts_with("hold") => Err(Refusal::new(ErrorCode::LegalHold, "it is held")),
            _ => Ok(()),
        }
    }

    async fn erase_tenant(&self, caller: Caller, tenant: TenantId) -> Result<u64, Refusal> {
        if caller.tenant == tenant {
            Ok(3)
        } else {
            Err(not_found())
        }
    }
}
