//! One workflow, with tasks, steps and attempts.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_journal::keys;
use gantry_journal::{Direction, SealError};
use gantry_proto::v1::{Assignee, EndCause, Payload, WorkflowEnd};
use gantry_proto::{TaskId, TenantId, WorkflowId, limits};
use serde_json::{Map, Value};

use super::content;
use crate::api::{
    ArtifactView, AttemptView, DecisionView, EndingView, FailureView, HoldView, ItemsView, LineageView, OriginView,
    PauseView, Refusal, RefusedView, StepState, StepView, TaskState, TaskView, WorkflowState, WorkflowSummary,
    WorkflowView,
};
use crate::core::flow::describe;
use crate::core::keep::{ErasedRow, HoldRow};
use crate::core::plan;
use crate::core::rows::{AttemptRow, TaskRow, WorkflowRow};
use crate::core::state::{Task, Workflow};
use crate::engine::unreadable;
use crate::processor::load::{Records, decode, open_body, workflow_rows};
use crate::processor::storage::{ContentError, Storage};
use crate::spec::attribute_json;

/// A workflow with its view; what only memory knows is filled in afterwards.
pub(crate) struct Loaded {
    pub(super) workflow: Workflow,
    /// What tasks wait for, in words, where a record says so; by position.
    pub(super) reasons: BTreeMap<usize, String>,
    /// The view.
    pub(crate) view: WorkflowView,
}

/// A payload that may have been erased.
fn payload(records: &mut Records<'_>, seq: Option<u64>) -> Result<Option<Payload>, Refusal> {
    match seq.map(|seq| records.payload(seq)).transpose() {
        Ok(payload) => Ok(payload.flatten()),
        Err(ContentError::Seal(SealError::Erased)) => Ok(None),
        Err(error) => Err(content(error)),
    }
}

fn failure(
    code: Option<&String>,
    payload: Option<&Payload>,
    otherwise: impl FnOnce() -> String,
) -> Option<FailureView> {
    code.map(|code| FailureView {
        code: code.clone(),
        message: payload
            .and_then(|payload| payload.message.clone())
            .unwrap_or_else(otherwise),
        hint: payload.and_then(|payload| payload.hint.clone()),
    })
}

/// What a code says when nothing more was recorded.
fn title(code: Option<&String>) -> String {
    let known: Option<gantry_proto::ErrorCode> = code.and_then(|code| code.parse().ok());
    known.map_or_else(String::new, |code| code.title().to_owned())
}

pub(super) fn summary(row: &WorkflowRow, records: &mut Records<'_>) -> Result<WorkflowSummary, Refusal> {
    let end = if row.end_code.is_some() {
        payload(records, row.end_seq)?
    } else {
        None
    };
    Ok(WorkflowSummary {
        id: row.id,
        name: row.name.clone(),
        state: row.state(),
        created_at_ms: row.created_at_ms,
        ended_at_ms: row.ended_at_ms,
        tasks_total: row.tasks_total,
        tasks_ended: row.tasks_ended,
        priority: row.priority.unwrap_or(limits::PRIORITY_DEFAULT),
        lineage: row.lineage.as_ref().map(|lineage| LineageView {
            parent: lineage.parent,
            task: lineage.task,
            root: lineage.root,
            depth: lineage.depth,
            detached: lineage.detached,
        }),
        failure: failure(row.end_code.as_ref(), end.as_ref(), || title(row.end_code.as_ref())),
        playbook: row
            .playbook
            .as_ref()
            .map(|playbook| format!("{}@{}", playbook.name, playbook.version)),
        origin: row.origin.as_ref().map(|origin| OriginView {
            workflow: origin.workflow,
            kind: origin
                .kind()
                .as_str_name()
                .trim_start_matches("ORIGIN_KIND_")
                .to_ascii_lowercase(),
            task: origin.task.clone(),
        }),
        attributes: row
            .attributes
            .iter()
            .map(|each| (each.name.clone(), attribute_json(each)))
            .collect(),
    })
}

