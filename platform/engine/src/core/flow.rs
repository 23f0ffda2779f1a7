//! What follows from what: after a step, a task or a lease ended. Every command that ends something goes through here.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, EndCause, LeaseEnd, Payload, StepEnd, TaskEnd, WaitKind, WorkflowEnd};
use gantry_proto::{ErrorCode, NodeId, TaskId, TenantId, WorkflowId, limits};
use std::collections::BTreeMap;

use super::apply::ApplyError;
use super::decide::Batching;
use super::plan::{self, PlanFault};
use super::state::{TaskRef, Workflow};
use crate::api::{Order, StepState};
use crate::lifecycle::task::TaskState;
use crate::spec::definition::{FailurePolicy, RetryDef, RunOn};

/// First pause after infrastructure lost a try twice; doubles up to [`PAUSE_MS_MAX`]. Keeps a broken host from burning all tries in a second.
const PAUSE_MS: u64 = 200;
/// Longest such pause.
const PAUSE_MS_MAX: u64 = 10_000;

fn pause_ms(times: u32) -> u64 {
    PAUSE_MS
        .saturating_mul(1 << times.saturating_sub(1).min(16))
        .min(PAUSE_MS_MAX)
}

/// Pause before attempt number `failed + 1`. Jitter comes with the retry policies of later work; factor and bounds are checked by the definition.
fn backoff_ms(retry: &RetryDef, failed: u32) -> u64 {
    let factor = retry
        .factor
        .max(1.0)
        .powi(i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX));
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    let wanted = (retry.backoff_ms as f64 * factor).min(retry.max_backoff_ms as f64) as u64;
    wanted.min(retry.max_backoff_ms)
}

/// A sentence for the sealed side of a record.
pub(super) fn said(message: impl Into<String>) -> Option<Payload> {
    Some(Payload {
        message: Some(message.into()),
        ..Payload::default()
    })
}

