//! What partitions tell each other: letters on their way out, and how far each sender has been heard. All of it is a fold over the log.
//!
//! A letter is decided in a batch and stands in the outbox from then on. It is delivered when that batch is durable, in order for each receiver, again and
//! again until the receiver has made it durable; the receiver's mark makes a second delivery nothing. So it has its effect exactly once, whoever crashes.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::{PartitionId, TenantId};

/// A letter that is not acknowledged.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OutboxRow {
    /// Position of the record that has it.
    #[prost(uint64, required, tag = "1")]
    pub seq: u64,
    /// Whose it is.
    #[prost(message, required, tag = "2")]
    pub tenant: TenantId,
}

/// What was sent to one receiver.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct SentRow {
    /// Number of the newest letter.
    #[prost(uint64, required, tag = "1")]
    pub number: u64,
    /// Number of the newest one that is acknowledged.
    #[prost(uint64, required, tag = "2")]
    pub acknowledged: u64,
}

/// What was received from one sender.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ReceivedRow {
    /// All letters up to this number have had their effect.
    #[prost(uint64, required, tag = "1")]
    pub through: u64,
}

/// Receiver and number of a letter.
pub type LetterRef = (PartitionId, u64);

/// Mail of one partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mail {
    /// Letters that are not acknowledged.
    pub open: BTreeMap<LetterRef, OutboxRow>,
    /// By receiver.
    pub sent: BTreeMap<PartitionId, SentRow>,
    /// By sender.
    pub received: BTreeMap<PartitionId, ReceivedRow>,
}

impl Mail {
    /// Number of the newest letter that was received from `from`; 0: none.
    #[must_use]
    pub fn mark(&self, from: PartitionId) -> u64 {
        self.received.get(&from).map_or(0, |row| row.through)
    }
}

/// Which rows of it have changed.
#[derive(Debug, Clone, Default)]
pub struct MailDirty {
    /// Letters: with the tenant, since a letter that is gone cannot be asked for it.
    pub open: BTreeSet<(TenantId, LetterRef)>,
    /// Receivers.
    pub sent: BTreeSet<PartitionId>,
    /// Senders.
    pub received: BTreeSet<PartitionId>,
}
