//! Legal holds and erasure.

use axum::response::Response;
use gantry_proto::{TenantId, WorkflowId};
use http::StatusCode;

use super::json;
use crate::call::{GuardedCall, SMALL_BODY_BYTES_MAX};
use crate::dto::keep::{ErasedAnswer, HoldAnswer, HoldBody};
use crate::problem::Problem;

pub(crate) async fn hold(mut call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    let body: HoldBody = call.call.json_or_default(SMALL_BODY_BYTES_MAX).await?;
    call.shared.backend.hold(call.caller(), id, body.reason).await?;
    json(StatusCode::OK, &HoldAnswer { held: true })
}

pub(crate) async fn release(call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    call.shared.backend.release(call.caller(), id).await?;
    json(StatusCode::OK, &HoldAnswer { held: false })
}

pub(crate) async fn erase(call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    call.shared.backend.erase(call.caller(), id).await?;
    json(StatusCode::OK, &ErasedAnswer { workflows: 1 })
}

pub(crate) async fn erase_tenant(call: GuardedCall) -> Result<Response, Problem> {
    let id: TenantId = call.id(0, "tenant")?;
    let workflows = call.shared.backend.erase_tenant(call.caller(), id).await?;
    json(StatusCode::OK, &ErasedAnswer { workflows })
}
