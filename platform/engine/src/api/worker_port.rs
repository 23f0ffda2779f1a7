//! What the coordinator calls on behalf of workers: processes with user code.

use bytes::Bytes;
use gantry_proto::NodeId;
use gantry_proto::v1::{Assignee, Fault, HeldVerdict};

use super::backend::Refusal;
use super::node_port::Verdict;
pub use crate::core::commands::RunOp;

/// What the engine made of one [`RunOp`]. Everything that it stands on is durable.
#[derive(Debug, Clone, PartialEq)]
pub enum RunReply {
    /// Execute the activation, as this attempt.
    Execute(u32),
    /// It has ended, with this.
    Replay {
        /// Which attempt it was.
        attempt: u32,
        /// Its result (JSON), or how it failed.
        end: Result<Bytes, Fault>,
    },
    /// It is being executed, or sleeps until then.
    Wait(Option<u64>),
    /// Not what it was before; nothing was recorded.
    Conflict(String),
    /// Nobody knows what became of this attempt, and it must not be executed again.
    Unknown(u32),
    /// Journaled.
    Recorded,
    /// Not looked at: something before it was not accepted, or ended the lease.
    Skipped,
}

/// What the coordinator calls for workers. Calls return when their effect is durable; a stale fence is an answer, not an error.
#[async_trait::async_trait]
pub trait WorkerPort: Send + Sync + 'static {
    /// A worker connected: one verdict per run that it goes on with. Runs that it was believed to hold and does not name are leased again.
    async fn reconcile(&self, worker: NodeId, holding: Vec<Assignee>) -> Result<Vec<HeldVerdict>, Refusal>;

    /// Renews the leases of runs, in memory only. One verdict per entry, in order.
    async fn renew_runs(&self, worker: NodeId, holding: Vec<Assignee>) -> Result<Vec<Verdict>, Refusal>;

    /// What the code of a run did: one reply per operation, or `None` when its fence is stale.
    async fn steps(
        &self,
        worker: NodeId,
        assignee: Assignee,
        ops: Vec<RunOp>,
    ) -> Result<Option<Vec<RunReply>>, Refusal>;

    /// The worker cannot take a run: it is ready again, and nothing is counted.
    async fn run_refused(&self, worker: NodeId, assignee: Assignee, fault: Fault) -> Result<Verdict, Refusal>;

    /// The worker lost a run without ending it.
    async fn run_dropped(&self, worker: NodeId, assignee: Assignee) -> Result<Verdict, Refusal>;
}
