//! What follows when code returns, fails, sleeps, or loses its lease.

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, ActivationEnd, EndCause, LeaseEnd, Payload, RetryPolicy, TaskEnd, WaitKind};
use gantry_proto::{ErrorCode, NodeId, limits};

use super::row::ActivationKey;
use crate::api::Order;
use crate::core::apply::ApplyError;
use crate::core::body::StepResultBody;
use crate::core::decide::Batching;
use crate::core::flow::{pause_ms, said};
use crate::core::plan::PlanFault;
use crate::core::state::TaskRef;

/// Pause after the code failed for the `failed`-th time.
fn backoff_ms(retry: &RetryPolicy, failed: u32) -> u64 {
    let mut wanted = retry.backoff_ms;
    for _ in 1..failed {
        if wanted >= retry.max_backoff_ms {
            break;
        }
        wanted = wanted.saturating_mul(u64::from(retry.factor_percent.max(100))) / 100;
    }
    wanted.min(retry.max_backoff_ms).min(limits::STEP_TIMEOUT_MS_MAX)
}

impl Batching<'_> {
    /// Whether a task is code.
    pub(in crate::core) fn is_code(&self, task: TaskRef) -> bool {
        self.state.task(task).is_some_and(|task| task.row.component.is_some())
    }

    /// Leases a ready task of code to a worker.
    pub(in crate::core) fn claim_code(
        &mut self,
        task: TaskRef,
        worker: NodeId,
        input: Bytes,
    ) -> Result<(), ApplyError> {
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        let event = v1::TaskClaimed {
            task: row.id,
            attempt: row.attempt + 1,
            fence: row.fence + 1,
            holder: worker,
            lease_ms: self.state.settings.lease_ms,
        };
        self.record(task.0, Kind::TaskClaimed(event), None)?;
        if let Some(assignment) = super::assignment(self.state, task, input) {
            self.orders.push(Order::Run(worker, Box::new(assignment)));
        }
        Ok(())
    }

    /// The input of a task of code cannot be made: the task fails, the engine goes on.
    pub(in crate::core) fn fail_unmade(&mut self, task: TaskRef, fault: PlanFault) -> Result<(), ApplyError> {
        self.end_task(task, TaskEnd::Failed, Some(fault.code.as_str()), said(fault.message))?;
        self.settle(task.0)
    }

    /// The worker is gone, or came back without the run: it is leased again. What it began stays begun; each begin decides by its policy.
    pub(in crate::core) fn lose_code(&mut self, task: TaskRef, how: LeaseEnd, why: &str) -> Result<(), ApplyError> {
        self.end_lease(task, how, said(why))?;
        let lost = self.state.task(task).and_then(|task| task.row.code_lost).unwrap_or(0);
        if lost >= limits::INFRASTRUCTURE_ATTEMPTS_MAX {
            let message = format!("its worker was lost {lost} times without anything having been done in between");
            let code = ErrorCode::InfrastructureLost.as_str();
            self.end_task(task, TaskEnd::Failed, Some(code), said(message))?;
            return self.settle(task.0);
        }
        if lost >= 2 {
            return self.wait(task, WaitKind::Infrastructure, pause_ms(lost - 1));
        }
        self.readied(task)
    }

    /// The code returned.
    pub(in crate::core) fn return_code(&mut self, task: TaskRef, output: Bytes) -> Result<(), ApplyError> {
        let payload = Payload {
            outputs_json: Some(output),
            ..Payload::default()
        };
        let result = StepResultBody::of_code(&payload);
        self.end_lease(task, LeaseEnd::Done, None)?;
        self.end_task(task, TaskEnd::Completed, None, Some(payload))?;
        let workflow = self.state.workflows.get_mut(&task.0);
        if let Some(task) = workflow.and_then(|workflow| workflow.tasks.get_mut(task.1 as usize)) {
            task.result = Some(std::sync::Arc::new(result));
        }
        self.settle(task.0)
    }

    /// The code failed: it is tried again after a pause, or its task fails.
    pub(in crate::core) fn raise_code(
        &mut self,
        task: TaskRef,
        fault: &v1::Fault,
        retry: Option<&RetryPolicy>,
    ) -> Result<(), ApplyError> {
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        let failed = row.code_failures.unwrap_or(0) + 1;
        let payload = || Payload {
            message: Some(fault.message.clone()),
            hint: fault.hint.clone(),
            ..Payload::default()
        };
        let event = v1::RunFailed {
            task: task.1,
            fence: row.fence,
            code: fault.code.clone(),
        };
        self.record(task.0, Kind::RunFailed(event), Some(payload()))?;
        self.end_lease(task, LeaseEnd::Done, None)?;
        match retry.filter(|retry| failed < retry.attempts.min(limits::RETRY_ATTEMPTS_MAX)) {
            Some(retry) => self.wait(task, WaitKind::RetryBackoff, backoff_ms(retry, failed)),
            None => {
                self.end_task(task, TaskEnd::Failed, Some(&fault.code), Some(payload()))?;
                self.settle(task.0)
            }
        }
    }

    /// The code sleeps, and its timer is journaled: the slot is free until then.
    pub(in crate::core) fn suspend_code(&mut self, task: TaskRef, delay_ms: u64) -> Result<(), ApplyError> {
        self.end_lease(task, LeaseEnd::Done, None)?;
        self.wait(task, WaitKind::RunTimer, delay_ms)
    }

    /// The time of a task of code has come: the timers that it slept for are over.
    pub(in crate::core) fn end_code_timers(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let now_ms = self.now_ms;
        let all = self.state.activations.get(&task).into_iter().flatten();
        let due: Vec<(ActivationKey, u32)> = all
            .filter(|(_, row)| row.is_open() && row.due_ms.is_some_and(|due| due <= now_ms))
            .map(|(key, row)| (*key, row.attempt))
            .collect();
        let fence = self.state.task(task).map_or(0, |task| task.row.fence);
        for (key, attempt) in due {
            let event = v1::ActivationEnded {
                task: task.1,
                activation: Bytes::copy_from_slice(&key),
                fence,
                attempt,
                end: ActivationEnd::Completed.into(),
                what: None,
                code: None,
            };
            self.record(task.0, Kind::ActivationEnded(event), None)?;
        }
        Ok(())
    }

    /// Ends a leased task of code at once.
    pub(in crate::core) fn stop_code(
        &mut self,
        task: TaskRef,
        code: ErrorCode,
        why: Option<Payload>,
    ) -> Result<(), ApplyError> {
        self.revoke_code(task)?;
        self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), why)
    }

    /// Ends the lease of a task of code: nothing of it runs anywhere but in its worker, whose fence is stale from here on.
    pub(in crate::core) fn revoke_code(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let tenant = self.tenant(task.0);
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        if let Some(holder) = row.holder {
            let assignee = v1::Assignee {
                tenant,
                workflow: task.0,
                task: row.id,
                fence: row.fence,
                step: 0,
                attempt: row.attempt,
            };
            self.orders.push(Order::Cancel(
                holder,
                v1::CancelStep {
                    assignee,
                    grace_ms: 0,
                    cause: EndCause::Cancelled.into(),
                },
            ));
        }
        self.end_lease(task, LeaseEnd::Cancelled, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_by_their_factor_up_to_their_bound() {
        let retry = RetryPolicy {
            attempts: 9,
            backoff_ms: 100,
            factor_percent: 200,
            max_backoff_ms: 500,
        };
        let pauses: Vec<u64> = (1..=5).map(|failed| backoff_ms(&retry, failed)).collect();
        assert_eq!(pauses, [100, 200, 400, 500, 500]);
        let shrinking = RetryPolicy {
            factor_percent: 0,
            max_backoff_ms: u64::MAX,
            ..retry
        };
        assert_eq!(backoff_ms(&shrinking, 50), 100);
    }
}
