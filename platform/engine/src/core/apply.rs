//! `apply(state, event)`: the one place where state changes. Needs no payload for anything that control depends on.

use std::sync::Arc;

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, LeaseEnd, Payload, StepEnd, TaskEnd, WorkflowEnd};
use gantry_proto::{NodeId, TaskId, TenantId, WorkflowId};
use serde_json::{Map, Value};

use super::body::StepResultBody;
use super::rows::{AttemptRow, IdempotencyRow, NodeRow, StepRow, TaskRow, WorkflowRow};
use super::state::{PartitionState, Task, TaskRef, Timer, Workflow};
use crate::api::StepState;
use crate::lifecycle::node::NodeState;
use crate::lifecycle::task::{TaskState, TaskTrigger};
use crate::lifecycle::workflow::{WorkflowState, WorkflowTrigger};
use crate::lifecycle::{IllegalTransition, Lifecycle as _};

/// A record that does not fit the state: damage, or a fault of ours. The partition stops rather than guesses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// An edge that no table has.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The record is about something that does not exist.
    #[error("record {seq} is about an unknown {what}")]
    Unknown {
        /// Position of the record.
        seq: u64,
        /// What kind of thing.
        what: &'static str,
    },
    /// A field that has no value this version knows.
    #[error("record {seq} has a {what} that this version does not know; run the version that wrote it, or a newer one")]
    Newer {
        /// Position of the record.
        seq: u64,
        /// What.
        what: &'static str,
    },
    /// The record contradicts the state.
    #[error("record {seq} contradicts the state: {what}")]
    Contradiction {
        /// Position of the record.
        seq: u64,
        /// How.
        what: &'static str,
    },
}

/// Where and when a record stands.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Position in the log.
    pub seq: u64,
    /// Time of its entry.
    pub at_ms: u64,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which workflow it is about.
    pub workflow: Option<WorkflowId>,
}

/// Applies the record at `place.seq`, which must be the next one.
///
/// # Errors
/// See [`ApplyError`]; the state must then be discarded.
pub fn apply(
    state: &mut PartitionState,
    place: Place,
    kind: &Kind,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    if place.seq != state.next_seq {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "it is not the next one",
        });
    }
    state.next_seq += 1;
    state.last_at_ms = state.last_at_ms.max(place.at_ms);
    match kind {
        Kind::WorkflowSubmitted(event) => submitted(state, place, event),
        Kind::WorkflowActivated(v1::WorkflowActivated {}) => {
            change_workflow(state, place, WorkflowTrigger::Activated).map(|_| ())
        }
        Kind::WorkflowCancelRequested(event) => {
            let workflow = workflow(state, place)?;
            workflow.row.cancel_by = Some(event.by);
            workflow.row.cancel_grace_ms = Some(event.grace_ms);
            Ok(())
        }
        Kind::WorkflowEnded(event) => workflow_ended(state, place, event),
        Kind::TaskReadied(event) => task_readied(state, place, event.task),
        Kind::TaskClaimed(event) => task_claimed(state, place, event),
        Kind::TaskWaiting(event) => task_waiting(state, place, event),
        Kind::TaskEnded(event) => task_ended(state, place, event),
        Kind::LeaseEnded(event) => lease_ended(state, place, event),
        Kind::TaskCancelRequested(event) => {
            let (_, task) = task(state, place, event.task)?;
            task.row.cancel_grace_ms = Some(event.grace_ms);
            Ok(())
        }
        Kind::StepAssigned(event) => step_assigned(state, place, event),
        Kind::StepRunning(event) => step_running(state, place, event),
        Kind::StepEnded(event) => step_ended(state, place, event, payload),
        Kind::NodeRegistered(event) => {
            node_registered(state, place, event);
            Ok(())
        }
        Kind::NodeChanged(event) => node_changed(state, place, event),
        Kind::IdempotencyRecorded(event) => {
            let key = hash(place, &event.key_hash)?;
            let row = IdempotencyRow {
                request_hash: event.request_hash.clone(),
                workflow: event.workflow,
                expires_at_ms: event.expires_at_ms,
            };
            state.insert_idempotency((place.tenant, key), row);
            state.dirty.idempotency.insert((place.tenant, key));
            Ok(())
        }
        Kind::IdempotencyExpired(event) => {
            let key = (place.tenant, hash(place, &event.key_hash)?);
            let Some(row) = state.idempotency.remove(&key) else {
                return Err(ApplyError::Unknown {
                    seq: place.seq,
                    what: "idempotency key",
                });
            };
            state.timers.remove(&(row.expires_at_ms, Timer::Idempotency(key)));
            state.dirty.idempotency.insert(key);
            Ok(())
        }
    }
}

