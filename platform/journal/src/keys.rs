//! The key layout. All numbers are big-endian, so that the order of entities is the order of bytes.
//!
//! Every key but those of the store itself begins with one byte of kind, two of partition, and 16 of tenant; a log key alone has its sequence before
//! the tenant, because a partition's log is read in sequence whoever it belongs to.

use bytes::{BufMut as _, Bytes, BytesMut};
use gantry_proto::{BulkId, NodeId, PartitionId, ScheduleId, TaskId, TenantId, UploadId, WorkflowId};

use crate::store::prefix_end;

mod history;
mod limit;
mod parse;

pub use history::{archive, archive_of, destroy, ended, ended_from, erased, hold, sealed};
pub use limit::{limit_claim, limit_rate, paused_scope};
pub use parse::{Parsed, parse};

/// What a key holds: its first byte. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// The store's own keys: format, partition count, installation, epochs, verified positions.
    Meta = 0x01,
    /// A log entry.
    Log = 0x10,
    /// A workflow's wrapped data key.
    DataKey = 0x20,
    /// A workflow row.
    Workflow = 0x21,
    /// A task row.
    Task = 0x22,
    /// A workflow that has not ended.
    Active = 0x23,
    /// Where a workflow's records are in the log.
    Timeline = 0x24,
    /// An idempotency key.
    Idempotency = 0x25,
    /// A node row.
    Node = 0x26,
    /// A schedule row.
    Schedule = 0x29,
    /// A row of an activation: a step of code on a worker.
    Activation = 0x68,
    /// A sealed object of the archive.
    Archive = 0x40,
    /// How far a tenant's ended workflows are sealed.
    Sealed = 0x41,
    /// An ended workflow, in the order of ends.
    Ended = 0x42,
    /// A workflow that must not be removed or erased.
    Hold = 0x43,
    /// A workflow whose content was destroyed.
    Erased = 0x44,
    /// A workflow whose blobs, segments or key bytes are still to be destroyed.
    Destroy = 0x45,
    /// An upload row.
    Upload = 0x50,
    /// A letter to another partition that is not acknowledged.
    Outbox = 0x60,
    /// How many letters were sent to a partition, and acknowledged by it.
    Sent = 0x61,
    /// Which letters of a partition have been received.
    Received = 0x62,
    /// An ended workflow, by how it ended.
    Closed = 0x70,
    /// A bulk operation.
    Bulk = 0x71,
    /// How much of a rate is used up.
    LimitRate = 0x63,
    /// Who waits for a limited key, or holds it.
    LimitClaim = 0x64,
    /// A paused definition or tenant.
    PausedScope = 0x65,
}

/// A range of keys, `from..to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key.
    pub from: Bytes,
    /// One past the last key.
    pub to: Bytes,
}

impl KeyRange {
    /// One key alone.
    #[must_use]
    pub fn of_key(key: &Bytes) -> Self {
        let mut to = BytesMut::from(key.as_ref());
        to.put_u8(0);
        Self {
            from: key.clone(),
            to: to.freeze(),
        }
    }

    fn of_prefix(prefix: Bytes) -> Self {
        let to = prefix_end(&prefix).into();
        Self { from: prefix, to }
    }
}

const HEAD: usize = 3;
const ID: usize = 16;

fn head(kind: Kind, partition: PartitionId, capacity: usize) -> BytesMut {
    let mut key = BytesMut::with_capacity(capacity);
    key.put_u8(kind as u8);
    key.put_u16(partition.index());
    key
}

fn with_ids(kind: Kind, partition: PartitionId, ids: &[&[u8; ID]]) -> Bytes {
    let mut key = head(kind, partition, HEAD + ids.len() * ID);
    for id in ids {
        key.put_slice(*id);
    }
    key.freeze()
}

/// A log entry.
#[must_use]
pub fn log(partition: PartitionId, first_seq: u64, tenant: TenantId) -> Bytes {
    let mut key = head(Kind::Log, partition, HEAD + 8 + ID);
    key.put_u64(first_seq);
    key.put_slice(tenant.as_bytes());
    key.freeze()
}

