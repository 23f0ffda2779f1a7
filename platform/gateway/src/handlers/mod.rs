//! What operations do: read the request, ask engine or directory, shape the answer.

pub(crate) mod again;
pub(crate) mod artifacts;
pub(crate) mod backup;
pub(crate) mod bulk;
pub(crate) mod decisions;
pub(crate) mod docs;
pub(crate) mod events;
pub(crate) mod keep;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod pauses;
pub(crate) mod playbooks;
pub(crate) mod query;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod system;
pub(crate) mod tasks;
pub(crate) mod tenants;
pub(crate) mod trace;
pub(crate) mod uploads;
pub(crate) mod workflows;

use axum::body::Body;
use axum::response::Response;
use gantry_proto::ErrorCode;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::problem::Problem;

/// A JSON answer.
pub(crate) fn json<T: Serialize>(status: StatusCode, body: &T) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(body).map_err(|error| {
        tracing::error!(%error, "a view does not serialise");
        Problem::new(ErrorCode::Internal, "the answer could not be written")
    })?;
    Ok(typed(status, "application/json", bytes))
}

/// An answer of another type.
pub(crate) fn typed(status: StatusCode, media: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// The same answer, kept by nobody on the way: it has a secret in it.
pub(crate) fn secret(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the client has this version already.
pub(crate) fn has(if_none_match: Option<&str>, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    if_none_match.is_some_and(|tags| tags.trim() == "*" || tags.split(',').any(|tag| opaque(tag) == opaque(etag)))
}
