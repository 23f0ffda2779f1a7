//! A workflow's records: a page as JSON, or everything as server-sent events.

use axum::response::Response;
use futures_util::stream;
use gantry_engine::api::EventView;
use http::StatusCode;

use super::json;
use super::tasks::workflow;
use crate::call::GuardedCall;
use crate::dto::Paged;
use crate::problem::Problem;
use crate::sse::workflow::WorkflowReader;
use crate::sse::{self, Watch};

pub(crate) async fn events(call: GuardedCall) -> Result<Response, Problem> {
    if call.wants_events() {
        follow(call).await
    } else {
        list(call).await
    }
}

async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let limit = call.limit()?;
    let after = match call.query_as("cursor", "a cursor of this list")? {
        Some(after) => after,
        None => call.query_as("after", "a position")?.unwrap_or(0),
    };
    let items = call
        .shared
        .backend
        .events(call.key.tenant, call.id(0, "workflow")?, after, limit as usize)
        .await?;
    // A full page may be the last one; the next is then empty.
    let next_cursor = items
        .last()
        .filter(|_| items.len() == limit as usize)
        .map(|last| last.position.to_string());
    json(StatusCode::OK, &Paged::<EventView>::new(items, next_cursor))
}

async fn follow(call: GuardedCall) -> Result<Response, Problem> {
    let with_output = call.query_as("output", "true or false")?.unwrap_or(true);
    let last_id = call
        .header("last-event-id")
        .map(str::trim)
        .filter(|text| !text.is_empty());
    let watch = Watch::open(call.shared.clone(), call.key.clone(), call.id(0, "workflow")?)?;
    let (_, view) = workflow(&call).await?;
    let reader = WorkflowReader::open(watch, view, last_id, with_output).await?;
    let events = stream::unfold(reader, |mut reader| async move {
        reader.next().await.map(|event| (event, reader))
    });
    Ok(sse::response(&call.shared, events))
}
