//! A workflow's rows and records as rows of the tables.

use std::collections::BTreeMap;

use gantry_journal::archive::{Batch, BatchBuilder, ColumnError, Table, Value};
use gantry_proto::v1::{EndCause, Label, Record, SearchAttribute};
use prost::Message as _;
use serde_json::json;

use super::tables::{ATTEMPTS, EVENTS, SANDBOXES, STEPS, TABLES, TASKS, USAGE, WORKFLOWS};
use crate::api::{EventView, StepState};
use crate::core::code::ActivationRow;
use crate::core::rows::{AttemptRow, StepRow, TaskRow, WorkflowRow};
use crate::core::state::Workflow;
use crate::read::{cause_text, code_state};
use crate::spec::attribute_json;

/// Collects rows of several tables. Whoever fills it takes full batches out.
#[derive(Debug)]
pub struct Tables {
    builders: BTreeMap<u8, BatchBuilder>,
}

impl Tables {
    /// For the tables of these names; others are left out.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let wanted = TABLES.iter().filter(|table| names.contains(&table.name));
        Self {
            builders: wanted.map(|table| (table.id, BatchBuilder::new(table))).collect(),
        }
    }

    /// For every table.
    #[must_use]
    pub fn all() -> Self {
        Self::new(&TABLES.map(|table| table.name))
    }

    /// Whether rows of the table are collected.
    #[must_use]
    pub fn wants(&self, table: &Table) -> bool {
        self.builders.contains_key(&table.id)
    }

    /// About what the rows take that were not taken out yet.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.builders.values().map(BatchBuilder::size_bytes).sum()
    }

    /// Takes the batches that are full.
    pub fn full(&mut self) -> Vec<Batch> {
        let full = self.builders.values_mut().filter(|builder| builder.is_full());
        full.filter_map(BatchBuilder::take).collect()
    }

    /// Takes what is left.
    pub fn rest(&mut self) -> Vec<Batch> {
        self.builders.values_mut().filter_map(BatchBuilder::take).collect()
    }

    fn push(&mut self, table: &Table, row: impl FnOnce() -> Vec<Value>) -> Result<(), ColumnError> {
        match self.builders.get_mut(&table.id) {
            Some(builder) => builder.push(row()),
            None => Ok(()),
        }
    }

    /// Adds a workflow with its tasks, steps, attempts, sandboxes and usage; not its events.
    ///
    /// # Errors
    /// A fault of ours.
    pub fn workflow(&mut self, workflow: &Workflow) -> Result<(), ColumnError> {
        let row = &workflow.row;
        self.push(&WORKFLOWS, || workflow_values(row))?;
        for task in &workflow.tasks {
            let task = &task.row;
            self.push(&TASKS, || task_values(row, task))?;
            for (index, step) in (0u64..).zip(&task.steps) {
                self.push(&STEPS, || step_values(row, task, index, step))?;
                for attempt in &step.attempts {
                    self.push(&ATTEMPTS, || attempt_values(row, task, index, attempt))?;
                    if attempt.sandbox.is_some() {
                        self.push(&SANDBOXES, || sandbox_values(row, task, index, attempt))?;
                    }
                    if let Some((start, end)) = attempt.started_at_ms.zip(attempt.finished_at_ms) {
                        self.push(&USAGE, || usage_values(row, task, index, attempt, start, end))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds the steps of a workflow's code, in the order in which they were begun.
    ///
    /// # Errors
    /// A fault of ours.
    pub fn code(&mut self, workflow: &Workflow, activations: Vec<ActivationRow>) -> Result<(), ColumnError> {
        let mut activations = activations;
        activations.sort_by_key(|row| (row.task, row.begin_seq));
        let (mut task, mut index) = (None, 0);
        for row in &activations {
            index = if task == Some(row.task) { index + 1 } else { 0 };
            task = Some(row.task);
            if let Some(task) = workflow.tasks.get(row.task as usize) {
                self.push(&STEPS, || code_values(&workflow.row, &task.row, index, row))?;
            }
        }
        Ok(())
    }

    /// Adds a record, with the view that readers have of its clear side.
    ///
    /// # Errors
    /// A fault of ours.
    pub fn event(&mut self, workflow: &WorkflowRow, view: &EventView, record: &Record) -> Result<(), ColumnError> {
        self.push(&EVENTS, || event_values(workflow, view, record))
    }
}

fn labels(labels: &[Label]) -> Value {
    let object: serde_json::Map<_, _> = labels
        .iter()
        .map(|label| (label.key.clone(), json!(label.value)))
        .collect();
    Value::Json(serde_json::Value::Object(object).to_string())
}

fn attributes(attributes: &[SearchAttribute]) -> Value {
    let object: serde_json::Map<_, _> = attributes
        .iter()
        .map(|attribute| {
            let value = attribute_json(attribute);
            // A time is a text here, which a query casts.
            let time = value.get("time").cloned();
            (attribute.name.clone(), time.unwrap_or(value))
        })
        .collect();
    Value::Json(serde_json::Value::Object(object).to_string())
}

fn workflow_values(row: &WorkflowRow) -> Vec<Value> {
    vec![
        Value::text(row.id),
        Value::text(&row.name),
        Value::text(row.state()),
        Value::text(row.submitted_by),
        labels(&row.labels),
        attributes(&row.attributes),
        Value::Text(hex::encode(&row.digest)),
        Value::of(row.traceparent.clone(), Value::Text),
        Value::time(row.created_at_ms),
        Value::of(row.ended_at_ms, Value::time),
        Value::of(row.end_code.clone(), Value::Text),
        Value::count(row.tasks_total.into()),
        Value::count(row.tasks_ended.into()),
    ]
}

fn task_values(workflow: &WorkflowRow, row: &TaskRow) -> Vec<Value> {
    vec![
        Value::text(row.id),
        Value::text(workflow.id),
        Value::count(row.index.into()),
        Value::text(&row.name),
        Value::text(row.state()),
        Value::count(row.attempt.into()),
        Value::count(row.refusals.into()),
        Value::of(row.holder.or(row.home), Value::text),
        Value::of(row.ready_at_ms, Value::time),
        Value::of(row.started_at_ms, Value::time),
        Value::of(row.ended_at_ms, Value::time),
        Value::of(row.end_code.clone(), Value::Text),
        Value::count(row.steps.len() as u64),
    ]
}

fn step_values(workflow: &WorkflowRow, task: &TaskRow, index: u64, row: &StepRow) -> Vec<Value> {
    let started = row.attempts.iter().filter_map(|attempt| attempt.started_at_ms).min();
    let finished = row.attempts.iter().filter_map(|attempt| attempt.finished_at_ms).max();
    vec![
        Value::text(workflow.id),
        Value::text(task.id),
        Value::text(&task.name),
        Value::count(index),
        Value::text(state_text(row.state())),
        Value::count(row.attempts.len() as u64),
        Value::count(row.failed.into()),
        Value::count(row.lost.into()),
        Value::of(started, Value::time),
        Value::of(finished, Value::time),
    ]
}

/// Tries of code are not told apart: all but the last one failed, and the last one did if the step did.
fn code_values(workflow: &WorkflowRow, task: &TaskRow, index: u64, row: &ActivationRow) -> Vec<Value> {
    let state = code_state(row);
    let failed = row.attempt.saturating_sub(1) + u32::from(state == StepState::Failed);
    vec![
        Value::text(workflow.id),
        Value::text(task.id),
        Value::text(&task.name),
        Value::count(index),
        Value::text(state_text(state)),
        Value::count(row.attempt.into()),
        Value::count(failed.into()),
        Value::count(u64::from(state == StepState::Lost)),
        Value::time(row.begun_at_ms),
        Value::of(row.ended_at_ms, Value::time),
    ]
}

fn attempt_values(workflow: &WorkflowRow, task: &TaskRow, step: u64, row: &AttemptRow) -> Vec<Value> {
    vec![
        Value::text(workflow.id),
        Value::text(task.id),
        Value::text(&task.name),
        Value::count(step),
        Value::count(row.attempt.into()),
        Value::text(state_text(row.state())),
        Value::count(row.fence),
        Value::text(row.node),
        Value::of(row.sandbox, Value::text),
        Value::time(row.assigned_at_ms),
        Value::of(row.started_at_ms, Value::time),
        Value::of(row.finished_at_ms, Value::time),
        cause(row),
        Value::of(row.code.clone(), Value::Text),
        Value::of(row.exit_code, |code| Value::I64(code.into())),
        Value::of(row.signal, |signal| Value::I64(signal.into())),
        Value::of(row.oom_seen, Value::Bool),
        Value::of(row.cpu_us, Value::count),
        Value::of(row.max_rss_bytes, Value::count),
    ]
}

fn sandbox_values(workflow: &WorkflowRow, task: &TaskRow, step: u64, row: &AttemptRow) -> Vec<Value> {
    vec![
        Value::text(row.sandbox.unwrap_or_default()),
        Value::text(workflow.id),
        Value::text(task.id),
        Value::count(step),
        Value::count(row.attempt.into()),
        Value::text(row.node),
        Value::text(if row.is_open() { "busy" } else { "deleted" }),
        Value::of(row.started_at_ms, Value::time),
        Value::of(row.finished_at_ms, Value::time),
        cause(row),
    ]
}

fn usage_values(
    workflow: &WorkflowRow,
    task: &TaskRow,
    step: u64,
    row: &AttemptRow,
    start_ms: u64,
    end_ms: u64,
) -> Vec<Value> {
    vec![
        Value::text(workflow.id),
        Value::text(&workflow.name),
        Value::text(task.id),
        Value::count(step),
        Value::count(row.attempt.into()),
        Value::text(row.node),
        Value::time(end_ms),
        Value::count(end_ms.saturating_sub(start_ms)),
        Value::count(row.cpu_us.unwrap_or(0)),
        Value::count(row.max_rss_bytes.unwrap_or(0)),
    ]
}

fn event_values(workflow: &WorkflowRow, view: &EventView, record: &Record) -> Vec<Value> {
    let text = |name: &str| {
        Value::of(view.data.get(name).and_then(serde_json::Value::as_str), |text| {
            Value::Text(text.to_owned())
        })
    };
    let number = |name: &str| Value::of(view.data.get(name).and_then(serde_json::Value::as_i64), Value::I64);
    vec![
        Value::text(workflow.id),
        Value::count(workflow.id.partition().index().into()),
        Value::count(view.position),
        Value::time(view.at_ms),
        Value::text(&view.kind),
        text("task"),
        text("task_name"),
        number("step"),
        number("attempt"),
        number("fence"),
        text("node"),
        text("sandbox"),
        text("code"),
        number("exit_code"),
        Value::Json(view.data.to_string()),
        Value::Bytes(record.encode_to_vec().into()),
    ]
}

fn cause(row: &AttemptRow) -> Value {
    let cause = row.cause.and_then(|cause| EndCause::try_from(cause).ok());
    Value::of(cause, |cause| Value::text(cause_text(cause)))
}

/// As the API writes it.
fn state_text(state: StepState) -> &'static str {
    match state {
        StepState::Pending => "pending",
        StepState::Assigned => "assigned",
        StepState::Running => "running",
        StepState::Completed => "completed",
        StepState::Failed => "failed",
        StepState::Lost => "lost",
        StepState::Cancelled => "cancelled",
        StepState::Skipped => "skipped",
    }
}
