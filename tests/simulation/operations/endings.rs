//! What runs before a workflow ends: the end is decided once, and is what comes.

use std::collections::{BTreeMap, BTreeSet};

use gantry_engine::core::apply::Place;
use gantry_proto::WorkflowId;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{WorkflowEnd, WorkflowEnding};

use crate::climate::Climate;
use crate::operations::Operation;
use crate::oracle::{Facts, Verdict};
use crate::world::World;

/// Name of the definitions below: each handles failure and cancellation.
const NAME: &str = "ends";

#[derive(Default)]
pub(crate) struct Endings {
    decided: BTreeMap<WorkflowId, WorkflowEnding>,
    /// Workflows that began: one that was never let begin has nothing to handle.
    begun: BTreeSet<WorkflowId>,
    /// Workflows in which a person decided on what would handle their end.
    settled: BTreeSet<WorkflowId>,
}

impl Operation for Endings {
    fn invariant(&self) -> &'static str {
        "what handles an end runs once it is decided, and changes nothing about it"
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: ends, on_failure: {deadline: 30s, run: 'echo {{ failure.message }}'}, on_cancel: {deadline: 30s, steps: [{run: 'true'}, {run: 'true'}]}, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], steps: [{run: 'true'}, {run: 'true'}]}}}",
            "{name: ends, deadline: 1m, on_failure: {deadline: 30s, retry: {attempts: 2, backoff: 1s}, run: 'echo {{ failure.code }}'}, on_cancel: {run: 'true'}, tasks: {a: {steps: [{run: 'true'}]}, b: {steps: [{run: 'true', retry: {attempts: 4, backoff: 30s}}]}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        0
    }

    fn act(&mut self, _: &mut World) {}

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        let Some(id) = place.workflow else { return Ok(()) };
        match kind {
            Kind::WorkflowActivated(_) => {
                self.begun.insert(id);
            }
            Kind::TaskDecided(event) => {
                let tasks = facts.active(id).map(|workflow| workflow.tasks.as_slice());
                let task = tasks.into_iter().flatten().find(|task| task.row.id == event.task);
                if task.is_none_or(|task| task.row.handles.is_some()) {
                    self.settled.insert(id);
                }
            }
            Kind::WorkflowEnding(event) => {
                let before = self.decided.insert(id, event.clone());
                before.map_or(Ok(()), |_| Err(format!("the end of {id} is decided a second time")))?;
            }
            Kind::WorkflowEnded(event) => {
                let said = (event.end(), event.code.clone());
                let decided = self
                    .decided
                    .get(&id)
                    .map(|decided| (decided.end(), decided.code.clone()));
                if decided.as_ref().is_some_and(|decided| *decided != said) {
                    return Err(format!("{id} ends as {said:?}, and was to end as {decided:?}"));
                }
                let handled = facts.name(id) == Some(NAME) && event.end() != WorkflowEnd::Completed;
                if handled && decided.is_none() && self.begun.contains(&id) && !self.settled.contains(&id) {
                    return Err(format!("{id} ended as {said:?}, and what handles that did not run"));
                }
            }
            Kind::StepAssigned(event) => {
                let workflow = facts.active(id);
                let task = workflow.and_then(|workflow| workflow.tasks.iter().find(|task| task.row.id == event.task));
                let handles = task.is_some_and(|task| task.row.handles.is_some());
                if handles && !self.decided.contains_key(&id) {
                    return Err(format!("{} runs before the end of {id} is decided", event.task));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
