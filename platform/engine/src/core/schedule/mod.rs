//! Schedules: which times a calendar has, and what is owed of them.

pub mod calendar;
mod flow;

pub use calendar::{Calendar, CalendarError};
pub(in crate::core) use flow::next_of;

use gantry_proto::{PartitionId, ScheduleId, TenantId};

/// The id that a schedule's name has in a tenant, with the partition that owns it.
pub(crate) fn id_of(tenant: TenantId, name: &str, partitions: u16) -> ScheduleId {
    let partition = PartitionId::of(tenant, "schedule", name.as_bytes(), partitions);
    ScheduleId::derive(0, partition, &[tenant.as_bytes(), name.as_bytes()])
}
