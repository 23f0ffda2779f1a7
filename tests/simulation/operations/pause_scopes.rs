//! Pauses of definitions and of the tenant.

use std::collections::BTreeSet;

use gantry_engine::api::Pauses as _;
use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;

use crate::client::Reply;
use crate::climate::Climate;
use crate::faults;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Verdict};
use crate::world::{Event, World};

/// What is paused: names of definitions that many submit, and the tenant.
const SCOPES: [Option<&str>; 4] = [None, Some("one"), Some("keyed"), Some("diamond")];

pub(crate) struct PauseScopes {
    place: usize,
    /// Scopes that may be paused.
    paused: BTreeSet<usize>,
    over: bool,
}

impl PauseScopes {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            paused: BTreeSet::new(),
            over: false,
        }
    }

    fn ask(&self, world: &mut World, index: usize, pause: bool) {
        let tag = index as u64 * 2 + u64::from(pause);
        let scope = SCOPES[index];
        world.call(self.place, tag, |engine| async move {
            let answer = if pause {
                let why = Some("for a while".to_owned());
                engine.pause_scope(names::caller(), scope, why).await.map(drop)
            } else {
                engine.resume_scope(names::caller(), scope).await
            };
            Reply::Done(answer)
        });
    }
}

impl Operation for PauseScopes {
    fn invariant(&self) -> &'static str {
        "nothing starts of what is paused, and what is resumed goes on"
    }

    fn weight(&self, _: &Climate) -> u64 {
        3
    }

    fn act(&mut self, world: &mut World) {
        let index = usize::try_from(world.dice.below(SCOPES.len() as u64)).unwrap_or(0);
        let pause = self.paused.insert(index);
        self.ask(world, index, pause);
        if pause {
            // Most runs are to see work done.
            let length_ms = world.dice.between(50, 4_000);
            world.after(length_ms, Event::Operation(self.place, index as u64));
        }
    }

    fn answered(&mut self, world: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        let index = tag / 2;
        if tag.is_multiple_of(2) && matches!(reply, Reply::Done(Ok(()))) {
            self.paused.remove(&usize::try_from(index).unwrap_or(0));
        } else if tag.is_multiple_of(2) || self.over {
            world.after(500, Event::Operation(self.place, index));
        }
        Ok(())
    }

    fn woken(&mut self, world: &mut World, mark: u64) {
        let all = mark == faults::operations_healed();
        self.over |= all;
        let due = |index: &usize| all || *index as u64 == mark;
        for index in self.paused.clone().into_iter().filter(due) {
            self.ask(world, index, false);
        }
    }

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        if let (Kind::TaskClaimed(_), Some(id)) = (kind, place.workflow)
            && facts.folds.get(&id.partition()).is_some_and(|fold| fold.is_paused(id))
        {
            return Err(format!("a task of {id} is claimed while it is paused"));
        }
        Ok(())
    }

    fn at_rest(&self) -> bool {
        self.paused.is_empty()
    }

    fn quiet(&self, world: &World) -> Verdict {
        let left = world.oracle.facts.folds.values().map(|fold| fold.scopes.0.len());
        match left.sum::<usize>() {
            0 => Ok(()),
            left => Err(format!(
                "{left} scopes are paused in some partition, and all were resumed"
            )),
        }
    }
}
