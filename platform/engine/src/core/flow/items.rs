//! A task over a list: its items are tasks of their own, made when the list is known. It waits for them, lets so many of them run at once, and ends when
//! they have.

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload, TaskEnd};
use gantry_proto::{ErrorCode, TaskId, WorkflowId, limits};
use serde_json::Value;

use super::said;
use super::stop::ending_code;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::plan::{self, PlanFault};
use crate::core::state::{TaskRef, Workflow};
use crate::lifecycle::task::TaskState;
use crate::spec;
use crate::spec::definition::ItemFailure;

impl Batching<'_> {
    /// The needs of a task over a list have ended: the list is made, and with it the items.
    pub(in crate::core) fn fan_out(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let listed = self.workflow(task.0).map(|workflow| list(workflow, task.1 as usize));
        let (name, steps, items) = match listed {
            None => return Ok(()),
            Some(Ok(listed)) => listed,
            Some(Err(fault)) => {
                return self.end_task(task, TaskEnd::Failed, Some(fault.code.as_str()), said(fault.message));
            }
        };
        let definition = self
            .workflow(task.0)
            .and_then(|workflow| workflow.definition(task.1 as usize));
        let component = definition
            .and_then(|(_, task)| task.code())
            .map(|code| code.component.clone());
        let partition = self.state.partition;
        // Items of before are there still when the task begins anew.
        let before = self
            .workflow(task.0)
            .map_or(0, |workflow| workflow.tasks.len())
            .to_be_bytes();
        let seeds = (0u32..).zip(&items).map(|(index, _)| v1::TaskSeed {
            task: TaskId::derive(
                self.now_ms,
                partition,
                &[task.0.as_bytes(), name.as_bytes(), &before, &index.to_be_bytes()],
            ),
            name: format!("{name}[{index}]"),
            steps,
            component: component.clone(),
            handles: None,
        });
        let event = v1::TaskFannedOut {
            task: self.task_id(task),
            items: seeds.collect(),
        };
        let payload = Payload {
            items_json: Some(Bytes::from(Value::Array(items).to_string())),
            ..Payload::default()
        };
        self.record(task.0, Kind::TaskFannedOut(event), Some(payload))
    }

    /// Brings the items of every open task over a list forward. Whether anything was done.
    pub(super) fn advance_items(&mut self, id: WorkflowId) -> Result<bool, ApplyError> {
        let Some(workflow) = self.workflow(id) else {
            return Ok(false);
        };
        let open: Vec<u32> = workflow
            .tasks
            .iter()
            .filter(|task| task.row.fan_seq.is_some() && !task.row.is_ended())
            .map(|task| task.row.index)
            .collect();
        let mut done = false;
        for parent in open {
            done |= self.advance((id, parent))?;
        }
        Ok(done)
    }

    fn advance(&mut self, parent: TaskRef) -> Result<bool, ApplyError> {
        let Some(next) = self.workflow(parent.0).and_then(|workflow| next_of(workflow, parent.1)) else {
            return Ok(false);
        };
        match next {
            Next::Begin(items) => {
                for item in items {
                    self.begin((parent.0, item))?;
                }
            }
            Next::Stop(items, code, why) => {
                for item in items {
                    self.stop_task((parent.0, item), None, code, Some(why.clone()))?;
                }
            }
            Next::End(end, code, why) => {
                self.end_task(parent, end, code.map(ErrorCode::as_str), why.and_then(said))?;
            }
        }
        Ok(true)
    }

    /// Asks a task over a list to end: its items are asked to, and it ends when they have.
    pub(super) fn stop_items(
        &mut self,
        parent: TaskRef,
        grace_ms: Option<u64>,
        code: ErrorCode,
        why: Option<&str>,
    ) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(parent.0) else {
            return Ok(());
        };
        let items: Vec<u32> = workflow.items(parent.1).map(|item| item.row.index).collect();
        let row = self.state.task(parent).map(|task| &task.row);
        let asked = grace_ms.unwrap_or(limits::CANCEL_GRACE_MS_DEFAULT);
        if row.is_some_and(|row| row.cancel_grace_ms.is_none_or(|before| asked < before)) {
            let event = v1::TaskCancelRequested {
                task: self.task_id(parent),
                grace_ms: asked,
                stop_for: None,
            };
            self.record(parent.0, Kind::TaskCancelRequested(event), None)?;
        }
        for item in items {
            self.stop_task((parent.0, item), grace_ms, code, why.map(str::to_owned))?;
        }
        Ok(())
    }
}

