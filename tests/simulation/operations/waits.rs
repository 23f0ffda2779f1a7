//! Sleeps, conditions and deadlines: tasks that wait for a time, or for nothing.

use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{TaskEnd, WaitKind};

use crate::climate::Climate;
use crate::operations::Operation;
use crate::oracle::{Facts, Verdict};
use crate::world::World;

/// Of the definition with a deadline of its own.
const DEADLINE_MS: u64 = 20_000;

#[derive(Default)]
pub(crate) struct Waits {
    /// Tasks that sleep, and until when.
    sleeping: std::collections::BTreeMap<gantry_proto::TaskId, u64>,
}

impl Operation for Waits {
    fn invariant(&self) -> &'static str {
        "a sleep ends when its time has come, and a deadline passes when it has"
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: sleep, tasks: {a: {sleep: 3s}, b: {needs: [a], steps: [{run: 'true'}]}}}",
            "{name: sleep, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], sleep: 45s}}}",
            "{name: when, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], when: 'tasks.a.outputs.n > 500000', steps: [{run: 'true'}]}, c: {needs: [b], steps: [{run: 'true'}]}}}",
            "{name: when, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], when: 'tasks.a.outputs.absent > 1', sleep: 1s}}}",
            "{name: deadline, deadline: 20s, tasks: {a: {steps: [{run: 'true'}, {run: 'true'}]}, b: {sleep: 15s}, c: {needs: [b], steps: [{run: 'true'}]}}}",
            "{name: early, tasks: {a: {deadline: 4s, steps: [{run: 'true', retry: {attempts: 3, backoff: 1s}}]}, b: {steps: [{run: 'true'}]}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        0
    }

    fn act(&mut self, _: &mut World) {}

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        match kind {
            Kind::TaskWaiting(event) if event.kind == i32::from(WaitKind::Sleep) => {
                self.sleeping
                    .insert(event.task, event.until_ms.ok_or("a sleep without a time")?);
            }
            Kind::TaskEnded(event) => {
                // A person may skip it, and its workflow may end.
                let by_itself = event.end == i32::from(TaskEnd::Completed) && event.code.is_none();
                if let Some(until_ms) = self.sleeping.remove(&event.task)
                    && by_itself
                    && place.at_ms < until_ms
                {
                    return Err(format!(
                        "{} sleeps until {until_ms} and ends at {}",
                        event.task, place.at_ms
                    ));
                }
            }
            Kind::DeadlinePassed(event) if event.task.is_none() => {
                let Some(workflow) = place.workflow else { return Ok(()) };
                let active = facts.active(workflow).map(|active| &active.row);
                let row = active.or_else(|| facts.ended.get(&workflow).map(|ended| &ended.row));
                let Some(row) = row.filter(|row| row.name == "deadline") else {
                    return Ok(());
                };
                if place.at_ms < row.created_at_ms + DEADLINE_MS {
                    return Err(format!(
                        "{workflow} has until {} and its deadline passes at {}",
                        row.created_at_ms + DEADLINE_MS,
                        place.at_ms
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