fn hash(place: Place, bytes: &[u8]) -> Result<[u8; 32], ApplyError> {
    bytes.try_into().map_err(|_| ApplyError::Contradiction {
        seq: place.seq,
        what: "a hash is not 32 bytes",
    })
}

fn workflow(state: &mut PartitionState, place: Place) -> Result<&mut Workflow, ApplyError> {
    let unknown = ApplyError::Unknown {
        seq: place.seq,
        what: "workflow",
    };
    let Some(workflow) = place.workflow.and_then(|id| state.workflows.get_mut(&id)) else {
        return Err(unknown);
    };
    if workflow.row.tenant != place.tenant {
        return Err(unknown);
    }
    state.dirty.workflows.insert(workflow.row.id);
    Ok(workflow)
}

fn task(state: &mut PartitionState, place: Place, id: TaskId) -> Result<(TaskRef, &mut Task), ApplyError> {
    let unknown = ApplyError::Unknown {
        seq: place.seq,
        what: "task",
    };
    let Some(workflow) = place.workflow.and_then(|id| state.workflows.get_mut(&id)) else {
        return Err(unknown);
    };
    let workflow_id = workflow.row.id;
    let Some(task) = workflow.tasks.iter_mut().find(|task| task.row.id == id) else {
        return Err(unknown);
    };
    let reference = (workflow_id, task.row.index);
    state.dirty.tasks.insert(reference);
    Ok((reference, task))
}

fn change_workflow(state: &mut PartitionState, place: Place, by: WorkflowTrigger) -> Result<&mut Workflow, ApplyError> {
    let workflow = workflow(state, place)?;
    let next = workflow.row.state().step(by)?;
    workflow.row.set_state(next);
    Ok(workflow)
}

fn change_task(row: &mut TaskRow, by: TaskTrigger) -> Result<(), ApplyError> {
    let next = row.state().step(by)?;
    row.set_state(next);
    Ok(())
}

fn submitted(state: &mut PartitionState, place: Place, event: &v1::WorkflowSubmitted) -> Result<(), ApplyError> {
    let Some(id) = place.workflow else {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "workflow",
        });
    };
    if state.workflows.contains_key(&id) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "the workflow exists",
        });
    }
    let mut tasks = Vec::with_capacity(event.tasks.len());
    for (index, seed) in (0u32..).zip(&event.tasks) {
        let mut row = TaskRow {
            id: seed.task,
            index,
            name: seed.name.clone(),
            ..TaskRow::default()
        };
        row.set_state(TaskState::Pending);
        row.steps = vec![StepRow::default(); seed.steps as usize];
        row.steps.iter_mut().for_each(|step| step.set_state(StepState::Pending));
        let results = vec![None; seed.steps as usize];
        tasks.push(Task { row, results });
        state.dirty.tasks.insert((id, index));
    }
    let mut row = WorkflowRow {
        id,
        tenant: place.tenant,
        name: event.name.clone(),
        digest: event.definition_digest.clone(),
        submitted_by: event.submitted_by,
        labels: event.labels.clone(),
        traceparent: event.traceparent.clone(),
        created_at_ms: place.at_ms,
        submit_seq: place.seq,
        tasks_total: u32::try_from(event.tasks.len()).unwrap_or(u32::MAX),
        ..WorkflowRow::default()
    };
    row.set_state(WorkflowState::Pending);
    state.workflows.insert(id, Workflow { row, tasks, body: None });
    state.dirty.workflows.insert(id);
    state.dirty.begun.insert(id);
    Ok(())
}

fn workflow_ended(state: &mut PartitionState, place: Place, event: &v1::WorkflowEnded) -> Result<(), ApplyError> {
    let by = match end(place, event.end, WorkflowEnd::try_from)? {
        WorkflowEnd::Completed => WorkflowTrigger::Completed,
        WorkflowEnd::Failed => WorkflowTrigger::Failed,
        WorkflowEnd::Cancelled => WorkflowTrigger::Cancelled,
    };
    let workflow = change_workflow(state, place, by)?;
    if workflow.tasks.iter().any(|task| !task.row.is_ended()) {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a workflow ends before its tasks",
        });
    }
    workflow.row.ended_at_ms = Some(place.at_ms);
    workflow.row.end_code.clone_from(&event.code);
    workflow.row.end_seq = Some(place.seq);
    let id = workflow.row.id;
    state.dirty.ended.insert(id);
    Ok(())
}

