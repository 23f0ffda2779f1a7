//! What every response has: a request id, safe headers, a log line; and what a panic becomes.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use gantry_proto::ErrorCode;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tracing::Instrument;

use crate::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_CHARS_MAX: usize = 64;

/// The client's id if it is harmless in logs and headers, else a fresh one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let harmless = |text: &&str| {
        !text.is_empty()
            && text.len() <= REQUEST_ID_CHARS_MAX
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    // Without randomness the id is useless, and nothing else depends on it.
    given.filter(harmless).map_or_else(
        || format!("{:016x}", getrandom::u64().unwrap_or_default()),
        ToOwned::to_owned,
    )
}

pub(super) async fn frame(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let begun = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("http", %method, path, request_id = id);
    let answered = AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .instrument(span.clone())
        .await;
    let mut response = answered.unwrap_or_else(|_| {
        // The panic hook has logged message and place.
        span.in_scope(|| tracing::error!("a handler panicked"));
        Problem::new(
            ErrorCode::Internal,
            "something went wrong on our side; the log has the details under the request id",
        )
        .into_response()
    });
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = problem.render(&id);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    headers
        .entry(header::X_CONTENT_TYPE_OPTIONS)
        .or_insert(HeaderValue::from_static("nosniff"));
    headers
        .entry(header::REFERRER_POLICY)
        .or_insert(HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("private, no-cache"));
    span.in_scope(|| {
        tracing::debug!(
            status = response.status().as_u16(),
            elapsed_us = begun.elapsed().as_micros(),
            "answered"
        );
    });
    response
}
