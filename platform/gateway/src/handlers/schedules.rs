//! Schedules: what starts playbooks by the calendar.

use axum::body::Body;
use axum::response::Response;
use gantry_engine::api::{Overlap, Refusal, ScheduleSpec};
use gantry_proto::ErrorCode;
use gantry_proto::limits::PARAMETERS_BYTES_MAX;
use http::StatusCode;

use super::json;
use crate::call::{GuardedCall, SMALL_BODY_BYTES_MAX, short};
use crate::dto::{BackfillBody, Paged, RunNowBody};
use crate::problem::Problem;

/// Parameters in JSON grow by escaping; twice is ample for anything that a person wrote.
const SET_BODY_BYTES_MAX: usize = 2 * PARAMETERS_BYTES_MAX + SMALL_BODY_BYTES_MAX;

/// What the engine says, about a schedule.
fn said(name: &str) -> impl FnOnce(Refusal) -> Problem + '_ {
    move |refusal| match refusal.code {
        ErrorCode::NotFound => Problem::not_found(&format!("schedule `{}`", short(name))),
        _ => refusal.into(),
    }
}

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let limit = call.limit()? as usize;
    let after = call.query("cursor")?;
    let mut items = call.shared.backend.schedules(call.key.tenant, after, limit + 1).await?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.name.clone());
    json(StatusCode::OK, &Paged::new(items, next_cursor))
}

pub(crate) async fn set(mut call: GuardedCall) -> Result<Response, Problem> {
    let spec: ScheduleSpec = call.call.json(SET_BODY_BYTES_MAX).await?;
    let new = call.query_as("new", "`true` or `false`")?.unwrap_or(false);
    let (caller, name) = (call.caller(), call.text(0));
    let view = call.shared.backend.set_schedule(caller, name, spec, new).await?;
    json(StatusCode::OK, &view)
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let name = call.text(0);
    let view = call.shared.backend.schedule(call.key.tenant, name).await;
    json(StatusCode::OK, &view.map_err(said(name))?)
}

pub(crate) async fn delete(call: GuardedCall) -> Result<Response, Problem> {
    let name = call.text(0);
    let deleted = call.shared.backend.delete_schedule(call.caller(), name).await;
    deleted.map_err(said(name))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

async fn set_paused(call: GuardedCall, paused: bool) -> Result<Response, Problem> {
    let name = call.text(0);
    let view = call.shared.backend.pause_schedule(call.caller(), name, paused).await;
    json(StatusCode::OK, &view.map_err(said(name))?)
}

pub(crate) async fn pause(call: GuardedCall) -> Result<Response, Problem> {
    set_paused(call, true).await
}

pub(crate) async fn resume(call: GuardedCall) -> Result<Response, Problem> {
    set_paused(call, false).await
}

async fn owe(call: GuardedCall, range: Option<(u64, u64)>, overlap: Option<Overlap>) -> Result<Response, Problem> {
    let name = call.text(0);
    let view = call.shared.backend.owe_runs(call.caller(), name, range, overlap).await;
    json(StatusCode::ACCEPTED, &view.map_err(said(name))?)
}

pub(crate) async fn run(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: RunNowBody = call.call.json_or_default(SMALL_BODY_BYTES_MAX).await?;
    owe(call, None, body.overlap).await
}

pub(crate) async fn backfill(mut call: GuardedCall) -> Result<Response, Problem> {
    let body: BackfillBody = call.call.json(SMALL_BODY_BYTES_MAX).await?;
    owe(call, Some((body.from_ms, body.to_ms)), body.overlap).await
}
