//! What clients do: one file per primitive in `tests/simulation/operations`, each with what it does and what must hold of it. See the README there.

#[path = "../operations/again.rs"]
mod again;
#[path = "../operations/assess.rs"]
mod assess;
#[path = "../operations/bulk.rs"]
mod bulk;
#[path = "../operations/cancel.rs"]
mod cancel;
#[path = "../operations/children.rs"]
mod children;
#[path = "../operations/drain.rs"]
mod drain;
#[path = "../operations/endings.rs"]
mod endings;
#[path = "../operations/flood.rs"]
mod flood;
#[path = "../operations/limits.rs"]
mod limits;
#[path = "../operations/look.rs"]
mod look;
#[path = "../operations/pause.rs"]
mod pause;
#[path = "../operations/pause_scopes.rs"]
mod pause_scopes;
#[path = "../operations/people.rs"]
mod people;
#[path = "../operations/retry.rs"]
mod retry;
#[path = "../operations/schedules.rs"]
pub(crate) mod schedules;
#[path = "../operations/signals.rs"]
mod signals;
#[path = "../operations/submit.rs"]
mod submit;
#[path = "../operations/waits.rs"]
mod waits;

use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;

use crate::client::Reply;
use crate::climate::Climate;
use crate::oracle::{Broken, Facts, Verdict};
use crate::world::World;

/// A primitive: one random use of it, and what must hold.
pub(crate) trait Operation {
    /// What must hold, in words.
    fn invariant(&self) -> &'static str;

    /// Definitions that use the primitive: any may be submitted.
    fn definitions(&self) -> &'static [&'static str] {
        &[]
    }

    /// How often it is used, among all operations (together about 100) and faults (0 to 12 each).
    fn weight(&self, climate: &Climate) -> u64;

    /// One random use.
    fn act(&mut self, world: &mut World);

    /// A call that `act` made is answered.
    fn answered(&mut self, _: &mut World, _tag: u64, _: Reply) -> Result<(), Broken> {
        Ok(())
    }

    /// A time that was asked for with `Event::Operation`, or the end of faults (`faults::operations_healed()`).
    fn woken(&mut self, _: &mut World, _mark: u64) {}

    /// A record that has become durable, already folded into the facts.
    fn recorded(&mut self, _: &Facts, _: &Place, _: &Kind) -> Verdict {
        Ok(())
    }

    /// Whether nothing of it is under way.
    fn at_rest(&self) -> bool {
        true
    }

    /// Faults are over and everything has come to rest.
    fn quiet(&self, _: &World) -> Verdict {
        Ok(())
    }
}

/// All of them, for one run. Their place in the list is what calls and wake-ups name them by.
pub(crate) fn all() -> Vec<Box<dyn Operation>> {
    vec![
        Box::new(submit::Submissions::at(0)),
        Box::new(cancel::Cancel::at(1)),
        Box::new(drain::Drain::at(2)),
        Box::new(look::Look::at(3)),
        Box::<retry::Retry>::default(),
        Box::new(flood::Flood::at(5)),
        Box::new(bulk::Bulk::at(6)),
        Box::new(again::Restart::at(7)),
        Box::<waits::Waits>::default(),
        Box::new(people::People::at(9)),
        Box::new(signals::Signals::at(10)),
        Box::new(pause::Pause::at(11)),
        Box::<children::Children>::default(),
        Box::new(schedules::Schedules::at(13)),
        Box::<limits::Limits>::default(),
        Box::new(pause_scopes::PauseScopes::at(15)),
        Box::<endings::Endings>::default(),
        Box::new(assess::Assess::at(17)),
    ]
}
