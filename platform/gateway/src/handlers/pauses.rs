//! Pauses of definitions and of the tenant.

use axum::body::Body;
use axum::response::Response;
use gantry_proto::limits::COMMENT_BYTES_MAX;
use http::StatusCode;

use super::json;
use crate::call::{GuardedCall, SMALL_BODY_BYTES_MAX};
use crate::dto::Paged;
use crate::dto::decisions::CommentBody;
use crate::problem::Problem;

/// A comment in JSON grows by escaping.
const BODY_BYTES_MAX: usize = 2 * COMMENT_BYTES_MAX + SMALL_BODY_BYTES_MAX;

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let items = call.shared.backend.pauses(call.key.tenant).await?;
    json(StatusCode::OK, &Paged::new(items, None))
}

async fn pause(mut call: GuardedCall, named: bool) -> Result<Response, Problem> {
    let body: CommentBody = call.call.json_or_default(BODY_BYTES_MAX).await?;
    let (caller, definition) = (call.caller(), named.then(|| call.text(0)));
    let held = call
        .shared
        .backend
        .pause_scope(caller, definition, body.comment)
        .await?;
    json(StatusCode::OK, &held)
}

async fn resume(call: GuardedCall, named: bool) -> Result<Response, Problem> {
    let definition = named.then(|| call.text(0));
    call.shared.backend.resume_scope(call.caller(), definition).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

pub(crate) async fn pause_tenant(call: GuardedCall) -> Result<Response, Problem> {
    pause(call, false).await
}

pub(crate) async fn pause_definition(call: GuardedCall) -> Result<Response, Problem> {
    pause(call, true).await
}

pub(crate) async fn resume_tenant(call: GuardedCall) -> Result<Response, Problem> {
    resume(call, false).await
}

pub(crate) async fn resume_definition(call: GuardedCall) -> Result<Response, Problem> {
    resume(call, true).await
}
