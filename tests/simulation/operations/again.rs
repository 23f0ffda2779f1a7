//! Restarts and forks: what is carried over is never executed.

use std::collections::BTreeSet;

use gantry_engine::api::{Again, AgainRequest, Backend as _};
use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;
use gantry_proto::{ErrorCode, TaskId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Told, Verdict, broken};
use crate::world::World;

const INVARIANT: &str = "what a restart or a fork carries over is not executed in it, and comes from a completed step";

#[derive(Default)]
pub(crate) struct Restart {
    place: usize,
    asked: u64,
    carried: BTreeSet<(TaskId, u32)>,
}

impl Restart {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            ..Self::default()
        }
    }
}

impl Operation for Restart {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn weight(&self, _: &Climate) -> u64 {
        4
    }

    fn act(&mut self, world: &mut World) {
        let Some(workflow) = world.dice.pick(&world.workflows).copied() else {
            return;
        };
        let again = match world.dice.chance(500) {
            true => Again::Restart,
            false => Again::Fork {
                parameters: serde_json::Map::new(),
                attributes: serde_json::Map::new(),
                labels: Vec::new(),
                priority: None,
            },
        };
        let number = self.asked;
        self.asked += 1;
        let request = AgainRequest {
            caller: names::caller(),
            workflow,
            again,
            from: None,
            idempotency_key: world.dice.chance(300).then(|| format!("again-{number}")),
        };
        world.call(self.place, number, |engine| async move {
            Reply::Submitted(engine.again(request).await)
        });
    }

    fn answered(&mut self, world: &mut World, _: u64, reply: Reply) -> Result<(), Broken> {
        match reply {
            Reply::Submitted(Ok(receipt)) => {
                world.workflows.push(receipt.workflow);
                world.oracle.told(world.now, &Told::Submitted(receipt.workflow))
            }
            Reply::Submitted(Err(refusal)) => match refusal.code {
                ErrorCode::StorageUnavailable
                | ErrorCode::Overloaded
                // It runs still; all of it completed; it would need a tree.
                | ErrorCode::Conflict
                | ErrorCode::InvalidRequest
                | ErrorCode::WorkspaceGone => Ok(()),
                _ => Err(broken(INVARIANT, format!("{refusal:?}"))),
            },
            _ => Ok(()),
        }
    }

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        match kind {
            Kind::StepCarried(event) => {
                self.carried.insert((event.task, event.step));
                let workflow = place.workflow.unwrap_or_default();
                let active = facts.active(workflow).map(|workflow| &workflow.row);
                // It may have ended in the same batch.
                let row = active.or_else(|| facts.ended.get(&workflow).map(|ended| &ended.row));
                if row.is_none_or(|row| row.origin.is_none()) {
                    return Err(format!(
                        "{} has carried results, and its workflow comes from nowhere",
                        event.task
                    ));
                }
            }
            Kind::StepAssigned(event) if self.carried.contains(&(event.task, event.step)) => {
                return Err(format!(
                    "step {} of {} was carried over, and is executed",
                    event.step, event.task
                ));
            }
            _ => {}
        }
        Ok(())
    }
}
