//! Running a command against the state.

use std::collections::BTreeMap;

use gantry_proto::v1::Payload;
use gantry_proto::v1::event::Kind;
use gantry_proto::{NodeId, TenantId, WorkflowId};

use super::apply::{ApplyError, Place, apply};
use super::commands::{Command, Rejection, Reply};
use super::state::PartitionState;
use crate::api::Order;

/// What a decision may use beside state and command.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// Time of the batch. Never before the newest record's.
    pub now_ms: u64,
    /// 64 bits of randomness, for ids.
    pub entropy: u64,
}

/// A record to be, as decided and already applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its position.
    pub seq: u64,
    /// Whose.
    pub tenant: TenantId,
    /// Which workflow it is about.
    pub workflow: Option<WorkflowId>,
    /// The clear side.
    pub kind: Kind,
    /// The side to be sealed.
    pub payload: Option<Payload>,
}

/// What came out of a command.
#[derive(Debug)]
pub struct Decision {
    /// Answer to the caller, sent when the batch is durable.
    pub reply: Result<Reply, Rejection>,
}

/// The work of one batch: what has been decided so far.
pub struct Batching<'a> {
    /// The state, with everything decided so far applied.
    pub state: &'a mut PartitionState,
    /// Time of the batch.
    pub now_ms: u64,
    /// Records, in order.
    pub events: Vec<Recorded>,
    /// What goes to nodes once the batch is durable.
    pub orders: Vec<Order>,
    /// Credits used, by node.
    pub spent: BTreeMap<NodeId, u32>,
}

impl<'a> Batching<'a> {
    /// Begins a batch at `now_ms`, or at the time of the newest record if the clock went back.
    pub fn new(state: &'a mut PartitionState, now_ms: u64) -> Self {
        let now_ms = now_ms.max(state.last_at_ms);
        Self {
            state,
            now_ms,
            events: Vec::new(),
            orders: Vec::new(),
            spent: BTreeMap::new(),
        }
    }

    pub(crate) fn emit(
        &mut self,
        tenant: TenantId,
        workflow: Option<WorkflowId>,
        kind: Kind,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        let seq = self.state.next_seq;
        let place = Place {
            seq,
            at_ms: self.now_ms,
            tenant,
            workflow,
        };
        apply(self.state, place, &kind, payload.as_ref())?;
        self.events.push(Recorded {
            seq,
            tenant,
            workflow,
            kind,
            payload,
        });
        Ok(())
    }
}

/// Decides one command: its records are appended to the batch and applied. A rejection changes nothing.
///
/// # Errors
/// [`ApplyError`] means a fault of ours: the caller discards the state and recovers.
pub fn decide(batch: &mut Batching<'_>, command: Command, inputs: Inputs) -> Result<Decision, ApplyError> {
    let before = batch.events.len();
    let reply = command.decide(batch, inputs)?;
    debug_assert!(
        reply.is_ok() || batch.events.len() == before,
        "a rejection must not change anything"
    );
    Ok(Decision { reply })
}
