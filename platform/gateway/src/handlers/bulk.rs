//! Bulk operations: one command for every workflow that a filter fits.

use axum::response::Response;
use gantry_directory::Resource;
use gantry_engine::api::BulkRequest;
use gantry_proto::limits::{BULK_PAYLOAD_BYTES_MAX, COMMENT_BYTES_MAX, FILTER_BYTES_MAX};
use gantry_proto::{BulkId, ErrorCode};
use http::{HeaderValue, StatusCode, header};

use super::json;
use super::workflows::idempotency_key;
use crate::call::GuardedCall;
use crate::dto::Paged;
use crate::dto::bulk::{BulkAnswer, BulkBody};
use crate::problem::Problem;

/// Escapes make a text up to six times longer in JSON; what is within comes under its own limit.
const BODY_BYTES_MAX: usize = 2 * (BULK_PAYLOAD_BYTES_MAX + COMMENT_BYTES_MAX + FILTER_BYTES_MAX);

pub(crate) async fn start(mut call: GuardedCall) -> Result<Response, Problem> {
    let idempotency_key = idempotency_key(&call)?;
    let mut body: BulkBody = call.call.json(BODY_BYTES_MAX).await?;
    let (action, verb) = (body.action()?, body.operation.verb());
    let scope = call.key.scope;
    if !scope.allows(Resource::Workflow, verb) {
        let detail = format!("a key of scope `{scope}` may not {verb} workflows");
        return Err(Problem::new(ErrorCode::Forbidden, detail).hint("use a key with a wider scope"));
    }
    let backend = &call.shared.backend;
    if body.dry_run {
        let preview = backend.preview_bulk(call.key.tenant, body.filter).await?;
        return json(StatusCode::OK, &BulkAnswer::Preview(preview));
    }
    let request = BulkRequest {
        caller: call.caller(),
        action,
        filter: body.filter,
        comment: body.comment,
        rate: body.rate,
        idempotency_key,
    };
    let view = backend.start_bulk(request).await?;
    let location = HeaderValue::from_str(&format!("/api/v1/bulk/{}", view.id));
    let mut response = json(StatusCode::ACCEPTED, &BulkAnswer::Started(view))?;
    if let Ok(location) = location {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let after = call.query_as("cursor", "a cursor of this list")?;
    let limit = call.limit()? as usize;
    let page = call.shared.backend.bulks(call.key.tenant, after, limit).await?;
    json(StatusCode::OK, &Paged::new(page.items, page.next_cursor))
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let id: BulkId = call.id(0, "bulk operation")?;
    json(StatusCode::OK, &call.shared.backend.bulk(call.key.tenant, id).await?)
}

pub(crate) async fn cancel(call: GuardedCall) -> Result<Response, Problem> {
    let id: BulkId = call.id(0, "bulk operation")?;
    json(
        StatusCode::ACCEPTED,
        &call.shared.backend.cancel_bulk(call.caller(), id).await?,
    )
}
