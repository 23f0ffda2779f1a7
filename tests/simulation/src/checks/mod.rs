//! The invariants, one file each.

mod acknowledged;
mod bounds;
mod fences;
mod leases;
mod outcomes;
mod starvation;
mod timers;

use gantry_engine::core::Settings;

use crate::disk::Disk;
use crate::oracle::{Facts, Seen, Told, Verdict};

/// Something that must hold. Every hook does nothing unless the check needs it.
pub(crate) trait Check {
    /// What must hold, in words.
    fn invariant(&self) -> &'static str;

    /// A durable record, before it is applied.
    fn before(&mut self, _: &Seen<'_>) -> Verdict {
        Ok(())
    }

    /// The same record, applied.
    fn after(&mut self, _: &Seen<'_>) -> Verdict {
        Ok(())
    }

    /// Somebody outside was told something.
    fn told(&mut self, _: &Facts, _at_ms: u64, _: &Told<'_>) -> Verdict {
        Ok(())
    }

    /// A server serves since `since_ms`; `None`: none does. It stood still when that is later than now.
    fn serving(&mut self, _at_ms: u64, _since_ms: Option<u64>) {}

    /// After every event.
    fn passes(&mut self, _: &Facts, _at_ms: u64, _wall_ms: u64) -> Verdict {
        Ok(())
    }

    /// Faults are over and everything has come to rest.
    fn quiet(&mut self, _: &Facts, _: &Disk) -> Verdict {
        Ok(())
    }
}

/// A fresh set, for one run.
pub(crate) fn all(settings: Settings) -> Vec<Box<dyn Check>> {
    vec![
        Box::<acknowledged::Acknowledged>::default(),
        Box::<outcomes::Outcomes>::default(),
        Box::<fences::Fences>::default(),
        Box::new(leases::Leases::new(settings.lease_ms)),
        Box::<timers::Timers>::default(),
        Box::<bounds::Bounds>::default(),
        Box::<starvation::Starvation>::default(),
    ]
}
