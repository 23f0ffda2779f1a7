//! Sessions of nodes: registration, credits, push of assignments, heartbeats, acknowledgements.
//!
//! The coordinator holds no truth. Credits and sessions live in memory only; when it dies, nodes dial again, say what they hold, and the engine decides.
//! It implements [`gantry_engine::api::Dispatcher`] for the engine and calls [`gantry_engine::api::NodePort`] on behalf of nodes, either over gRPC
//! ([`NodeServer`]) or through channels in one process ([`Coordinator::open_session`]).
//!
//! Invariants:
//! - An order to a node without a session is dropped: re-registration and lease expiry heal it. Nothing is queued for a node that is away.
//! - The first message that a node gets is `Registered` (or `Refused`); orders that were made meanwhile follow it.
//! - Messages about one task are handled in the order in which the node sent them.

#[cfg(feature = "grpc")]
mod grpc;
mod ledger;
mod session;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gantry_engine::api::{Candidate, Dispatcher, NodePort, Order, Serves};
use gantry_proto::v1::{
    CancelRun, NodeToServer, ReleaseWorkspaces, ServerToNode, node_to_server, server_to_node, server_to_worker,
};
use gantry_proto::{NodeId, PartitionId, limits};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[cfg(feature = "grpc")]
pub use grpc::NodeServer;
use ledger::Ledger;
pub use worker::WorkerEnds;
#[cfg(feature = "grpc")]
pub use worker::WorkerServer;
use worker::Workers;

/// What a session runs on.
#[derive(Debug, Clone, Copy)]
pub struct CoordinatorConfig {
    /// How often nodes must show that they live.
    pub heartbeat_ms: u64,
    /// Length of a lease.
    pub lease_ms: u64,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: limits::HEARTBEAT_MS_DEFAULT,
            lease_ms: limits::LEASE_MS_DEFAULT,
        }
    }
}

impl CoordinatorConfig {
    /// Silence after which a stream counts as broken: three heartbeats.
    fn silence(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.saturating_mul(3))
    }
}

/// Both ends of a session as the node sees it: what it sends, what it receives.
pub type SessionEnds = (mpsc::Sender<NodeToServer>, mpsc::Receiver<ServerToNode>);

/// Sessions of all nodes that are connected to this process.
pub struct Coordinator {
    config: CoordinatorConfig,
    ledger: Mutex<Ledger>,
    /// The line to each connected node. Its writer holds the receiving end.
    lines: Mutex<BTreeMap<NodeId, Line>>,
    /// Set once, right after the engine has started; the engine needs us first.
    port: OnceLock<Arc<dyn NodePort>>,
    workers: Workers,
    sessions: TaskTracker,
    shutdown: CancellationToken,
    /// Held while a node registers or departs, so that the end of an old session is never told after the begin of a new one. Sharded by node.
    doors: [tokio::sync::Mutex<()>; DOORS],
}

const DOORS: usize = 64;

