//! A workflow comes to be: submitted by somebody, or started by another workflow.

use std::sync::Arc;

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Label, Lineage, Payload, PlaybookRef, ScheduleRun, WorkflowEnd};
use gantry_proto::{PrincipalId, TaskId, TenantId, WorkflowId};

use crate::core::apply::ApplyError;
use crate::core::body::Body;
use crate::core::carried::Carried;
use crate::core::decide::Batching;

/// What a workflow begins with.
pub(in crate::core) struct Birth {
    pub(in crate::core) id: WorkflowId,
    pub(in crate::core) tenant: TenantId,
    pub(in crate::core) by: PrincipalId,
    /// Definition and parameters, and the same to be sealed.
    pub(in crate::core) body: Arc<Body>,
    pub(in crate::core) payload: Payload,
    pub(in crate::core) digest: Bytes,
    pub(in crate::core) idempotency_hash: Option<Bytes>,
    pub(in crate::core) labels: Vec<Label>,
    pub(in crate::core) traceparent: Option<String>,
    /// The playbook version that it runs.
    pub(in crate::core) playbook: Option<PlaybookRef>,
    /// What it is found by.
    pub(in crate::core) attributes: Vec<v1::SearchAttribute>,
    /// As asked for; the definition's when nobody asked.
    pub(in crate::core) priority: Option<u32>,
    /// The schedule that started it.
    pub(in crate::core) schedule: Option<ScheduleRun>,
    /// The workflow that it has results of, and those.
    pub(in crate::core) origin: Option<v1::Origin>,
    pub(in crate::core) carried: Vec<Carried>,
    /// Of a child.
    pub(in crate::core) lineage: Option<Lineage>,
}

impl Batching<'_> {
    /// Records the workflow and begins what needs nothing, unless a limit keeps it.
    pub(in crate::core) fn bear(&mut self, birth: Birth) -> Result<(), ApplyError> {
        let Birth { id, tenant, body, .. } = birth;
        let partition = self.state.partition;
        let tasks = body.definition.tasks.iter().map(|(name, task)| v1::TaskSeed {
            task: TaskId::derive(self.now_ms, partition, &[id.as_bytes(), name.as_bytes()]),
            name: name.clone(),
            // A task of items runs its steps in them.
            steps: match task.for_each {
                None => u32::try_from(task.steps.len()).unwrap_or(u32::MAX),
                Some(_) => 0,
            },
            component: task
                .code()
                .filter(|_| task.for_each.is_none())
                .map(|code| code.component.clone()),
            handles: task.handles.map(|end| WorkflowEnd::from(end).into()),
        });
        let event = v1::WorkflowSubmitted {
            name: body.definition.name.clone(),
            definition_digest: birth.digest,
            submitted_by: birth.by,
            tasks: tasks.collect(),
            idempotency_hash: birth.idempotency_hash,
            traceparent: birth.traceparent,
            labels: birth.labels,
            playbook: birth.playbook,
            schedule: birth.schedule,
            lineage: birth.lineage,
            code: body.input.is_some().then_some(true),
            priority: birth.priority.or(body.definition.priority),
            attributes: birth.attributes,
            origin: birth.origin,
            deadline_ms: body.definition.deadline_ms.map(|ms| self.now_ms.saturating_add(ms)),
        };
        self.emit(tenant, Some(id), Kind::WorkflowSubmitted(event), Some(birth.payload))?;
        if let Some(workflow) = self.state.workflows.get_mut(&id) {
            workflow.body = Some(body);
        }
        self.carry(id, birth.carried)?;
        self.settle(id)
    }
}
