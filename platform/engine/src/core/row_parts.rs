//! Parts of rows: what was decided about a workflow or a task, by whom and when.

use gantry_proto::PrincipalId;
use gantry_proto::v1::{Decision, WorkflowEnd};

/// How a workflow ends.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EndingRow {
    /// How.
    #[prost(enumeration = "WorkflowEnd", required, tag = "1")]
    pub end: i32,
    /// `ErrorCode`.
    #[prost(string, optional, tag = "2")]
    pub code: Option<String>,
    /// When that was decided.
    #[prost(uint64, required, tag = "3")]
    pub at_ms: u64,
    /// Position of the record with the reason.
    #[prost(uint64, required, tag = "4")]
    pub seq: u64,
}

/// Who paused a workflow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PauseRow {
    /// Who; absent: an exhausted retry did.
    #[prost(message, optional, tag = "1")]
    pub by: Option<PrincipalId>,
    /// `ErrorCode` of what exhausted it.
    #[prost(string, optional, tag = "2")]
    pub code: Option<String>,
    /// When.
    #[prost(uint64, required, tag = "3")]
    pub at_ms: u64,
    /// Position of the record with the reason.
    #[prost(uint64, required, tag = "4")]
    pub seq: u64,
}

/// What a person decided.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DecisionRow {
    /// What.
    #[prost(enumeration = "Decision", required, tag = "1")]
    pub decision: i32,
    /// Who.
    #[prost(message, required, tag = "2")]
    pub by: PrincipalId,
    /// When.
    #[prost(uint64, required, tag = "3")]
    pub at_ms: u64,
    /// Position of the record with the reason.
    #[prost(uint64, required, tag = "4")]
    pub seq: u64,
}
