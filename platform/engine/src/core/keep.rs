//! What is kept of ended workflows, against whose wish, and what was destroyed: the stored rows of holds and erasures.

use gantry_proto::PrincipalId;

/// A legal hold. Rows of this kind are in memory while they live: their number is bounded by [`gantry_proto::limits::HOLDS_PER_PARTITION_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HoldRow {
    /// Who asked for it.
    #[prost(message, required, tag = "1")]
    pub by: PrincipalId,
    /// Since when.
    #[prost(uint64, required, tag = "2")]
    pub at_ms: u64,
    /// Position of the record with the reason.
    #[prost(uint64, required, tag = "3")]
    pub seq: u64,
}

/// That a workflow's content was destroyed.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ErasedRow {
    /// Who asked for it.
    #[prost(message, required, tag = "1")]
    pub by: PrincipalId,
    /// When.
    #[prost(uint64, required, tag = "2")]
    pub at_ms: u64,
}
