//! Tenants, for who runs the installation.

use axum::response::Response;
use gantry_directory::{DEFAULT_TENANT, Tenant};
use gantry_proto::{ErrorCode, TenantId};
use http::StatusCode;

use super::json;
use crate::call::{GuardedCall, SMALL_BODY_BYTES_MAX, short};
use crate::dto::Paged;
use crate::dto::tenants::{TenantView, WeightBody};
use crate::problem::Problem;

/// All tenants, for a key of the first one only: shares are between tenants, and none sets its own.
async fn all(call: &GuardedCall) -> Result<Vec<Tenant>, Problem> {
    let tenants = call.shared.directory.tenants().await?;
    let own = tenants.iter().find(|tenant| tenant.id == call.key.tenant);
    if own.is_none_or(|tenant| tenant.name != DEFAULT_TENANT) {
        return Err(Problem::new(
            ErrorCode::Forbidden,
            format!("tenants are looked after with an admin key of the tenant `{DEFAULT_TENANT}`"),
        ));
    }
    Ok(tenants)
}

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let items: Vec<TenantView> = all(&call).await?.into_iter().map(TenantView::from).collect();
    json(StatusCode::OK, &Paged::new(items, None))
}

pub(crate) async fn weigh(mut call: GuardedCall) -> Result<Response, Problem> {
    all(&call).await?;
    let body: WeightBody = call.call.json(SMALL_BODY_BYTES_MAX).await?;
    let missing = |id: &str| Problem::not_found(&format!("tenant `{}`", short(id)));
    let id = call.text(0);
    let tenant: TenantId = id.parse().map_err(|_| missing(id))?;
    let weighed = call.shared.directory.weigh_tenant(tenant, body.weight).await?;
    let weighed = weighed.ok_or_else(|| missing(id))?;
    // Stored first: what is in force is what a restart finds.
    call.shared.backend.weigh_tenant(tenant, weighed.weight);
    json(StatusCode::OK, &TenantView::from(weighed))
}
