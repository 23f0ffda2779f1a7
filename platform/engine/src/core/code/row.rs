//! The stored form of an activation.

use bytes::Bytes;
use gantry_proto::v1::{ActivationEnd, ActivationKind, ActivationWhat, RecoveryPolicy};

/// Id of an activation in its workflow: made from its stable key by the protocol, opaque here.
pub type ActivationKey = [u8; 16];

/// Where an activation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum ActivationState {
    /// Begun, no end journaled.
    Active = 0,
    /// Done: its result stands.
    Completed = 1,
    /// Failed for good: that stands.
    Failed = 2,
    /// Failed, to be begun again.
    RetryReady = 3,
    /// Its holder is gone, and nobody knows what it did.
    Unknown = 4,
}

/// An activation. Its result is not in here, but in the log at `end_seq`; its key in words is at `begin_seq`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ActivationRow {
    /// Position of its task in the workflow.
    #[prost(uint32, required, tag = "1")]
    pub task: u32,
    /// Where it stands.
    #[prost(enumeration = "ActivationState", required, tag = "2")]
    pub state: i32,
    /// Times that it was begun.
    #[prost(uint32, required, tag = "3")]
    pub attempt: u32,
    /// Under which lease, the last time.
    #[prost(uint64, required, tag = "4")]
    pub fence: u64,
    /// Head of the digest of its definition.
    #[prost(bytes = "bytes", required, tag = "5")]
    pub definition: Bytes,
    /// Head of the digest of its input.
    #[prost(bytes = "bytes", required, tag = "6")]
    pub input: Bytes,
    /// What is done when its holder is gone.
    #[prost(enumeration = "RecoveryPolicy", required, tag = "7")]
    pub policy: i32,
    /// What kind of thing it is.
    #[prost(enumeration = "ActivationKind", required, tag = "8")]
    pub kind: i32,
    /// Position of the record with its key in words.
    #[prost(uint64, required, tag = "9")]
    pub begin_seq: u64,
    /// When it was begun, the last time.
    #[prost(uint64, required, tag = "10")]
    pub begun_at_ms: u64,
    /// Position of the record of its end.
    #[prost(uint64, optional, tag = "11")]
    pub end_seq: Option<u64>,
    /// When that was.
    #[prost(uint64, optional, tag = "12")]
    pub ended_at_ms: Option<u64>,
    /// Of a timer: when it is due.
    #[prost(uint64, optional, tag = "13")]
    pub due_ms: Option<u64>,
}

impl ActivationRow {
    /// A row as of its first begin.
    #[must_use]
    pub fn begun(task: u32, what: &ActivationWhat, seq: u64) -> Self {
        Self {
            task,
            definition: what.definition.clone(),
            input: what.input.clone(),
            policy: what.policy,
            kind: what.kind,
            begin_seq: seq,
            ..Self::default()
        }
    }

    /// Neither completed nor failed for good.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !matches!(self.state(), ActivationState::Completed | ActivationState::Failed)
    }
}

impl From<ActivationEnd> for ActivationState {
    fn from(end: ActivationEnd) -> Self {
        match end {
            ActivationEnd::Completed => Self::Completed,
            ActivationEnd::Failed => Self::Failed,
            ActivationEnd::Retry => Self::RetryReady,
            ActivationEnd::Unknown => Self::Unknown,
        }
    }
}
