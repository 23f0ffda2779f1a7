//! Ending tasks that have not ended.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, EndCause, StopFor, TaskEnd};
use gantry_proto::{ErrorCode, PrincipalId, WorkflowId, limits};

use super::said;
use crate::api::Order;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::state::{TaskRef, Workflow};

impl Batching<'_> {
    /// Ends a task that is not ended: at once when it does not run, cooperatively when it does.
    pub(in crate::core) fn stop_task(
        &mut self,
        task: TaskRef,
        grace_ms: Option<u64>,
        code: ErrorCode,
        why: Option<String>,
    ) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(());
        };
        let Some(row) = workflow.tasks.get(task.1 as usize).map(|task| &task.row) else {
            return Ok(());
        };
        if row.is_ended() {
            return Ok(());
        }
        if row.component.is_some() && row.holder.is_some() {
            return self.stop_code(task, code, why.and_then(said));
        }
        if let Some(child) = row.open_child() {
            return self.stop_child(task, child, grace_ms);
        }
        if row.fan_seq.is_some() {
            return self.stop_items(task, grace_ms, code, why.as_deref());
        }
        let Some((_, (step, _))) = row.holder.zip(row.open()) else {
            return self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), why.and_then(said));
        };
        let grace_ms = grace_ms.unwrap_or_else(|| grace_of(workflow, task, step));
        self.request_stop(task, grace_ms, StopFor::End)
    }

    /// Asks the running step of a task to end, with its own grace; nothing when none runs.
    pub(in crate::core) fn interrupt(&mut self, task: TaskRef, stop_for: StopFor) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(());
        };
        let row = workflow.tasks.get(task.1 as usize).map(|task| &task.row);
        if row.is_some_and(|row| row.component.is_some() && row.holder.is_some()) {
            // Nothing of code is kept by its worker: what it did is journaled, and it goes on by replay.
            self.revoke_code(task)?;
            return self.readied(task);
        }
        let Some((step, _)) = row.and_then(|row| row.open()) else {
            return Ok(());
        };
        let grace_ms = grace_of(workflow, task, step);
        self.request_stop(task, grace_ms, stop_for)
    }

    fn request_stop(&mut self, task: TaskRef, grace_ms: u64, stop_for: StopFor) -> Result<(), ApplyError> {
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        // Asked again with another grace: the shorter one holds, and only a shorter one is news, or a stronger reason. The order goes out each time, since
        // an earlier one may have been lost on its way.
        let (grace_before, stop_before) = (row.cancel_grace_ms, row.stop_for);
        let before = stop_before.and_then(|before| StopFor::try_from(before).ok());
        let stronger = before.is_none_or(|before| strength(stop_for) > strength(before));
        if grace_before.is_none_or(|before| grace_ms < before) || stronger {
            let event = v1::TaskCancelRequested {
                task: row.id,
                grace_ms: grace_before.map_or(grace_ms, |before| before.min(grace_ms)),
                stop_for: Some(before.filter(|_| !stronger).unwrap_or(stop_for).into()),
            };
            self.record(task.0, Kind::TaskCancelRequested(event), None)?;
        }
        self.order_cancel(task);
        Ok(())
    }

    /// Ends a workflow that has not ended: what runs is asked to, what waits ends at once.
    pub(in crate::core) fn cancel_workflow(
        &mut self,
        id: WorkflowId,
        by: PrincipalId,
        grace_ms: Option<u64>,
    ) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(id) else {
            return Ok(());
        };
        let grace_ms = grace_ms.map(|grace| grace.min(limits::STEP_TIMEOUT_MS_MAX));
        let tasks = u32::try_from(workflow.tasks.len()).unwrap_or(u32::MAX);
        let ending = workflow.row.ending.is_some();
        let before = workflow.row.cancel_by.map(|_| workflow.row.cancel_grace_ms);
        let news =
            before.is_none() || grace_ms.is_some_and(|grace| before.flatten().is_none_or(|before| grace < before));
        if news {
            let event = v1::WorkflowCancelRequested {
                by,
                grace_ms: grace_ms.unwrap_or(limits::CANCEL_GRACE_MS_DEFAULT),
            };
            self.record(id, Kind::WorkflowCancelRequested(event), None)?;
        }
        for index in 0..tasks {
            let spared = self.state.task((id, index)).is_some_and(|task| {
                // What handles the end is asked to end by a cancellation that is news, once it runs: one that is only said again must not cost the clean-up.
                task.row.handles.is_some() && !(ending && (news || task.row.cancel_grace_ms.is_some()))
            });
            if !spared {
                self.stop_task((id, index), grace_ms, ErrorCode::WorkflowCancelled, None)?;
            }
        }
        self.settle(id)
    }

    /// Tells the holder of a task that was asked to end to end it; nothing when nobody asked, or nobody holds it. The node takes it any number of times.
    pub(in crate::core) fn order_cancel(&mut self, task: TaskRef) {
        let tenant = self.tenant(task.0);
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return;
        };
        let (Some(grace_ms), Some((holder, (step, open)))) = (row.cancel_grace_ms, row.holder.zip(row.open())) else {
            return;
        };
        let cancel = v1::CancelStep {
            assignee: v1::Assignee {
                tenant,
                workflow: task.0,
                task: row.id,
                fence: row.fence,
                step: u32::try_from(step).unwrap_or(u32::MAX),
                attempt: open.attempt,
            },
            grace_ms,
            cause: EndCause::Cancelled.into(),
        };
        self.orders.push(Order::Cancel(holder, cancel));
    }
}

/// What a step is given to end by itself.
fn grace_of(workflow: &Workflow, task: TaskRef, step: usize) -> u64 {
    let definition = workflow.definition(task.1 as usize);
    let step = definition.and_then(|(_, task)| task.steps.get(step));
    step.map_or(limits::CANCEL_GRACE_MS_DEFAULT, |step| step.grace_ms)
}

/// Of several reasons to end a step the strongest one says what comes after it.
const fn strength(stop_for: StopFor) -> u8 {
    match stop_for {
        StopFor::Pause => 0,
        StopFor::Reassign => 1,
        StopFor::Limit => 2,
        StopFor::Deadline => 3,
        StopFor::End => 4,
    }
}

/// Why a task that was asked to end is ended.
pub(super) fn ending_code(workflow: &Workflow) -> ErrorCode {
    if workflow.row.cancel_by.is_none() && workflow.row.deadline_passed {
        return ErrorCode::DeadlineExceeded;
    }
    if workflow.row.cancel_by.is_some() {
        ErrorCode::WorkflowCancelled
    } else if let Some(code) = &workflow.row.limit_code {
        code.parse().unwrap_or(ErrorCode::LimitReached)
    } else {
        ErrorCode::TaskFailed
    }
}
