//! Tenants, for who runs the installation.

use gantry_directory::{Resource as R, Verb as V};
use http::Method;

use crate::dto::Paged;
use crate::dto::tenants::{TenantView, WeightBody};
use crate::handlers::tenants;
use crate::operation::Content::Json;
use crate::operation::Operation;
use crate::schema::{list as list_of, of};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::guarded(
            Method::GET,
            "/api/v1/tenants",
            "list_tenants",
            (R::Tenant, V::List),
            "Tenants, oldest first; for admin keys of the tenant `default`",
            tenants::list,
        )
        .returns(200, &[Json(list_of::<Paged<TenantView>, TenantView>())]),
        Operation::guarded(
            Method::PUT,
            "/api/v1/tenants/{id}/weight",
            "weigh_tenant",
            (R::Tenant, V::Weigh),
            "Set a tenant's share of free slots, at once and for good; for admin keys of the tenant `default`",
            tenants::weigh,
        )
        .body(Json(of::<WeightBody>()))
        .returns(200, &[Json(of::<TenantView>())]),
    ]
}
