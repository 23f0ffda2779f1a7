//! The core and its storage without the async loop around them: one partition, played by hand, batch by batch. Scenarios and the random walk use it.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use gantry_journal::{Epoch, FileKeyRing, LogPosition, MemoryStore, Store, keys};
use gantry_proto::v1::{Assignee, Assignment, EndCause, Fault, Payload};
use gantry_proto::{ErrorCode, NodeId, PartitionId, PrincipalId, WorkflowId};

use super::world::{ended, ok, tenant};
use crate::api::{Candidate, Order, Verdict};
use crate::core::commands::{
    AssignmentRefused, Cancel, Dropped, LeaseExpired, Reconcile, StepFinished, Submit, TimerDue,
};
use crate::core::state::{Task, Workflow};
use crate::core::{Batching, Body, Command, Inputs, PartitionState, Rejection, Reply, Settings, decide, placement};
use crate::lifecycle::workflow::WorkflowState;
use crate::processor::storage::Storage;
use crate::processor::{batch, load};

/// One master key for all tests: making one costs two syncs.
static KEYS: LazyLock<(tempfile::TempDir, Arc<FileKeyRing>)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(FileKeyRing::open_or_create(&dir.path().join("master.key")).unwrap());
    (dir, keys)
});

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Committed, answered, dispatched.
    Done,
    /// The process dies before the commit.
    DiesBefore,
    /// The process dies after the commit, before anybody is told.
    DiesAfter,
}

pub(super) struct Table {
    pub(super) store: Arc<MemoryStore>,
    pub(super) storage: Storage,
    pub(super) partition: PartitionId,
    partitions: u16,
    pub(super) state: PartitionState,
    epoch: Epoch,
    end: LogPosition,
    pub(super) now_ms: u64,
    pub(super) entropy: u64,
    /// Sent out and not yet taken by the test.
    pub(super) orders: Vec<Order>,
}

pub(super) fn partition() -> PartitionId {
    PartitionId::new(3).unwrap()
}

impl Table {
    pub(super) fn new() -> Self {
        Self::at(partition(), gantry_proto::limits::PARTITIONS_DEFAULT)
    }

    /// One of several partitions.
    pub(super) fn at(partition: PartitionId, partitions: u16) -> Self {
        let store = Arc::new(MemoryStore::new());
        Self::on(store, (partition, partitions), 1_700_000_000_000, 1)
    }

    fn on(store: Arc<MemoryStore>, (partition, partitions): (PartitionId, u16), now_ms: u64, entropy: u64) -> Self {
        let as_store: Arc<dyn Store> = store.clone();
        let storage = Storage::new(as_store, KEYS.1.clone());
        let epoch = store.acquire(partition).unwrap();
        let settings = Settings {
            partitions,
            ..Settings::default()
        };
        let (state, end) = load::recover(&storage, partition, settings).unwrap();
        Self {
            store,
            storage,
            partition,
            partitions,
            state,
            epoch,
            end,
            now_ms,
            entropy,
            orders: Vec::new(),
        }
    }

    /// The process dies and another one takes over.
    pub(super) fn crash(&mut self) {
        let store = Arc::new(self.store.reopened());
        *self = Self::on(store, (self.partition, self.partitions), self.now_ms, self.entropy);
    }

    /// One batch: commands, then placement with these credits.
    pub(super) fn batch(
        &mut self,
        commands: Vec<Command>,
        credits: &[Candidate],
        fate: Fate,
    ) -> Vec<Result<Reply, Rejection>> {
        let mut replies = Vec::new();
        let mut batching = Batching::new(&mut self.state, self.now_ms);
        for command in commands {
            self.entropy = self.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let inputs = Inputs {
                now_ms: batching.now_ms,
                entropy: self.entropy,
            };
            replies.push(decide(&mut batching, command, inputs).unwrap().reply);
        }
        placement::place(&mut batching, &mut credits.to_vec()).unwrap();
        let Batching {
            now_ms, events, orders, ..
        } = batching;
        if fate == Fate::DiesBefore {
            self.crash();
            return Vec::new();
        }
        if !events.is_empty() {
            let (batch, end) = batch::build(&self.state, &self.storage, self.epoch, self.end, now_ms, events).unwrap();
            self.store.commit(&[batch]).unwrap().remove(0).unwrap();
            self.end = end;
            for id in std::mem::take(&mut self.state.dirty).ended {
                self.state.forget(id);
            }
        }
        if fate == Fate::DiesAfter {
            self.crash();
            return Vec::new();
        }
        self.orders.extend(orders);
        replies
    }

    fn one(&mut self, command: impl Into<Command>, credits: &[Candidate]) -> Result<Reply, Rejection> {
        self.batch(vec![command.into()], credits, Fate::Done).remove(0)
    }

    pub(super) fn submit(&mut self, source: &str, credits: &[Candidate]) -> WorkflowId {
        match self.one(submission(source), credits) {
            Ok(Reply::Submitted(receipt)) => receipt.workflow,
            other => panic!("{other:?}"),
        }
    }

    /// Takes the assignments that were sent out.
    pub(super) fn assigned(&mut self) -> Vec<(NodeId, Assignment)> {
        let mut taken = Vec::new();
        self.orders.retain(|order| match order {
            Order::Assign(node, assignment) => {
                taken.push((*node, (**assignment).clone()));
                false
            }
            _ => true,
        });
        taken
    }

