//! Clients: calls that may be answered, refused, given up on, or lost with the process that had them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gantry_engine::Engine;
use gantry_engine::api::{Refusal, SignalReceipt, SubmitReceipt, TaskState, WorkflowState, WorkflowView};

use gantry_proto::BulkId;

use crate::world::World;

/// What a client hears.
#[derive(Debug)]
pub(crate) enum Reply {
    Submitted(Result<SubmitReceipt, Refusal>),
    State(Result<WorkflowState, Refusal>),
    View(Result<Box<WorkflowView>, Refusal>),
    Signalled(Result<SignalReceipt, Refusal>),
    Decided(Result<TaskState, Refusal>),
    Done(Result<(), Refusal>),
    Bulk(Result<BulkId, Refusal>),
    /// Of many calls at once: answered, and refused for want of room.
    Many {
        answered: usize,
        overloaded: usize,
    },
    /// Nothing: whether anything was done is not known.
    Unknown,
}

/// The end of a call.
pub(crate) struct Answer {
    pub(crate) operation: usize,
    pub(crate) tag: u64,
    pub(crate) process: u64,
    pub(crate) reply: Reply,
}

impl World {
    /// Calls the server on behalf of an operation. The reply comes to its `answered` with the same tag.
    pub(crate) fn call<F>(&mut self, operation: usize, tag: u64, call: impl FnOnce(Arc<Engine>) -> F)
    where
        F: Future<Output = Reply> + 'static,
    {
        let (process, engine) = match &self.server {
            Some(server) => (server.number, Arc::clone(&server.engine)),
            None => {
                let reply = Reply::Unknown;
                self.calls.push(Box::pin(async move {
                    Answer {
                        operation,
                        tag,
                        process: 0,
                        reply,
                    }
                }));
                return;
            }
        };
        // Some callers do not wait for long; what they asked for may happen all the same.
        let patience_ms = if self.healed || self.dice.chance(900) {
            600_000
        } else {
            self.dice.between(1, 2_000)
        };
        let call = call(engine);
        self.calls.push(Box::pin(async move {
            let reply = tokio::time::timeout(Duration::from_millis(patience_ms), call).await;
            Answer {
                operation,
                tag,
                process,
                reply: reply.unwrap_or(Reply::Unknown),
            }
        }));
    }
}
