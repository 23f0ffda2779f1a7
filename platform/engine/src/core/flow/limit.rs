//! Limits as a workflow and its tasks see them: asked for one after the other before anything begins, held until the end, given back by letters.
//!
//! Concurrency keys are asked for in the order of their hashes, so that two that want the same keys never wait for each other; then rates, whose starts would
//! else be used up while a key is waited for.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, StopFor, TaskEnd, letter};
use gantry_proto::{ErrorCode, PartitionId, TaskId, TenantId, WorkflowId, limits};
use serde_json::{Value, json};

use super::said;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::limits::key_hash;
use crate::core::plan::{self, PlanFault};
use crate::core::rows::LimitRow;
use crate::core::state::{TaskRef, Workflow};
use crate::lifecycle::workflow::WorkflowState;
use crate::spec;
use crate::spec::definition::{LimitDef, OnLimit};

/// A workflow as a whole, or one of its tasks.
pub(in crate::core) type Subject = (WorkflowId, Option<TaskId>);

impl Batching<'_> {
    /// Whether a workflow has what it needs to begin. One that has not asks for it.
    pub(super) fn admit(&mut self, id: WorkflowId) -> Result<bool, ApplyError> {
        let Some(workflow) = self.workflow(id) else {
            return Ok(false);
        };
        let Some(body) = workflow.body.as_deref() else {
            return Ok(true);
        };
        if workflow.row.is_ending() || workflow.row.is_ended() {
            return Ok(true);
        }
        if workflow.row.limits.is_empty() && !body.definition.limits.is_empty() {
            let scope = json!({
                "params": body.parameters,
                "workflow": { "id": id.to_string(), "name": workflow.row.name },
            });
            let wanted = wanted(&body.definition.limits, &[], &scope);
            return match wanted {
                Ok(wanted) => self.request((id, None), wanted).map(|()| false),
                Err(fault) => {
                    self.lose_workflow(id, fault.code, fault.message)?;
                    Ok(true)
                }
            };
        }
        if workflow.row.limits.iter().any(|row| !row.granted) {
            return Ok(false);
        }
        if workflow.row.state() == WorkflowState::Pending {
            self.record(id, Kind::WorkflowActivated(v1::WorkflowActivated {}), None)?;
        }
        Ok(true)
    }

    /// Whether a task has what it needs to start. One that has not asks for it, or has failed.
    pub(super) fn cleared(&mut self, task: TaskRef) -> Result<bool, ApplyError> {
        let Some(workflow) = self.workflow(task.0) else {
            return Ok(false);
        };
        let position = task.1 as usize;
        let Some((_, definition)) = workflow.definition(position) else {
            return Ok(true);
        };
        if definition.limits.is_empty() {
            return Ok(true);
        }
        let row = &workflow.tasks[position].row;
        if row.limits.iter().any(|row| !row.granted) {
            return Ok(false);
        }
        if row.limits.len() >= definition.limits.len() {
            return Ok(true);
        }
        let scope = Value::Object(plan::roots(workflow, position));
        match wanted(&definition.limits, &row.limits, &scope) {
            // What it would ask for it has: two entries gave the same key.
            Ok(wanted) if wanted.is_empty() => Ok(true),
            Ok(wanted) => {
                let id = row.id;
                self.request((task.0, Some(id)), wanted).map(|()| false)
            }
            Err(fault) => {
                self.end_task(task, TaskEnd::Failed, Some(fault.code.as_str()), said(fault.message))?;
                Ok(false)
            }
        }
    }

    fn request(&mut self, of: Subject, limits: Vec<v1::LimitWanted>) -> Result<(), ApplyError> {
        let event = v1::LimitsRequested { task: of.1, limits };
        self.record(of.0, Kind::LimitsRequested(event), None)?;
        self.request_next(of)
    }

    /// Asks the owner of the first key that was not granted.
    fn request_next(&mut self, of: Subject) -> Result<(), ApplyError> {
        let priority = self.workflow(of.0).and_then(|workflow| workflow.row.priority);
        let asked = self.limits_of(of).and_then(|rows| rows.iter().find(|row| !row.granted));
        let Some((key, terms)) = asked.map(|row| (row.key.clone(), row.terms)) else {
            return Ok(());
        };
        let to = self.limit_owner(self.tenant(of.0), &key);
        let request = v1::LimitRequest {
            claim: claim(of, key),
            terms,
            priority,
        };
        self.send(of.0, to, letter::Kind::LimitRequest(request), None)
    }

    fn limit_owner(&self, tenant: TenantId, key: &[u8]) -> PartitionId {
        PartitionId::of(tenant, "limit", key, self.state.settings.partitions)
    }

    /// The rows of somebody who may have ended meanwhile, and then has none.
    fn limits_of(&self, (id, task): Subject) -> Option<&[LimitRow]> {
        let workflow = self.workflow(id)?;
        let rows = match task {
            None => &workflow.row.limits,
            Some(task) => &self.state.task(self.state.find(id, task)?)?.row.limits,
        };
        Some(rows)
    }

    /// Gives back what somebody who ends holds or waits for. Called before the end is recorded, which forgets it.
    pub(super) fn release_limits(&mut self, of: Subject) -> Result<(), ApplyError> {
        let rows = self.limits_of(of).unwrap_or_default();
        // What is not granted was asked for if it is the first one; a start that was granted is used up.
        let asked = rows.iter().position(|row| !row.granted).unwrap_or(rows.len());
        let given = rows.iter().take(asked + 1);
        let keys: Vec<_> = given
            .filter(|row| !row.granted || row.terms.per_ms.is_none())
            .map(|row| row.key.clone())
            .collect();
        let tenant = self.tenant(of.0);
        for key in keys {
            let to = self.limit_owner(tenant, &key);
            let release = v1::LimitRelease { claim: claim(of, key) };
            self.send(of.0, to, letter::Kind::LimitRelease(release), None)?;
        }
        Ok(())
    }

    /// Who a letter of an owner is about, if it is still there and still has to do with the key.
    fn concerned(&self, tenant: TenantId, claim: &v1::LimitClaim) -> Option<Subject> {
        let of = (claim.workflow, claim.task);
        let own = self
            .workflow(of.0)
            .is_some_and(|workflow| workflow.row.tenant == tenant);
        let rows = self.limits_of(of).filter(|_| own)?;
        rows.iter().any(|row| row.key == claim.key).then_some(of)
    }

    /// The owner of a key lets somebody start.
    pub(in crate::core) fn limit_granted(&mut self, tenant: TenantId, claim: v1::LimitClaim) -> Result<(), ApplyError> {
        let of = self.concerned(tenant, &claim);
        // It ended on the way, and has given back what it asked for.
        let Some(of) = of.filter(|of| {
            let mut rows = self.limits_of(*of).unwrap_or_default().iter();
            rows.find(|row| !row.granted).is_some_and(|row| row.key == claim.key)
        }) else {
            return Ok(());
        };
        let event = v1::LimitGranted {
            task: of.1,
            key: claim.key,
        };
        self.record(of.0, Kind::LimitGranted(event), None)?;
        if self.limits_of(of).unwrap_or_default().iter().any(|row| !row.granted) {
            return self.request_next(of);
        }
        // Nothing begins while it is held; with its resumption it does.
        if self.state.is_paused(of.0) {
            return Ok(());
        }
        if let Some(task) = of.1.and_then(|task| self.state.find(of.0, task)) {
            self.start(task)?;
        }
        self.settle(of.0)
    }

    /// The owner of a key does not let somebody start, or wants it back.
    pub(in crate::core) fn limit_refused(
        &mut self,
        tenant: TenantId,
        refusal: v1::LimitRefusal,
    ) -> Result<(), ApplyError> {
        let Some(of) = self.concerned(tenant, &refusal.claim) else {
            return Ok(());
        };
        let code = refusal.code.parse().unwrap_or(ErrorCode::LimitReached);
        let why = self.refusal(of, &refusal.claim.key, code);
        let Some(task) = of.1 else {
            self.lose_workflow(of.0, code, why)?;
            return self.settle(of.0);
        };
        let task = self.state.find(of.0, task);
        let Some(task) = task.filter(|task| self.state.task(*task).is_some_and(|task| !task.row.is_ended())) else {
            return Ok(());
        };
        let event = v1::LimitLost {
            task: of.1,
            code: code.as_str().to_owned(),
        };
        self.record(of.0, Kind::LimitLost(event), said(why.clone()))?;
        self.fail_soon(task, StopFor::Limit, code, &why)
    }

    /// A workflow is not to begin, or not to go on: what runs is asked to end, and it fails when all have ended.
    fn lose_workflow(&mut self, id: WorkflowId, code: ErrorCode, why: String) -> Result<(), ApplyError> {
        let event = v1::LimitLost {
            task: None,
            code: code.as_str().to_owned(),
        };
        self.record(id, Kind::LimitLost(event), said(why.clone()))?;
        let tasks = self.workflow(id).map_or(0, |workflow| workflow.tasks.len());
        for index in 0..u32::try_from(tasks).unwrap_or(u32::MAX) {
            self.stop_task((id, index), None, code, Some(why.clone()))?;
        }
        Ok(())
    }

    /// Why, in words.
    fn refusal(&self, of: Subject, key: &[u8], code: ErrorCode) -> String {
        let row = self
            .limits_of(of)
            .and_then(|rows| rows.iter().find(|row| row.key == key));
        let named = row.and_then(|row| {
            self.workflow(of.0)
                .map(|workflow| limit_key(workflow, of.1, row.position))
        });
        let named = named.unwrap_or_default();
        match (code, row.map(|row| row.terms)) {
            (ErrorCode::LimitOvertaken, _) => format!("a newer one took its place under the key `{named}`"),
            (ErrorCode::LimitsFull, _) => format!(
                "{} workflows and tasks wait for limits already, and no more are kept",
                limits::LIMIT_CLAIMS_PER_PARTITION_MAX
            ),
            (_, Some(terms)) if terms.per_ms.is_some() => format!(
                "`{named}` lets {} start in {} ms, and it is to be refused then",
                terms.limit,
                terms.per_ms()
            ),
            (_, terms) => format!(
                "the key `{named}` is held {} times, and it is to be refused then",
                terms.map_or(0, |terms| terms.limit)
            ),
        }
    }

    /// An owner asks whether somebody still holds a key.
    pub(in crate::core) fn limit_probed(&mut self, tenant: TenantId, claim: v1::LimitClaim) -> Result<(), ApplyError> {
        if self.concerned(tenant, &claim).is_some() {
            return Ok(());
        }
        let to = self.limit_owner(tenant, &claim.key);
        let release = v1::LimitRelease { claim };
        self.post(tenant, None, to, letter::Kind::LimitRelease(release), None)
    }
}