/// Position of a workflow's newest record.
fn position(storage: &Storage, tenant: TenantId, id: WorkflowId) -> Result<u64, Refusal> {
    let range = keys::timeline_from(id.partition(), tenant, id, 0);
    let last = storage
        .store()
        .scan(&range.from, &range.to, Direction::Reverse, 1)
        .map_err(unreadable)?;
    let found = last.first().and_then(|(key, value)| {
        let keys::Parsed::Timeline { first_seq, .. } = keys::parse(key)? else {
            return None;
        };
        let offset = *keys::timeline_offsets(value)?.last()?;
        Some(first_seq + offset as u64)
    });
    Ok(found.unwrap_or(0))
}

/// Reads a workflow of a tenant.
pub(crate) fn load(storage: &Storage, tenant: TenantId, id: WorkflowId) -> Result<Option<Loaded>, Refusal> {
    // The position first: the view may then be newer than it says, never older.
    let position = position(storage, tenant, id)?;
    let Some(mut workflow) = workflow_rows(storage.store().as_ref(), tenant, id).map_err(unreadable)? else {
        return Ok(None);
    };
    let mut records = Records::new(storage, id.partition());
    open_body(&mut workflow, &mut records).map_err(content)?;
    let mut tasks = Vec::with_capacity(workflow.tasks.len());
    let mut reasons = BTreeMap::new();
    for (index, task) in workflow.tasks.iter().enumerate() {
        let mut view = task_view(&workflow, index, task, &mut records)?;
        if task.row.component.is_some() {
            view.steps = super::code::steps(storage, &workflow, task.row.index, &mut records)?;
            view.failure = view.failure.or(super::code::last_failure(&task.row, &mut records)?);
        }
        tasks.push(view);
        if !task.row.is_ended()
            && let Some(said) = payload(&mut records, task.row.wait_seq)?.and_then(|payload| payload.message)
        {
            reasons.insert(index, said);
        }
    }
    let row = &workflow.row;
    let end = payload(&mut records, row.end_seq.filter(|_| row.end_code.is_none()))?;
    let outputs = end
        .and_then(|end| end.outputs_json)
        .and_then(|json| serde_json::from_slice(&json).ok());
    let view = WorkflowView {
        summary: summary(row, &mut records)?,
        definition_digest: hex::encode(&row.digest),
        parameters: workflow
            .body
            .as_ref()
            .map_or(Value::Null, |body| Value::Object(body.parameters.clone())),
        outputs: outputs.unwrap_or_else(|| Value::Object(Map::new())),
        labels: row
            .labels
            .iter()
            .map(|label| (label.key.clone(), label.value.clone()))
            .collect(),
        deadline_ms: row.deadline_ms,
        held: None,
        paused: match &row.paused {
            None => None,
            Some(pause) => Some(PauseView {
                by: pause.by.map(|by| by.to_string()),
                since_ms: pause.at_ms,
                why: payload(&mut records, Some(pause.seq))?.and_then(|payload| payload.message),
            }),
        },
        ending: row
            .ending
            .as_ref()
            .filter(|_| !row.is_ended())
            .map(|ending| EndingView {
                state: state_of(ending.end()),
                failure: FailureView {
                    code: ending.code.clone().unwrap_or_default(),
                    message: workflow.ending.as_deref().unwrap_or_default().to_owned(),
                    hint: None,
                },
                since_ms: ending.at_ms,
            }),
        tasks,
        position,
        hold: kept::<HoldRow>(storage, &keys::hold(id.partition(), tenant, id))?.map(|hold| HoldView {
            by: hold.by,
            at_ms: hold.at_ms,
        }),
        erased_at_ms: kept::<ErasedRow>(storage, &keys::erased(id.partition(), tenant, id))?.map(|row| row.at_ms),
    };
    Ok(Some(Loaded {
        workflow,
        reasons,
        view,
    }))
}

/// A row that most workflows have not.
fn kept<M: prost::Message + Default>(storage: &Storage, key: &[u8]) -> Result<Option<M>, Refusal> {
    let value = storage.store().get(key).map_err(unreadable)?;
    let row = value
        .map(|value| decode("what is kept about a workflow", &value))
        .transpose();
    row.map_err(unreadable)
}

const fn state_of(end: WorkflowEnd) -> WorkflowState {
    match end {
        WorkflowEnd::Completed => WorkflowState::Completed,
        WorkflowEnd::Failed => WorkflowState::Failed,
        WorkflowEnd::Cancelled => WorkflowState::Cancelled,
    }
}

