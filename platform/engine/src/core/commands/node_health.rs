//! A node says how it is. Only a change is recorded.

use gantry_proto::v1::{self};
use gantry_proto::{NodeId, TenantId};

use super::node_register::change;
use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::lifecycle::node::NodeState;

/// A node says how it is.
#[derive(Debug, Clone)]
pub struct NodeHealth {
    /// Who.
    pub node: NodeId,
    /// How.
    pub health: v1::NodeHealth,
}

/// Whether a node that says this of itself cannot take work.
#[must_use]
pub fn is_unfit(health: &v1::NodeHealth) -> bool {
    !health.docker_ok || health.fault.is_some()
}

impl NodeHealth {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let Some(row) = batch.state.nodes.get(&self.node) else {
            return Ok(Err(Rejection::NotFound));
        };
        let tenant = row.serves.unwrap_or_else(TenantId::nil);
        let unfit = is_unfit(&self.health);
        let full = self.health.running.unwrap_or(0) >= row.slots;
        let (drain, before) = (row.drain, row.fault.clone());
        match row.state() {
            // A message that was overtaken by the end of the stream.
            NodeState::Offline | NodeState::Disconnected => {}
            NodeState::Degraded if unfit && before == self.health.fault => {}
            _ if unfit => change(batch, tenant, self.node, v1::NodeState::Degraded, self.health.fault)?,
            NodeState::Degraded => {
                change(batch, tenant, self.node, v1::NodeState::Online, None)?;
                if drain {
                    change(batch, tenant, self.node, v1::NodeState::Draining, None)?;
                }
            }
            NodeState::Online if full => change(batch, tenant, self.node, v1::NodeState::Busy, None)?,
            NodeState::Busy if !full => change(batch, tenant, self.node, v1::NodeState::Online, None)?,
            NodeState::Online | NodeState::Busy | NodeState::Draining => {}
        }
        Ok(Ok(Reply::Done))
    }
}