/// Enum fields are numbers on the wire; one that this version does not know stops it.
fn end<T, E>(place: Place, value: i32, parse: impl Fn(i32) -> Result<T, E>) -> Result<T, ApplyError> {
    parse(value).map_err(|_| ApplyError::Newer {
        seq: place.seq,
        what: "value",
    })
}

fn task_readied(state: &mut PartitionState, place: Place, id: TaskId) -> Result<(), ApplyError> {
    let (reference, task) = task(state, place, id)?;
    if task.row.holder.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a leased task becomes ready",
        });
    }
    let by = if task.row.state() == TaskState::Pending {
        TaskTrigger::Readied
    } else {
        TaskTrigger::Returned
    };
    change_task(&mut task.row, by)?;
    task.row.ready_at_ms.get_or_insert(place.at_ms);
    task.row.queued_at_ms = Some(place.at_ms);
    task.row.wait_kind = None;
    let waited = task.row.wait_until_ms.take();
    if let Some(until) = waited {
        state.timers.remove(&(until, Timer::Task(reference)));
    }
    state.ready.insert((place.at_ms, reference));
    Ok(())
}

fn unqueue(state: &mut PartitionState, reference: TaskRef) {
    let Some(task) = state
        .workflows
        .get_mut(&reference.0)
        .and_then(|w| w.tasks.get_mut(reference.1 as usize))
    else {
        return;
    };
    if let Some(queued) = task.row.queued_at_ms.take() {
        state.ready.remove(&(queued, reference));
    }
    task.row.wait_kind = None;
    if let Some(until) = task.row.wait_until_ms.take() {
        state.timers.remove(&(until, Timer::Task(reference)));
    }
}

fn task_claimed(state: &mut PartitionState, place: Place, event: &v1::TaskClaimed) -> Result<(), ApplyError> {
    let (reference, task) = task(state, place, event.task)?;
    change_task(&mut task.row, TaskTrigger::Claimed)?;
    if event.fence <= task.row.fence || task.row.holder.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a second live lease, or a fence that is not newer",
        });
    }
    task.row.attempt = event.attempt;
    task.row.fence = event.fence;
    task.row.holder = Some(event.holder);
    task.row.lease_ms = Some(event.lease_ms);
    task.row.started_at_ms.get_or_insert(place.at_ms);
    unqueue(state, reference);
    state.held.entry(event.holder).or_default().insert(reference);
    Ok(())
}

fn task_waiting(state: &mut PartitionState, place: Place, event: &v1::TaskWaiting) -> Result<(), ApplyError> {
    end(place, event.kind, v1::WaitKind::try_from)?;
    let (reference, task) = task(state, place, event.task)?;
    if task.row.holder.is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a leased task waits",
        });
    }
    change_task(&mut task.row, TaskTrigger::Waited)?;
    task.row.wait_kind = Some(event.kind);
    task.row.wait_until_ms = event.until_ms;
    if let Some(until) = event.until_ms {
        state.timers.insert((until, Timer::Task(reference)));
    }
    Ok(())
}

fn task_ended(state: &mut PartitionState, place: Place, event: &v1::TaskEnded) -> Result<(), ApplyError> {
    let by = match end(place, event.end, TaskEnd::try_from)? {
        TaskEnd::Completed => TaskTrigger::Completed,
        TaskEnd::Failed => TaskTrigger::Failed,
        TaskEnd::Cancelled => TaskTrigger::Cancelled,
    };
    let (reference, task) = task(state, place, event.task)?;
    if task.row.holder.is_some() || task.row.open().is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a task ends while it is leased",
        });
    }
    if by == TaskTrigger::Completed && task.row.current().is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a task completes before its steps",
        });
    }
    change_task(&mut task.row, by)?;
    task.row.ended_at_ms = Some(place.at_ms);
    task.row.end_code.clone_from(&event.code);
    task.row.end_seq = Some(place.seq);
    for step in &mut task.row.steps {
        match step.state() {
            StepState::Pending => step.set_state(StepState::Skipped),
            // A try was lost or ended, and no other will follow.
            StepState::Lost | StepState::Assigned | StepState::Running => step.set_state(match by {
                TaskTrigger::Failed => StepState::Failed,
                _ => StepState::Cancelled,
            }),
            _ => {}
        }
    }
    unqueue(state, reference);
    workflow(state, place)?.row.tasks_ended += 1;
    Ok(())
}

