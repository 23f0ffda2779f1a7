//! What follows from what: after a step, a task or a lease ended. Every command that ends something goes through here.

mod approval;
mod assess;
mod begin;
mod birth;
mod carry;
mod child;
mod deadline;
mod due;
mod ending;
mod items;
mod limit;
mod limit_owner;
mod mail;
mod retry;
mod settle;
mod signal;
mod sleep;
mod step;
mod stop;

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, LeaseEnd, Payload, TaskEnd, WaitKind};
use gantry_proto::{ErrorCode, TaskId, TenantId, WorkflowId};
use serde_json::{Map, Value};

pub(in crate::core) use approval::approved;
pub(crate) use begin::{RESOLVED, SKIPPED};
pub(in crate::core) use birth::Birth;
pub(in crate::core) use ending::failure;
pub(crate) use limit::limit_key;
pub(in crate::core) use signal::awaited;
pub(crate) use step::describe;
pub(super) use step::pause_ms;

use super::apply::ApplyError;
use super::decide::Batching;
use super::state::{TaskRef, Workflow};

/// A sentence for the sealed side of a record.
pub(in crate::core) fn said(message: impl Into<String>) -> Option<Payload> {
    Some(Payload {
        message: Some(message.into()),
        ..Payload::default()
    })
}

impl Batching<'_> {
    pub(in crate::core) fn workflow(&self, id: WorkflowId) -> Option<&Workflow> {
        self.state.workflows.get(&id)
    }

    pub(in crate::core) fn tenant(&self, id: WorkflowId) -> TenantId {
        self.workflow(id)
            .map_or_else(TenantId::nil, |workflow| workflow.row.tenant)
    }

    pub(in crate::core) fn record(
        &mut self,
        id: WorkflowId,
        kind: Kind,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        self.emit(self.tenant(id), Some(id), kind, payload)
    }

    pub(in crate::core) fn task_id(&self, task: TaskRef) -> TaskId {
        self.state.task(task).map_or_else(TaskId::nil, |task| task.row.id)
    }

    pub(in crate::core) fn readied(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let id = self.task_id(task);
        self.record(task.0, Kind::TaskReadied(v1::TaskReadied { task: id }), None)
    }

    pub(in crate::core) fn end_lease(
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
            code: None,
        };
        self.record(task.0, Kind::LeaseEnded(event), payload)
    }

    pub(in crate::core) fn end_task(
        &mut self,
        task: TaskRef,
        end: TaskEnd,
        code: Option<&str>,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        self.release_limits((task.0, Some(self.task_id(task))))?;
        let event = v1::TaskEnded {
            task: self.task_id(task),
            end: end.into(),
            code: code.map(str::to_owned),
            outputs: None,
        };
        self.record(task.0, Kind::TaskEnded(event), payload)
    }

    /// Completes a task without (further) steps; `code` says how, if not by its own work.
    pub(in crate::core) fn complete(
        &mut self,
        task: TaskRef,
        code: Option<&str>,
        outputs: Option<&Map<String, Value>>,
    ) -> Result<(), ApplyError> {
        self.release_limits((task.0, Some(self.task_id(task))))?;
        let event = v1::TaskEnded {
            task: self.task_id(task),
            end: TaskEnd::Completed.into(),
            code: code.map(str::to_owned),
            outputs: outputs.map(|_| true),
        };
        let payload = outputs.map(|outputs| Payload {
            // A map of JSON values is JSON.
            outputs_json: serde_json::to_vec(outputs).ok().map(Into::into),
            ..Payload::default()
        });
        self.record(task.0, Kind::TaskEnded(event), payload)
    }

    /// Gives a task that holds no lease to a person.
    pub(in crate::core) fn escalate(&mut self, task: TaskRef, code: ErrorCode, why: String) -> Result<(), ApplyError> {
        let event = v1::TaskEscalated {
            task: self.task_id(task),
            code: code.as_str().to_owned(),
        };
        self.record(task.0, Kind::TaskEscalated(event), said(why))
    }

    pub(in crate::core) fn wait(&mut self, task: TaskRef, kind: WaitKind, ms: u64) -> Result<(), ApplyError> {
        let until_ms = Some(self.now_ms.saturating_add(ms));
        self.wait_until(task, kind, until_ms, None)
    }

    pub(in crate::core) fn wait_until(
        &mut self,
        task: TaskRef,
        kind: WaitKind,
        until_ms: Option<u64>,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        let event = v1::TaskWaiting {
            task: self.task_id(task),
            kind: kind.into(),
            until_ms,
        };
        self.record(task.0, Kind::TaskWaiting(event), payload)
    }
}
