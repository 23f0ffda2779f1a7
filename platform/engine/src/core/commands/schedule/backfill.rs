//! Runs that a person asks for: one now, or those of a stretch of the past.

use gantry_proto::v1::{ScheduleDue, ScheduleOverlap};
use gantry_proto::{ErrorCode, ScheduleId, TenantId, limits};

use super::super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::core::schedule::Calendar;

/// Owe runs for the calendar's times in `from_ms..=to_ms`, or without a range one for now. Also while the schedule is paused.
#[derive(Debug, Clone, Copy)]
pub struct OweRuns {
    /// Whose.
    pub tenant: TenantId,
    /// Which.
    pub schedule: ScheduleId,
    /// First and last time.
    pub range: Option<(u64, u64)>,
    /// Instead of the schedule's own policy.
    pub overlap: Option<ScheduleOverlap>,
}

impl OweRuns {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch.state.schedules.get(&self.schedule);
        let Some(row) = found.filter(|row| row.tenant == self.tenant) else {
            return Ok(Err(Rejection::NotFound));
        };
        let refused = |code, message| Ok(Err(Rejection::Refused { code, message }));
        let mut times = match self.range {
            None => vec![batch.now_ms],
            Some((from_ms, to_ms)) => {
                let Ok(calendar) = Calendar::new(&row.cron, &row.time_zone) else {
                    return refused(ErrorCode::Conflict, "its calendar cannot be read any more".to_owned());
                };
                calendar.between(from_ms, to_ms, limits::SCHEDULE_CATCH_UP_MAX + 1)
            }
        };
        if times.is_empty() {
            return refused(
                ErrorCode::InvalidRequest,
                "the schedule has no time in this range".to_owned(),
            );
        }
        if times.len() + row.queue.len() > limits::SCHEDULE_CATCH_UP_MAX.min(limits::SCHEDULE_QUEUE_MAX) {
            let message = format!(
                "the range has more times than fit the queue ({} wait, the limit is {}); ask for a shorter one",
                row.queue.len(),
                limits::SCHEDULE_QUEUE_MAX
            );
            return refused(ErrorCode::TooLarge, message);
        }
        // A time stands for one run at a time: the next free millisecond is as good.
        let taken = |due: u64| row.queue.iter().chain(&row.asked).any(|other| other.due_ms == due);
        for due in &mut times {
            while taken(*due) {
                *due += 1;
            }
        }
        let overlap = self.overlap.unwrap_or_else(|| row.overlap());
        let owed = times.into_iter().map(|due_ms| ScheduleDue {
            due_ms,
            overlap: overlap.into(),
            manual: Some(true),
        });
        let owed = owed.collect();
        batch.owe(self.schedule, owed, 0, None)?;
        Ok(Ok(Reply::Done))
    }
}
