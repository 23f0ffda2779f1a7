//! Pausing and resuming workflows. When faults are over everything is resumed.

use std::collections::BTreeSet;

use gantry_engine::api::{Backend as _, WorkflowState};
use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;
use gantry_proto::{ErrorCode, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Verdict, broken};
use crate::world::{Event, World};

const INVARIANT: &str = "nothing of a paused workflow starts";

/// Pause between two rounds, once faults are over.
const ROUND_MS: u64 = 5_500;

pub(crate) struct Pause {
    place: usize,
    asked: Vec<(WorkflowId, bool)>,
    paused: BTreeSet<WorkflowId>,
}

impl Pause {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            asked: Vec::new(),
            paused: BTreeSet::new(),
        }
    }

    fn ask(&mut self, world: &mut World, workflow: WorkflowId, pause: bool) {
        self.asked.push((workflow, pause));
        let interrupt = world.dice.chance(500);
        world.call(self.place, self.asked.len() as u64 - 1, |engine| async move {
            Reply::State(if pause {
                engine.pause(names::caller(), workflow, interrupt, None).await
            } else {
                engine.resume(names::caller(), workflow).await
            })
        });
    }
}

impl Operation for Pause {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: exhausted, tasks: {a: {steps: [{run: 'true', retry: {attempts: 2, backoff: 1s, exhausted: pause}}, {run: 'true'}]}, b: {steps: [{run: 'true'}]}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        8
    }

    fn act(&mut self, world: &mut World) {
        let resume = world.dice.chance(500);
        let candidates: Vec<WorkflowId> = if resume {
            self.paused.iter().copied().collect()
        } else {
            world
                .oracle
                .facts
                .active_all()
                .map(|workflow| workflow.row.id)
                .collect()
        };
        if let Some(workflow) = world.dice.pick(&candidates).copied() {
            self.ask(world, workflow, !resume);
        }
    }

    fn answered(&mut self, _: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        let Some((workflow, pause)) = usize::try_from(tag).ok().and_then(|index| self.asked.get(index)) else {
            return Ok(());
        };
        match reply {
            Reply::State(Ok(state)) if *pause && state != WorkflowState::Paused => Err(broken(
                INVARIANT,
                format!("the pause of {workflow} was acknowledged, and it is {state}"),
            )),
            Reply::State(Err(refusal)) => match refusal.code {
                // It is ending, or has ended.
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded | ErrorCode::Conflict => Ok(()),
                _ => Err(broken(INVARIANT, format!("{workflow}: {refusal:?}"))),
            },
            _ => Ok(()),
        }
    }

    fn woken(&mut self, world: &mut World, _: u64) {
        for workflow in self.paused.clone() {
            self.ask(world, workflow, false);
        }
        world.after(ROUND_MS, Event::Operation(self.place, 0));
    }

    fn at_rest(&self) -> bool {
        self.paused.is_empty()
    }

    fn recorded(&mut self, _: &Facts, place: &Place, kind: &Kind) -> Verdict {
        let Some(workflow) = place.workflow else { return Ok(()) };
        match kind {
            Kind::WorkflowPaused(_) => {
                self.paused.insert(workflow);
            }
            // One that is to end goes on to what handles that.
            Kind::WorkflowResumed(_)
            | Kind::WorkflowCancelRequested(_)
            | Kind::WorkflowEnding(_)
            | Kind::WorkflowEnded(_) => {
                self.paused.remove(&workflow);
            }
            Kind::TaskClaimed(event) if self.paused.contains(&workflow) => {
                return Err(format!("{} of {workflow}, which is paused, is leased", event.task));
            }
            Kind::StepAssigned(event) if self.paused.contains(&workflow) => {
                return Err(format!(
                    "step {} of {} of {workflow}, which is paused, is assigned",
                    event.step, event.task
                ));
            }
            _ => {}
        }
        Ok(())
    }
}