impl Batching<'_> {
    pub(super) fn workflow(&self, id: WorkflowId) -> Option<&Workflow> {
        self.state.workflows.get(&id)
    }

    fn tenant(&self, id: WorkflowId) -> TenantId {
        self.workflow(id)
            .map_or_else(TenantId::nil, |workflow| workflow.row.tenant)
    }

    pub(super) fn record(&mut self, id: WorkflowId, kind: Kind, payload: Option<Payload>) -> Result<(), ApplyError> {
        self.emit(self.tenant(id), Some(id), kind, payload)
    }

    fn task_id(&self, task: TaskRef) -> TaskId {
        self.state.task(task).map_or_else(TaskId::nil, |task| task.row.id)
    }

    pub(super) fn readied(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let id = self.task_id(task);
        self.record(task.0, Kind::TaskReadied(v1::TaskReadied { task: id }), None)
    }

    pub(super) fn end_lease(
        &mut self,
        task: TaskRef,
        end: LeaseEnd,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
        let event = v1::LeaseEnded {
            task: row.id,
            fence: row.fence,
            end: end.into(),
        };
        self.record(task.0, Kind::LeaseEnded(event), payload)
    }

    pub(super) fn end_task(
        &mut self,
        task: TaskRef,
        end: TaskEnd,
        code: Option<&str>,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        let event = v1::TaskEnded {
            task: self.task_id(task),
            end: end.into(),
            code: code.map(str::to_owned),
        };
        self.record(task.0, Kind::TaskEnded(event), payload)
    }

    fn wait(&mut self, task: TaskRef, kind: WaitKind, ms: u64) -> Result<(), ApplyError> {
        let until_ms = Some(self.now_ms.saturating_add(ms));
        let event = v1::TaskWaiting {
            task: self.task_id(task),
            kind: kind.into(),
            until_ms,
        };
        self.record(task.0, Kind::TaskWaiting(event), None)
    }

    /// Assigns the current step to the holder of the live lease. A plan that cannot be made fails the task.
    pub(super) fn assign(&mut self, task: TaskRef, plan: v1::Plan) -> Result<(), ApplyError> {
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
    pub(super) fn fail_unplanned(&mut self, task: TaskRef, fault: PlanFault) -> Result<(), ApplyError> {
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
    pub(super) fn after_step(&mut self, task: TaskRef, lost_how: LeaseEnd) -> Result<(), ApplyError> {
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(());
        };
        let Some(row) = workflow.tasks.get(task.1 as usize).map(|task| &task.row) else {
            return Ok(());
        };
        let ending = row.cancel_grace_ms.is_some();
        let code = ending_code(workflow);
        let Some((index, step)) = row.current() else {
            self.end_lease(task, LeaseEnd::Done, None)?;
            self.end_task(task, TaskEnd::Completed, None, None)?;
            return self.settle(task.0);
        };
        if ending {
            self.end_lease(task, LeaseEnd::Cancelled, None)?;
            self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), None)?;
            return self.settle(task.0);
        }
        let (failed, lost, state) = (step.failed, step.lost, step.state());
        let definition = workflow
            .body
            .as_ref()
            .map(|body| &body.definition.tasks[task.1 as usize].steps[index]);
        let (key, retry) = definition.map_or_else(Default::default, |step| (step.key.clone(), step.retry.clone()));
        match state {
            StepState::Failed if failed < retry.attempts => {
                self.end_lease(task, LeaseEnd::Done, None)?;
                self.wait(task, WaitKind::RetryBackoff, backoff_ms(&retry, failed))
            }
            StepState::Failed => {
                let last = step.attempts.last();
                let code = last.and_then(|last| last.code.clone());
                let why = last.map_or_else(String::new, describe);
                self.end_lease(task, LeaseEnd::Done, None)?;
                self.end_task(
                    task,
                    TaskEnd::Failed,
                    code.as_deref(),
                    said(format!("step `{key}`: {why}")),
                )?;
                self.settle(task.0)
            }
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
            // Completed before it, and this one comes next, under the same lease.
            _ => match plan::build(self.state, task) {
                Ok(plan) => self.assign(task, plan),
                Err(fault) => self.fail_unplanned(task, fault),
            },
        }
    }

    /// The holder lost the open attempt, by whatever way we know.
    pub(super) fn lose(&mut self, task: TaskRef, how: LeaseEnd, why: &str) -> Result<(), ApplyError> {
        let Some(row) = self.state.task(task).map(|task| &task.row) else {
            return Ok(());
        };
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
    pub(super) fn give_back(&mut self, task: TaskRef, fault: &v1::Fault) -> Result<(), ApplyError> {
        let payload = Payload {
            message: Some(fault.message.clone()),
            hint: fault.hint.clone(),
            ..Payload::default()
        };
        self.end_lease(task, LeaseEnd::Refused, Some(payload))?;
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(());
        };
        let Some(row) = workflow.tasks.get(task.1 as usize).map(|task| &task.row) else {
            return Ok(());
        };
        if row.cancel_grace_ms.is_some() {
            let code = ending_code(workflow);
            self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), None)?;
            return self.settle(task.0);
        }
        let refusals = row.refusals;
        self.wait(task, WaitKind::NodeRefused, pause_ms(refusals))
    }

    /// Ends a task that is not ended: at once when it does not run, cooperatively when it does.
    pub(super) fn stop_task(
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
        let Some((_, (step, _))) = row.holder.zip(row.open()) else {
            return self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), why.and_then(said));
        };
        let grace_ms = grace_ms.unwrap_or_else(|| {
            let body = workflow.body.as_ref();
            body.map_or(limits::CANCEL_GRACE_MS_DEFAULT, |body| {
                body.definition.tasks[task.1 as usize].steps[step].grace_ms
            })
        });
        // Asked again with another grace: the shorter one holds, and only a shorter one is news. The order goes out each time, since an earlier one may
        // have been lost on its way.
        if row.cancel_grace_ms.is_none_or(|before| grace_ms < before) {
            let event = v1::TaskCancelRequested { task: row.id, grace_ms };
            self.record(task.0, Kind::TaskCancelRequested(event), None)?;
        }
        self.order_cancel(task);
        Ok(())
    }

    /// Tells the holder of a task that was asked to end to end it; nothing when nobody asked, or nobody holds it. The node takes it any number of times.
    pub(super) fn order_cancel(&mut self, task: TaskRef) {
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

    /// Brings a workflow to rest after a task ended: readies what may run, ends what never will, and ends the workflow when all have ended.
    pub(super) fn settle(&mut self, id: WorkflowId) -> Result<(), ApplyError> {
        while let Some(next) = self.workflow(id).and_then(next_consequence) {
            match next {
                Consequence::Ready(task) => self.readied((id, task))?,
                Consequence::Stop(task, code, why) => self.stop_task((id, task), None, code, Some(why))?,
            }
        }
        let Some(workflow) = self.workflow(id) else {
            return Ok(());
        };
        if workflow.row.is_ended() || workflow.tasks.iter().any(|task| !task.row.is_ended()) {
            return Ok(());
        }
        let failed = workflow.tasks.iter().find(|task| task.row.state() == TaskState::Failed);
        let (end, code, payload) = if workflow.row.cancel_by.is_some() {
            (WorkflowEnd::Cancelled, Some(ErrorCode::WorkflowCancelled), None)
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
        self.record(id, Kind::WorkflowEnded(event), payload)?;
        self.orders
            .extend(holders.into_iter().map(|(node, tasks)| Order::Release(node, tasks)));
        Ok(())
    }
}

/// Why a task that was asked to end is ended.
fn ending_code(workflow: &Workflow) -> ErrorCode {
    if workflow.row.cancel_by.is_some() {
        ErrorCode::WorkflowCancelled
    } else {
        ErrorCode::TaskFailed
    }
}

/// One thing that follows for a task that does not run.
enum Consequence {
    Ready(u32),
    Stop(u32, ErrorCode, String),
}

/// The first consequence, in the order of the definition; `None` at rest.
fn next_consequence(workflow: &Workflow) -> Option<Consequence> {
    let body = workflow.body.as_ref()?;
    let failed = workflow.tasks.iter().find(|task| task.row.state() == TaskState::Failed);
    let stopping = body.definition.on_task_failure == FailurePolicy::Stop && failed.is_some();
    for (position, task) in workflow.tasks.iter().enumerate() {
        let row = &task.row;
        if row.is_ended() {
            continue;
        }
        let definition = &body.definition.tasks[position];
        let needs = &body.needs[position];
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
        let waits_for_needs = row.state() == TaskState::Pending && row.wait_kind.is_none();
        if waits_for_needs && needs.iter().all(|need| workflow.tasks[*need].row.is_ended()) {
            return Some(Consequence::Ready(row.index));
        }
    }
    None
}

/// How an attempt failed, in words.
pub(crate) fn describe(attempt: &super::rows::AttemptRow) -> String {
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
