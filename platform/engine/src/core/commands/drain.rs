//! An operator drains a node, or stops that.

use gantry_proto::v1::{self};
use gantry_proto::{NodeId, TenantId};

use super::node_register::change;
use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::lifecycle::node::NodeState;

/// An operator drains a node, or stops that.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Who asks.
    pub tenant: TenantId,
    /// Which.
    pub node: NodeId,
    /// On or off.
    pub drain: bool,
}

impl Drain {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch.state.nodes.get(&self.node);
        let Some(row) = found.filter(|row| row.serves.is_none_or(|serves| serves == self.tenant)) else {
            return Ok(Err(Rejection::NotFound));
        };
        let tenant = row.serves.unwrap_or_else(TenantId::nil);
        match (row.state(), self.drain) {
            (NodeState::Offline | NodeState::Disconnected, true) => {
                return Ok(Err(Rejection::Refused {
                    code: gantry_proto::ErrorCode::Conflict,
                    message: "the node is not connected".to_owned(),
                }));
            }
            (NodeState::Draining, true) => {}
            (_, true) => change(batch, tenant, self.node, v1::NodeState::Draining, None)?,
            (NodeState::Draining, false) => change(batch, tenant, self.node, v1::NodeState::Online, None)?,
            (_, false) if !row.drain => {}
            (NodeState::Degraded, false) => {
                // Lifting it goes by way of the states that it stands for; what is wrong with the node stays.
                let fault = row.fault.clone();
                change(batch, tenant, self.node, v1::NodeState::Draining, None)?;
                change(batch, tenant, self.node, v1::NodeState::Online, None)?;
                change(batch, tenant, self.node, v1::NodeState::Degraded, fault)?;
            }
            (_, false) => {
                return Ok(Err(Rejection::Refused {
                    code: gantry_proto::ErrorCode::Conflict,
                    message: "the node is not connected".to_owned(),
                }));
            }
        }
        Ok(Ok(Reply::Done))
    }
}