/// The end of its workflow that a task is for.
pub(super) fn handled(row: &TaskRow) -> Option<WorkflowState> {
    row.handles
        .and_then(|end| WorkflowEnd::try_from(end).ok())
        .map(state_of)
}

fn task_view(workflow: &Workflow, index: usize, task: &Task, records: &mut Records<'_>) -> Result<TaskView, Refusal> {
    let row = &task.row;
    let definition = workflow.definition(index).map(|(_, task)| task);
    let mut steps = Vec::with_capacity(row.steps.len());
    for (position, step) in (0u32..).zip(&row.steps) {
        let at = position as usize;
        let key = definition
            .and_then(|task| task.steps.get(at))
            .map_or_else(|| format!("step-{}", at + 1), |step| step.key.clone());
        let mut attempts = Vec::with_capacity(step.attempts.len());
        for attempt in &step.attempts {
            attempts.push(attempt_view(attempt, records)?);
        }
        let result = task.results.get(at).and_then(Option::as_ref);
        let attrs = payload(records, step.result_seq)?.and_then(|payload| payload.attrs_json);
        let artifacts = result.map_or(&[][..], |result| &result.artifacts);
        steps.push(StepView {
            index: position,
            state: step.state(),
            attempts,
            outputs: Value::Object(result.map(|result| result.outputs.clone()).unwrap_or_default()),
            attrs: attrs
                .and_then(|json| serde_json::from_slice(&json).ok())
                .unwrap_or_else(|| Value::Object(Map::new())),
            artifacts: artifacts
                .iter()
                .map(|artifact| ArtifactView {
                    id: artifact.id.to_string(),
                    name: artifact.name.clone(),
                    task: row.name.clone(),
                    step: key.clone(),
                    size_bytes: artifact.size_bytes,
                    sha256: hex::encode(&artifact.sha256),
                    content_type: artifact.content_type.clone(),
                })
                .collect(),
            key,
        });
    }
    let completed = row.state() == TaskState::Completed;
    let end_code = row.end_code.as_ref().filter(|_| !completed);
    let end = if end_code.is_some() {
        payload(records, row.end_seq)?
    } else {
        None
    };
    let decision = match &row.decision {
        None => None,
        Some(made) => Some(DecisionView {
            decision: made
                .decision()
                .as_str_name()
                .trim_start_matches("DECISION_")
                .to_ascii_lowercase(),
            by: made.by.to_string(),
            at_ms: made.at_ms,
            comment: payload(records, Some(made.seq))?.and_then(|payload| payload.message),
        }),
    };
    Ok(TaskView {
        id: row.id,
        name: row.name.clone(),
        state: row.state(),
        kind: definition.map_or("steps", |task| task.kind.text()).to_owned(),
        carried: row.carried,
        handles: handled(row),
        outcome: row.end_code.clone().filter(|_| completed),
        deadline_ms: row.deadline_ms,
        needs: definition.map(|task| task.needs.clone()).unwrap_or_default(),
        waiting: None,
        refused: refused(row, records)?,
        component: row.component.clone(),
        attempt: row.attempt,
        node: row.holder,
        assigned_to: row.assigned_to,
        excluded: row.excluded.clone(),
        ready_at_ms: row.ready_at_ms,
        started_at_ms: row.started_at_ms,
        ended_at_ms: row.ended_at_ms,
        child: row.child,
        items: row.fan_seq.map(|_| items_view(workflow, row.index)),
        item_of: row
            .origin
            .and_then(|origin| workflow.tasks.get(origin as usize))
            .map(|parent| parent.row.id),
        item_index: row.item,
        item: plan::item(workflow, task).cloned(),
        failure: failure(end_code, end.as_ref(), || title(end_code)),
        decision,
        round: row.round,
        feedback: task.feedback.as_deref().map(str::to_owned),
        outputs: task.result.as_ref().map(|result| Value::Object(result.outputs.clone())),
        steps,
    })
}

/// How far the items of a task are.
pub(super) fn items_view(workflow: &Workflow, parent: u32) -> ItemsView {
    let mut view = ItemsView {
        total: 0,
        completed: 0,
        failed: 0,
        open: 0,
    };
    for item in workflow.items(parent) {
        view.total += 1;
        match item.row.state() {
            TaskState::Completed => view.completed += 1,
            _ if item.row.is_ended() => view.failed += 1,
            _ if !item.row.is_unbegun() => view.open += 1,
            _ => {}
        }
    }
    view
}