    /// The one assignment that was sent out.
    pub(super) fn the_assignment(&mut self) -> (NodeId, Assignment) {
        let mut all = self.assigned();
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0)
    }

    pub(super) fn finish(
        &mut self,
        (node, assignment): &(NodeId, Assignment),
        result: gantry_proto::v1::StepResult,
        credits: &[Candidate],
    ) -> Verdict {
        let command = StepFinished {
            node: *node,
            assignee: assignment.assignee.clone(),
            result,
        };
        match self.one(command, credits) {
            Ok(Reply::Verdict(verdict)) => verdict,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn expire(&mut self, assignee: &Assignee, credits: &[Candidate]) {
        let task = self.state.find(assignee.workflow, assignee.task).unwrap();
        self.one(
            LeaseExpired {
                task,
                fence: assignee.fence,
            },
            credits,
        )
        .unwrap();
    }

    pub(super) fn cancel(&mut self, workflow: WorkflowId) -> Result<WorkflowState, Rejection> {
        match self.one(cancel(workflow), &[]) {
            Ok(Reply::State(state)) => Ok(state),
            Ok(other) => panic!("{other:?}"),
            Err(rejection) => Err(rejection),
        }
    }

    /// Lets time pass; due timers fire.
    pub(super) fn pass(&mut self, ms: u64, credits: &[Candidate]) {
        self.now_ms += ms;
        self.one(TimerDue, credits).unwrap();
    }

    /// A workflow as memory has it, or as its rows have it once it has ended.
    pub(super) fn workflow(&self, id: WorkflowId) -> Workflow {
        match self.state.workflows.get(&id) {
            Some(workflow) => workflow.clone(),
            None => load::workflow_rows(self.store.as_ref(), tenant(), id).unwrap().unwrap(),
        }
    }

    pub(super) fn task(&self, id: WorkflowId, name: &str) -> Task {
        self.workflow(id)
            .tasks
            .into_iter()
            .find(|task| task.row.name == name)
            .unwrap()
    }

    /// Every workflow that has a row.
    pub(super) fn all_workflows(&self) -> Vec<WorkflowId> {
        let mut found = Vec::new();
        let rows = keys::all_of(keys::Kind::Workflow, self.partition);
        load::walk(self.store.as_ref(), &rows, |key, _| {
            if let Some(keys::Parsed::Workflow { workflow, .. }) = keys::parse(key) {
                found.push(workflow);
            }
            Ok(())
        })
        .unwrap();
        found
    }

    pub(super) fn verify(&self) {
        crate::verify::verify(self.store.as_ref(), self.partition).unwrap();
    }
}

pub(super) fn submission(source: &str) -> Submit {
    let compiled = crate::spec::compile(source.as_bytes()).unwrap();
    let json = serde_json::to_vec(&compiled.definition).unwrap();
    let parameters = crate::spec::check_parameters(&compiled.definition, serde_json::Map::new()).unwrap_or_default();
    let parameters_json = serde_json::to_vec(&parameters).unwrap();
    Submit {
        tenant: tenant(),
        by: PrincipalId::new(1, PartitionId::default(), 8),
        digest: Bytes::copy_from_slice(&compiled.digest),
        body: Arc::new(Body::new(compiled.definition, parameters)),
        payload: Payload {
            definition_json: Some(json.into()),
            parameters_json: Some(parameters_json.into()),
            source: Some(Bytes::copy_from_slice(source.as_bytes())),
            ..Payload::default()
        },
        idempotency: None,
        idempotency_ttl_ms: None,
        labels: Vec::new(),
        attributes: Vec::new(),
        traceparent: None,
        priority: None,
        playbook: None,
        id: None,
        schedule: None,
        origin: None,
        carried: Vec::new(),
    }
}

pub(super) fn cancel(workflow: WorkflowId) -> Cancel {
    Cancel {
        tenant: tenant(),
        workflow,
        by: PrincipalId::new(1, PartitionId::default(), 8),
        grace_ms: None,
    }
}

pub(super) fn refuse((node, assignment): &(NodeId, Assignment)) -> AssignmentRefused {
    let fault = Fault::new(ErrorCode::DiskFull, "no room");
    AssignmentRefused {
        node: *node,
        assignee: assignment.assignee.clone(),
        fault,
    }
}

pub(super) fn dropped((node, assignment): &(NodeId, Assignment)) -> Dropped {
    Dropped {
        node: *node,
        assignee: assignment.assignee.clone(),
        why: None,
    }
}

pub(super) fn reconcile(node: NodeId, holding: Vec<Assignee>) -> Reconcile {
    Reconcile {
        node,
        holding,
        workspaces: Vec::new(),
    }
}

pub(super) fn failed() -> gantry_proto::v1::StepResult {
    ended(EndCause::Exited, Some(1))
}

pub(super) fn lost() -> gantry_proto::v1::StepResult {
    ended(EndCause::Lost, None)
}

/// Finishes everything well until nothing is assigned any more; what ran, in order.
pub(super) fn run_out(table: &mut Table, credits: &[Candidate]) -> Vec<String> {
    let mut ran = Vec::new();
    loop {
        table.batch(Vec::new(), credits, Fate::Done);
        let next = table.assigned();
        if next.is_empty() {
            return ran;
        }
        for assignment in next {
            ran.push(format!(
                "{}/{}",
                assignment.1.plan.task_name, assignment.1.plan.step_key
            ));
            assert_eq!(table.finish(&assignment, ok(), credits), Verdict::Accepted);
        }
    }
}