/// Name, steps of each item, and the list.
fn list(workflow: &Workflow, position: usize) -> Result<(String, u32, Vec<Value>), PlanFault> {
    let gone = || PlanFault::new(ErrorCode::Internal, "the definition of the workflow cannot be read");
    let (name, definition) = workflow.definition(position).ok_or_else(gone)?;
    let fan_out = definition.for_each.as_ref().ok_or_else(gone)?;
    let scope = Value::Object(plan::roots(workflow, position));
    let value = spec::fill(&fan_out.items, &scope).map_err(|error| {
        PlanFault::new(
            ErrorCode::TemplateError,
            format!("`for_each` of task `{name}`: {error}"),
        )
    })?;
    let Value::Array(items) = value else {
        let message = format!(
            "`for_each` of task `{name}` gives {}; it takes a list: write it as one expression, such as `{{{{ tasks.find.outputs.files }}}}`",
            word(&value)
        );
        return Err(PlanFault::new(ErrorCode::TemplateError, message));
    };
    let room = limits::TASKS_PER_WORKFLOW_MAX.saturating_sub(workflow.tasks.len());
    if items.len() > room {
        let message = format!(
            "`for_each` of task `{name}` gives {} items; a workflow has at most {} tasks, and {} are left for items",
            items.len(),
            limits::TASKS_PER_WORKFLOW_MAX,
            room
        );
        return Err(PlanFault::new(ErrorCode::TooLarge, message));
    }
    let steps = u32::try_from(definition.steps.len()).unwrap_or(u32::MAX);
    Ok((name.to_owned(), steps, items))
}

/// What a value is, for a sentence.
fn word(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// What is next for a task over a list.
enum Next {
    Begin(Vec<u32>),
    Stop(Vec<u32>, ErrorCode, String),
    End(TaskEnd, Option<ErrorCode>, Option<String>),
}

/// `None`: it waits for items that run.
fn next_of(workflow: &Workflow, parent: u32) -> Option<Next> {
    let row = &workflow.tasks.get(parent as usize)?.row;
    let (_, definition) = workflow.definition(parent as usize)?;
    let fan_out = definition.for_each.as_ref()?;
    let (mut total, mut ended, mut failed, mut open) = (0usize, 0usize, 0usize, 0usize);
    let (mut waiting, mut unasked, mut first) = (Vec::new(), Vec::new(), None);
    for item in workflow.items(parent) {
        let row = &item.row;
        total += 1;
        if row.is_ended() {
            ended += 1;
            if row.state() != TaskState::Completed {
                failed += 1;
                first.get_or_insert(row.name.as_str());
            }
            continue;
        }
        if row.cancel_grace_ms.is_none() {
            unasked.push(row.index);
        }
        if row.is_unbegun() {
            waiting.push(row.index);
        } else {
            open += 1;
        }
    }
    let tolerated = fan_out.tolerated.of(total);
    let too_many = failed > tolerated;
    let asked = row.cancel_grace_ms.is_some();
    if ended == total {
        let first = first.unwrap_or_default();
        return Some(if let Some((code, why)) = row.to_fail().filter(|_| asked) {
            Next::End(TaskEnd::Failed, Some(code), Some(why.to_owned()))
        } else if asked {
            Next::End(TaskEnd::Cancelled, Some(ending_code(workflow)), None)
        } else if too_many {
            let why = format!("{failed} of {total} items did not complete, first `{first}`; {tolerated} are tolerated");
            Next::End(TaskEnd::Failed, Some(ErrorCode::ItemsFailed), Some(why))
        } else {
            Next::End(TaskEnd::Completed, None, None)
        });
    }
    if asked || (too_many && fan_out.on_failure == ItemFailure::Stop) {
        if unasked.is_empty() {
            return None;
        }
        return Some(if asked {
            Next::Stop(unasked, ending_code(workflow), "its task was asked to end".to_owned())
        } else {
            let why = format!(
                "item `{}` did not complete, and the task stops then",
                first.unwrap_or_default()
            );
            Next::Stop(unasked, ErrorCode::ItemsFailed, why)
        });
    }
    let room = fan_out
        .max_parallel
        .map_or(usize::MAX, |limit| limit as usize)
        .saturating_sub(open);
    waiting.truncate(room);
    (!waiting.is_empty()).then_some(Next::Begin(waiting))
}