/// The log of a partition from the entry that begins at `from_seq` on.
#[must_use]
pub fn log_from(partition: PartitionId, from_seq: u64) -> KeyRange {
    let mut from = head(Kind::Log, partition, HEAD + 8);
    from.put_u64(from_seq);
    let to = prefix_end(&head(Kind::Log, partition, HEAD)).into();
    KeyRange {
        from: from.freeze(),
        to,
    }
}

/// The log of a partition up to and including an entry that begins at `seq`; for reverse scans.
#[must_use]
pub fn log_through(partition: PartitionId, seq: u64) -> KeyRange {
    let mut last = head(Kind::Log, partition, HEAD + 8);
    last.put_u64(seq);
    KeyRange {
        from: head(Kind::Log, partition, HEAD).freeze(),
        to: prefix_end(&last).into(),
    }
}

/// A workflow's wrapped data key.
#[must_use]
pub fn data_key(partition: PartitionId, tenant: TenantId, workflow: WorkflowId) -> Bytes {
    with_ids(Kind::DataKey, partition, &[tenant.as_bytes(), workflow.as_bytes()])
}

/// A workflow row.
#[must_use]
pub fn workflow(partition: PartitionId, tenant: TenantId, workflow: WorkflowId) -> Bytes {
    with_ids(Kind::Workflow, partition, &[tenant.as_bytes(), workflow.as_bytes()])
}

/// All workflow rows of a tenant in a partition, oldest first.
#[must_use]
pub fn workflows_of(partition: PartitionId, tenant: TenantId) -> KeyRange {
    KeyRange::of_prefix(with_ids(Kind::Workflow, partition, &[tenant.as_bytes()]))
}

/// A task row.
#[must_use]
pub fn task(partition: PartitionId, tenant: TenantId, workflow: WorkflowId, task: TaskId) -> Bytes {
    with_ids(
        Kind::Task,
        partition,
        &[tenant.as_bytes(), workflow.as_bytes(), task.as_bytes()],
    )
}

/// All task rows of a workflow.
#[must_use]
pub fn tasks_of(partition: PartitionId, tenant: TenantId, workflow: WorkflowId) -> KeyRange {
    KeyRange::of_prefix(with_ids(
        Kind::Task,
        partition,
        &[tenant.as_bytes(), workflow.as_bytes()],
    ))
}

/// Marks a workflow that has not ended.
#[must_use]
pub fn active(partition: PartitionId, tenant: TenantId, workflow: WorkflowId) -> Bytes {
    with_ids(Kind::Active, partition, &[tenant.as_bytes(), workflow.as_bytes()])
}

/// All active workflows of a tenant in a partition, oldest first.
#[must_use]
pub fn actives_of(partition: PartitionId, tenant: TenantId) -> KeyRange {
    KeyRange::of_prefix(with_ids(Kind::Active, partition, &[tenant.as_bytes()]))
}

/// An ended workflow, by how it ended: `state` is the number of its lifecycle state.
#[must_use]
pub fn closed(partition: PartitionId, tenant: TenantId, state: u8, workflow: WorkflowId) -> Bytes {
    let mut key = head(Kind::Closed, partition, HEAD + 2 * ID + 1);
    key.put_slice(tenant.as_bytes());
    key.put_u8(state);
    key.put_slice(workflow.as_bytes());
    key.freeze()
}

/// All workflows of a tenant in a partition that ended so, oldest first.
#[must_use]
pub fn closed_of(partition: PartitionId, tenant: TenantId, state: u8) -> KeyRange {
    let mut prefix = head(Kind::Closed, partition, HEAD + ID + 1);
    prefix.put_slice(tenant.as_bytes());
    prefix.put_u8(state);
    KeyRange::of_prefix(prefix.freeze())
}

