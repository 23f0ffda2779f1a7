//! A backup of the installation, as a download.

use axum::body::Body;
use axum::response::Response;
use gantry_directory::DEFAULT_TENANT;
use gantry_proto::ErrorCode;
use http::StatusCode;

use super::{secret, typed};
use crate::call::GuardedCall;
use crate::maintenance::BackupOptions;
use crate::problem::Problem;

pub(crate) async fn backup(call: GuardedCall) -> Result<Response, Problem> {
    let artifacts = call.query_as("artifacts", "true or false")?.unwrap_or(false);
    // A backup holds every tenant's data: an admin of one tenant is not enough.
    let tenants = call.shared.directory.tenants().await?;
    let own = tenants.iter().find(|tenant| tenant.id == call.key.tenant);
    if own.is_none_or(|tenant| tenant.name != DEFAULT_TENANT) {
        return Err(Problem::new(
            ErrorCode::Forbidden,
            format!("a backup holds the data of every tenant: it needs an admin key of the tenant `{DEFAULT_TENANT}`"),
        ));
    }
    let Some(maintenance) = &call.shared.maintenance else {
        return Err(Problem::new(
            ErrorCode::BackupRefused,
            "this process has no storage of its own to back up",
        ));
    };
    let stream = maintenance.backup(BackupOptions { artifacts }).await?;
    Ok(secret(typed(
        StatusCode::OK,
        "application/x-tar",
        Body::from_stream(stream),
    )))
}
