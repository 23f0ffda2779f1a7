//! The end of a workflow: how it ends, and what runs before it does.
//!
//! Once all its tasks have ended, its end is decided, once. If a task handles such an end (`on_failure`, `on_cancel`), the decision is recorded, that task runs
//! under a deadline of its own, and whatever becomes of it, the workflow ends as was decided.

use std::collections::BTreeMap;

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, WorkflowEnd};
use gantry_proto::{ErrorCode, NodeId, TaskId, WorkflowId, limits};
use serde_json::{Value, json};

use super::begin::SKIPPED;
use super::said;
use super::settle::failed;
use crate::api::Order;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::plan;
use crate::core::state::Workflow;
use crate::lifecycle::workflow::WorkflowState;

/// How a workflow ends, and what there is to say of it: outputs, or the reason.
struct Conclusion {
    end: WorkflowEnd,
    code: Option<ErrorCode>,
    payload: Option<v1::Payload>,
}

impl Batching<'_> {
    /// Ends a workflow whose tasks have ended, or begins what runs before its end.
    pub(super) fn conclude(&mut self, id: WorkflowId) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(id) else {
            return Ok(());
        };
        let conclusion = match decided(workflow) {
            Some(decided) => decided,
            None => {
                let conclusion = conclusion(workflow);
                self.hand_over(id, &conclusion)?;
                conclusion
            }
        };
        let open = |workflow: &Workflow| workflow.tasks.iter().any(|task| !task.row.is_ended());
        if self.workflow(id).is_none_or(open) {
            return Ok(());
        }
        self.end_workflow(id, conclusion)
    }

    /// Begins what handles this end, and skips what handles another.
    fn hand_over(&mut self, id: WorkflowId, conclusion: &Conclusion) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(id) else {
            return Ok(());
        };
        let begun = workflow.row.state() != WorkflowState::Pending;
        let handlers = workflow.tasks.iter().map(|task| &task.row);
        let (own, others): (Vec<_>, Vec<_>) = handlers
            .filter(|row| row.handles.is_some() && !row.is_ended())
            // One that never began has nothing to handle.
            .map(|row| (row.index, begun && row.handles == Some(conclusion.end.into())))
            .partition(|(_, own)| *own);
        for (index, _) in others {
            self.complete((id, index), Some(SKIPPED), None)?;
        }
        let Some((handler, _)) = own.first() else {
            return Ok(());
        };
        let event = v1::WorkflowEnding {
            end: conclusion.end.into(),
            code: conclusion.code.map(|code| code.as_str().to_owned()),
        };
        let why = self.workflow(id).map(reason).unwrap_or_default();
        self.record(id, Kind::WorkflowEnding(event), said(why))?;
        self.begin((id, *handler))
    }

    fn end_workflow(&mut self, id: WorkflowId, conclusion: Conclusion) -> Result<(), ApplyError> {
        let Conclusion { end, code, payload } = conclusion;
        let Some(workflow) = self.workflow(id) else {
            return Ok(());
        };
        let event = v1::WorkflowEnded {
            end: end.into(),
            code: code.map(|code| code.as_str().to_owned()),
        };
        let mut holders: BTreeMap<NodeId, Vec<TaskId>> = BTreeMap::new();
        for task in &workflow.tasks {
            let mut nodes: Vec<NodeId> = task
                .row
                .steps
                .iter()
                .flat_map(|step| step.attempts.iter().map(|attempt| attempt.node))
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            for node in nodes {
                holders.entry(node).or_default().push(task.row.id);
            }
        }
        let schedule = workflow.row.schedule.clone();
        self.release_limits((id, None))?;
        self.record(id, Kind::WorkflowEnded(event), payload.clone())?;
        self.report_end(id, end, code, payload)?;
        if let Some(run) = schedule {
            self.release_schedule(run.schedule)?;
        }
        self.orders
            .extend(holders.into_iter().map(|(node, tasks)| Order::Release(node, tasks)));
        Ok(())
    }
}

/// What was decided before a task that handles it began.
fn decided(workflow: &Workflow) -> Option<Conclusion> {
    let ending = workflow.row.ending.as_ref()?;
    Some(Conclusion {
        end: ending.end(),
        code: ending.code.as_deref().and_then(|code| code.parse().ok()),
        payload: workflow.ending.as_deref().and_then(said),
    })
}

fn conclusion(workflow: &Workflow) -> Conclusion {
    let (end, code, payload) = if workflow.row.cancel_by.is_some() {
        (WorkflowEnd::Cancelled, Some(ErrorCode::WorkflowCancelled), None)
    } else if workflow.row.deadline_passed {
        let code = Some(ErrorCode::DeadlineExceeded);
        (WorkflowEnd::Failed, code, said("it was not done by its deadline"))
    } else if let Some(code) = &workflow.row.limit_code {
        let code = code.parse().unwrap_or(ErrorCode::LimitReached);
        (WorkflowEnd::Failed, Some(code), said("a limit did not let it go on"))
    } else if let Some(failed) = failed(workflow) {
        let why = said(format!("task `{}` failed", failed.row.name));
        (WorkflowEnd::Failed, Some(ErrorCode::TaskFailed), why)
    } else {
        match plan::workflow_outputs(workflow) {
            Ok(outputs) => (WorkflowEnd::Completed, None, outputs),
            Err(fault) => (WorkflowEnd::Failed, Some(fault.code), said(fault.message)),
        }
    };
    Conclusion { end, code, payload }
}

/// Why a workflow ends, for whatever handles it: with what its task said.
fn reason(workflow: &Workflow) -> String {
    let conclusion = conclusion(workflow);
    let said = conclusion.payload.and_then(|payload| payload.message);
    let cause = failed(workflow).filter(|_| conclusion.code == Some(ErrorCode::TaskFailed));
    let mut why = match (
        cause.and_then(|task| task.failure.as_deref()),
        said,
        workflow.row.cancel_by,
    ) {
        (Some(cause), Some(said), _) => format!("{said}: {cause}"),
        (_, Some(said), _) => said,
        (_, None, Some(by)) => format!("cancelled by {by}"),
        (_, None, None) => String::new(),
    };
    let end = why.floor_char_boundary(limits::HANDLER_REASON_BYTES_MAX);
    why.truncate(end);
    why
}

/// What the task that handles the end of its workflow may read of it.
pub(in crate::core) fn failure(workflow: &Workflow) -> Value {
    let ending = workflow.row.ending.as_ref();
    let code = ending.and_then(|ending| ending.code.as_deref()).unwrap_or_default();
    let task = failed(workflow).filter(|_| code == ErrorCode::TaskFailed.as_str());
    json!({
        "code": code,
        "message": workflow.ending.as_deref().unwrap_or_default(),
        "task": task.map_or("", |task| task.row.name.as_str()),
        "task_code": task.and_then(|task| task.row.end_code.as_deref()).unwrap_or_default(),
    })
}
