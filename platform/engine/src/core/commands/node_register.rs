//! A node connected.

use gantry_proto::TenantId;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Register};

use super::{Outcome, Reply, is_unfit};
use crate::api::Serves;
use crate::core::apply::ApplyError;
use crate::core::decide::{Batching, Inputs};

/// A node connected.
#[derive(Debug, Clone)]
pub struct NodeRegister {
    /// Whose work it takes.
    pub serves: Serves,
    /// What it says of itself.
    pub register: Register,
}

impl NodeRegister {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let Register {
            node,
            name,
            version,
            slots,
            capabilities,
            labels,
            arch,
            os,
            ..
        } = self.register;
        let (cpu_millis, memory_bytes, health) = (
            self.register.cpu_millis,
            self.register.memory_bytes,
            self.register.health,
        );
        let serves = match self.serves {
            Serves::All => None,
            Serves::Tenant(tenant) => Some(tenant),
        };
        let tenant = serves.unwrap_or_else(TenantId::nil);
        let event = v1::NodeRegistered {
            node,
            name,
            version,
            slots,
            capabilities,
            labels,
            arch,
            os,
            cpu_millis,
            memory_bytes,
            serves,
        };
        let known = batch.state.nodes.get(&node);
        let same = known.is_some_and(|row| {
            row.name == event.name
                && row.version == event.version
                && row.slots == event.slots
                && row.capabilities == event.capabilities
                && row.labels == event.labels
                && (&row.arch, &row.os) == (&event.arch, &event.os)
                && (row.cpu_millis, row.memory_bytes, row.serves) == (event.cpu_millis, event.memory_bytes, serves)
        });
        let drain = known.is_some_and(|row| row.drain);
        if !same {
            batch.emit(tenant, None, Kind::NodeRegistered(event), None)?;
        }
        change(batch, tenant, node, v1::NodeState::Online, None)?;
        // Connecting makes a draining node an online one: what an operator asked for is said again, also of a node that cannot work.
        if drain {
            change(batch, tenant, node, v1::NodeState::Draining, None)?;
        }
        if let Some(health) = health.filter(is_unfit) {
            change(batch, tenant, node, v1::NodeState::Degraded, health.fault)?;
        }
        Ok(Ok(Reply::Done))
    }
}

pub(super) fn change(
    batch: &mut Batching<'_>,
    tenant: TenantId,
    node: gantry_proto::NodeId,
    state: v1::NodeState,
    fault: Option<v1::Fault>,
) -> Result<(), ApplyError> {
    batch.emit(
        tenant,
        None,
        Kind::NodeChanged(v1::NodeChanged {
            node,
            state: state.into(),
            fault,
        }),
        None,
    )
}
