//! Container hosts.

use axum::response::Response;
use http::StatusCode;

use super::json;
use crate::call::{GuardedCall, SMALL_BODY_BYTES_MAX};
use crate::dto::{DrainBody, Items};
use crate::problem::Problem;

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let items = call.shared.backend.nodes(call.key.tenant).await?;
    json(StatusCode::OK, &Items { items })
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let node = call.shared.backend.node(call.key.tenant, call.id(0, "node")?).await?;
    json(StatusCode::OK, &node)
}

pub(crate) async fn drain(mut call: GuardedCall) -> Result<Response, Problem> {
    let id = call.id(0, "node")?;
    let body: DrainBody = call.call.json(SMALL_BODY_BYTES_MAX).await?;
    let node = call.shared.backend.drain_node(call.caller(), id, body.drain).await?;
    json(StatusCode::OK, &node)
}
