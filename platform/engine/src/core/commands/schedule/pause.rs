//! Pausing a schedule, and resuming it.

use gantry_proto::v1;
use gantry_proto::v1::event::Kind;
use gantry_proto::{PrincipalId, ScheduleId, TenantId};

use super::super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::core::schedule::next_of;

/// Pause a schedule or resume it. Times of the pause are not missed: after it, the calendar goes on from now. Repeating it changes nothing.
#[derive(Debug, Clone, Copy)]
pub struct PauseSchedule {
    /// Whose.
    pub tenant: TenantId,
    /// By whom.
    pub by: PrincipalId,
    /// Which.
    pub schedule: ScheduleId,
    /// Or resume.
    pub paused: bool,
}

impl PauseSchedule {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch.state.schedules.get(&self.schedule);
        let Some(row) = found.filter(|row| row.tenant == self.tenant) else {
            return Ok(Err(Rejection::NotFound));
        };
        if row.paused_by.is_some() == self.paused {
            return Ok(Ok(Reply::Done));
        }
        let event = v1::SchedulePaused {
            schedule: self.schedule,
            paused: self.paused,
            by: self.by,
            next: (!self.paused).then(|| next_of(row, batch.now_ms)).flatten(),
        };
        batch.record_schedule(self.schedule, Kind::SchedulePaused(event), None)?;
        batch.release_schedule(self.schedule)?;
        Ok(Ok(Reply::Done))
    }
}
