//! A workflow as spans.

use axum::response::Response;
use http::StatusCode;

use super::json;
use crate::call::GuardedCall;
use crate::dto::trace::TraceAnswer;
use crate::problem::Problem;

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let id = call.id(0, "workflow")?;
    let trace = call.shared.backend.trace(call.key.tenant, id).await?;
    json(StatusCode::OK, &TraceAnswer::of(trace, &call.shared.config.version))
}
