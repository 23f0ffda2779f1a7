//! Concurrency keys and rates.

use axum::response::Response;
use gantry_proto::ErrorCode;
use http::StatusCode;

use super::json;
use crate::call::{GuardedCall, short};
use crate::dto::Paged;
use crate::problem::Problem;

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let limit = call.limit()? as usize;
    let (key, after) = (call.query("key")?, call.query("cursor")?);
    let backend = &call.shared.backend;
    let mut items = backend.limits(call.key.tenant, key, after, limit + 1).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.clone());
    json(StatusCode::OK, &Paged::new(items, next_cursor))
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let id = call.text(0);
    let found = call.shared.backend.limit(call.key.tenant, id).await;
    let detail = found.map_err(|refusal| match refusal.code {
        ErrorCode::NotFound => Problem::not_found(&format!("limit `{}`", short(id))),
        _ => refusal.into(),
    })?;
    json(StatusCode::OK, &detail)
}
