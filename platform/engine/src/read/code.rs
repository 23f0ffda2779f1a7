//! Runs of code, as readers see them.

use gantry_proto::v1::event::Kind;
use gantry_proto::{TenantId, WorkflowId};
use serde_json::{Map, Value, json};

use super::content;
use crate::api::{FailureView, Refusal, RunView, StepState, StepView};
use crate::core::body::StepResultBody;
use crate::core::code::{ActivationRow, ActivationState};
use crate::core::rows::TaskRow;
use crate::core::state::Workflow;
use crate::engine::unreadable;
use crate::processor::code;
use crate::processor::load::{Records, workflow_rows};
use crate::processor::storage::Storage;
use crate::processor::waiters::failure;

/// Steps of code that one view shows; the journal's records have them all.
const STEPS_SHOWN_MAX: usize = 500;

/// A record about code.
pub(super) fn event(kind: &Kind, task: impl Fn(u32) -> (String, String)) -> Option<(&'static str, Value)> {
    Some(match kind {
        Kind::ActivationBegun(event) => {
            let (id, name) = task(event.task);
            (
                "activation_begun",
                json!({
                    "task": id, "task_name": name, "activation": hex::encode(&event.activation), "key": event.what.key,
                    "kind": event.what.kind().as_str_name().trim_start_matches("ACTIVATION_KIND_").to_ascii_lowercase(),
                    "attempt": event.attempt, "fence": event.fence, "due_ms": event.due_ms,
                }),
            )
        }
        Kind::ActivationEnded(event) => {
            let (id, name) = task(event.task);
            (
                "activation_ended",
                json!({
                    "task": id, "task_name": name, "activation": hex::encode(&event.activation),
                    "key": event.what.as_ref().map(|what| what.key.clone()), "attempt": event.attempt, "fence": event.fence,
                    "end": event.end().as_str_name().trim_start_matches("ACTIVATION_END_").to_ascii_lowercase(), "code": event.code,
                }),
            )
        }
        Kind::RunFailed(event) => {
            let (id, name) = task(event.task);
            (
                "run_failed",
                json!({"task": id, "task_name": name, "fence": event.fence, "code": event.code}),
            )
        }
        _ => return None,
    })
}

/// Why the code failed last, while it has not ended.
pub(super) fn last_failure(row: &TaskRow, records: &mut Records<'_>) -> Result<Option<FailureView>, Refusal> {
    let Some(seq) = row.code_error_seq.filter(|_| !row.is_ended()) else {
        return Ok(None);
    };
    let entry = records.entry(seq).map_err(unreadable)?;
    let offset = usize::try_from(seq - entry.first_seq).unwrap_or(usize::MAX);
    let code = match entry.records.get(offset).and_then(|record| record.event.kind.as_ref()) {
        Some(Kind::RunFailed(failed)) => failed.code.clone(),
        _ => return Ok(None),
    };
    let payload = records.payload(seq).map_err(content)?;
    Ok(Some(failure(&code, payload.as_ref())))
}

/// The activations of a task as its steps, in the order in which they were begun.
pub(super) fn steps(
    storage: &Storage,
    workflow: &Workflow,
    task: u32,
    records: &mut Records<'_>,
) -> Result<Vec<StepView>, Refusal> {
    let stored = code::stored(storage.store().as_ref(), workflow).map_err(unreadable)?;
    let mut rows: Vec<ActivationRow> = stored.into_values().filter(|row| row.task == task).collect();
    rows.sort_by_key(|row| row.begin_seq);
    let mut steps = Vec::with_capacity(rows.len().min(STEPS_SHOWN_MAX));
    for (index, row) in (0u32..).zip(rows.iter().take(STEPS_SHOWN_MAX)) {
        let completed = row.state() == ActivationState::Completed;
        let payload = match row.end_seq.filter(|_| completed) {
            Some(seq) => records.payload(seq).map_err(content)?,
            None => None,
        };
        steps.push(StepView {
            key: key(row, records)?,
            index,
            state: state(row),
            attempts: Vec::new(),
            outputs: Value::Object(payload.map_or_else(Map::new, |payload| StepResultBody::of_code(&payload).outputs)),
            attrs: Value::Object(Map::new()),
            artifacts: Vec::new(),
        });
    }
    Ok(steps)
}

/// An activation's state as that of a step.
pub(crate) fn state(row: &ActivationRow) -> StepState {
    match row.state() {
        ActivationState::Active => StepState::Running,
        ActivationState::Completed => StepState::Completed,
        ActivationState::Failed => StepState::Failed,
        ActivationState::RetryReady => StepState::Pending,
        ActivationState::Unknown => StepState::Lost,
    }
}

fn key(row: &ActivationRow, records: &mut Records<'_>) -> Result<String, Refusal> {
    let entry = records.entry(row.begin_seq).map_err(unreadable)?;
    let offset = usize::try_from(row.begin_seq - entry.first_seq).unwrap_or(usize::MAX);
    Ok(
        match entry.records.get(offset).and_then(|record| record.event.kind.as_ref()) {
            Some(Kind::ActivationBegun(event)) => event.what.key.clone(),
            Some(Kind::ActivationEnded(event)) => event.what.as_ref().map_or_else(String::new, |what| what.key.clone()),
            _ => String::new(),
        },
    )
}

/// Where a run stands, from its rows.
pub(crate) fn run(storage: &Storage, tenant: TenantId, id: WorkflowId) -> Result<Option<RunView>, Refusal> {
    let Some(workflow) = workflow_rows(storage.store().as_ref(), tenant, id).map_err(unreadable)? else {
        return Ok(None);
    };
    let mut records = Records::new(storage, id.partition());
    let mut view = RunView {
        id,
        replayed: false,
        state: workflow.row.state(),
        result: None,
        failure: None,
        retry_at_ms: None,
        waiting: None,
    };
    // A run of code alone is its task; of other workflows the outputs are the result.
    let task = workflow.tasks.first().map(|task| &task.row);
    let task = task.filter(|_| workflow.row.code.unwrap_or(false));
    let (seq, code) = match task.filter(|row| row.is_ended()) {
        Some(row) => (row.end_seq, row.end_code.as_ref()),
        None => (workflow.row.end_seq, workflow.row.end_code.as_ref()),
    };
    let payload = seq
        .map(|seq| records.payload(seq))
        .transpose()
        .map_err(content)?
        .flatten();
    if let Some(code) = code {
        view.failure = Some(failure(code, payload.as_ref()));
    } else if workflow.row.is_ended() {
        let json = payload.and_then(|payload| payload.outputs_json);
        view.result = json.and_then(|json| serde_json::from_slice(&json).ok());
    }
    if let Some(row) = task.filter(|row| !row.is_ended()) {
        view.failure = last_failure(row, &mut records)?;
        view.retry_at_ms = row.wait_until_ms.filter(|_| view.failure.is_some());
    }
    Ok(Some(view))
}
