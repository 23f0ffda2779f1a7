//! Keys of the archive, and of what is kept or destroyed of ended workflows.

use bytes::{BufMut as _, Bytes, BytesMut};
use gantry_proto::{PartitionId, TenantId, WorkflowId};

use super::{HEAD, ID, KeyRange, Kind, head, with_ids};
use crate::store::prefix_end;

/// A sealed object of the archive.
#[must_use]
pub fn archive(
    partition: PartitionId,
    tenant: TenantId,
    table: u8,
    day: u32,
    epoch: u64,
    from_seq: u64,
    generation: u32,
) -> Bytes {
    let mut key = head(Kind::Archive, partition, HEAD + ID + 25);
    key.put_slice(tenant.as_bytes());
    key.put_u8(table);
    key.put_u32(day);
    key.put_u64(from_seq);
    key.put_u64(epoch);
    key.put_u32(generation);
    key.freeze()
}

/// All sealed objects of a tenant in a partition, by table, day and range.
#[must_use]
pub fn archive_of(partition: PartitionId, tenant: TenantId) -> KeyRange {
    KeyRange::of_prefix(with_ids(Kind::Archive, partition, &[tenant.as_bytes()]))
}

/// How far a tenant's ended workflows are sealed in a partition.
#[must_use]
pub fn sealed(partition: PartitionId, tenant: TenantId) -> Bytes {
    with_ids(Kind::Sealed, partition, &[tenant.as_bytes()])
}

/// An ended workflow, by the position of its end. The value is the time of the end in ms, u64.
#[must_use]
pub fn ended(partition: PartitionId, tenant: TenantId, end_seq: u64, workflow: WorkflowId) -> Bytes {
    let mut key = head(Kind::Ended, partition, HEAD + 2 * ID + 8);
    key.put_slice(tenant.as_bytes());
    key.put_u64(end_seq);
    key.put_slice(workflow.as_bytes());
    key.freeze()
}

/// A tenant's ended workflows in a partition whose end has a position of `from_seq` or more.
#[must_use]
pub fn ended_from(partition: PartitionId, tenant: TenantId, from_seq: u64) -> KeyRange {
    let prefix = with_ids(Kind::Ended, partition, &[tenant.as_bytes()]);
    let mut from = BytesMut::with_capacity(prefix.len() + 8);
    from.put_slice(&prefix);
    from.put_u64(from_seq);
    KeyRange {
        from: from.freeze(),
        to: prefix_end(&prefix).into(),
    }
}

/// A legal hold on a workflow.
#[must_use]
pub fn hold(partition: PartitionId, tenant: TenantId, workflow: WorkflowId) -> Bytes {
    with_ids(Kind::Hold, partition, &[tenant.as_bytes(), workflow.as_bytes()])
}

/// That a workflow was erased.
#[must_use]
pub fn erased(partition: PartitionId, tenant: TenantId, workflow: WorkflowId) -> Bytes {
    with_ids(Kind::Erased, partition, &[tenant.as_bytes(), workflow.as_bytes()])
}

/// That something of a workflow is still to be destroyed.
#[must_use]
pub fn destroy(partition: PartitionId, tenant: TenantId, workflow: WorkflowId) -> Bytes {
    with_ids(Kind::Destroy, partition, &[tenant.as_bytes(), workflow.as_bytes()])
}
