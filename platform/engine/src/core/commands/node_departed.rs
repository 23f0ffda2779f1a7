//! A node's stream ended. Its leases run on: only their own expiry ends them.

use gantry_proto::v1::{self};
use gantry_proto::{NodeId, TenantId};

use super::node_register::change;
use super::{Outcome, Rejection, Reply};
use crate::api::Departure;
use crate::core::decide::{Batching, Inputs};
use crate::lifecycle::node::NodeState;

/// A node's stream ended.
#[derive(Debug, Clone, Copy)]
pub struct NodeDeparted {
    /// Who.
    pub node: NodeId,
    /// How.
    pub departure: Departure,
}

impl NodeDeparted {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let Some(row) = batch.state.nodes.get(&self.node) else {
            return Ok(Err(Rejection::NotFound));
        };
        let tenant = row.serves.unwrap_or_else(TenantId::nil);
        let to = match (row.state(), self.departure) {
            (NodeState::Offline, _) | (NodeState::Disconnected, Departure::Disconnected) => None,
            (_, Departure::Disconnected) => Some(v1::NodeState::Disconnected),
            (_, Departure::Offline) => Some(v1::NodeState::Offline),
        };
        if let Some(to) = to {
            change(batch, tenant, self.node, to, None)?;
        }
        Ok(Ok(Reply::Done))
    }
}
