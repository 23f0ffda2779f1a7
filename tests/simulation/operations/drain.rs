//! Draining of nodes, and its end.

use std::collections::BTreeSet;

use gantry_engine::api::Backend as _;

use crate::client::Reply;
use crate::climate::Climate;
use crate::faults;
use crate::names;
use crate::operations::Operation;
use crate::oracle::Broken;
use crate::world::{Event, World};

pub(crate) struct Drain {
    place: usize,
    /// Nodes that may be draining.
    drained: BTreeSet<u64>,
    over: bool,
}

impl Drain {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            drained: BTreeSet::new(),
            over: false,
        }
    }

    fn ask(&self, world: &mut World, number: u64, drain: bool) {
        let tag = number * 2 + u64::from(drain);
        world.call(self.place, tag, |engine| async move {
            let answer = engine.drain_node(names::caller(), names::node(number), drain).await;
            Reply::Done(answer.map(drop))
        });
    }
}

impl Operation for Drain {
    fn invariant(&self) -> &'static str {
        "a drained node can be put back"
    }

    fn weight(&self, _: &Climate) -> u64 {
        5
    }

    fn act(&mut self, world: &mut World) {
        let number = 1 + world.dice.below(world.climate.nodes);
        let drain = !self.drained.contains(&number);
        self.drained.insert(number);
        self.ask(world, number, drain);
    }

    fn answered(&mut self, world: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        if tag.is_multiple_of(2) && matches!(reply, Reply::Done(Ok(()))) {
            self.drained.remove(&(tag / 2));
        } else if self.over {
            world.after(500, Event::Operation(self.place, tag / 2));
        }
        Ok(())
    }

    fn woken(&mut self, world: &mut World, mark: u64) {
        let all = mark == faults::operations_healed();
        self.over |= all;
        // What is gone for good is never put back.
        let nodes = &world.nodes;
        let gone = |number: u64| usize::try_from(number - 1).is_ok_and(|index| nodes[index].gone);
        self.drained.retain(|number| !gone(*number));
        for number in self.drained.clone().into_iter().filter(|number| all || *number == mark) {
            self.ask(world, number, false);
        }
    }

    fn at_rest(&self) -> bool {
        self.drained.is_empty()
    }
}
