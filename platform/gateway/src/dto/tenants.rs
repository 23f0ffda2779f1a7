//! Bodies about tenants.

use gantry_directory::Tenant;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    /// Id, `ten_...`.
    id: String,
    /// Unique name.
    name: String,
    /// When it was made.
    created_at_ms: u64,
    /// What it weighs when tenants share nodes: its share of free slots is its weight over that of all that wait.
    weight: u32,
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        Self {
            id: tenant.id.to_string(),
            name: tenant.name,
            created_at_ms: tenant.created_at_ms,
            weight: tenant.weight,
        }
    }
}

/// What a tenant is to weigh.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WeightBody {
    /// 1 to 1,000; 1 when never set.
    pub(crate) weight: u32,
}
