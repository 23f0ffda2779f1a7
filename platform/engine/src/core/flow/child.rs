//! A task that is another workflow, from both ends. The child is born in a partition of its own; letters carry its start, its cancellation and its result.
//!
//! Letters of one partition arrive in order, so a child's cancellation never comes before its start: it finds the child, or the child has ended.

use std::sync::Arc;

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, ChildEnd, Lineage, Payload, TaskEnd, WaitKind, WorkflowEnd, letter};
use gantry_proto::{ErrorCode, PartitionId, TenantId, WorkflowId, limits};
use serde_json::{Map, Value, json};

use super::birth::Birth;
use super::retry::next_child;
use super::said;
use super::stop::ending_code;
use crate::core::apply::ApplyError;
use crate::core::body::Body;
use crate::core::decide::Batching;
use crate::core::plan::{self, PlanFault};
use crate::core::state::{PartitionState, TaskRef, Workflow};
use crate::spec;
use crate::spec::definition::{ChildDef, TaskKind};

impl Batching<'_> {
    /// A task of kind workflow begins: its child is asked for. What cannot be asked for fails the task.
    pub(in crate::core) fn request_child(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let wanted = match wanted(self.state, self.now_ms, task) {
            Ok(wanted) => wanted,
            Err(fault) => {
                return self.end_task(task, TaskEnd::Failed, Some(fault.code.as_str()), said(fault.message));
            }
        };
        let detached = wanted.start.lineage.detached;
        let event = v1::ChildRequested {
            task: self.task_id(task),
            child: wanted.start.child,
            detached,
        };
        // What a detached child leaves its parent's tasks is its id.
        let outputs = detached.then(|| Payload {
            outputs_json: Some(
                json!({ "workflow": wanted.start.child.to_string() })
                    .to_string()
                    .into_bytes()
                    .into(),
            ),
            ..Payload::default()
        });
        self.record(task.0, Kind::ChildRequested(event), outputs)?;
        let to = wanted.start.child.partition();
        self.send(task.0, to, letter::Kind::ChildStart(wanted.start), Some(wanted.payload))?;
        if detached {
            self.end_task(task, TaskEnd::Completed, None, None)?;
        }
        Ok(())
    }

    /// The partition of a child has its start.
    pub(in crate::core) fn start_child(
        &mut self,
        tenant: TenantId,
        start: v1::ChildStart,
        content: Option<(Payload, Arc<Body>)>,
    ) -> Result<(), ApplyError> {
        if self.state.workflows.contains_key(&start.child) {
            return Ok(());
        }
        let Some((payload, body)) = content else {
            // Erased on its way: there is nothing to run, and the parent must not wait for ever.
            return self.report_unborn(tenant, &start);
        };
        self.bear(Birth {
            id: start.child,
            tenant,
            by: start.submitted_by,
            body,
            payload,
            digest: start.definition_digest,
            idempotency_hash: None,
            labels: start.labels,
            attributes: start.attributes,
            origin: None,
            carried: Vec::new(),
            traceparent: start.traceparent,
            playbook: None,
            priority: start.priority,
            schedule: None,
            lineage: Some(start.lineage),
        })
    }

    fn report_unborn(&mut self, tenant: TenantId, start: &v1::ChildStart) -> Result<(), ApplyError> {
        if start.lineage.detached {
            return Ok(());
        }
        let result = v1::ChildResult {
            parent: start.lineage.parent,
            task: start.lineage.task,
            child: start.child,
            end: ChildEnd::Failed.into(),
            code: Some(ErrorCode::NotFound.as_str().to_owned()),
        };
        let to = start.lineage.parent.partition();
        self.post(tenant, None, to, letter::Kind::ChildResult(result), None)
    }

    /// A child's parent does not want it any more.
    pub(in crate::core) fn cancel_child(
        &mut self,
        tenant: TenantId,
        cancel: v1::ChildCancel,
    ) -> Result<(), ApplyError> {
        let open = self.workflow(cancel.child).is_some_and(|child| {
            // Its lineage is what makes it somebody's child; a letter about anything else has no effect.
            child.row.tenant == tenant && child.row.lineage.is_some() && !child.row.is_ended()
        });
        if open {
            self.cancel_workflow(cancel.child, cancel.by, cancel.grace_ms)?;
        }
        Ok(())
    }

    /// A workflow has ended: whoever waits for it is told.
    pub(in crate::core) fn report_end(
        &mut self,
        id: WorkflowId,
        end: WorkflowEnd,
        code: Option<ErrorCode>,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        let lineage = self.workflow(id).and_then(|workflow| workflow.row.lineage.clone());
        let Some(lineage) = lineage.filter(|lineage| !lineage.detached) else {
            return Ok(());
        };
        let end = match end {
            WorkflowEnd::Completed => ChildEnd::Completed,
            WorkflowEnd::Failed => ChildEnd::Failed,
            WorkflowEnd::Cancelled => ChildEnd::Cancelled,
        };
        let result = v1::ChildResult {
            parent: lineage.parent,
            task: lineage.task,
            child: id,
            end: end.into(),
            code: code.map(|code| code.as_str().to_owned()),
        };
        self.send(
            id,
            lineage.parent.partition(),
            letter::Kind::ChildResult(result),
            payload,
        )
    }

    /// The partition of a parent has its child's result.
    pub(in crate::core) fn child_ended(
        &mut self,
        tenant: TenantId,
        result: v1::ChildResult,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        let end = result.end();
        let waiting = self
            .workflow(result.parent)
            .filter(|parent| parent.row.tenant == tenant)
            .and_then(|_| self.state.find(result.parent, result.task))
            .filter(|task| {
                let row = self.state.task(*task).map(|task| &task.row);
                row.is_some_and(|row| row.open_child() == Some(result.child))
            });
        let Some(task) = waiting else {
            let event = v1::ChildOrphaned {
                parent: result.parent,
                task: result.task,
                child: result.child,
                end: end.into(),
            };
            // One that has ended may have been removed since, and then has no story to be part of.
            let open = self
                .workflow(result.parent)
                .filter(|parent| parent.row.tenant == tenant);
            let of = open.map(|_| result.parent);
            return self.emit(tenant, of, Kind::ChildOrphaned(event), None);
        };
        let message = payload.as_ref().and_then(|payload| payload.message.clone());
        let event = v1::ChildEnded {
            task: result.task,
            child: result.child,
            end: end.into(),
            code: result.code,
        };
        self.record(task.0, Kind::ChildEnded(event), payload)?;
        let stopping = self
            .state
            .task(task)
            .is_some_and(|task| task.row.cancel_grace_ms.is_some());
        let to_fail = self.state.task(task).and_then(|task| task.row.to_fail());
        let child = result.child;
        match end {
            _ if stopping => match to_fail {
                Some((code, why)) => self.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(why))?,
                None => {
                    let code = self.workflow(task.0).map_or(ErrorCode::TaskFailed, ending_code);
                    self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), None)?;
                }
            },
            ChildEnd::Completed => self.end_task(task, TaskEnd::Completed, None, None)?,
            ChildEnd::Failed | ChildEnd::Cancelled => {
                let word = if end == ChildEnd::Failed {
                    "failed"
                } else {
                    "was cancelled"
                };
                let reason = message.map_or_else(String::new, |message| format!(": {message}"));
                let why = format!("its child workflow {child} {word}{reason}");
                self.child_failed(task, end, why)?;
            }
        }
        self.settle(task.0)
    }

    /// A child did not complete. One that failed may be followed by another one; one that was cancelled was not wanted.
    fn child_failed(&mut self, task: TaskRef, end: ChildEnd, why: String) -> Result<(), ApplyError> {
        let workflow = self.workflow(task.0);
        let row = self.state.task(task).map(|task| &task.row);
        let definition = workflow.and_then(|workflow| workflow.definition(task.1 as usize));
        let retry = match definition.map(|(_, definition)| &definition.kind) {
            Some(TaskKind::Workflow(child)) => child.retry.as_ref(),
            _ => None,
        };
        let code = ErrorCode::ChildFailed;
        match (retry, row) {
            (Some(retry), Some(row)) if end == ChildEnd::Failed => match next_child(retry, row, self.now_ms) {
                Some(pause_ms) => {
                    let until_ms = Some(self.now_ms.saturating_add(pause_ms));
                    self.wait_until(task, WaitKind::RetryBackoff, until_ms, said(why))
                }
                None => self.exhausted(task, retry.exhausted, Some(code.as_str()), why),
            },
            _ => self.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(why)),
        }
    }

    /// Asks the child of a task to end. The task ends when the child has.
    pub(super) fn stop_child(
        &mut self,
        task: TaskRef,
        child: WorkflowId,
        grace_ms: Option<u64>,
    ) -> Result<(), ApplyError> {
        let Some((workflow, row)) = self
            .workflow(task.0)
            .and_then(|workflow| Some((workflow, &workflow.tasks.get(task.1 as usize)?.row)))
        else {
            return Ok(());
        };
        let by = workflow.row.cancel_by.unwrap_or(workflow.row.submitted_by);
        let asked = grace_ms.unwrap_or(limits::CANCEL_GRACE_MS_DEFAULT);
        // Only a shorter grace is news; the letter arrives, so it need not be said again.
        if row.cancel_grace_ms.is_some_and(|before| asked >= before) {
            return Ok(());
        }
        let event = v1::TaskCancelRequested {
            task: row.id,
            grace_ms: asked,
            stop_for: None,
        };
        self.record(task.0, Kind::TaskCancelRequested(event), None)?;
        let cancel = v1::ChildCancel { child, by, grace_ms };
        self.send(task.0, child.partition(), letter::Kind::ChildCancel(cancel), None)
    }
}

