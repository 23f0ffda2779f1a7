//! What the coordinator calls on behalf of nodes. Every call returns when its effect is durable; a stale fence is an answer, not an error.

use bytes::Bytes;
use futures_util::stream::BoxStream;
use gantry_proto::v1::{
    Artifact, Assignee, Fault, HeldVerdict, NodeHealth, ProcessOutput, Register, StepResult, StepStarted,
};
use gantry_proto::{ArtifactId, NodeId, PartitionId, TaskId};

use super::backend::Refusal;
use super::dispatch::Serves;

/// What the engine made of a message about an assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Journaled, now or before.
    Accepted,
    /// The fence is not the newest, or the attempt is over: the holder drops the work.
    Stale,
}

/// Why a node is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The stream broke: leases run on until they expire.
    Disconnected,
    /// It said goodbye.
    Offline,
}

/// What the engine says to a node that connected.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Registration {
    /// One per step that the node holds.
    pub verdicts: Vec<HeldVerdict>,
    /// Workspaces that it keeps and nobody needs any more.
    pub release: Vec<TaskId>,
}

/// What the coordinator calls.
#[async_trait::async_trait]
pub trait NodePort: Send + Sync + 'static {
    /// A node connected. Verdicts are for `register.holding`; steps that it was believed to hold and does not name are lost.
    async fn register(&self, serves: Serves, register: Register) -> Result<Registration, Refusal>;

    /// A node's stream ended.
    async fn departed(&self, node: NodeId, departure: Departure) -> Result<(), Refusal>;

    /// Health as the node sees it; changes its state between online, busy and degraded.
    async fn health(&self, node: NodeId, health: NodeHealth) -> Result<(), Refusal>;

    /// Renews leases, in memory only. One verdict per entry, in order.
    async fn renew(&self, node: NodeId, holding: Vec<Assignee>) -> Result<Vec<Verdict>, Refusal>;

    /// A step attempt's process runs.
    async fn started(&self, node: NodeId, started: StepStarted) -> Result<Verdict, Refusal>;

    /// Output of a step attempt. Returns the highest durable sequence.
    async fn output(
        &self,
        node: NodeId,
        assignee: Assignee,
        chunks: Vec<ProcessOutput>,
    ) -> Result<(Verdict, u64), Refusal>;

    /// Content of the progress file; shown live, not journaled.
    async fn progress(&self, node: NodeId, assignee: Assignee, content: Bytes) -> Result<Verdict, Refusal>;

    /// A step attempt ended.
    async fn finished(&self, node: NodeId, assignee: Assignee, result: StepResult) -> Result<Verdict, Refusal>;

    /// The node gives an assignment back unstarted: the task is ready again and nothing is counted.
    async fn refused(&self, node: NodeId, assignee: Assignee, fault: Fault) -> Result<Verdict, Refusal>;

    /// The node lost what it held (its sandbox died with the supervisor).
    async fn dropped(&self, node: NodeId, assignee: Assignee) -> Result<Verdict, Refusal>;

    /// What the node said of an attempt can never be recorded: the attempt is lost, and the node is to drop it.
    async fn give_up(&self, node: NodeId, assignee: Assignee, why: String) -> Result<Verdict, Refusal>;

    /// Stores an artifact under a live lease.
    async fn put_artifact(
        &self,
        node: NodeId,
        assignee: Assignee,
        name: String,
        content_type: Option<String>,
        data: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<Artifact, Refusal>;

    /// Reads an artifact that an assignment names as input.
    async fn get_artifact(
        &self,
        node: NodeId,
        assignee: Assignee,
        artifact: ArtifactId,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Refusal>;

    /// Credits are free: these partitions asked for some.
    fn wake(&self, partitions: &[PartitionId]);
}
