//! Restarting and forking workflows.

use axum::response::Response;
use gantry_engine::api::{Again, AgainFrom, AgainRequest};

use super::workflows::{SUBMIT_BODY_BYTES_MAX, idempotency_key, submitted};
use crate::call::{GuardedCall, SMALL_BODY_BYTES_MAX};
use crate::dto::{ForkBody, RestartBody};
use crate::problem::Problem;

async fn begin(
    call: &GuardedCall,
    again: Again,
    from: Option<AgainFrom>,
    idempotency_key: Option<String>,
) -> Result<Response, Problem> {
    let request = AgainRequest {
        caller: call.caller(),
        workflow: call.id(0, "workflow")?,
        again,
        from,
        idempotency_key,
    };
    submitted(call.shared.backend.again(request).await?)
}

pub(crate) async fn restart(mut call: GuardedCall) -> Result<Response, Problem> {
    let key = idempotency_key(&call)?;
    let body: RestartBody = call.call.json_or_default(SMALL_BODY_BYTES_MAX).await?;
    begin(&call, Again::Restart, body.from.map(Into::into), key).await
}

pub(crate) async fn fork(mut call: GuardedCall) -> Result<Response, Problem> {
    let key = idempotency_key(&call)?;
    let body: ForkBody = call.call.json_or_default(SUBMIT_BODY_BYTES_MAX).await?;
    let again = Again::Fork {
        parameters: body.parameters,
        attributes: body.attributes,
        labels: body.labels.into_iter().collect(),
        priority: body.priority,
    };
    begin(&call, again, body.from.map(Into::into), key).await
}
