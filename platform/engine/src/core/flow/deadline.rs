//! What happens when a deadline has passed: what runs is ended, what waits fails.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, StopFor, TaskEnd};
use gantry_proto::{ErrorCode, WorkflowId};

use super::said;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::state::TaskRef;

impl Batching<'_> {
    /// A task was not done in time.
    pub(in crate::core) fn task_overdue(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let event = v1::DeadlinePassed {
            task: Some(self.task_id(task)),
        };
        self.record(task.0, Kind::DeadlinePassed(event), None)?;
        self.fail_soon(
            task,
            StopFor::Deadline,
            ErrorCode::DeadlineExceeded,
            "it was not done by its deadline",
        )
    }

    /// A task is to fail: at once when nothing of it runs, else when that has ended, which is asked to.
    pub(super) fn fail_soon(
        &mut self,
        task: TaskRef,
        stop_for: StopFor,
        code: ErrorCode,
        why: &str,
    ) -> Result<(), ApplyError> {
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        if row.open().is_some() {
            return self.interrupt(task, stop_for);
        }
        if row.component.is_some() && row.holder.is_some() {
            self.revoke_code(task)?;
            self.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(why))?;
            return self.settle(task.0);
        }
        if row.open_child().is_some() || row.fan_seq.is_some() {
            // It ends when what it waits for has ended, which is asked to.
            self.stop_task(task, None, code, Some(format!("its task is to end: {why}")))?;
            return self.settle(task.0);
        }
        self.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(why))?;
        self.settle(task.0)
    }

    /// A workflow was not done in time.
    pub(in crate::core) fn workflow_overdue(&mut self, id: WorkflowId) -> Result<(), ApplyError> {
        self.record(id, Kind::DeadlinePassed(v1::DeadlinePassed { task: None }), None)?;
        let tasks = self.workflow(id).map_or(&[][..], |workflow| &workflow.tasks).iter();
        let tasks = tasks.filter(|task| task.row.handles.is_none());
        let tasks: Vec<u32> = tasks.map(|task| task.row.index).collect();
        for index in tasks {
            let why = Some("the workflow was not done by its deadline".to_owned());
            self.stop_task((id, index), None, ErrorCode::DeadlineExceeded, why)?;
        }
        self.settle(id)
    }
}
