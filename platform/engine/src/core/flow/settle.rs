//! What follows for the tasks of a workflow once one of them has ended.

use std::collections::BTreeMap;

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, WorkflowEnd};
use gantry_proto::{ErrorCode, NodeId, TaskId, WorkflowId};

use super::said;
use crate::api::Order;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::plan;
use crate::core::state::{Task, Workflow};
use crate::lifecycle::task::TaskState;
use crate::spec::definition::{FailurePolicy, RunOn};

impl Batching<'_> {
    /// Brings a workflow to rest after a task ended: begins what may run, ends what never will, and ends the workflow when all have ended.
    pub(in crate::core) fn settle(&mut self, id: WorkflowId) -> Result<(), ApplyError> {
        // What is to start starts with the workflow. One that is to end ends.
        let held = |workflow: &Workflow| !workflow.row.is_ending();
        if self.state.is_paused(id) && self.workflow(id).is_some_and(held) {
            return Ok(());
        }
        if !self.admit(id)? {
            return Ok(());
        }
        loop {
            while let Some(next) = self.workflow(id).and_then(next_consequence) {
                match next {
                    Consequence::Begin(task) => self.begin((id, task))?,
                    Consequence::Stop(task, code, why) => self.stop_task((id, task), None, code, Some(why))?,
                }
            }
            if !self.advance_items(id)? {
                break;
            }
        }
        let Some(workflow) = self.workflow(id) else {
            return Ok(());
        };
        if workflow.row.is_ended() || workflow.tasks.iter().any(|task| !task.row.is_ended()) {
            return Ok(());
        }
        let failed = failed(workflow);
        let (end, code, payload) = if workflow.row.cancel_by.is_some() {
            (WorkflowEnd::Cancelled, Some(ErrorCode::WorkflowCancelled), None)
        } else if workflow.row.deadline_passed {
            (
                WorkflowEnd::Failed,
                Some(ErrorCode::DeadlineExceeded),
                said("it was not done by its deadline"),
            )
        } else if let Some(code) = &workflow.row.limit_code {
            let code = code.parse().unwrap_or(ErrorCode::LimitReached);
            (WorkflowEnd::Failed, Some(code), said("a limit did not let it go on"))
        } else if let Some(failed) = failed {
            (
                WorkflowEnd::Failed,
                Some(ErrorCode::TaskFailed),
                said(format!("task `{}` failed", failed.row.name)),
            )
        } else {
            match plan::workflow_outputs(workflow) {
                Ok(outputs) => (WorkflowEnd::Completed, None, outputs),
                Err(fault) => (WorkflowEnd::Failed, Some(fault.code), said(fault.message)),
            }
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

/// The first task that failed. Whether failed items fail their task is said by that task.
fn failed(workflow: &Workflow) -> Option<&Task> {
    let mut tasks = workflow.tasks.iter();
    tasks.find(|task| task.row.state() == TaskState::Failed && task.row.origin.is_none())
}

/// One thing that follows for a task that does not run.
enum Consequence {
    Begin(u32),
    Stop(u32, ErrorCode, String),
}

/// The first consequence, in the order of the definition; `None` at rest.
fn next_consequence(workflow: &Workflow) -> Option<Consequence> {
    let body = workflow.body.as_ref()?;
    let failed = failed(workflow);
    let stopping = body.definition.on_task_failure == FailurePolicy::Stop && failed.is_some();
    for (position, task) in workflow.tasks.iter().enumerate() {
        let row = &task.row;
        // Items follow the task over a list that they are of.
        if row.is_ended() || row.origin.is_some() {
            continue;
        }
        let (_, definition) = workflow.definition(position)?;
        let needs = workflow.needs(position);
        let broken = needs
            .iter()
            .map(|need| &workflow.tasks[*need].row)
            .find(|need| need.is_ended() && need.state() != TaskState::Completed);
        if definition.run_on == RunOn::Success {
            if let Some(need) = broken {
                let why = format!("it needs task `{}`, which did not complete", need.name);
                return Some(Consequence::Stop(row.index, ErrorCode::DependencyFailed, why));
            }
            if stopping && row.cancel_grace_ms.is_none() {
                let name = failed.map_or("", |failed| failed.row.name.as_str());
                let why = format!("task `{name}` failed, and the workflow stops then");
                return Some(Consequence::Stop(row.index, ErrorCode::TaskFailed, why));
            }
        }
        if row.is_unbegun() && needs.iter().all(|need| workflow.tasks[*need].row.is_ended()) {
            return Some(Consequence::Begin(row.index));
        }
    }
    None
}
