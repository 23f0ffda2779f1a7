//! Execution state of one partition, in memory: what is active, the ready queue, timers, nodes. All of it is a fold over the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use gantry_proto::v1::WorkflowEnd;
use gantry_proto::{BulkId, NodeId, PartitionId, ScheduleId, TaskId, TenantId, UploadId, WorkflowId, limits};
use serde_json::Value;

use super::body::{Body, Changes, StepResultBody};
use super::bulk::BulkRow;
use super::code::{ActivationKey, ActivationRow};
use super::keep::{ErasedRow, HoldRow};
use super::limits::{Claimant, LimitRef, Limits};
use super::mail::{Mail, MailDirty};
use super::placement::{Wants, bound_to};
use super::queue::{Class, Queue, rank};
use super::rows::{IdempotencyRow, NodeRow, ScheduleRow, TaskRow, UploadRow, WorkflowRow};
use super::scopes::{ScopeRef, Scopes};
use crate::lifecycle::workflow::WorkflowState;
use crate::spec::definition::TaskDef;

/// Lengths that decisions use; the same for every partition of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Length of a lease.
    pub lease_ms: u64,
    /// Dead-man deadline handed to supervisors.
    pub deadman_ms: u64,
    /// How long idempotency keys are remembered.
    pub idempotency_ttl_ms: u64,
    /// Number of partitions: says where a child is born.
    pub partitions: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease_ms: limits::LEASE_MS_DEFAULT,
            deadman_ms: limits::DEADMAN_MS_DEFAULT,
            idempotency_ttl_ms: limits::IDEMPOTENCY_TTL_MS,
            partitions: limits::PARTITIONS_DEFAULT,
        }
    }
}

/// A workflow that has not ended.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// Its row.
    pub row: WorkflowRow,
    /// In the order of the definition.
    pub tasks: Vec<Task>,
    /// What the user wrote; absent when folding without keys, or after erasure.
    pub body: Option<Arc<Body>>,
    /// Payloads of the signals that wait for a task, by position of their records.
    pub signals: BTreeMap<u64, Arc<StepResultBody>>,
    /// Why it ends, in words, once that is decided and a task of it has yet to run.
    pub ending: Option<Arc<str>>,
}

/// A task of it.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its row.
    pub row: TaskRow,
    /// Results of completed steps, by step.
    pub results: Vec<Option<Arc<StepResultBody>>>,
    /// The list, when it is a task over one.
    pub items: Option<Arc<Vec<Value>>>,
    /// Outputs of the task itself: those of its child, a signal's payload, what a decision said.
    pub result: Option<Arc<StepResultBody>>,
    /// Input that a decision changed.
    pub changes: Option<Arc<Changes>>,
    /// Why it failed, in words, in a workflow with a task that handles failure.
    pub failure: Option<Arc<str>>,
    /// What is to be done otherwise in this round.
    pub feedback: Option<Arc<str>>,
}

impl Task {
    /// A task of which only the row is known.
    #[must_use]
    pub fn of(row: TaskRow) -> Self {
        let results = vec![None; row.steps.len()];
        Self {
            row,
            results,
            result: None,
            items: None,
            changes: None,
            failure: None,
            feedback: None,
        }
    }
}

impl Workflow {
    /// A workflow of which only the rows are known.
    #[must_use]
    pub fn of(row: WorkflowRow, tasks: Vec<Task>) -> Self {
        Self {
            row,
            tasks,
            body: None,
            signals: BTreeMap::new(),
            ending: None,
        }
    }

    /// Whether a task of it runs only before it ends so.
    #[must_use]
    pub fn handles(&self, end: WorkflowEnd) -> bool {
        let mut tasks = self.tasks.iter();
        tasks.any(|task| task.row.handles == Some(end.into()))
    }

    /// Name and definition of the task at a position; `None` without a body. All who ask for a task's definition ask here.
    #[must_use]
    pub fn definition(&self, position: usize) -> Option<(&str, &TaskDef)> {
        let position = self.origin(position);
        let (name, task) = self.body.as_ref()?.definition.tasks.get_index(position)?;
        Some((name, task))
    }

