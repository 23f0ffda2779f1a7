//! Making a schedule, or replacing what it says.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Label, Payload, ScheduleMissed, ScheduleOverlap};
use gantry_proto::{ErrorCode, PrincipalId, ScheduleId, TenantId, WorkflowId, limits};

use crate::core::commands::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::core::schedule::{Calendar, calendar};

/// Make a schedule or replace what it says; runs that are owed or go on are not touched.
#[derive(Debug, Clone)]
pub struct SetSchedule {
    /// Whose.
    pub tenant: TenantId,
    /// By whom; its runs are theirs.
    pub by: PrincipalId,
    /// Follows from tenant and name.
    pub schedule: ScheduleId,
    /// Unique in the tenant.
    pub name: String,
    /// What it starts, and which version.
    pub playbook: (String, Option<u32>),
    /// When: pattern and time zone, checked.
    pub when: (String, String),
    /// Each time is put off by less than this.
    pub jitter_ms: u64,
    /// What happens while a run goes on.
    pub overlap: ScheduleOverlap,
    /// What happens with times that passed unseen.
    pub missed: ScheduleMissed,
    /// From when on a time counts as missed.
    pub grace_ms: u64,
    /// Of its runs.
    pub labels: Vec<Label>,
    /// Parameters of its runs, to be sealed.
    pub payload: Payload,
    /// Refuse when it exists.
    pub new: bool,
}

impl SetSchedule {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, inputs: Inputs) -> Outcome {
        let known = batch.state.schedules.get(&self.schedule);
        if known.is_some() && self.new {
            return Ok(Err(Rejection::Refused {
                code: ErrorCode::Conflict,
                message: format!("there is a schedule `{}`", self.name),
            }));
        }
        if known.is_none() {
            let theirs = |row: &&crate::core::rows::ScheduleRow| row.tenant == self.tenant;
            let many = batch.state.schedules.values().filter(theirs).count();
            if many >= limits::SCHEDULES_PER_PARTITION_MAX {
                return Ok(Err(Rejection::Refused {
                    code: ErrorCode::Conflict,
                    message: format!("there are {many} schedules here, which is the limit; delete some first"),
                }));
            }
        }
        let replaces = known.map(|known| known.content);
        let paused = known.is_some_and(|known| known.paused_by.is_some());
        let (cron, time_zone) = self.when;
        let calendar = match Calendar::new(&cron, &time_zone) {
            Ok(calendar) => calendar,
            Err(error) => {
                return Ok(Err(Rejection::Refused {
                    code: ErrorCode::InvalidRequest,
                    message: error.to_string(),
                }));
            }
        };
        let next = if paused {
            None
        } else {
            calendar::next(&calendar, self.schedule, self.jitter_ms, batch.now_ms)
        };
        let event = v1::ScheduleSet {
            schedule: self.schedule,
            name: self.name,
            playbook: self.playbook.0,
            version: self.playbook.1,
            cron,
            time_zone,
            jitter_ms: self.jitter_ms,
            overlap: self.overlap.into(),
            missed: self.missed.into(),
            grace_ms: self.grace_ms,
            labels: self.labels,
            by: self.by,
            next,
            replaces,
        };
        let content = WorkflowId::new(batch.now_ms, batch.state.partition, inputs.entropy);
        batch.emit(self.tenant, Some(content), Kind::ScheduleSet(event), Some(self.payload))?;
        Ok(Ok(Reply::Done))
    }
}