/// A child that can be started.
struct Wanted {
    start: v1::ChildStart,
    payload: Payload,
}

fn wanted(state: &PartitionState, now_ms: u64, task: TaskRef) -> Result<Wanted, PlanFault> {
    let gone = || PlanFault::new(ErrorCode::Internal, "the definition of the workflow cannot be read");
    let workflow = state.workflows.get(&task.0).ok_or_else(gone)?;
    let position = task.1 as usize;
    let row = &workflow.tasks.get(position).ok_or_else(gone)?.row;
    let (_, definition) = workflow.definition(position).ok_or_else(gone)?;
    let TaskKind::Workflow(child) = &definition.kind else {
        return Err(gone());
    };
    let lineage = lineage(workflow, row.id, child)?;
    let parameters = parameters(workflow, position, child)?;
    let attributes = spec::attributes(&child.definition, &parameters, &Map::new()).map_err(|issues| {
        let first = issues.into_iter().next().map(|issue| issue.message);
        PlanFault::new(ErrorCode::TemplateError, first.unwrap_or_default())
    })?;
    let definition_json = serde_json::to_vec(&child.definition).map_err(|_| gone())?;
    let digest = Bytes::copy_from_slice(blake3::hash(&definition_json).as_bytes());
    let parameters_json = Value::Object(parameters).to_string().into_bytes();
    if parameters_json.len() > limits::PARAMETERS_BYTES_MAX {
        let message = format!(
            "the parameters of the child workflow have {} bytes; the limit is {}",
            parameters_json.len(),
            limits::PARAMETERS_BYTES_MAX
        );
        return Err(PlanFault::new(ErrorCode::TooLarge, message));
    }
    let partition = PartitionId::of(
        workflow.row.tenant,
        "workflow",
        row.id.as_bytes(),
        state.settings.partitions,
    );
    let attempt = row.children.to_be_bytes();
    let id = WorkflowId::derive(now_ms, partition, &[task.0.as_bytes(), row.id.as_bytes(), &attempt]);
    Ok(Wanted {
        start: v1::ChildStart {
            child: id,
            lineage,
            submitted_by: workflow.row.submitted_by,
            definition_digest: digest,
            traceparent: workflow.row.traceparent.clone(),
            labels: workflow.row.labels.clone(),
            attributes,
            priority: child.definition.priority.or(workflow.row.priority),
        },
        payload: Payload {
            definition_json: Some(definition_json.into()),
            parameters_json: Some(parameters_json.into()),
            source: Some(child.source.clone().into_bytes().into()),
            ..Payload::default()
        },
    })
}

