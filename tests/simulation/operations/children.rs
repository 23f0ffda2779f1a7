//! Workflows that start workflows, and tasks over lists: letters between partitions carry what they say to each other.

use std::collections::{BTreeMap, BTreeSet};

use gantry_engine::api::{TaskState, WorkflowState};
use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{ChildEnd, TaskEnd};
use gantry_proto::{TaskId, WorkflowId};

use crate::climate::Climate;
use crate::operations::Operation;
use crate::oracle::{Facts, Verdict};
use crate::world::World;

/// Items of the definitions below that run at once.
const PARALLEL: usize = 2;

#[derive(Default)]
pub(crate) struct Children {
    /// Who asked for a child: task and whether it goes its own way.
    asked: BTreeMap<WorkflowId, (WorkflowId, TaskId, bool)>,
    /// Children whose end their parent knows.
    known: BTreeSet<WorkflowId>,
}

impl Operation for Children {
    fn invariant(&self) -> &'static str {
        "a child is started once, its end reaches its parent once, and lists keep their bounds"
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: parent, tasks: {a: {workflow: {definition: {name: child, tasks: {t: {steps: [{run: 'true'}]}}}}}, b: {needs: [a], steps: [{run: 'true'}]}}}",
            "{name: parent, tasks: {a: {workflow: {detached: true, definition: {name: child, tasks: {t: {steps: [{run: 'true'}, {run: 'true'}]}}}}}}}",
            "{name: parent, on_task_failure: continue, tasks: {a: {workflow: {definition: {name: parent, tasks: {b: {workflow: {definition: {name: child, tasks: {t: {steps: [{run: 'true'}]}}}}}}}}}, c: {workflow: {definition: {name: child, tasks: {t: {sleep: 2s}}}}}}}",
            "{name: list, tasks: {a: {for_each: [1, 2, 3, 4, 5], max_parallel: 2, on_item_failure: continue, tolerated_failures: 2, steps: [{run: 'true'}]}, b: {needs: [a], steps: [{run: 'true'}]}}}",
            "{name: list, tasks: {a: {for_each: [1, 2, 3, 4], max_parallel: 2, steps: [{run: 'true', retry: {attempts: 2, backoff: 1s}}]}}}",
            "{name: list, tasks: {a: {for_each: [1, 2, 3], max_parallel: 2, on_item_failure: continue, tolerated_failures: 3, workflow: {definition: {name: child, tasks: {t: {steps: [{run: 'true'}]}}}}}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        0
    }

    fn act(&mut self, _: &mut World) {}

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        let Some(workflow) = place.workflow else { return Ok(()) };
        match kind {
            Kind::ChildRequested(event) => {
                let asked = (workflow, event.task, event.detached);
                if let Some(before) = self.asked.insert(event.child, asked) {
                    return Err(format!("{} is asked for by {before:?} and by {asked:?}", event.child));
                }
            }
            Kind::WorkflowSubmitted(event) => {
                if let Some(lineage) = &event.lineage
                    && self.asked.get(&workflow).map(|(parent, ..)| *parent) != Some(lineage.parent)
                {
                    return Err(format!(
                        "{workflow} starts as a child of {}, which did not ask",
                        lineage.parent
                    ));
                }
            }
            Kind::ChildEnded(event) => {
                if !self.known.insert(event.child) {
                    return Err(format!("the end of {} reaches its parent twice", event.child));
                }
                let state = facts.ended.get(&event.child).map(|ended| ended.row.state());
                let fits = match event.end() {
                    ChildEnd::Completed => state == Some(WorkflowState::Completed),
                    // It may never have begun.
                    ChildEnd::Failed => state.is_none_or(|state| state == WorkflowState::Failed),
                    ChildEnd::Cancelled => state.is_none_or(|state| state == WorkflowState::Cancelled),
                };
                if !fits {
                    return Err(format!(
                        "{} told its parent {:?} and is {state:?}",
                        event.child,
                        event.end()
                    ));
                }
            }
            Kind::TaskEnded(event) if event.end == i32::from(TaskEnd::Completed) && event.code.is_none() => {
                let waits = |(child, (_, task, detached)): (&WorkflowId, &(WorkflowId, TaskId, bool))| {
                    (*task == event.task && !detached && !self.known.contains(child)).then_some(*child)
                };
                if let Some(child) = self.asked.iter().find_map(waits) {
                    return Err(format!("{} completed before {child}, which it started", event.task));
                }
            }
            Kind::TaskClaimed(_) | Kind::TaskWaiting(_) => {
                let Some(active) = facts.active(workflow).filter(|active| active.row.name == "list") else {
                    return Ok(());
                };
                let going = |state| matches!(state, TaskState::Claimed | TaskState::InProgress);
                let items = active.tasks.iter().filter(|task| task.row.origin.is_some());
                let count = items.filter(|task| going(task.row.state())).count();
                if count > PARALLEL {
                    return Err(format!(
                        "{count} items of {workflow} run at once, at most {PARALLEL} may"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn quiet(&self, world: &World) -> Verdict {
        let facts = &world.oracle.facts;
        if let Some((child, by)) = self.asked.iter().find(|(child, (parent, _, detached))| {
            let wanted = *detached
                || facts
                    .ended
                    .get(parent)
                    .is_none_or(|parent| parent.row.cancel_by.is_none());
            wanted && !facts.knows(**child) && !self.known.contains(*child)
        }) {
            return Err(format!("{child}, which {by:?} asked for, was never started"));
        }
        let open = facts.folds.values().map(|fold| fold.mail.open.len()).sum::<usize>();
        if open > 0 {
            return Err(format!("{open} letters are never delivered"));
        }
        Ok(())
    }
}