fn lease_ended(state: &mut PartitionState, place: Place, event: &v1::LeaseEnded) -> Result<(), ApplyError> {
    let how = end(place, event.end, LeaseEnd::try_from)?;
    let (reference, task) = task(state, place, event.task)?;
    let Some(holder) = task.row.holder.take().filter(|_| task.row.fence == event.fence) else {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a lease ends that is not the live one",
        });
    };
    task.row.lease_ms = None;
    if how == LeaseEnd::Refused {
        task.row.refusals += 1;
        // Given back unstarted: it was no attempt, and its number is the next one's. However often nodes refuse, the row does not grow.
        for step in &mut task.row.steps {
            if step
                .attempts
                .last()
                .is_some_and(|last| last.state() == StepState::Assigned)
            {
                step.attempts.pop();
                step.set_state(StepState::Pending);
            } else if let Some(attempt) = step.attempts.last_mut().filter(|attempt| attempt.is_open()) {
                attempt.set_state(StepState::Lost);
                attempt.set_cause(v1::EndCause::Lost);
                attempt.end_seq = Some(place.seq);
                step.set_state(StepState::Pending);
            }
        }
    } else if task.row.open().is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a lease ends before its step",
        });
    }
    release(state, holder, reference);
    Ok(())
}

fn release(state: &mut PartitionState, holder: NodeId, reference: TaskRef) {
    if let Some(held) = state.held.get_mut(&holder) {
        held.remove(&reference);
        if held.is_empty() {
            state.held.remove(&holder);
        }
    }
}

fn step_assigned(state: &mut PartitionState, place: Place, event: &v1::StepAssigned) -> Result<(), ApplyError> {
    let (_, task) = task(state, place, event.task)?;
    let Some(holder) = task.row.holder.filter(|_| task.row.fence == event.fence) else {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "an assignment without a live lease",
        });
    };
    if task.row.current().map(|(index, _)| index) != Some(event.step as usize) || task.row.open().is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "an assignment out of turn",
        });
    }
    let step = &mut task.row.steps[event.step as usize];
    if step.attempts.last().map_or(0, |last| last.attempt) >= event.attempt {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "an attempt number that is not newer",
        });
    }
    let mut attempt = AttemptRow {
        attempt: event.attempt,
        fence: event.fence,
        node: holder,
        assigned_at_ms: place.at_ms,
        ..AttemptRow::default()
    };
    attempt.set_state(StepState::Assigned);
    step.attempts.push(attempt);
    step.set_state(StepState::Assigned);
    Ok(())
}

/// The open attempt that an event names.
fn open(
    task: &mut Task,
    place: Place,
    (fence, step, attempt): (u64, u32, u32),
) -> Result<(&mut TaskRow, usize), ApplyError> {
    let named = task.row.open().is_some_and(|(index, open)| {
        index == step as usize && open.fence == fence && open.attempt == attempt && task.row.fence == fence
    });
    if named {
        Ok((&mut task.row, step as usize))
    } else {
        Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "the attempt is not the open one",
        })
    }
}

fn began(row: &mut TaskRow) -> Result<(), ApplyError> {
    if row.state() == TaskState::Claimed {
        change_task(row, TaskTrigger::Began)?;
    }
    row.refusals = 0;
    Ok(())
}

fn step_running(state: &mut PartitionState, place: Place, event: &v1::StepRunning) -> Result<(), ApplyError> {
    let (_, task) = task(state, place, event.task)?;
    let (row, index) = open(task, place, (event.fence, event.step, event.attempt))?;
    began(row)?;
    let step = &mut row.steps[index];
    step.set_state(StepState::Running);
    if let Some(attempt) = step.attempts.last_mut() {
        attempt.set_state(StepState::Running);
        attempt.sandbox = Some(event.sandbox);
        attempt.started_at_ms = Some(event.started_at_ms);
    }
    Ok(())
}