    /// What the task at a position asks of a node; `None` without a body.
    #[must_use]
    pub fn wants(&self, position: usize) -> Option<Wants<'_>> {
        let (_, definition) = self.definition(position)?;
        let task = self.tasks.get(position)?;
        let changed = task.changes.as_deref().and_then(|changes| changes.requires.as_ref());
        Some(Wants {
            definition,
            requires: changed.unwrap_or(&definition.requires),
            excluded: &task.row.excluded,
        })
    }

    /// Position in the definition: that of the task over a list, for its items.
    #[must_use]
    pub fn origin(&self, position: usize) -> usize {
        let origin = self.tasks.get(position).and_then(|task| task.row.origin);
        origin.map_or(position, |origin| origin as usize)
    }

    /// Items of the task over a list at `index`, in order.
    pub fn items(&self, index: u32) -> impl Iterator<Item = &Task> {
        let first = self.tasks.get(index as usize).and_then(|task| task.row.first_item);
        let from = first.map_or(self.tasks.len(), |first| first as usize);
        let tasks = self.tasks.get(from..).unwrap_or_default();
        tasks.iter().filter(move |task| task.row.origin == Some(index))
    }

    /// Positions of the tasks that the task at `position` needs; empty without a body.
    #[must_use]
    pub fn needs(&self, position: usize) -> &[usize] {
        let (body, position) = (self.body.as_ref(), self.origin(position));
        body.and_then(|body| body.needs.get(position))
            .map_or(&[], Vec::as_slice)
    }
}

/// A task by its workflow and position.
pub type TaskRef = (WorkflowId, u32);

/// A workflow, in memory or not, with whose it is.
pub type WorkflowRef = (TenantId, WorkflowId);

/// What is in the ready queue, and in the timers.
type Armed = (Vec<TaskRef>, Vec<(u64, Timer)>);

/// Key of an idempotency entry.
pub type IdempotencyRef = (TenantId, [u8; 32]);

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A waiting task goes on.
    Task(TaskRef),
    /// An idempotency key is forgotten.
    Idempotency(IdempotencyRef),
    /// An upload expires.
    Upload(UploadId),
    /// A schedule fires.
    Schedule(ScheduleId),
    /// A bulk operation is forgotten.
    Bulk(BulkId),
    /// A task has to be done.
    TaskDeadline(TaskRef),
    /// A workflow has to be done.
    WorkflowDeadline(WorkflowId),
    /// A rate has room again, or holders are to be asked.
    Limit(LimitRef),
}

/// What has changed since the last batch, so that exactly those rows are written.
#[derive(Debug, Clone, Default)]
pub struct Dirty {
    /// Workflow rows.
    pub workflows: BTreeSet<WorkflowId>,
    /// Task rows.
    pub tasks: BTreeSet<TaskRef>,
    /// Node rows.
    pub nodes: BTreeSet<NodeId>,
    /// Idempotency rows.
    pub idempotency: BTreeSet<IdempotencyRef>,
    /// Upload rows.
    pub uploads: BTreeSet<(TenantId, UploadId)>,
    /// Schedule rows.
    pub schedules: BTreeSet<(TenantId, ScheduleId)>,
    /// Activation rows.
    pub activations: BTreeSet<(TaskRef, ActivationKey)>,
    /// Bulk operations.
    pub bulks: BTreeSet<(TenantId, BulkId)>,
    /// Submitted since: they enter the active index.
    pub begun: BTreeSet<WorkflowId>,
    /// Letters.
    pub mail: MailDirty,
    /// Limited keys.
    pub limits: LimitsDirty,
    /// Paused definitions and tenants.
    pub scopes: BTreeSet<ScopeRef>,
    /// Ended since: they leave the active index, and memory once that is durable.
    pub ended: BTreeSet<WorkflowId>,
    /// Legal holds that were set or lifted.
    pub holds: BTreeSet<WorkflowRef>,
    /// Workflows whose data key goes with the batch.
    pub erased: BTreeMap<WorkflowRef, ErasedRow>,
    /// Workflows whose rows go with the batch.
    pub removed: BTreeSet<WorkflowRef>,
    /// The keys of those rows.
    pub deletes: Vec<Bytes>,
}

