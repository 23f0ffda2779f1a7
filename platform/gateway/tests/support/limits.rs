//! One limit, which a workflow holds and another one waits for.

use gantry_engine::api::*;
use gantry_proto::{PartitionId, TenantId, WorkflowId};

use super::{Engine, not_found};

const ID: &str = "000102030405060708090a0b0c0d0e0f";

fn held() -> LimitView {
    LimitView {
        id: ID.to_owned(),
        kind: LimitKind::Concurrency,
        holders: 1,
        waiters: 1,
        next_ms: None,
    }
}

fn claim(number: u64, since_ms: Option<u64>) -> ClaimView {
    ClaimView {
        workflow: WorkflowId::new(1, PartitionId::default(), number),
        task: None,
        asked_at_ms: number,
        since_ms,
        evicted: false,
    }
}

#[async_trait::async_trait]
impl Limits for Engine {
    async fn limits(
        &self,
        tenant: TenantId,
        key: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<LimitView>, Refusal> {
        let own = tenant == self.0.lock().tenant && key.is_none_or(|key| key == "repo") && after.is_none();
        Ok([held()].into_iter().filter(|_| own).take(limit).collect())
    }

    fn weigh_tenant(&self, _: TenantId, _: u32) {}

    async fn limit(&self, tenant: TenantId, id: &str) -> Result<LimitDetail, Refusal> {
        if tenant != self.0.lock().tenant || id != ID {
            return Err(not_found());
        }
        Ok(LimitDetail {
            limit: held(),
            holding: vec![claim(1, Some(2))],
            waiting: vec![claim(3, None)],
        })
    }
}
