//! People: approvals, escalations, and decisions on whatever a task is doing. When faults are over somebody decides on all that waits for one.

use std::collections::{BTreeMap, BTreeSet};

use gantry_engine::api::{Backend as _, DeciderScope, DecisionRequest, TaskDecision, TaskState};
use gantry_engine::core::apply::Place;
use gantry_proto::v1::Decision;
use gantry_proto::v1::event::Kind;
use gantry_proto::{ErrorCode, TaskId, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Verdict, broken};
use crate::world::{Event, World};

const INVARIANT: &str = "a decision that is acknowledged is journaled, and only what waits for a person is decided";

/// Pause between two looks at what waits for somebody, once faults are over.
const ROUND_MS: u64 = 3_500;

pub(crate) struct People {
    place: usize,
    asked: Vec<(WorkflowId, TaskId, Decision)>,
    decided: BTreeSet<(TaskId, i32)>,
    /// Tasks that wait for a person, by the journal.
    waiting: BTreeMap<TaskId, WorkflowId>,
}

impl People {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            asked: Vec::new(),
            decided: BTreeSet::new(),
            waiting: BTreeMap::new(),
        }
    }

    fn decide(&mut self, world: &mut World, workflow: WorkflowId, task: TaskId, decision: Decision) {
        self.asked.push((workflow, task, decision));
        let request = DecisionRequest {
            task: task.to_string(),
            scope: DeciderScope::Operate,
            decision: match decision {
                Decision::Approve => TaskDecision::Approve,
                Decision::Reject => TaskDecision::Reject,
                Decision::Skip => TaskDecision::Skip,
                Decision::Fail => TaskDecision::Fail,
                Decision::Resolve => TaskDecision::Resolve {
                    outputs: serde_json::Map::new(),
                },
                _ => TaskDecision::Retry {
                    env: indexmap::IndexMap::new(),
                    params: serde_json::Map::new(),
                },
            },
            comment: None,
        };
        world.call(self.place, self.asked.len() as u64 - 1, |engine| async move {
            Reply::Decided(engine.decide(names::caller(), workflow, request).await)
        });
    }
}

impl Operation for People {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: approve, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], approval: {message: 'go on?'}}, c: {needs: [b], steps: [{run: 'true'}]}}}",
            "{name: approve, tasks: {a: {approval: {message: 'soon?', deadline: 8s, on_deadline: reject}}, b: {approval: {message: 'soon?', deadline: 9s, on_deadline: approve}}}}",
            "{name: approve, tasks: {a: {approval: {message: 'soon?', deadline: 8s, on_deadline: escalate}}, b: {approval: {message: 'soon?', deadline: 9s}}}}",
            "{name: escalate, tasks: {a: {steps: [{run: 'true', retry: {attempts: 2, backoff: 1s, exhausted: escalate}}, {run: 'true'}]}, b: {needs: [a], steps: [{run: 'true'}]}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        10
    }

    fn act(&mut self, world: &mut World) {
        let waiting: Vec<(TaskId, WorkflowId)> = self.waiting.iter().map(|(task, of)| (*task, *of)).collect();
        let chosen = if world.dice.chance(700) {
            world.dice.pick(&waiting).copied()
        } else {
            let any: Vec<(TaskId, WorkflowId)> = world
                .oracle
                .facts
                .active_all()
                .flat_map(|workflow| workflow.tasks.iter().map(|task| (task.row.id, workflow.row.id)))
                .collect();
            world.dice.pick(&any).copied()
        };
        let Some((task, workflow)) = chosen else { return };
        let all = [
            Decision::Approve,
            Decision::Approve,
            Decision::Reject,
            Decision::Retry,
            Decision::Retry,
            Decision::Skip,
            Decision::Resolve,
            Decision::Fail,
        ];
        let decision = all[world.dice.index(all.len())];
        self.decide(world, workflow, task, decision);
    }

    fn answered(&mut self, _: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        let Some((workflow, task, decision)) = usize::try_from(tag).ok().and_then(|index| self.asked.get(index)) else {
            return Ok(());
        };
        match reply {
            Reply::Decided(Ok(_)) if !self.decided.contains(&(*task, i32::from(*decision))) => Err(broken(
                INVARIANT,
                format!("{decision:?} on {task} of {workflow} was acknowledged and is not durable"),
            )),
            Reply::Decided(Err(refusal)) => match refusal.code {
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded | ErrorCode::Conflict => Ok(()),
                _ => Err(broken(INVARIANT, format!("{decision:?} on {task}: {refusal:?}"))),
            },
            _ => Ok(()),
        }
    }

    fn woken(&mut self, world: &mut World, _: u64) {
        for (task, workflow) in self.waiting.clone() {
            let state = world.oracle.facts.active(workflow).and_then(|workflow| {
                let task = workflow.tasks.iter().find(|each| each.row.id == task)?;
                Some(task.row.state())
            });
            let decision = match state {
                Some(TaskState::AwaitingApproval) if world.dice.chance(500) => Decision::Approve,
                Some(TaskState::AwaitingApproval) => Decision::Reject,
                Some(TaskState::Escalated) => {
                    [Decision::Retry, Decision::Resolve, Decision::Skip, Decision::Fail][world.dice.index(4)]
                }
                _ => continue,
            };
            self.decide(world, workflow, task, decision);
        }
        world.after(ROUND_MS, Event::Operation(self.place, 0));
    }

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        if let Kind::TaskDecided(event) = kind {
            self.decided.insert((event.task, event.decision));
        }
        let Some(workflow) = place.workflow else { return Ok(()) };
        let Some(active) = facts.active(workflow) else {
            self.waiting.retain(|_, of| *of != workflow);
            return Ok(());
        };
        for task in &active.tasks {
            if matches!(task.row.state(), TaskState::AwaitingApproval | TaskState::Escalated) {
                self.waiting.insert(task.row.id, workflow);
            } else {
                self.waiting.remove(&task.row.id);
            }
        }
        Ok(())
    }
}
