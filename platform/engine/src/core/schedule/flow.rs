//! What follows when a schedule fires, and when one of its runs ends.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, ScheduleDue, ScheduleMissed, ScheduleOverlap};
use gantry_proto::{ScheduleId, WorkflowId, limits};

use super::calendar::{self, Calendar};
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::rows::ScheduleRow;

impl Batching<'_> {
    /// Records something about a schedule.
    pub(in crate::core) fn record_schedule(
        &mut self,
        schedule: ScheduleId,
        kind: Kind,
        payload: Option<v1::Payload>,
    ) -> Result<(), ApplyError> {
        let row = self.state.schedules.get(&schedule);
        let (tenant, content) = row.map(|row| (row.tenant, row.content)).unwrap_or_default();
        self.emit(tenant, Some(content), kind, payload)
    }

    /// The calendar's time has come, perhaps long ago.
    pub(in crate::core) fn fire(&mut self, schedule: ScheduleId) -> Result<(), ApplyError> {
        let Some(row) = self.state.schedules.get(&schedule) else {
            return Ok(());
        };
        let Some(next) = row.next else {
            return Ok(());
        };
        // What parsed once parses for ever, unless a newer version dropped a zone: then it fires no more, and says so by having no next time.
        let calendar = Calendar::new(&row.cron, &row.time_zone).ok();
        let now_ms = self.now_ms;
        let mut times = vec![next.due_ms];
        let mut coming = calendar
            .as_ref()
            .and_then(|calendar| calendar::next(calendar, schedule, row.jitter_ms, next.due_ms));
        while let Some(another) = coming.filter(|another| another.fire_ms <= now_ms) {
            if times.len() >= limits::SCHEDULE_CATCH_UP_MAX {
                coming = calendar
                    .as_ref()
                    .and_then(|calendar| calendar::next(calendar, schedule, row.jitter_ms, now_ms));
                break;
            }
            times.push(another.due_ms);
            coming = calendar
                .as_ref()
                .and_then(|calendar| calendar::next(calendar, schedule, row.jitter_ms, another.due_ms));
        }
        let late = |due_ms: &u64| {
            let fire_ms = due_ms.saturating_add(calendar::jitter(schedule, row.jitter_ms, *due_ms));
            now_ms > fire_ms.saturating_add(row.grace_ms)
        };
        let (missed, mut kept): (Vec<u64>, Vec<u64>) = times.iter().partition(|due| late(due));
        let made_up: &[u64] = match row.missed() {
            ScheduleMissed::Skip => &[],
            ScheduleMissed::Once => missed.last().map_or(&[], std::slice::from_ref),
            ScheduleMissed::All => &missed,
        };
        let left_out = missed.len() - made_up.len();
        kept.splice(0..0, made_up.iter().copied());
        let overlap = row.overlap();
        let owed = kept.into_iter().map(|due_ms| ScheduleDue {
            due_ms,
            overlap: overlap.into(),
            manual: None,
        });
        let owed = owed.collect();
        self.owe(
            schedule,
            owed,
            u32::try_from(left_out).unwrap_or(u32::MAX),
            Some(coming),
        )
    }

    /// Puts what is owed into the queue, as far as each one's overlap policy lets it, and starts what may start. `calendar`: when it fires next.
    pub(in crate::core) fn owe(
        &mut self,
        schedule: ScheduleId,
        owed: Vec<ScheduleDue>,
        missed: u32,
        calendar: Option<Option<v1::ScheduleNext>>,
    ) -> Result<(), ApplyError> {
        let Some(row) = self.state.schedules.get(&schedule) else {
            return Ok(());
        };
        let mut overlapped = 0u32;
        let mut taken: Vec<ScheduleDue> = Vec::with_capacity(owed.len());
        let mut replace = false;
        let mut busy = !row.is_idle() || !row.queue.is_empty();
        for due in owed {
            match due.overlap() {
                ScheduleOverlap::Skip if busy => {
                    overlapped += 1;
                    continue;
                }
                ScheduleOverlap::Replace if busy => {
                    replace = true;
                    overlapped += u32::try_from(taken.len()).unwrap_or(u32::MAX);
                    taken.clear();
                }
                _ if row.queue.len() + taken.len() >= limits::SCHEDULE_QUEUE_MAX => {
                    overlapped += 1;
                    continue;
                }
                _ => {}
            }
            busy = true;
            taken.push(due);
        }
        let cancelled: Vec<WorkflowId> = if replace { row.running.clone() } else { Vec::new() };
        if replace {
            overlapped = overlapped.saturating_add(u32::try_from(row.queue.len()).unwrap_or(u32::MAX));
        }
        let by = row.changed_by;
        let event = v1::ScheduleFired {
            schedule,
            owed: taken,
            missed: (missed > 0).then_some(missed),
            overlapped: (overlapped > 0).then_some(overlapped),
            calendar: calendar.map(|_| true),
            next: calendar.flatten(),
            replace: replace.then_some(true),
        };
        self.record_schedule(schedule, Kind::ScheduleFired(event), None)?;
        for workflow in cancelled {
            self.cancel_workflow(workflow, by, None)?;
        }
        self.release_schedule(schedule)
    }

    /// Asks for the playbook of every owed run that may start now.
    pub(in crate::core) fn release_schedule(&mut self, schedule: ScheduleId) -> Result<(), ApplyError> {
        let Some(row) = self.state.schedules.get(&schedule) else {
            return Ok(());
        };
        let mut due_ms = Vec::new();
        for (at_once, due) in (row.running.len() + row.asked.len()..).zip(&row.queue) {
            let alone = due.overlap() != ScheduleOverlap::Allow;
            let held = row.paused_by.is_some() && due.manual != Some(true);
            if held || at_once >= limits::SCHEDULE_RUNNING_MAX || (alone && at_once > 0) {
                break;
            }
            due_ms.push(due.due_ms);
        }
        if due_ms.is_empty() {
            return Ok(());
        }
        self.record_schedule(
            schedule,
            Kind::ScheduleAsked(v1::ScheduleAsked { schedule, due_ms }),
            None,
        )
    }
}

/// When a schedule that is not paused fires next after `now_ms`.
pub(in crate::core) fn next_of(row: &ScheduleRow, now_ms: u64) -> Option<v1::ScheduleNext> {
    let calendar = Calendar::new(&row.cron, &row.time_zone).ok()?;
    calendar::next(&calendar, row.id, row.jitter_ms, now_ms)
}