/// What nodes said that would not take it.
fn refused(row: &TaskRow, records: &mut Records<'_>) -> Result<Option<RefusedView>, Refusal> {
    let Some(node) = row.refused_by else {
        return Ok(None);
    };
    let payload = payload(records, row.refused_seq)?;
    let code = row.refused_code.clone();
    let code = code.unwrap_or_else(|| gantry_proto::ErrorCode::InfrastructureLost.as_str().to_owned());
    let why = failure(Some(&code), payload.as_ref(), || title(Some(&code)));
    Ok(why.map(|failure| RefusedView {
        times: row.refusals,
        node,
        failure,
    }))
}

fn attempt_view(row: &AttemptRow, records: &mut Records<'_>) -> Result<AttemptView, Refusal> {
    let ended_badly = matches!(row.state(), StepState::Failed | StepState::Lost | StepState::Cancelled);
    let end = if ended_badly {
        payload(records, row.end_seq)?
    } else {
        None
    };
    let lost =
        (row.state() == StepState::Lost).then(|| gantry_proto::ErrorCode::InfrastructureLost.as_str().to_owned());
    let code = row.code.clone().or(lost);
    Ok(AttemptView {
        attempt: row.attempt,
        state: row.state(),
        node: row.node,
        sandbox: row.sandbox,
        assigned_at_ms: row.assigned_at_ms,
        started_at_ms: row.started_at_ms,
        finished_at_ms: row.finished_at_ms,
        cause: row
            .cause
            .and_then(|cause| EndCause::try_from(cause).ok())
            .map(|cause| cause_text(cause).to_owned()),
        exit_code: row.exit_code,
        signal: row.signal,
        oom_seen: row.oom_seen.unwrap_or(false),
        failure: failure(code.as_ref().filter(|_| ended_badly), end.as_ref(), || describe(row)),
        progress: None,
        cpu_us: row.cpu_us,
        max_rss_bytes: row.max_rss_bytes,
    })
}

/// How an attempt ended, in one word.
pub(crate) fn cause_text(cause: EndCause) -> &'static str {
    match cause {
        EndCause::Exited => "exited",
        EndCause::Signalled => "signalled",
        EndCause::Timeout => "timeout",
        EndCause::Cancelled => "cancelled",
        EndCause::Oom => "oom",
        EndCause::OutputLimit => "output_limit",
        EndCause::Invalid => "invalid",
        EndCause::Contract => "contract",
        EndCause::Lost => "lost",
    }
}

impl Loaded {
    /// The workflow as spans.
    pub(crate) fn trace(&self) -> crate::api::Trace {
        super::trace::trace(&self.view, self.workflow.row.traceparent.as_deref())
    }

    /// Adds the progress files of what runs.
    pub(crate) fn show_progress(&mut self, find: impl Fn(TaskId) -> Option<(Assignee, String)>) {
        for task in self.view.tasks.iter_mut().filter(|task| task.node.is_some()) {
            let Some((assignee, text)) = find(task.id) else {
                continue;
            };
            let step = task.steps.get_mut(assignee.step as usize);
            let attempt = step.and_then(|step| step.attempts.iter_mut().find(|each| each.attempt == assignee.attempt));
            if let Some(attempt) = attempt.filter(|each| matches!(each.state, StepState::Assigned | StepState::Running))
            {
                attempt.progress = Some(text);
            }
        }
    }
}

/// The definition as it was submitted.
pub(crate) fn source(storage: &Storage, tenant: TenantId, id: WorkflowId) -> Result<Option<Bytes>, Refusal> {
    let Some(workflow) = workflow_rows(storage.store().as_ref(), tenant, id).map_err(unreadable)? else {
        return Ok(None);
    };
    let submitted = Records::new(storage, id.partition())
        .payload(workflow.row.submit_seq)
        .map_err(content)?;
    match submitted.and_then(|payload| payload.source) {
        Some(source) => Ok(Some(source)),
        None => Err(content(ContentError::Seal(SealError::Erased))),
    }
}
