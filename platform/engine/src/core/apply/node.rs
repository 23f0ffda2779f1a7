//! Records about a node.

use gantry_proto::v1;

use super::{ApplyError, Place, end};
use crate::core::rows::NodeRow;
use crate::core::state::PartitionState;
use crate::lifecycle::node::NodeState;
use crate::lifecycle::{IllegalTransition, Lifecycle as _};

pub(super) fn node_registered(state: &mut PartitionState, place: Place, event: &v1::NodeRegistered) {
    let known = state.nodes.get(&event.node);
    let mut row = NodeRow {
        id: event.node,
        name: event.name.clone(),
        version: event.version.clone(),
        slots: event.slots,
        capabilities: event.capabilities.clone(),
        labels: event.labels.clone(),
        arch: event.arch.clone(),
        os: event.os.clone(),
        cpu_millis: event.cpu_millis,
        memory_bytes: event.memory_bytes,
        serves: event.serves,
        drain: known.is_some_and(|known| known.drain),
        fault: known.and_then(|known| known.fault.clone()),
        registered_at_ms: known.map_or(place.at_ms, |known| known.registered_at_ms),
        ..NodeRow::default()
    };
    // Connecting is a change of its own, which follows.
    row.set_state(known.map_or(NodeState::Offline, NodeRow::state));
    state.nodes.insert(event.node, row);
    state.dirty.nodes.insert(event.node);
}

pub(super) fn node_changed(
    state: &mut PartitionState,
    place: Place,
    event: &v1::NodeChanged,
) -> Result<(), ApplyError> {
    let to = node_state(end(place, event.state, v1::NodeState::try_from)?);
    let Some(row) = state.nodes.get_mut(&event.node) else {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "node",
        });
    };
    let from = row.state();
    if !NodeState::EDGES.iter().any(|(a, _, b)| (*a, *b) == (from, to)) {
        return Err(IllegalTransition {
            entity: "node",
            from: from.text(),
            trigger: format!("becoming {to}"),
        }
        .into());
    }
    match (from, to) {
        (_, NodeState::Draining) => row.drain = true,
        (NodeState::Draining, NodeState::Online) => row.drain = false,
        _ => {}
    }
    row.set_state(to);
    row.fault.clone_from(&event.fault);
    state.dirty.nodes.insert(event.node);
    Ok(())
}

pub(super) fn node_state(state: v1::NodeState) -> NodeState {
    match state {
        v1::NodeState::Online => NodeState::Online,
        v1::NodeState::Busy => NodeState::Busy,
        v1::NodeState::Draining => NodeState::Draining,
        v1::NodeState::Degraded => NodeState::Degraded,
        v1::NodeState::Disconnected => NodeState::Disconnected,
        v1::NodeState::Offline => NodeState::Offline,
    }
}
