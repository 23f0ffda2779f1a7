//! More commands at once than a partition takes.

use futures_util::future::join_all;
use gantry_engine::api::Backend as _;
use gantry_proto::{ErrorCode, PartitionId, WorkflowId, limits};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, broken};
use crate::world::World;

const INVARIANT: &str = "queues are bounded, and what has no room is told so";
/// Commands beyond what the mailbox takes.
const BEYOND: usize = 300;

pub(crate) struct Flood {
    place: usize,
}

impl Flood {
    pub(crate) fn at(place: usize) -> Self {
        Self { place }
    }
}

impl Operation for Flood {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn weight(&self, climate: &Climate) -> u64 {
        climate.faults.flood
    }

    fn act(&mut self, world: &mut World) {
        let calls = limits::PARTITION_QUEUE_MAX + BEYOND;
        world.call(self.place, 0, |engine| async move {
            // Nobody knows such a workflow: the answer is cheap, the place in the queue is not.
            let nobody = WorkflowId::new(1, PartitionId::default(), 0);
            let asked = (0..calls).map(|_| engine.cancel(names::caller(), nobody, None));
            let answers = join_all(asked).await;
            let overloaded = answers
                .iter()
                .filter(|answer| matches!(answer, Err(refusal) if refusal.code == ErrorCode::Overloaded));
            Reply::Many {
                answered: answers.len(),
                overloaded: overloaded.count(),
            }
        });
    }

    fn answered(&mut self, _: &mut World, _: u64, reply: Reply) -> Result<(), Broken> {
        match reply {
            Reply::Many { answered, overloaded } if overloaded < BEYOND => Err(broken(
                INVARIANT,
                format!(
                    "of {answered} commands at once only {overloaded} were refused, and a mailbox takes {}",
                    limits::PARTITION_QUEUE_MAX
                ),
            )),
            _ => Ok(()),
        }
    }
}