/// Which rows of limited keys have changed.
#[derive(Debug, Clone, Default)]
pub struct LimitsDirty {
    /// Those who wait or hold.
    pub claims: BTreeSet<(LimitRef, Claimant)>,
    /// Rates.
    pub rates: BTreeSet<LimitRef>,
}

/// State of one partition.
#[derive(Debug, Clone)]
pub struct PartitionState {
    /// Which one.
    pub partition: PartitionId,
    /// Lengths.
    pub settings: Settings,
    /// Position that the next record gets.
    pub next_seq: u64,
    /// Time of the newest record; time never goes back in a log.
    pub last_at_ms: u64,
    /// Workflows that have not ended (and those that ended in the current batch).
    pub workflows: BTreeMap<WorkflowId, Workflow>,
    /// Ready tasks in the order in which they are placed.
    pub ready: Queue,
    /// Activations of tasks of code that have not ended, by task.
    pub activations: BTreeMap<TaskRef, BTreeMap<ActivationKey, ActivationRow>>,
    /// Due times.
    pub timers: BTreeSet<(u64, Timer)>,
    /// Keys that are remembered.
    pub idempotency: BTreeMap<IdempotencyRef, IdempotencyRow>,
    /// Uploads that are kept.
    pub uploads: BTreeMap<UploadId, UploadRow>,
    /// Schedules.
    pub schedules: BTreeMap<ScheduleId, ScheduleRow>,
    /// Bulk operations.
    pub bulks: BTreeMap<BulkId, BulkRow>,
    /// Nodes that this partition owns.
    pub nodes: BTreeMap<NodeId, NodeRow>,
    /// Legal holds.
    pub holds: BTreeMap<WorkflowRef, HoldRow>,
    /// Tasks leased, by holder.
    pub held: BTreeMap<NodeId, BTreeSet<TaskRef>>,
    /// Letters to and from other partitions.
    pub mail: Mail,
    /// Limited keys that this partition owns.
    pub limits: Limits,
    /// Paused definitions and tenants.
    pub scopes: Scopes,
    /// Changes since the last batch.
    pub dirty: Dirty,
}

impl PartitionState {
    /// An empty partition.
    #[must_use]
    pub fn new(partition: PartitionId, settings: Settings) -> Self {
        Self {
            partition,
            settings,
            next_seq: 1,
            last_at_ms: 0,
            workflows: BTreeMap::new(),
            ready: Queue::default(),
            activations: BTreeMap::new(),
            timers: BTreeSet::new(),
            idempotency: BTreeMap::new(),
            uploads: BTreeMap::new(),
            schedules: BTreeMap::new(),
            bulks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            holds: BTreeMap::new(),
            held: BTreeMap::new(),
            mail: Mail::default(),
            limits: Limits::default(),
            scopes: Scopes::default(),
            dirty: Dirty::default(),
        }
    }

    /// A task of an active workflow.
    #[must_use]
    pub fn task(&self, (workflow, index): TaskRef) -> Option<&Task> {
        self.workflows.get(&workflow)?.tasks.get(index as usize)
    }

    /// Finds a task by its id.
    #[must_use]
    pub fn find(&self, workflow: WorkflowId, task: TaskId) -> Option<TaskRef> {
        let found = self
            .workflows
            .get(&workflow)?
            .tasks
            .iter()
            .find(|each| each.row.id == task)?;
        Some((workflow, found.row.index))
    }

    /// Forgets a workflow that has ended, once that is durable.
    pub fn forget(&mut self, id: WorkflowId) -> Option<Workflow> {
        let workflow = self.workflows.remove(&id)?;
        for task in workflow.tasks.iter().filter(|task| task.row.component.is_some()) {
            self.activations.remove(&(id, task.row.index));
        }
        Some(workflow)
    }

    /// When the next timer is due.
    #[must_use]
    pub fn next_timer_ms(&self) -> Option<u64> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Puts a loaded workflow in, with everything that follows from its rows. Used by recovery, once it knows what is paused.
    pub fn insert(&mut self, workflow: Workflow) {
        let id = workflow.row.id;
        for task in &workflow.tasks {
            let reference = (id, task.row.index);
            if let Some(holder) = task.row.holder {
                self.held.entry(holder).or_default().insert(reference);
            }
        }
        self.workflows.insert(id, workflow);
        if !self.is_paused(id) {
            self.arm(id);
        }
    }

