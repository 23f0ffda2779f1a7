//! Keys of limits: what one partition keeps of a concurrency key or a rate that it owns; and of pauses that concern more than a workflow.

use bytes::{BufMut as _, Bytes};

use super::{HEAD, ID, Kind, PartitionId, TaskId, TenantId, WorkflowId, head};

/// How much of a rate is used up.
#[must_use]
pub fn limit_rate(partition: PartitionId, tenant: TenantId, limit: &[u8; 16]) -> Bytes {
    let mut key = head(Kind::LimitRate, partition, HEAD + 2 * ID);
    key.put_slice(tenant.as_bytes());
    key.put_slice(limit);
    key.freeze()
}

/// Who waits for a limited key, or holds it: a task, or with the nil id the workflow as a whole.
#[must_use]
pub fn limit_claim(
    partition: PartitionId,
    tenant: TenantId,
    limit: &[u8; 16],
    workflow: WorkflowId,
    task: TaskId,
) -> Bytes {
    let mut key = head(Kind::LimitClaim, partition, HEAD + 4 * ID);
    key.put_slice(tenant.as_bytes());
    key.put_slice(limit);
    key.put_slice(workflow.as_bytes());
    key.put_slice(task.as_bytes());
    key.freeze()
}

/// A paused definition, by the hash of its name, or with zeroes the tenant.
#[must_use]
pub fn paused_scope(partition: PartitionId, tenant: TenantId, scope: &[u8; 16]) -> Bytes {
    let mut key = head(Kind::PausedScope, partition, HEAD + 2 * ID);
    key.put_slice(tenant.as_bytes());
    key.put_slice(scope);
    key.freeze()
}
