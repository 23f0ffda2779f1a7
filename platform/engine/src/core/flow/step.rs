//! After a step: the next one, another try, or the end of its task.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, EndCause, LeaseEnd, Payload, StepEnd, StopFor, TaskEnd, WaitKind};
use gantry_proto::{ErrorCode, limits};

use super::retry::next_pause;
use super::said;
use super::stop::ending_code;
use crate::api::{Order, StepState};
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::plan::{self, PlanFault};
use crate::core::rows::AttemptRow;
use crate::core::state::TaskRef;

/// First pause after infrastructure lost a try twice; doubles up to [`PAUSE_MS_MAX`]. Keeps a broken host from burning all tries in a second.
const PAUSE_MS: u64 = 200;
/// Longest such pause.
const PAUSE_MS_MAX: u64 = 10_000;

pub(in crate::core) fn pause_ms(times: u32) -> u64 {
    PAUSE_MS
        .saturating_mul(1 << times.saturating_sub(1).min(16))
        .min(PAUSE_MS_MAX)
}

impl Batching<'_> {
    /// Assigns the current step to the holder of the live lease. A plan that cannot be made fails the task.
    pub(in crate::core) fn assign(&mut self, task: TaskRef, plan: v1::Plan) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(());
        };
        let tenant = workflow.row.tenant;
        let Some(row) = workflow.tasks.get(task.1 as usize).map(|task| &task.row) else {
            return Ok(());
        };
        let (Some(holder), Some((index, step))) = (row.holder, row.current()) else {
            return Ok(());
        };
        let assignee = v1::Assignee {
            tenant,
            workflow: task.0,
            task: row.id,
            fence: row.fence,
            step: u32::try_from(index).unwrap_or(u32::MAX),
            attempt: step.attempts.last().map_or(0, |last| last.attempt) + 1,
        };
        let plan_digest = plan::digest(&plan);
        let event = v1::StepAssigned {
            task: assignee.task,
            fence: assignee.fence,
            step: assignee.step,
            attempt: assignee.attempt,
            plan_digest: plan_digest.clone(),
        };
        self.record(task.0, Kind::StepAssigned(event), None)?;
        let settings = self.state.settings;
        self.orders.push(Order::Assign(
            holder,
            Box::new(v1::Assignment {
                assignee,
                plan,
                plan_digest,
                lease_ms: settings.lease_ms,
                deadman_ms: settings.deadman_ms,
            }),
        ));
        Ok(())
    }

    /// The plan of the current step cannot be made: the step and its task fail, the engine goes on.
    pub(in crate::core) fn fail_unplanned(&mut self, task: TaskRef, fault: PlanFault) -> Result<(), ApplyError> {
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        let step = row
            .current()
            .map_or(0, |(index, _)| u32::try_from(index).unwrap_or(u32::MAX));
        let leased = row.holder.is_some();
        let event = v1::StepEnded {
            task: row.id,
            fence: row.fence,
            step,
            attempt: 0,
            end: StepEnd::Failed.into(),
            cause: EndCause::Invalid.into(),
            code: Some(fault.code.as_str().to_owned()),
            ..v1::StepEnded::default()
        };
        self.record(task.0, Kind::StepEnded(event), said(fault.message.clone()))?;
        if leased {
            self.end_lease(task, LeaseEnd::Done, None)?;
        }
        self.end_task(task, TaskEnd::Failed, Some(fault.code.as_str()), said(fault.message))?;
        self.settle(task.0)
    }

    /// The open attempt of a leased task ended, and that is recorded: what now? Exactly one of: next step, wait, ready again, end.
    pub(in crate::core) fn after_step(&mut self, task: TaskRef, lost_how: LeaseEnd) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(());
        };
        let Some(row) = workflow.tasks.get(task.1 as usize).map(|task| &task.row) else {
            return Ok(());
        };
        let asked = row.cancel_grace_ms.map(|_| row.stop_for.unwrap_or(StopFor::End.into()));
        let asked = asked.and_then(|stop_for| StopFor::try_from(stop_for).ok());
        let held = self.state.is_paused(task.0);
        let code = ending_code(workflow);
        let Some((index, step)) = row.current() else {
            self.end_lease(task, LeaseEnd::Done, None)?;
            return self.steps_done(task, asked);
        };
        match asked {
            Some(StopFor::End) => {
                self.end_lease(task, LeaseEnd::Cancelled, None)?;
                self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), None)?;
                return self.settle(task.0);
            }
            Some(StopFor::Deadline | StopFor::Limit) => {
                let (code, why) = row.to_fail().unwrap_or((ErrorCode::DeadlineExceeded, ""));
                self.end_lease(task, LeaseEnd::Cancelled, None)?;
                self.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(why))?;
                return self.settle(task.0);
            }
            // It ended on request, to run again later; one that failed by itself did fail.
            Some(StopFor::Pause | StopFor::Reassign) if step.state() != StepState::Failed => {
                self.end_lease(task, LeaseEnd::Cancelled, None)?;
                return self.readied(task);
            }
            Some(StopFor::Pause | StopFor::Reassign) | None => {}
        }
        let (lost, state) = (step.lost, step.state());
        let definition = workflow
            .definition(task.1 as usize)
            .and_then(|(_, definition)| definition.steps.get(index));
        let (key, retry) = definition.map_or_else(Default::default, |step| (step.key.clone(), step.retry.clone()));
        match state {
            StepState::Failed => match next_pause(&retry, row, index, step, self.now_ms) {
                Some(pause_ms) => {
                    self.end_lease(task, LeaseEnd::Done, None)?;
                    self.wait(task, WaitKind::RetryBackoff, pause_ms)
                }
                None => {
                    let last = step.attempts.last();
                    let code = last.and_then(|last| last.code.clone());
                    let why = last.map_or_else(String::new, describe);
                    let why = format!("step `{key}`: {why}");
                    self.exhausted(task, retry.exhausted, code.as_deref(), why)
                }
            },
            StepState::Lost if lost >= limits::INFRASTRUCTURE_ATTEMPTS_MAX => {
                self.end_lease(task, lost_how, None)?;
                let message = format!("step `{key}` was lost to infrastructure {lost} times");
                let code = ErrorCode::InfrastructureLost.as_str();
                self.end_task(task, TaskEnd::Failed, Some(code), said(message))?;
                self.settle(task.0)
            }
            StepState::Lost if lost >= 2 => {
                self.end_lease(task, lost_how, None)?;
                self.wait(task, WaitKind::Infrastructure, pause_ms(lost - 1))
            }
            StepState::Lost => {
                self.end_lease(task, lost_how, None)?;
                self.readied(task)
            }
            // Nothing new starts while the workflow is held.
            _ if held => {
                self.end_lease(task, LeaseEnd::Done, None)?;
                self.readied(task)
            }
            // Completed before it, and this one comes next, under the same lease.
            _ => match plan::build(self.state, task) {
                Ok(plan) => self.assign(task, plan),
                Err(fault) => self.fail_unplanned(task, fault),
            },
        }
    }

    /// The holder lost the open attempt, by whatever way we know.
    pub(in crate::core) fn lose(&mut self, task: TaskRef, how: LeaseEnd, why: &str) -> Result<(), ApplyError> {
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        if row.component.is_some() {
            return self.lose_code(task, how, why);
        }
        if let Some((index, open)) = row.open() {
            let event = v1::StepEnded {
                task: row.id,
                fence: row.fence,
                step: u32::try_from(index).unwrap_or(u32::MAX),
                attempt: open.attempt,
                end: StepEnd::Lost.into(),
                cause: EndCause::Lost.into(),
                sandbox: open.sandbox,
                ..v1::StepEnded::default()
            };
            self.record(task.0, Kind::StepEnded(event), said(why))?;
        }
        self.after_step(task, how)
    }

    /// A node gave the assignment back: nothing is counted, and the task waits a little before it is offered again.
    pub(in crate::core) fn give_back(&mut self, task: TaskRef, fault: &v1::Fault) -> Result<(), ApplyError> {
        let payload = Payload {
            message: Some(fault.message.clone()),
            hint: fault.hint.clone(),
            ..Payload::default()
        };
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        let event = v1::LeaseEnded {
            task: row.id,
            fence: row.fence,
            end: LeaseEnd::Refused.into(),
            code: Some(fault.code.clone()),
        };
        self.record(task.0, Kind::LeaseEnded(event), Some(payload))?;
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(());
        };
        let Some(row) = workflow.tasks.get(task.1 as usize).map(|task| &task.row) else {
            return Ok(());
        };
        let ends = row.stop_for.is_none_or(|stop_for| stop_for == i32::from(StopFor::End));
        let failing = [StopFor::Deadline.into(), StopFor::Limit.into()];
        if row.cancel_grace_ms.is_some()
            && row.stop_for.is_some_and(|stop_for| failing.contains(&stop_for))
            && let Some((code, why)) = row.to_fail()
        {
            self.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(why))?;
            return self.settle(task.0);
        }
        if row.cancel_grace_ms.is_some() && ends {
            let code = ending_code(workflow);
            self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), None)?;
            return self.settle(task.0);
        }
        let refusals = row.refusals;
        self.wait(task, WaitKind::NodeRefused, pause_ms(refusals))
    }
}

/// How an attempt failed, in words.
pub(crate) fn describe(attempt: &AttemptRow) -> String {
    match attempt.cause.and_then(|cause| EndCause::try_from(cause).ok()) {
        Some(EndCause::Exited) => match attempt.exit_code {
            Some(code) => format!("the command ended with exit code {code}"),
            None => "the command ended without an exit code".to_owned(),
        },
        Some(EndCause::Signalled) => match attempt.signal {
            Some(signal) => format!("the command was ended by signal {signal}"),
            None => "the command was ended by a signal".to_owned(),
        },
        Some(EndCause::Timeout) => "it ran longer than its timeout".to_owned(),
        Some(EndCause::Cancelled) => "it was ended on request".to_owned(),
        Some(EndCause::Oom) => "it needed more memory than its limit".to_owned(),
        Some(EndCause::OutputLimit) => "it printed more than its output limit".to_owned(),
        Some(EndCause::Invalid) => "it could not be started as asked".to_owned(),
        Some(EndCause::Contract) => "its outputs or artifacts are not as declared".to_owned(),
        Some(EndCause::Lost) => "it was lost to infrastructure".to_owned(),
        None => "its attempt failed".to_owned(),
    }
}