/// Where orders to one node go.
struct Line {
    /// Tells sessions of the same node apart: only the newest may remove the line.
    generation: u64,
    orders: mpsc::Sender<ServerToNode>,
    /// Ends the session that owns the line.
    cancel: CancellationToken,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator")
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

impl Coordinator {
    /// A coordinator without nodes and, until [`Coordinator::attach`], without an engine.
    #[must_use]
    pub fn new(config: CoordinatorConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            ledger: Mutex::default(),
            lines: Mutex::default(),
            port: OnceLock::new(),
            workers: Workers::default(),
            sessions: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            doors: std::array::from_fn(|_| tokio::sync::Mutex::default()),
        })
    }

    /// Connects the engine. Sessions that opened before wait for nothing: they are refused and dial again.
    ///
    /// # Panics
    /// When an engine is attached already: the wiring is wrong.
    pub fn attach(&self, port: Arc<dyn NodePort>) {
        assert!(self.port.set(port).is_ok(), "an engine is attached already");
    }

    /// Opens a session for a node in the same process, or behind a transport. The first message in must be `Register`.
    #[must_use]
    pub fn open_session(self: &Arc<Self>, serves: Serves) -> SessionEnds {
        let (to_server, from_node) = mpsc::channel(limits::SESSION_QUEUE_MAX);
        let (to_node, from_server) = mpsc::channel(limits::SESSION_QUEUE_MAX);
        let coordinator = Arc::clone(self);
        let cancel = self.shutdown.child_token();
        self.sessions.spawn(async move {
            session::run(coordinator, serves, from_node, to_node, cancel).await;
        });
        (to_server, from_server)
    }

    /// The engine, once attached. Nodes that stream artifacts beside their session use it.
    pub(crate) fn port(&self) -> Option<&Arc<dyn NodePort>> {
        self.port.get()
    }

    /// Ends every session and waits until each has told the engine. Sandboxes go on; nodes dial again.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.sessions.close();
        self.sessions.wait().await;
    }

    fn door(&self, node: NodeId) -> &tokio::sync::Mutex<()> {
        &self.doors[usize::from(node.as_bytes()[15]) % DOORS]
    }

    fn wake(&self, partitions: &[PartitionId]) {
        if !partitions.is_empty()
            && let Some(port) = self.port.get()
        {
            port.wake(partitions);
        }
    }
}

impl Dispatcher for Coordinator {
    fn lend(&self, partition: PartitionId) -> Vec<Candidate> {
        self.ledger.lock().lend(partition)
    }

    fn settle(&self, partition: PartitionId, lent: Vec<Candidate>, spent: &BTreeMap<NodeId, u32>) {
        let woken = self.ledger.lock().settle(partition, &lent, spent);
        self.wake(&woken);
    }

    fn abandon(&self, partition: PartitionId) {
        let woken = self.ledger.lock().abandon(partition);
        self.wake(&woken);
    }

    fn dispatch(&self, orders: Vec<Order>) {
        let lines = self.lines.lock();
        for order in orders {
            let (node, kind) = match order {
                Order::Assign(node, assignment) => {
                    self.ledger.lock().sent(assignment.assignee.task.partition(), node);
                    (node, server_to_node::Kind::Assign(*assignment))
                }
                Order::Run(worker, run) => {
                    self.ledger.lock().sent(run.assignee.task.partition(), worker);
                    if !self.workers.send(worker, server_to_worker::Kind::Run(*run)) {
                        tracing::debug!(%worker, "order dropped: the worker has no session");
                    }
                    continue;
                }
                // A task is held by a worker or by a node, and each has an id of its own.
                Order::Cancel(worker, cancel)
                    if self.workers.send(
                        worker,
                        server_to_worker::Kind::Cancel(CancelRun {
                            assignee: cancel.assignee.clone(),
                        }),
                    ) =>
                {
                    continue;
                }
                Order::Cancel(node, cancel) => (node, server_to_node::Kind::Cancel(cancel)),
                Order::Release(node, tasks) => (node, server_to_node::Kind::Release(ReleaseWorkspaces { tasks })),
            };
            let Some(line) = lines.get(&node) else {
                tracing::debug!(%node, "order dropped: the node has no session");
                continue;
            };
            if line.orders.try_send(ServerToNode { kind: Some(kind) }).is_err() {
                // A node that does not read is as good as gone: it dials again, says what it holds, and the engine heals what was not delivered.
                tracing::warn!(%node, "session ended: the node does not read its orders");
                line.cancel.cancel();
            }
        }
    }

    fn reset(&self) {
        for line in self.lines.lock().values() {
            line.cancel.cancel();
        }
        self.workers.reset();
    }

    fn offers(&self) -> Vec<Candidate> {
        self.ledger.lock().offers()
    }
}

/// The kind of a message, or nothing when it was written by a newer version.
fn kind_of(message: NodeToServer) -> Option<node_to_server::Kind> {
    message.kind
}