fn claim((workflow, task): Subject, key: bytes::Bytes) -> v1::LimitClaim {
    v1::LimitClaim { key, workflow, task }
}

/// What of a definition's limits is not among the rows yet, in the order in which it is asked for.
fn wanted(defined: &[LimitDef], known: &[LimitRow], scope: &Value) -> Result<Vec<v1::LimitWanted>, PlanFault> {
    let mut wanted: Vec<v1::LimitWanted> = Vec::with_capacity(defined.len());
    for (position, limit) in (0u32..).zip(defined) {
        if known.iter().any(|row| row.position == position) {
            continue;
        }
        let text = spec::render(&limit.key, scope).map_err(|error| {
            PlanFault::new(
                ErrorCode::TemplateError,
                format!("the key `{}` of a limit: {error}", limit.key),
            )
        })?;
        if text.is_empty() || text.len() > limits::LIMIT_KEY_BYTES_MAX {
            let message = format!(
                "the key `{}` of a limit gives {} bytes; it has 1 to {}",
                limit.key,
                text.len(),
                limits::LIMIT_KEY_BYTES_MAX
            );
            return Err(PlanFault::new(ErrorCode::TemplateError, message));
        }
        let key = key_hash(limit.per_ms.is_some(), &text);
        let same = |each: &&[u8]| **each == key;
        let named = wanted.iter().map(|wanted| &*wanted.key);
        if named.chain(known.iter().map(|row| &*row.key)).any(|each| same(&each)) {
            continue;
        }
        wanted.push(v1::LimitWanted {
            key: bytes::Bytes::copy_from_slice(&key),
            terms: v1::LimitTerms {
                limit: limit.limit,
                per_ms: limit.per_ms,
                burst: limit.burst,
                policy: match limit.on_limit {
                    OnLimit::Wait => v1::LimitPolicy::Wait,
                    OnLimit::Refuse => v1::LimitPolicy::Refuse,
                    OnLimit::CancelRunning => v1::LimitPolicy::CancelRunning,
                }
                .into(),
            },
            position,
        });
    }
    wanted
        .sort_by(|one, other| (one.terms.per_ms.is_some(), &one.key).cmp(&(other.terms.per_ms.is_some(), &other.key)));
    Ok(wanted)
}

/// What the key of a limit is called, for people; empty when that cannot be read any more.
pub(crate) fn limit_key(workflow: &Workflow, task: Option<TaskId>, position: u32) -> String {
    let Some(body) = workflow.body.as_deref() else {
        return String::new();
    };
    let index = task.and_then(|task| workflow.tasks.iter().position(|each| each.row.id == task));
    let (limits, scope) = match index {
        Some(index) => {
            let definition = workflow.definition(index);
            (definition.map(|(_, task)| &task.limits), plan::roots(workflow, index))
        }
        None => {
            let roots = json!({
                "params": body.parameters,
                "workflow": { "id": workflow.row.id.to_string(), "name": workflow.row.name },
            });
            let Value::Object(roots) = roots else {
                return String::new();
            };
            (Some(&body.definition.limits), roots)
        }
    };
    let limit = limits.and_then(|limits| limits.get(position as usize));
    let rendered = limit.map(|limit| spec::render(&limit.key, &Value::Object(scope)).unwrap_or_default());
    rendered.unwrap_or_default()
}