fn step_ended(
    state: &mut PartitionState,
    place: Place,
    event: &v1::StepEnded,
    payload: Option<&Payload>,
) -> Result<(), ApplyError> {
    let how = end(place, event.end, StepEnd::try_from)?;
    end(place, event.cause, v1::EndCause::try_from)?;
    let (_, task) = task(state, place, event.task)?;
    if event.attempt == 0 {
        // It could not even be assigned: its plan cannot be made.
        let Some(step) = task
            .row
            .steps
            .get_mut(event.step as usize)
            .filter(|_| how == StepEnd::Failed)
        else {
            return Err(ApplyError::Contradiction {
                seq: place.seq,
                what: "an end without an attempt",
            });
        };
        step.set_state(StepState::Failed);
        step.failed += 1;
        return Ok(());
    }
    let index = open(task, place, (event.fence, event.step, event.attempt))?.1;
    if how == StepEnd::Completed || event.started_at_ms.is_some() {
        began(&mut task.row)?;
    } else if task.row.state() == TaskState::Claimed && how != StepEnd::Lost {
        // The holder reported on it, though no process ever ran.
        began(&mut task.row)?;
    }
    let holder = task.row.holder;
    let step = &mut task.row.steps[index];
    let outcome = match how {
        StepEnd::Completed => StepState::Completed,
        StepEnd::Failed => StepState::Failed,
        StepEnd::Lost => StepState::Lost,
        StepEnd::Cancelled => StepState::Cancelled,
    };
    match how {
        StepEnd::Failed => step.failed += 1,
        StepEnd::Lost => step.lost += 1,
        StepEnd::Completed => {
            step.result_seq = Some(place.seq);
            task.row.home = holder;
            task.results[index] = payload.map(|payload| Arc::new(result_body(payload)));
        }
        StepEnd::Cancelled => {}
    }
    step.set_state(outcome);
    if let Some(attempt) = step.attempts.last_mut() {
        attempt.set_state(outcome);
        attempt.sandbox = event.sandbox.or(attempt.sandbox);
        attempt.started_at_ms = event.started_at_ms.or(attempt.started_at_ms);
        attempt.finished_at_ms = event.finished_at_ms;
        attempt.cause = Some(event.cause);
        attempt.code.clone_from(&event.code);
        attempt.exit_code = event.exit_code;
        attempt.signal = event.signal;
        attempt.oom_seen = event.oom_seen;
        attempt.end_seq = Some(place.seq);
        attempt.last_seq = event.last_seq;
        attempt.cpu_us = match (event.user_cpu_us, event.system_cpu_us) {
            (None, None) => None,
            (user, system) => Some(user.unwrap_or(0).saturating_add(system.unwrap_or(0))),
        };
        attempt.max_rss_bytes = event.max_rss_bytes;
    }
    Ok(())
}

/// Outputs were checked to be an object of bounded size before they were journaled; what does not parse reads as empty.
pub(crate) fn result_body(payload: &Payload) -> StepResultBody {
    let outputs = payload
        .outputs_json
        .as_deref()
        .and_then(|json| serde_json::from_slice::<Map<String, Value>>(json).ok());
    StepResultBody {
        outputs: outputs.unwrap_or_default(),
        artifacts: payload.artifacts.clone(),
    }
}

fn node_registered(state: &mut PartitionState, place: Place, event: &v1::NodeRegistered) {
    let known = state.nodes.get(&event.node);
    let mut row = NodeRow {
        id: event.node,
        name: event.name.clone(),
        version: event.version.clone(),
        slots: event.slots,
        capabilities: event.capabilities.clone(),
        labels: event.labels.clone(),
        arch: event.arch.clone(),
        os: event.os.clone(),
        cpu_millis: event.cpu_millis,
        memory_bytes: event.memory_bytes,
        serves: event.serves,
        drain: known.is_some_and(|known| known.drain),
        fault: known.and_then(|known| known.fault.clone()),
        registered_at_ms: known.map_or(place.at_ms, |known| known.registered_at_ms),
        ..NodeRow::default()
    };
    // Connecting is a change of its own, which follows.
    row.set_state(known.map_or(NodeState::Offline, NodeRow::state));
    state.nodes.insert(event.node, row);
    state.dirty.nodes.insert(event.node);
}

fn node_changed(state: &mut PartitionState, place: Place, event: &v1::NodeChanged) -> Result<(), ApplyError> {
    let to = node_state(end(place, event.state, v1::NodeState::try_from)?);
    let Some(row) = state.nodes.get_mut(&event.node) else {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "node",
        });
    };
    let from = row.state();
    if !NodeState::EDGES.iter().any(|(a, _, b)| (*a, *b) == (from, to)) {
        return Err(IllegalTransition {
            entity: "node",
            from: from.text(),
            trigger: format!("becoming {to}"),
        }
        .into());
    }
    match (from, to) {
        (_, NodeState::Draining) => row.drain = true,
        (NodeState::Draining, NodeState::Online) => row.drain = false,
        _ => {}
    }
    row.set_state(to);
    row.fault.clone_from(&event.fault);
    state.dirty.nodes.insert(event.node);
    Ok(())
}

fn node_state(state: v1::NodeState) -> NodeState {
    match state {
        v1::NodeState::Online => NodeState::Online,
        v1::NodeState::Busy => NodeState::Busy,
        v1::NodeState::Draining => NodeState::Draining,
        v1::NodeState::Degraded => NodeState::Degraded,
        v1::NodeState::Disconnected => NodeState::Disconnected,
        v1::NodeState::Offline => NodeState::Offline,
    }
}
