//! The installation itself: health, status, documents.

use axum::response::Response;
use gantry_engine::api::NodeState;
use gantry_proto::ErrorCode;
use http::StatusCode;
use serde_json::json as object;

use super::{json, typed};
use crate::call::{Call, GuardedCall};
use crate::dto::{Health, JournalStatus, NodesStatus, StatusView, WhoAmI};
use crate::problem::Problem;

#[allow(clippy::unused_async)] // handlers are async
pub(crate) async fn root(call: Call) -> Result<Response, Problem> {
    let body = object!({
        "name": "gantry",
        "version": call.shared.config.version,
        "api": "/api/v1/openapi.json",
        "workflow_schema": "/api/v1/schemas/workflow",
        "errors": "/docs/errors/{code}",
    });
    json(StatusCode::OK, &body)
}

#[allow(clippy::unused_async)] // handlers are async
pub(crate) async fn healthz(_call: Call) -> Result<Response, Problem> {
    json(StatusCode::OK, &Health { status: "ok" })
}

/// Why work is not accepted, if it is not.
async fn not_ready(call: &Call) -> Option<Problem> {
    if call.shared.shutdown.is_cancelled() {
        return Some(Problem::overloaded("shutting down"));
    }
    if let Err(refusal) = call.shared.backend.ready().await {
        return Some(Problem::new(ErrorCode::StorageUnavailable, refusal.message));
    }
    call.shared.directory.ready().await.err().map(Problem::from)
}

pub(crate) async fn readyz(call: Call) -> Result<Response, Problem> {
    match not_ready(&call).await {
        None => json(StatusCode::OK, &Health { status: "ok" }),
        Some(problem) => Err(problem.status(StatusCode::SERVICE_UNAVAILABLE)),
    }
}

#[allow(clippy::unused_async)] // handlers are async
pub(crate) async fn openapi(call: Call) -> Result<Response, Problem> {
    Ok(typed(StatusCode::OK, "application/json", call.shared.openapi.clone()))
}

#[allow(clippy::unused_async)] // handlers are async
pub(crate) async fn workflow_schema(call: Call) -> Result<Response, Problem> {
    json(StatusCode::OK, &call.shared.config.workflow_schema)
}

#[allow(clippy::unused_async)] // handlers are async
pub(crate) async fn whoami(call: GuardedCall) -> Result<Response, Problem> {
    json(StatusCode::OK, &WhoAmI::from(&call.key))
}

pub(crate) async fn status(call: GuardedCall) -> Result<Response, Problem> {
    let reason = not_ready(&call).await.map(|problem| problem.detail().to_owned());
    let mut nodes = NodesStatus::default();
    // Nodes are read even when something else is not ready: they are what an operator looks for then.
    for node in call.shared.backend.nodes(call.key.tenant).await? {
        nodes.total += 1;
        *nodes.by_state.entry(node.state.to_string()).or_default() += 1;
        if !matches!(node.state, NodeState::Offline | NodeState::Disconnected) {
            nodes.slots += node.slots;
            nodes.running += node.running;
        }
    }
    let view = StatusView {
        version: call.shared.config.version.clone(),
        installation: call.shared.directory.installation().to_string(),
        ready: reason.is_none(),
        reason,
        nodes,
        journal: call.shared.backend.journal_cost().map(|cost| JournalStatus {
            syncs: cost.syncs,
            bytes: cost.bytes,
        }),
    };
    json(StatusCode::OK, &view)
}
