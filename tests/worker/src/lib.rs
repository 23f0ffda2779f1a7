//! A worker in Rust that speaks the real protocol: components registered over one stream, runs pushed, steps durable, replay after every kind of loss.
//!
//! Rules for code in handlers: whatever is not the same at every replay (clocks, randomness, the outside world) belongs into a step. What a handler did
//! since it last waited goes out in one message, so that the end of one step, the begin of the next and the end of a run share a durable batch; no step is
//! begun before the end of the one before is durable.

pub mod components;
mod connection;
mod context;
mod driver;
pub mod identity;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use gantry_proto::v1::Fault;
use gantry_proto::{ErrorCode, NodeId, PartitionId};

pub use connection::Worker;
pub use context::{Context, Policy};

/// How code ends badly.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Why.
    pub fault: Fault,
    /// Trying again may help.
    pub retry: bool,
}

impl Failure {
    /// One that trying again may help.
    #[must_use]
    pub fn of(message: impl Into<String>) -> Self {
        Self {
            fault: Fault::new(ErrorCode::WorkerFailed, message),
            retry: true,
        }
    }

    /// One that stands.
    #[must_use]
    pub fn standing(fault: Fault) -> Self {
        Self { fault, retry: false }
    }
}

/// What a handler returns: JSON.
pub type Outcome = Result<Bytes, Failure>;

/// User code.
pub type Handler = Arc<dyn Fn(Context, Bytes) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// What a worker is.
#[derive(Clone)]
pub struct Settings {
    /// Where the server's gRPC listens, `http://host:port`.
    pub endpoint: String,
    /// A node token.
    pub token: String,
    /// For people.
    pub name: String,
    /// Runs at once.
    pub slots: u32,
    /// Digest of the code: a change makes replays of older runs conflict.
    pub artifact: [u8; 32],
    /// Tries of a run's code, and the pause before the second in milliseconds.
    pub retry: (u32, u64),
    /// Code by name.
    pub components: BTreeMap<String, Handler>,
}

impl Settings {
    /// A worker without components.
    #[must_use]
    pub fn new(endpoint: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            token: token.into(),
            name: "test-worker".to_owned(),
            slots: 64,
            artifact: [7; 32],
            retry: (3, 1_000),
            components: BTreeMap::new(),
        }
    }

    /// Adds code.
    #[must_use]
    pub fn component<F, R>(mut self, name: &str, code: F) -> Self
    where
        F: Fn(Context, Bytes) -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |context, input| Box::pin(code(context, input)));
        self.components.insert(name.to_owned(), handler);
        self
    }
}

/// A fresh id for a process.
pub(crate) fn worker_id() -> anyhow::Result<NodeId> {
    Ok(NodeId::new(
        gantry_proto::time::Clock::now_ms(&gantry_proto::time::SystemClock),
        PartitionId::default(),
        getrandom::u64()?,
    ))
}
