//! Sessions of workers: processes with user code that dial out, register components, and are pushed runs.
//!
//! The same rules as for nodes: no truth is held here, nothing is queued for a worker that is away, and the first message that it gets is
//! `WorkerRegistered` or `Refused`.

#[cfg(feature = "grpc")]
mod grpc;
mod identity;
mod message;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use gantry_engine::api::{Serves, WorkerPort};
use gantry_proto::v1::{ServerToWorker, WorkerToServer, server_to_worker};
use gantry_proto::{NodeId, limits};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "grpc")]
pub use grpc::WorkerServer;

use crate::Coordinator;

/// Both ends of a session as the worker sees it.
pub type WorkerEnds = (mpsc::Sender<WorkerToServer>, mpsc::Receiver<ServerToWorker>);

/// The engine, as workers need it.
pub(crate) type Port = Arc<dyn WorkerPort>;

/// What the coordinator knows of workers.
#[derive(Default)]
pub(crate) struct Workers {
    lines: Mutex<BTreeMap<NodeId, Line>>,
    port: OnceLock<Port>,
}

/// Where orders to one worker go.
struct Line {
    /// Tells sessions of the same worker apart.
    generation: u64,
    orders: mpsc::Sender<ServerToWorker>,
    cancel: CancellationToken,
}

impl Workers {
    /// Sends an order out; `false` when the worker has no session.
    pub(crate) fn send(&self, worker: NodeId, kind: server_to_worker::Kind) -> bool {
        let lines = self.lines.lock();
        let Some(line) = lines.get(&worker) else {
            return false;
        };
        if line.orders.try_send(ServerToWorker { kind: Some(kind) }).is_err() {
            tracing::warn!(%worker, "session ended: the worker does not read its orders");
            line.cancel.cancel();
        }
        true
    }

    /// Ends all sessions; workers dial again.
    pub(crate) fn reset(&self) {
        for line in self.lines.lock().values() {
            line.cancel.cancel();
        }
    }
}

impl Coordinator {
    /// Connects the engine for workers. Their sessions that opened before are refused and dial again.
    ///
    /// # Panics
    /// When an engine is attached already: the wiring is wrong.
    pub fn attach_workers(&self, port: Arc<dyn WorkerPort>) {
        assert!(self.workers.port.set(port).is_ok(), "an engine is attached already");
    }

    /// Opens a session for a worker in the same process, or behind a transport. The first message in must be `RegisterWorker`.
    #[must_use]
    pub fn open_worker_session(self: &Arc<Self>, serves: Serves) -> WorkerEnds {
        let (to_server, from_worker) = mpsc::channel(limits::SESSION_QUEUE_MAX);
        let (to_worker, from_server) = mpsc::channel(limits::SESSION_QUEUE_MAX);
        let coordinator = Arc::clone(self);
        let cancel = self.shutdown.child_token();
        self.sessions.spawn(async move {
            session::run(coordinator, serves, from_worker, to_worker, cancel).await;
        });
        (to_server, from_server)
    }
}
