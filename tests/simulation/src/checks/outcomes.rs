//! A completed step's outcome never changes, and it is never executed again.

use std::collections::BTreeMap;

use gantry_engine::api::StepState;
use gantry_proto::TaskId;
use gantry_proto::v1::StepEnd;
use gantry_proto::v1::event::Kind;

use super::Check;
use crate::disk::Disk;
use crate::oracle::{Facts, Seen, Verdict};

#[derive(Default)]
pub(crate) struct Outcomes {
    /// Completed steps, each in its round: by which attempt, in which record.
    completed: BTreeMap<(TaskId, u32, u32), (u32, u64)>,
    /// Ended attempts.
    ended: BTreeMap<(TaskId, u32, u32, u64), i32>,
}

/// The round of its task that a record is about.
fn round(seen: &Seen<'_>, id: TaskId) -> u32 {
    let workflow = seen.place.workflow;
    let task = workflow.and_then(|workflow| seen.state.task(seen.state.find(workflow, id)?));
    task.map_or(0, |task| task.row.round)
}

impl Check for Outcomes {
    fn invariant(&self) -> &'static str {
        "a completed step's outcome never changes, and it is never executed again"
    }

    fn before(&mut self, seen: &Seen<'_>) -> Verdict {
        match seen.kind {
            Kind::StepAssigned(event) => {
                if let Some((attempt, _)) = self.completed.get(&(event.task, event.step, round(seen, event.task))) {
                    return Err(format!(
                        "step {} of {} was completed by attempt {attempt} and is assigned again",
                        event.step, event.task
                    ));
                }
            }
            Kind::StepEnded(event) if event.attempt > 0 => {
                let step = (event.task, event.step, round(seen, event.task));
                if let Some((attempt, _)) = self.completed.get(&step) {
                    return Err(format!(
                        "step {step:?} was completed by attempt {attempt} and ends again: {event:?}"
                    ));
                }
                let key = (event.task, event.step, event.attempt, event.fence);
                if self.ended.insert(key, event.end).is_some() {
                    return Err(format!("attempt {key:?} ends twice"));
                }
                if event.end == i32::from(StepEnd::Completed) {
                    self.completed.insert(step, (event.attempt, seen.place.seq));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn quiet(&mut self, facts: &Facts, disk: &Disk) -> Verdict {
        for id in facts.ended.keys() {
            let tenant = crate::names::tenant();
            let rows = gantry_engine::processor::load::workflow_rows(disk.durable(), tenant, *id)
                .map_err(|error| error.to_string())?;
            for task in rows.into_iter().flat_map(|rows| rows.tasks) {
                for (index, step) in (0u32..).zip(&task.row.steps) {
                    let Some((attempt, seq)) = self.completed.get(&(task.row.id, index, task.row.round)) else {
                        continue;
                    };
                    let last = step.attempts.last().map(|last| last.attempt);
                    if (step.state(), last, step.result_seq) != (StepState::Completed, Some(*attempt), Some(*seq)) {
                        return Err(format!(
                            "step {index} of {} was completed by attempt {attempt} in record {seq}, and its row says {step:?}",
                            task.row.id
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}
