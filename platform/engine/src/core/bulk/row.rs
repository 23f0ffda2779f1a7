//! The stored row of a bulk operation.

use bytes::Bytes;
use gantry_proto::v1::{BulkItem, BulkOperation};
use gantry_proto::{BulkId, PrincipalId, TenantId, WorkflowId, limits};

use crate::lifecycle::bulk::BulkState;

/// A bulk operation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BulkRow {
    /// Id.
    #[prost(message, required, tag = "1")]
    pub id: BulkId,
    /// Whose it is.
    #[prost(message, required, tag = "2")]
    pub tenant: TenantId,
    /// Who asked for it.
    #[prost(message, required, tag = "3")]
    pub by: PrincipalId,
    /// What is done.
    #[prost(enumeration = "BulkOperation", required, tag = "4")]
    pub operation: i32,
    /// To which workflows.
    #[prost(string, required, tag = "5")]
    pub filter: String,
    /// To so many per second at most.
    #[prost(uint32, required, tag = "6")]
    pub rate: u32,
    /// Hash of the request, which tells a repeated one from another one with the same key.
    #[prost(bytes = "bytes", required, tag = "7")]
    pub request_hash: Bytes,
    /// Where it stands.
    #[prost(enumeration = "BulkState", required, tag = "8")]
    pub state: i32,
    /// Of a cancellation: grace for running steps.
    #[prost(uint64, optional, tag = "9")]
    pub grace_ms: Option<u64>,
    /// Of a pause: running steps end too.
    #[prost(bool, optional, tag = "10")]
    pub interrupt: Option<bool>,
    /// Of a signal: its name.
    #[prost(string, optional, tag = "11")]
    pub signal: Option<String>,
    /// What its arguments are sealed under: no workflow.
    #[prost(message, required, tag = "12")]
    pub content: WorkflowId,
    /// Position of the record with its arguments.
    #[prost(uint64, required, tag = "13")]
    pub requested_seq: u64,
    /// When it was asked for. Workflows that were made later are not looked at.
    #[prost(uint64, required, tag = "14")]
    pub created_at_ms: u64,
    /// When it ended.
    #[prost(uint64, optional, tag = "15")]
    pub ended_at_ms: Option<u64>,
    /// When it is forgotten.
    #[prost(uint64, optional, tag = "16")]
    pub expires_at_ms: Option<u64>,
    /// Who ended it.
    #[prost(message, optional, tag = "17")]
    pub cancelled_by: Option<PrincipalId>,
    /// Everything up to this workflow, newest first, has been looked at.
    #[prost(message, optional, tag = "18")]
    pub through: Option<WorkflowId>,
    /// All have been looked at.
    #[prost(bool, required, tag = "19")]
    pub complete: bool,
    /// Workflows looked at.
    #[prost(uint64, required, tag = "20")]
    pub looked_at: u64,
    /// Workflows that matched, and were sent for.
    #[prost(uint64, required, tag = "21")]
    pub matched: u64,
    /// Acted upon.
    #[prost(uint64, required, tag = "22")]
    pub done: u64,
    /// Nothing was to be done, or not any more.
    #[prost(uint64, required, tag = "23")]
    pub skipped: u64,
    /// Refused.
    #[prost(uint64, required, tag = "24")]
    pub failed: u64,
    /// Why workflows were skipped or refused, with numbers.
    #[prost(message, repeated, tag = "25")]
    pub reasons: Vec<BulkReason>,
    /// The newest of them.
    #[prost(message, repeated, tag = "26")]
    pub others: Vec<BulkItem>,
}

/// Why workflows were not acted upon.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BulkReason {
    /// A word or an `ErrorCode`.
    #[prost(string, required, tag = "1")]
    pub reason: String,
    /// They were refused, not skipped.
    #[prost(bool, required, tag = "2")]
    pub failed: bool,
    /// How many.
    #[prost(uint64, required, tag = "3")]
    pub count: u64,
}

impl BulkRow {
    /// Sent for and not reported.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.matched.saturating_sub(self.done + self.skipped + self.failed)
    }

    /// Whether it takes further workflows.
    #[must_use]
    pub fn searches(&self) -> bool {
        self.state() == BulkState::Running && !self.complete
    }

    /// Notes what became of workflows.
    pub(in crate::core) fn count(&mut self, done: u32, others: &[BulkItem]) {
        self.done += u64::from(done);
        for item in others {
            *if item.failed {
                &mut self.failed
            } else {
                &mut self.skipped
            } += 1;
            let same = |known: &&mut BulkReason| known.failed == item.failed && known.reason == item.reason;
            match self.reasons.iter_mut().find(same) {
                Some(known) => known.count += 1,
                // Reasons are words of ours: there are few.
                None => self.reasons.push(BulkReason {
                    reason: item.reason.clone(),
                    failed: item.failed,
                    count: 1,
                }),
            }
        }
        self.others.extend_from_slice(others);
        let over = self.others.len().saturating_sub(limits::BULK_ITEMS_SHOWN_MAX);
        self.others.drain(..over);
    }
}
