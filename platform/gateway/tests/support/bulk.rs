//! One bulk operation of the script's tenant, of any id.

use gantry_engine::api::*;
use gantry_proto::{BulkId, TenantId};

use super::{Engine, not_found};

fn view(id: BulkId, filter: String) -> BulkView {
    BulkView {
        id,
        operation: "pause".into(),
        filter,
        state: BulkState::Running,
        rate: 100,
        created_at_ms: 1,
        created_by: Default::default(),
        ended_at_ms: None,
        expires_at_ms: None,
        cancelled_by: None,
        looked_at: 3,
        searched: false,
        matched: 2,
        done: 1,
        skipped: 1,
        failed: 0,
        reasons: Vec::new(),
        others: Vec::new(),
    }
}

pub fn bulk_id() -> BulkId {
    BulkId::new(1, gantry_proto::PartitionId::default(), 79)
}

#[async_trait::async_trait]
impl Bulks for Engine {
    async fn start_bulk(&self, request: BulkRequest) -> Result<BulkView, Refusal> {
        Ok(view(bulk_id(), request.filter))
    }

    async fn preview_bulk(&self, _: TenantId, _: String) -> Result<BulkPreview, Refusal> {
        Ok(BulkPreview {
            matched: 2,
            by_state: [("active".to_owned(), 2)].into(),
            newest: Vec::new(),
            looked_at: 3,
            complete: true,
        })
    }

    async fn bulks(&self, tenant: TenantId, _: Option<BulkId>, _: usize) -> Result<Page<BulkView>, Refusal> {
        let shown = tenant == self.0.lock().tenant;
        Ok(Page {
            items: shown.then(|| view(bulk_id(), "true".into())).into_iter().collect(),
            next_cursor: None,
            searched_to_ms: None,
        })
    }

    async fn bulk(&self, tenant: TenantId, bulk: BulkId) -> Result<BulkView, Refusal> {
        match tenant == self.0.lock().tenant && bulk == bulk_id() {
            true => Ok(view(bulk, "true".into())),
            false => Err(not_found()),
        }
    }

    async fn cancel_bulk(&self, caller: Caller, bulk: BulkId) -> Result<BulkView, Refusal> {
        self.bulk(caller.tenant, bulk).await
    }
}
