//! Reads: what a client sees is durable, and what has ended stays as it ended.

use gantry_engine::api::Backend as _;
use gantry_proto::{ErrorCode, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, broken};
use crate::world::World;

const INVARIANT: &str = "reads show what is durable";

pub(crate) struct Look {
    place: usize,
    /// What was looked at, and whether it had ended by then.
    asked: Vec<(WorkflowId, bool)>,
}

impl Look {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            asked: Vec::new(),
        }
    }
}

impl Operation for Look {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn weight(&self, _: &Climate) -> u64 {
        8
    }

    fn act(&mut self, world: &mut World) {
        let Some(workflow) = world.dice.pick(&world.workflows).copied() else {
            return;
        };
        let ended = world.oracle.facts.ended.contains_key(&workflow);
        self.asked.push((workflow, ended));
        world.call(self.place, self.asked.len() as u64 - 1, |engine| async move {
            Reply::View(engine.workflow(names::tenant(), workflow).await.map(Box::new))
        });
    }

    fn answered(&mut self, world: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        let Some((workflow, ended)) = usize::try_from(tag)
            .ok()
            .and_then(|index| self.asked.get(index))
            .copied()
        else {
            return Ok(());
        };
        match reply {
            Reply::View(Ok(view)) => {
                let known = world.oracle.facts.ended.get(&workflow);
                if ended && view.summary.ended_at_ms.is_none() {
                    return Err(broken(
                        INVARIANT,
                        format!("{workflow} had ended and is shown as {}", view.summary.state),
                    ));
                }
                if view.summary.ended_at_ms.is_some()
                    && known.map(|known| known.row.state()) != Some(view.summary.state)
                {
                    return Err(broken(
                        INVARIANT,
                        format!("{workflow} is shown as {} and is {known:?}", view.summary.state),
                    ));
                }
                Ok(())
            }
            Reply::View(Err(refusal)) if refusal.code != ErrorCode::StorageUnavailable => {
                Err(broken(INVARIANT, format!("{workflow}: {refusal:?}")))
            }
            _ => Ok(()),
        }
    }
}