/// Where a workflow's records of the log entry at `first_seq` are. The value is written by [`timeline_value`].
#[must_use]
pub fn timeline(partition: PartitionId, tenant: TenantId, workflow: WorkflowId, first_seq: u64) -> Bytes {
    let mut key = head(Kind::Timeline, partition, HEAD + 2 * ID + 8);
    key.put_slice(tenant.as_bytes());
    key.put_slice(workflow.as_bytes());
    key.put_u64(first_seq);
    key.freeze()
}

/// A workflow's timeline from the entry that begins at `from_seq` on.
#[must_use]
pub fn timeline_from(partition: PartitionId, tenant: TenantId, workflow: WorkflowId, from_seq: u64) -> KeyRange {
    let prefix = with_ids(Kind::Timeline, partition, &[tenant.as_bytes(), workflow.as_bytes()]);
    KeyRange {
        from: timeline(partition, tenant, workflow, from_seq),
        to: prefix_end(&prefix).into(),
    }
}

/// The offsets of a workflow's records within a log entry: two bytes each, or `None` for an offset past 65,535.
#[must_use]
pub fn timeline_value(offsets: &[usize]) -> Option<Bytes> {
    let mut value = BytesMut::with_capacity(offsets.len() * 2);
    for offset in offsets {
        value.put_u16(u16::try_from(*offset).ok()?);
    }
    Some(value.freeze())
}

/// Reads what [`timeline_value`] wrote; `None` when the length is odd.
#[must_use]
pub fn timeline_offsets(value: &[u8]) -> Option<Vec<usize>> {
    let (pairs, rest) = value.as_chunks::<2>();
    rest.is_empty().then(|| {
        pairs
            .iter()
            .map(|pair| usize::from(u16::from_be_bytes(*pair)))
            .collect()
    })
}

/// An idempotency key of a tenant, by its hash.
#[must_use]
pub fn idempotency(partition: PartitionId, tenant: TenantId, key_hash: &[u8; 32]) -> Bytes {
    let mut key = head(Kind::Idempotency, partition, HEAD + ID + 32);
    key.put_slice(tenant.as_bytes());
    key.put_slice(key_hash);
    key.freeze()
}

/// A node row.
#[must_use]
pub fn node(partition: PartitionId, tenant: TenantId, node: NodeId) -> Bytes {
    with_ids(Kind::Node, partition, &[tenant.as_bytes(), node.as_bytes()])
}

/// A schedule row.
#[must_use]
pub fn schedule(partition: PartitionId, tenant: TenantId, schedule: ScheduleId) -> Bytes {
    with_ids(Kind::Schedule, partition, &[tenant.as_bytes(), schedule.as_bytes()])
}

/// The row of a bulk operation.
#[must_use]
pub fn bulk(partition: PartitionId, tenant: TenantId, bulk: BulkId) -> Bytes {
    with_ids(Kind::Bulk, partition, &[tenant.as_bytes(), bulk.as_bytes()])
}

/// The tenant of a key of any kind but the log and the store's own.
#[must_use]
pub fn tenant_in(key: &[u8]) -> Option<TenantId> {
    let bytes = key.get(HEAD..HEAD + ID)?;
    Some(TenantId::from_bytes(bytes.try_into().ok()?))
}

/// All keys of a kind that begin with a tenant, of that tenant. Not for the log.
#[must_use]
pub fn tenant_of(kind: Kind, partition: PartitionId, tenant: TenantId) -> KeyRange {
    KeyRange::of_prefix(with_ids(kind, partition, &[tenant.as_bytes()]))
}

/// An upload row.
#[must_use]
pub fn upload(partition: PartitionId, tenant: TenantId, upload: UploadId) -> Bytes {
    with_ids(Kind::Upload, partition, &[tenant.as_bytes(), upload.as_bytes()])
}

/// All upload rows of a tenant in a partition, oldest first.
#[must_use]
pub fn uploads_of(partition: PartitionId, tenant: TenantId) -> KeyRange {
    KeyRange::of_prefix(with_ids(Kind::Upload, partition, &[tenant.as_bytes()]))
}

