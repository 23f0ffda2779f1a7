//! Runs of code on workers: call a component, read how a run ended.

use axum::response::Response;
use gantry_engine::api::{Run, RunView, WorkflowState};
use gantry_proto::limits::PARAMETERS_BYTES_MAX;
use gantry_proto::{ErrorCode, WorkflowId};
use http::{HeaderValue, StatusCode, header};

use super::json;
use super::workflows::{TRACEPARENT_BYTES_MAX, idempotency_key};
use crate::call::GuardedCall;
use crate::dto::RunBody;
use crate::problem::Problem;

/// Input as JSON text, which may have been escaped on the way.
const BODY_BYTES_MAX: usize = 2 * PARAMETERS_BYTES_MAX;

/// The answer says by its status whether the run has ended: 200, else 202; 201 when nobody waited.
fn answer(run: &RunView, waited: bool) -> Result<Response, Problem> {
    let ended = matches!(
        run.state,
        WorkflowState::Completed | WorkflowState::Failed | WorkflowState::Cancelled
    );
    let status = match (ended, waited) {
        (true, _) => StatusCode::OK,
        (false, true) => StatusCode::ACCEPTED,
        (false, false) => StatusCode::CREATED,
    };
    let mut response = json(status, run)?;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/workflows/{}/result", run.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(crate) async fn run(mut call: GuardedCall) -> Result<Response, Problem> {
    let idempotency_key = idempotency_key(&call)?;
    let traceparent = call
        .header("traceparent")
        .filter(|text| text.len() <= TRACEPARENT_BYTES_MAX)
        .map(ToOwned::to_owned);
    let component = call.text(0).to_owned();
    let body: RunBody = call.call.json_or_default(BODY_BYTES_MAX).await?;
    let input = serde_json::to_vec(&body.input).map_err(|error| Problem::invalid(error.to_string()))?;
    if input.len() > PARAMETERS_BYTES_MAX {
        return Err(Problem::new(
            ErrorCode::TooLarge,
            format!("`input` is larger than {PARAMETERS_BYTES_MAX} bytes"),
        ));
    }
    let run = Run {
        caller: call.caller(),
        component,
        input: input.into(),
        idempotency_key,
        labels: body.labels.into_iter().collect(),
        traceparent,
        wait_ms: body.wait_ms,
    };
    let view = call.shared.backend.run(run).await?;
    answer(&view, body.wait_ms > 0)
}

pub(crate) async fn result(call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    let wait_ms = call
        .query_as::<u64>("wait_ms", "a number of milliseconds")?
        .unwrap_or(0);
    let view = call.shared.backend.run_result(call.key.tenant, id, wait_ms).await?;
    answer(&view, true)
}
