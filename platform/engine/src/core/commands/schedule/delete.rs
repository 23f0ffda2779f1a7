//! Deleting a schedule.

use gantry_proto::v1;
use gantry_proto::v1::event::Kind;
use gantry_proto::{PrincipalId, ScheduleId, TenantId};

use super::super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};

/// Delete a schedule with everything that it owes; runs that go on go on.
#[derive(Debug, Clone, Copy)]
pub struct DeleteSchedule {
    /// Whose.
    pub tenant: TenantId,
    /// By whom.
    pub by: PrincipalId,
    /// Which.
    pub schedule: ScheduleId,
}

impl DeleteSchedule {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch.state.schedules.get(&self.schedule);
        if found.is_none_or(|row| row.tenant != self.tenant) {
            return Ok(Err(Rejection::NotFound));
        }
        let event = v1::ScheduleDeleted {
            schedule: self.schedule,
            by: self.by,
        };
        batch.record_schedule(self.schedule, Kind::ScheduleDeleted(event), None)?;
        Ok(Ok(Reply::Done))
    }
}