    /// Whether nothing new of a workflow starts: it is held, or its definition or its tenant is.
    #[must_use]
    pub fn is_paused(&self, id: WorkflowId) -> bool {
        let workflow = self.workflows.get(&id);
        workflow
            .is_some_and(|workflow| workflow.row.state() == WorkflowState::Paused || self.scopes.hold(&workflow.row))
    }

    /// Puts a task that is ready by its row into the queue.
    pub(in crate::core) fn enqueue(&mut self, task: TaskRef) {
        let Some(workflow) = self.workflows.get(&task.0) else {
            return;
        };
        let position = task.1 as usize;
        let Some(queued) = workflow.tasks.get(position).and_then(|task| task.row.queued_at_ms) else {
            return;
        };
        // Without a body nothing is placed, and the class does not matter.
        let class = workflow
            .wants(position)
            .map_or_else(Class::default, |wants| Class::of(&wants, bound_to(workflow, position)));
        let rank = rank(queued, workflow.row.priority.unwrap_or(limits::PRIORITY_DEFAULT));
        self.ready.insert(workflow.row.tenant, class, rank, task);
    }

    /// What a workflow's rows say that is queued or timed; none of it while the workflow is paused.
    fn armed(&self, id: WorkflowId) -> Armed {
        let (mut ready, mut timers) = (Vec::new(), Vec::new());
        let Some(workflow) = self.workflows.get(&id) else {
            return (ready, timers);
        };
        let open = |deadline: Option<u64>, passed: bool| deadline.filter(|_| !passed);
        let settled = workflow.row.deadline_passed || workflow.row.ending.is_some();
        if let Some(deadline) = open(workflow.row.deadline_ms, settled) {
            timers.push((deadline, Timer::WorkflowDeadline(id)));
        }
        for row in workflow.tasks.iter().map(|task| &task.row) {
            let reference = (id, row.index);
            ready.extend(row.queued_at_ms.map(|_| reference));
            timers.extend(row.wait_until_ms.map(|until| (until, Timer::Task(reference))));
            let deadline = open(row.deadline_ms, row.deadline_passed || row.is_ended());
            timers.extend(deadline.map(|deadline| (deadline, Timer::TaskDeadline(reference))));
        }
        (ready, timers)
    }

    /// A workflow may go on: its ready tasks are queued, and its timers fire. Due times are what they were.
    pub fn arm(&mut self, id: WorkflowId) {
        let (ready, timers) = self.armed(id);
        for task in ready {
            self.enqueue(task);
        }
        self.timers.extend(timers);
    }

    /// A workflow is held: none of its tasks is placed, and no timer of it fires.
    pub fn disarm(&mut self, id: WorkflowId) {
        let (ready, timers) = self.armed(id);
        for task in ready {
            self.ready.remove(task);
        }
        for each in timers {
            self.timers.remove(&each);
        }
    }

    /// Puts an upload in, with its timer.
    pub fn insert_upload(&mut self, row: UploadRow) {
        self.timers.insert((row.expires_at_ms, Timer::Upload(row.id)));
        self.uploads.insert(row.id, row);
    }

    /// Puts a bulk operation in, with its timer.
    pub fn insert_bulk(&mut self, row: BulkRow) {
        if let Some(expires) = row.expires_at_ms {
            self.timers.insert((expires, Timer::Bulk(row.id)));
        }
        self.bulks.insert(row.id, row);
    }

    /// Puts a loaded schedule in.
    pub fn insert_schedule(&mut self, row: ScheduleRow) {
        if let Some(next) = &row.next {
            self.timers.insert((next.fire_ms, Timer::Schedule(row.id)));
        }
        self.schedules.insert(row.id, row);
    }

    /// Puts a loaded idempotency key in.
    pub fn insert_idempotency(&mut self, reference: IdempotencyRef, row: IdempotencyRow) {
        self.timers.insert((row.expires_at_ms, Timer::Idempotency(reference)));
        self.idempotency.insert(reference, row);
    }
}
