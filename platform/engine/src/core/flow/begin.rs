//! What a task does once its needs have ended: one place, which knows every kind.

use gantry_proto::ErrorCode;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, TaskEnd};

use super::said;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::plan;
use crate::core::state::TaskRef;
use crate::spec::condition;
use crate::spec::definition::TaskKind;

/// How a task completed that did not run, because its condition was false or a person said so.
pub(crate) const SKIPPED: &str = "skipped";

/// How a task completed whose outputs a person gave.
pub(crate) const RESOLVED: &str = "resolved";

impl Batching<'_> {
    /// The needs of a pending task have ended, and nothing keeps it from running, unless its condition does.
    pub(in crate::core) fn begin(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(());
        };
        let position = task.1 as usize;
        let Some((_, definition)) = workflow.definition(position) else {
            return Ok(());
        };
        // An item begins as its task did, which was asked.
        if workflow.tasks[position].row.origin.is_some() {
            return self.start(task);
        }
        // Its limits were granted while it was held: it has begun already.
        if !workflow.tasks[position].row.limits.is_empty() {
            return self.start(task);
        }
        let deadline_ms = definition.deadline_ms;
        if let Some(when) = &definition.when {
            let roots = plan::roots(workflow, position);
            match condition::holds(when, &roots) {
                Ok(true) => {}
                Ok(false) => return self.complete(task, Some(SKIPPED), None),
                Err(error) => {
                    let code = ErrorCode::ConditionError.as_str();
                    return self.end_task(task, TaskEnd::Failed, Some(code), said(format!("`when`: {error}")));
                }
            }
        }
        if let Some(deadline_ms) = deadline_ms {
            let event = v1::TaskBegan {
                task: self.task_id(task),
                deadline_ms: Some(self.now_ms.saturating_add(deadline_ms)),
            };
            self.record(task.0, Kind::TaskBegan(event), None)?;
        }
        self.start(task)
    }

    /// A pending task starts, for the first time or anew.
    pub(in crate::core) fn start(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let workflow = self.workflow(task.0);
        let Some((_, definition)) = workflow.and_then(|workflow| workflow.definition(task.1 as usize)) else {
            return Ok(());
        };
        let is_item = self.state.task(task).is_some_and(|task| task.row.origin.is_some());
        if definition.for_each.is_some() && !is_item {
            return self.fan_out(task);
        }
        if !definition.limits.is_empty() && !self.cleared(task)? {
            return Ok(());
        }
        let workflow = self.workflow(task.0);
        let Some((_, definition)) = workflow.and_then(|workflow| workflow.definition(task.1 as usize)) else {
            return Ok(());
        };
        match &definition.kind {
            TaskKind::Steps | TaskKind::Code(_) => self.readied(task),
            TaskKind::Workflow(_) => self.request_child(task),
            TaskKind::Sleep(sleep) => {
                let sleep = sleep.clone();
                self.sleep(task, &sleep)
            }
            TaskKind::Signal(signal) => {
                let signal = signal.clone();
                self.await_signal(task, &signal)
            }
            TaskKind::Approval(approval) => {
                let approval = approval.clone();
                self.ask(task, &approval)
            }
        }
    }
}
