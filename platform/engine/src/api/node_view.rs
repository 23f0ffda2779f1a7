//! A node as readers see it.

use gantry_proto::NodeId;
use serde::Serialize;
use utoipa::ToSchema;

use super::view::FailureView;
use crate::lifecycle::node::NodeState;

/// One node.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NodeView {
    /// Id, `node_...`.
    #[schema(value_type = String)]
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Lifecycle state.
    pub state: NodeState,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FailureView>,
    /// Version of its binary.
    pub version: String,
    /// Steps at once.
    pub slots: u32,
    /// Steps that it holds.
    pub running: u32,
    /// CPU, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory.
    pub memory_bytes: u64,
    /// Capabilities.
    pub capabilities: Vec<String>,
    /// Labels.
    pub labels: std::collections::BTreeMap<String, String>,
    /// CPU architecture.
    pub arch: String,
    /// Operating system.
    pub os: String,
    /// Containers that it has, claimed or not.
    pub containers: u64,
    /// First registration.
    pub registered_at_ms: u64,
    /// Last sign of life, as far as this process knows.
    pub seen_at_ms: u64,
}
