//! Cancellations.

use gantry_engine::api::{Backend as _, WorkflowState};
use gantry_proto::v1::WorkflowEnd;
use gantry_proto::{ErrorCode, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Told, broken};
use crate::world::World;

const INVARIANT: &str = "an acknowledged cancellation ends its workflow, and only that";

pub(crate) struct Cancel {
    place: usize,
    asked: Vec<WorkflowId>,
}

impl Cancel {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            asked: Vec::new(),
        }
    }
}

/// Whether its failure was decided before it ended.
fn had_failed(world: &World, workflow: WorkflowId) -> bool {
    let ended = world.oracle.facts.ended.get(&workflow);
    let ending = ended.and_then(|ended| ended.row.ending.as_ref());
    ending.is_some_and(|ending| ending.end() == WorkflowEnd::Failed)
}

impl Operation for Cancel {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn weight(&self, _: &Climate) -> u64 {
        12
    }

    fn act(&mut self, world: &mut World) {
        let recent = world.workflows.len().saturating_sub(8);
        let Some(workflow) = world.dice.pick(&world.workflows[recent..]).copied() else {
            return;
        };
        let grace_ms = world.dice.chance(500).then(|| world.dice.between(0, 5_000));
        self.asked.push(workflow);
        world.call(self.place, self.asked.len() as u64 - 1, |engine| async move {
            Reply::State(engine.cancel(names::caller(), workflow, grace_ms).await)
        });
    }

    fn answered(&mut self, world: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        let Some(workflow) = usize::try_from(tag)
            .ok()
            .and_then(|index| self.asked.get(index))
            .copied()
        else {
            return Ok(());
        };
        match reply {
            // What handled the failure was ended, and with it the workflow.
            Reply::State(Ok(WorkflowState::Failed)) if had_failed(world, workflow) => Ok(()),
            Reply::State(Ok(WorkflowState::Completed | WorkflowState::Failed)) => Err(broken(
                INVARIANT,
                format!("{workflow} had ended, and its cancellation was acknowledged"),
            )),
            Reply::State(Ok(_)) => world.oracle.told(world.now, &Told::Cancelled(workflow)),
            Reply::State(Err(refusal)) => match refusal.code {
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded => Ok(()),
                // It ended before.
                ErrorCode::Conflict if world.oracle.facts.ended.contains_key(&workflow) => Ok(()),
                _ => Err(broken(INVARIANT, format!("{workflow}: {refusal:?}"))),
            },
            _ => Ok(()),
        }
    }
}
