//! How the engine reaches nodes: it borrows credits for one decide, and hands out orders once they are durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_proto::v1::{Assignment, CancelStep, RunAssignment};
use gantry_proto::{NodeId, PartitionId, TaskId, TenantId, WorkflowId};

/// Whose work a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serves {
    /// Every tenant's (a shared node).
    All,
    /// One tenant's.
    Tenant(TenantId),
}

/// What an executor executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Steps in sandboxes: a node.
    Sandboxes,
    /// These components: a worker.
    Code(Arc<BTreeSet<String>>),
}

/// A node with capacity to lend, as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Whose work it takes.
    pub serves: Serves,
    /// What it executes.
    pub work: Work,
    /// Assignments that it would take now.
    pub credits: u32,
    /// What it can do.
    pub capabilities: BTreeSet<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// CPU architecture, as `std::env::consts::ARCH`.
    pub arch: String,
    /// All of its CPU, in thousandths of a core.
    pub cpu_millis: u64,
    /// All of its memory.
    pub memory_bytes: u64,
}

/// A decision that is durable and goes to a node now. Lost ones are healed by lease expiry and re-registration.
#[derive(Debug, Clone)]
pub enum Order {
    /// Start a step attempt.
    Assign(NodeId, Box<Assignment>),
    /// Execute a run of code.
    Run(NodeId, Box<RunAssignment>),
    /// End a step attempt.
    Cancel(NodeId, CancelStep),
    /// These tasks' workspaces are needed no more.
    Release(NodeId, Vec<TaskId>),
}

/// What the coordinator does for the engine. No call blocks or fails: orders to a node that is gone are dropped.
pub trait Dispatcher: Send + Sync + 'static {
    /// Lends all free credits to a partition for one decide. When there are none, the partition is remembered and woken
    /// ([`super::NodePort::wake`]) as soon as there are.
    fn lend(&self, partition: PartitionId) -> Vec<Candidate>;

    /// Ends the loan: `spent` says how many credits of each node were used. The rest is free again.
    fn settle(&self, partition: PartitionId, lent: Vec<Candidate>, spent: &BTreeMap<NodeId, u32>);

    /// Ends what [`Dispatcher::settle`] reported as spent by a batch whose commit failed: its orders will never be dispatched.
    fn abandon(&self, partition: PartitionId);

    /// Sends orders out, in order per node. Called only after their batch is durable.
    fn dispatch(&self, orders: Vec<Order>);

    /// Ends all sessions: orders of this process may have been lost. Nodes dial again and say what they hold.
    fn reset(&self);

    /// What connected nodes offer now, credits or not: for saying why a task waits. Cheap.
    fn offers(&self) -> Vec<Candidate>;
}

/// Told after each durable change. A hint: readers always read storage.
pub trait Observer: Send + Sync + 'static {
    /// Something about the workflow is new: a record, or durable output.
    fn workflow_changed(&self, tenant: TenantId, workflow: WorkflowId);
    /// Something about a node is new.
    fn node_changed(&self, node: NodeId);
}
