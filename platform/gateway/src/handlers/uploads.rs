//! Uploads: files that clients store for workflows to come. Bytes pass through; they are never held whole.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use gantry_engine::api::NewUpload;
use gantry_proto::limits::UPLOAD_BYTES_MAX;
use gantry_proto::{ErrorCode, UploadId};
use http::{HeaderValue, StatusCode, header};

use super::artifacts::{attachment, inert};
use super::{json, typed};
use crate::call::GuardedCall;
use crate::dto::Items;
use crate::problem::Problem;

/// Longest that a whole upload may take: a gigabyte at a third of a megabyte per second.
pub(crate) const WHOLE: Duration = Duration::from_hours(1);
/// Longest silence within one: a sender that is gone must not hold one of the few places.
const SILENCE: Duration = Duration::from_secs(30);

/// The body as it comes; a silence ends it with an error.
fn bytes_of(body: Body) -> BoxStream<'static, std::io::Result<Bytes>> {
    let data = body.into_data_stream().map_err(std::io::Error::other).boxed();
    stream::unfold(Some(data), |data| async move {
        let mut data = data?;
        match tokio::time::timeout(SILENCE, data.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(data))),
            Ok(Some(Err(error))) => Some((Err(error), None)),
            Ok(None) => None,
            Err(_) => Some((Err(std::io::Error::from(std::io::ErrorKind::TimedOut)), None)),
        }
    })
    .boxed()
}

pub(crate) async fn create(call: GuardedCall) -> Result<Response, Problem> {
    let announced = call.header("content-length").and_then(|text| text.parse::<u64>().ok());
    if announced.is_some_and(|length| length > UPLOAD_BYTES_MAX) {
        let message = format!("the file is larger than {UPLOAD_BYTES_MAX} bytes");
        return Err(Problem::new(ErrorCode::TooLarge, message));
    }
    let name = call.query("name")?.ok_or_else(|| {
        Problem::invalid("`name` is missing: what people shall call the file")
            .hint("POST /api/v1/uploads?name=data.csv")
    })?;
    let new = NewUpload {
        caller: call.caller(),
        name: name.to_owned(),
        content_type: call.header("content-type").map(ToOwned::to_owned),
        ttl_ms: call.query_as("ttl_ms", "a number of milliseconds")?,
        idempotency_key: call.header("idempotency-key").map(ToOwned::to_owned),
    };
    let body = std::mem::replace(&mut *call.body.lock(), Body::empty());
    let receipt = call.shared.backend.upload(new, bytes_of(body)).await?;
    let status = if receipt.replayed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let mut response = json(status, &receipt.upload)?;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/uploads/{}", receipt.upload.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let items = call.shared.backend.uploads(call.key.tenant).await?;
    json(StatusCode::OK, &Items { items })
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let id: UploadId = call.id(0, "upload")?;
    json(
        StatusCode::OK,
        &call.shared.backend.upload_info(call.key.tenant, id).await?,
    )
}

/// Always a download, like an artifact: what was uploaded is never shown as a page of ours.
pub(crate) async fn content(call: GuardedCall) -> Result<Response, Problem> {
    let id: UploadId = call.id(0, "upload")?;
    let found = call.shared.backend.upload_content(call.key.tenant, id).await?;
    let size = found.upload.size_bytes;
    let body = if call.parts.method == http::Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(found.stream)
    };
    let mut response = typed(StatusCode::OK, "application/octet-stream", body);
    let headers = response.headers_mut();
    inert(headers);
    attachment(headers, &found.upload.name);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", found.upload.sha256)) {
        headers.insert(header::ETAG, etag);
    }
    Ok(response)
}

pub(crate) async fn delete(call: GuardedCall) -> Result<Response, Problem> {
    let id: UploadId = call.id(0, "upload")?;
    call.shared.backend.delete_upload(call.caller(), id).await?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