fn lineage(workflow: &Workflow, task: gantry_proto::TaskId, child: &ChildDef) -> Result<Lineage, PlanFault> {
    let own = workflow.row.lineage.as_ref();
    let depth = own.map_or(0, |own| own.depth) + 1;
    if depth > limits::CHILD_DEPTH_MAX {
        let message = format!(
            "workflows start workflows at most {} deep, and this would be one more",
            limits::CHILD_DEPTH_MAX
        );
        return Err(PlanFault::new(ErrorCode::TooLarge, message));
    }
    Ok(Lineage {
        parent: workflow.row.id,
        task,
        root: own.map_or(workflow.row.id, |own| own.root),
        depth,
        detached: child.detached,
    })
}

fn parameters(workflow: &Workflow, position: usize, child: &ChildDef) -> Result<Map<String, Value>, PlanFault> {
    let scope = Value::Object(plan::roots(workflow, position));
    let mut parameters = Map::new();
    for (name, template) in &child.parameters {
        let value = spec::fill(template, &scope).map_err(|error| {
            PlanFault::new(
                ErrorCode::TemplateError,
                format!("parameter `{name}` of the child workflow: {error}"),
            )
        })?;
        parameters.insert(name.clone(), value);
    }
    spec::check_parameters(&child.definition, parameters).map_err(|issues| {
        let first = issues.first().map_or("", |issue| issue.message.as_str());
        PlanFault::new(
            ErrorCode::InvalidParameters,
            format!("the parameters of the child workflow do not match: {first}"),
        )
    })
}
