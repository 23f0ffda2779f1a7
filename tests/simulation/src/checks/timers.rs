//! No timer fires early, and none is forgotten.

use std::collections::BTreeMap;

use gantry_engine::api::TaskState;
use gantry_engine::core::state::TaskRef;
use gantry_proto::v1::event::Kind;

use super::Check;
use crate::oracle::{Facts, Seen, Verdict};

/// How late a timer may be while a server serves: the owner looks at the wall clock at least every minute, and then a commit may take its time.
const LATE_MS: u64 = 75_000;

#[derive(Default)]
pub(crate) struct Timers {
    since_ms: Option<u64>,
    /// Waiting tasks, and until when.
    waiting: BTreeMap<TaskRef, u64>,
    /// Due timers by when they were first seen due, on the monotonic clock.
    due: BTreeMap<TaskRef, (u64, u64)>,
    looked_ms: u64,
}

impl Check for Timers {
    fn invariant(&self) -> &'static str {
        "no timer is early or forgotten"
    }

    fn before(&mut self, seen: &Seen<'_>) -> Verdict {
        let find = |task| seen.place.workflow.and_then(|workflow| seen.state.find(workflow, task));
        match seen.kind {
            Kind::TaskReadied(event) => {
                let Some(task) = find(event.task) else { return Ok(()) };
                self.due.remove(&task);
                if let Some(until_ms) = self.waiting.remove(&task)
                    && seen.place.at_ms < until_ms
                {
                    return Err(format!(
                        "{} waits until {until_ms} and goes on at {}",
                        event.task, seen.place.at_ms
                    ));
                }
            }
            // A person lets it begin anew at once, or it is given to one.
            Kind::TaskDecided(gantry_proto::v1::TaskDecided { task, .. })
            | Kind::TaskEscalated(gantry_proto::v1::TaskEscalated { task, .. }) => {
                if let Some(task) = find(*task) {
                    self.waiting.remove(&task);
                    self.due.remove(&task);
                }
            }
            Kind::TaskWaiting(event) => {
                if let Some((task, until_ms)) = find(event.task).zip(event.until_ms) {
                    self.waiting.insert(task, until_ms);
                }
            }
            Kind::TaskEnded(event) => {
                if let Some(task) = find(event.task) {
                    self.waiting.remove(&task);
                    self.due.remove(&task);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn serving(&mut self, _: u64, since_ms: Option<u64>) {
        self.since_ms = since_ms;
    }

    fn passes(&mut self, facts: &Facts, at_ms: u64, wall_ms: u64) -> Verdict {
        // Looking once a second is often enough for a bound of a minute.
        if at_ms < self.looked_ms + 1_000 {
            return Ok(());
        }
        self.looked_ms = at_ms;
        for (task, until_ms) in &self.waiting {
            let fold = facts.folds.get(&task.0.partition());
            if fold.is_some_and(|fold| fold.is_paused(task.0)) {
                // Its timers are held.
                self.due.remove(task);
            } else if *until_ms <= wall_ms {
                self.due.entry(*task).or_insert((at_ms, *until_ms));
            } else {
                // The clock went back, or it goes on when its workflow does.
                self.due.remove(task);
            }
        }
        let Some(since_ms) = self.since_ms else { return Ok(()) };
        for (task, (due_ms, until_ms)) in &self.due {
            if at_ms > (*due_ms).max(since_ms) + LATE_MS {
                return Err(format!(
                    "{task:?} waits until {until_ms}, which was noticed at {due_ms} ms; it is {at_ms} ms, and the server serves since {since_ms} ms"
                ));
            }
        }
        Ok(())
    }

    fn quiet(&mut self, facts: &Facts, _: &crate::disk::Disk) -> Verdict {
        // A pending task that waits for a time and has no timer would wait for ever.
        for fold in facts.folds.values() {
            for workflow in fold.workflows.values() {
                for task in workflow
                    .tasks
                    .iter()
                    .filter(|task| task.row.state() == TaskState::Pending)
                {
                    let task_ref = (workflow.row.id, task.row.index);
                    if task.row.wait_until_ms.is_some() && !self.waiting.contains_key(&task_ref) {
                        return Err(format!("{} waits for a time that nobody knows", task.row.id));
                    }
                }
            }
        }
        Ok(())
    }
}
