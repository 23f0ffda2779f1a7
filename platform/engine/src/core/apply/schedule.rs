//! Records about a schedule.

use gantry_proto::v1::{self, ScheduleMissed, ScheduleOverlap};
use gantry_proto::{ScheduleId, WorkflowId};

use super::{ApplyError, Place, end};
use crate::core::rows::ScheduleRow;
use crate::core::state::{PartitionState, Timer};

/// The row, marked as changed.
fn schedule(state: &mut PartitionState, place: Place, id: ScheduleId) -> Result<&mut ScheduleRow, ApplyError> {
    let row = state.schedules.get_mut(&id).filter(|row| row.tenant == place.tenant);
    let row = row.ok_or(ApplyError::Unknown {
        seq: place.seq,
        what: "schedule",
    })?;
    state.dirty.schedules.insert((row.tenant, id));
    Ok(row)
}

/// Gives a schedule its next time, and its timer with it.
fn set_next(
    state: &mut PartitionState,
    place: Place,
    id: ScheduleId,
    next: Option<v1::ScheduleNext>,
) -> Result<(), ApplyError> {
    let before = std::mem::replace(&mut schedule(state, place, id)?.next, next);
    if let Some(before) = before {
        state.timers.remove(&(before.fire_ms, Timer::Schedule(id)));
    }
    if let Some(next) = next {
        state.timers.insert((next.fire_ms, Timer::Schedule(id)));
    }
    Ok(())
}

pub(super) fn schedule_set(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ScheduleSet,
) -> Result<(), ApplyError> {
    end(place, event.overlap, ScheduleOverlap::try_from)?;
    end(place, event.missed, ScheduleMissed::try_from)?;
    let content = place.workflow.ok_or(ApplyError::Contradiction {
        seq: place.seq,
        what: "a schedule without content",
    })?;
    let known = state.schedules.remove(&event.schedule);
    if let Some(next) = known.as_ref().and_then(|row| row.next) {
        state.timers.remove(&(next.fire_ms, Timer::Schedule(event.schedule)));
    }
    let mut row = known.unwrap_or_else(|| ScheduleRow {
        id: event.schedule,
        tenant: place.tenant,
        created_at_ms: place.at_ms,
        ..ScheduleRow::default()
    });
    if row.tenant != place.tenant {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "the schedule belongs to another tenant",
        });
    }
    row.name.clone_from(&event.name);
    row.playbook.clone_from(&event.playbook);
    row.version = event.version;
    row.cron.clone_from(&event.cron);
    row.time_zone.clone_from(&event.time_zone);
    row.jitter_ms = event.jitter_ms;
    row.overlap = event.overlap;
    row.missed = event.missed;
    row.grace_ms = event.grace_ms;
    row.labels.clone_from(&event.labels);
    row.changed_by = event.by;
    row.changed_at_ms = place.at_ms;
    row.set_seq = place.seq;
    // What was said before is destroyed with its key.
    row.failed_seq = None;
    row.failed_code = None;
    row.content = content;
    row.next = event.next;
    state.dirty.schedules.insert((row.tenant, row.id));
    state.insert_schedule(row);
    Ok(())
}

pub(super) fn schedule_fired(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ScheduleFired,
) -> Result<(), ApplyError> {
    if event.calendar == Some(true) {
        set_next(state, place, event.schedule, event.next)?;
    }
    let row = schedule(state, place, event.schedule)?;
    if event.replace == Some(true) {
        row.queue.clear();
    }
    for due in &event.owed {
        end(place, due.overlap, ScheduleOverlap::try_from)?;
        row.queue.push(*due);
    }
    row.missed_times += u64::from(event.missed.unwrap_or(0));
    row.overlapped += u64::from(event.overlapped.unwrap_or(0));
    Ok(())
}

pub(super) fn schedule_asked(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ScheduleAsked,
) -> Result<(), ApplyError> {
    let row = schedule(state, place, event.schedule)?;
    for due_ms in &event.due_ms {
        let Some(index) = row.queue.iter().position(|due| due.due_ms == *due_ms) else {
            return Err(ApplyError::Contradiction {
                seq: place.seq,
                what: "a run is asked for that is not owed",
            });
        };
        let due = row.queue.remove(index);
        row.asked.push(due);
    }
    Ok(())
}

fn answered(row: &mut ScheduleRow, place: Place, due_ms: u64) -> Result<(), ApplyError> {
    let Some(index) = row.asked.iter().position(|due| due.due_ms == due_ms) else {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "a run is answered for that was not asked for",
        });
    };
    row.asked.remove(index);
    Ok(())
}

/// A workflow began that a schedule had asked for.
pub(super) fn schedule_started(
    state: &mut PartitionState,
    place: Place,
    run: &v1::ScheduleRun,
    workflow: WorkflowId,
) -> Result<(), ApplyError> {
    let row = schedule(state, place, run.schedule)?;
    answered(row, place, run.due_ms)?;
    row.running.push(workflow);
    row.last_run = Some(workflow);
    row.last_due_ms = Some(run.due_ms);
    row.started += 1;
    Ok(())
}

/// A run of a schedule ended; the schedule may have been deleted meanwhile.
pub(super) fn schedule_run_ended(state: &mut PartitionState, run: &v1::ScheduleRun, workflow: WorkflowId) {
    if let Some(row) = state.schedules.get_mut(&run.schedule)
        && let Some(index) = row.running.iter().position(|running| *running == workflow)
    {
        row.running.remove(index);
        state.dirty.schedules.insert((row.tenant, row.id));
    }
}

pub(super) fn schedule_failed(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ScheduleFailed,
) -> Result<(), ApplyError> {
    let row = schedule(state, place, event.schedule)?;
    answered(row, place, event.due_ms)?;
    row.failed += 1;
    row.failed_seq = Some(place.seq);
    row.failed_code = Some(event.code.clone());
    Ok(())
}

pub(super) fn schedule_paused(
    state: &mut PartitionState,
    place: Place,
    event: &v1::SchedulePaused,
) -> Result<(), ApplyError> {
    set_next(state, place, event.schedule, event.next)?;
    schedule(state, place, event.schedule)?.paused_by = event.paused.then_some(event.by);
    Ok(())
}

pub(super) fn schedule_deleted(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ScheduleDeleted,
) -> Result<(), ApplyError> {
    set_next(state, place, event.schedule, None)?;
    state.schedules.remove(&event.schedule);
    Ok(())
}
