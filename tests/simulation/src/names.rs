//! Who is who in a run.

use gantry_engine::api::Caller;
use gantry_proto::v1::Assignee;
use gantry_proto::{NodeId, PartitionId, PrincipalId, TaskId, TenantId};

pub(crate) fn tenant() -> TenantId {
    TenantId::new(1, PartitionId::default(), 7)
}

pub(crate) fn caller() -> Caller {
    Caller {
        tenant: tenant(),
        principal: PrincipalId::new(1, PartitionId::default(), 8),
    }
}

pub(crate) fn node(number: u64) -> NodeId {
    NodeId::new(1, PartitionId::default(), number)
}

/// An attempt, as a key: task, fence, step, attempt.
pub(crate) type AttemptKey = (TaskId, u64, u32, u32);

pub(crate) fn attempt(assignee: &Assignee) -> AttemptKey {
    (assignee.task, assignee.fence, assignee.step, assignee.attempt)
}