/// A letter that a partition keeps until its receiver has acknowledged it.
#[must_use]
pub fn outbox(partition: PartitionId, tenant: TenantId, to: PartitionId, number: u64) -> Bytes {
    let mut key = head(Kind::Outbox, partition, HEAD + ID + 2 + 8);
    key.put_slice(tenant.as_bytes());
    key.put_u16(to.index());
    key.put_u64(number);
    key.freeze()
}

/// What a partition has sent to another one, whoever it was about.
#[must_use]
pub fn sent(partition: PartitionId, to: PartitionId) -> Bytes {
    between(Kind::Sent, partition, to)
}

/// What a partition has received from another one, whoever it was about.
#[must_use]
pub fn received(partition: PartitionId, from: PartitionId) -> Bytes {
    between(Kind::Received, partition, from)
}

fn between(kind: Kind, partition: PartitionId, other: PartitionId) -> Bytes {
    let mut key = head(kind, partition, HEAD + ID + 2);
    key.put_slice(TenantId::nil().as_bytes());
    key.put_u16(other.index());
    key.freeze()
}

/// A row of an activation.
#[must_use]
pub fn activation(partition: PartitionId, tenant: TenantId, workflow: WorkflowId, activation: &[u8; ID]) -> Bytes {
    with_ids(
        Kind::Activation,
        partition,
        &[tenant.as_bytes(), workflow.as_bytes(), activation],
    )
}

/// All activation rows of a workflow.
#[must_use]
pub fn activations_of(partition: PartitionId, tenant: TenantId, workflow: WorkflowId) -> KeyRange {
    KeyRange::of_prefix(with_ids(
        Kind::Activation,
        partition,
        &[tenant.as_bytes(), workflow.as_bytes()],
    ))
}

/// Every key of a kind in a partition, of all tenants: for recovery, never to answer a request.
#[must_use]
pub fn all_of(kind: Kind, partition: PartitionId) -> KeyRange {
    KeyRange::of_prefix(head(kind, partition, HEAD).freeze())
}

/// Whether a batch of `partition` may write this key: it is a known kind, not the store's own, and of that partition.
#[must_use]
pub fn belongs_to(key: &[u8], partition: PartitionId) -> bool {
    matches!(key, [kind, high, low, ..] if *kind != Kind::Meta as u8 && u16::from_be_bytes([*high, *low]) == partition.index())
}

/// Keys of the store itself. Only [`crate::Store`] implementations write them.
pub mod meta {
    use bytes::BufMut as _;

    use super::{Bytes, BytesMut, Kind, PartitionId};

    /// Second byte of [`verified`].
    pub(crate) const CHECKPOINT: u8 = 5;

    fn key(name: u8, partition: Option<PartitionId>) -> Bytes {
        let mut key = BytesMut::with_capacity(4);
        key.put_u8(Kind::Meta as u8);
        key.put_u8(name);
        if let Some(partition) = partition {
            key.put_u16(partition.index());
        }
        key.freeze()
    }

    /// Version of the records and rows: u32.
    #[must_use]
    pub fn format() -> Bytes {
        key(1, None)
    }

    /// How many partitions the store has: u16.
    #[must_use]
    pub fn partitions() -> Bytes {
        key(2, None)
    }

    /// Id of the installation: 16 random bytes.
    #[must_use]
    pub fn installation() -> Bytes {
        key(3, None)
    }

    /// Epoch of a partition's owner: u64.
    #[must_use]
    pub fn epoch(partition: PartitionId) -> Bytes {
        key(4, Some(partition))
    }

    /// Position up to which a partition's chain needs no check at open: next sequence u64, chain 16 bytes.
    #[must_use]
    pub fn verified(partition: PartitionId) -> Bytes {
        key(CHECKPOINT, Some(partition))
    }

    /// Every word that log entries of this store were ever written with, see [`gantry_proto::vocabulary`]: text, the first line is the version of Gantry
    /// that wrote the newest of them.
    #[must_use]
    pub fn vocabulary() -> Bytes {
        key(6, None)
    }
}

#[cfg(test)]
mod tests;
