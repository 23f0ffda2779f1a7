//! Schedules: made, changed, paused, asked for a run now. When faults are over all are deleted, so that everything can come to rest.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gantry_engine::api::{Missed, Overlap, PlaybookSource, Refusal, ScheduleSpec, Schedules as _};
use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;
use gantry_proto::{ErrorCode, ScheduleId, TenantId, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::dice::Dice;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Verdict, broken};
use crate::world::{Event, World};

const INVARIANT: &str = "a time of a schedule starts one run, and none beside one that its policy wants alone";

/// Pause between two rounds, once faults are over.
const ROUND_MS: u64 = 6_500;

/// The schedules of a run; each keeps its policy.
const NAMES: [(&str, Overlap); 4] = [
    ("skip", Overlap::Skip),
    ("queue", Overlap::Queue),
    ("allow", Overlap::Allow),
    ("replace", Overlap::Replace),
];

/// What schedules start. The directory, which answers in production, does not always.
pub(crate) struct Shelf(pub(crate) Dice);

#[async_trait::async_trait]
impl PlaybookSource for Shelf {
    async fn playbook(&self, _: TenantId, name: &str, _: Option<u32>) -> Result<(Bytes, u32), Refusal> {
        if self.0.chance(100) {
            return Err(Refusal::new(ErrorCode::StorageUnavailable, "not now"));
        }
        match name {
            "scheduled" => Ok((
                Bytes::from_static(b"{name: scheduled, tasks: {t: {steps: [{run: 'true'}]}}}"),
                3,
            )),
            _ => Err(Refusal::new(
                ErrorCode::NotFound,
                format!("there is no playbook `{name}`"),
            )),
        }
    }
}

pub(crate) struct Schedules {
    place: usize,
    /// Those that exist, and whether they are paused.
    live: BTreeMap<ScheduleId, (String, bool)>,
    /// The newest time of the calendar that was owed.
    newest: BTreeMap<ScheduleId, u64>,
    calendar: BTreeSet<(ScheduleId, u64)>,
    started: BTreeSet<(ScheduleId, u64)>,
    /// Runs of schedules that were deleted while they went on: one of the same name knows nothing of them.
    left: BTreeSet<WorkflowId>,
}

/// The runs of a schedule that go on.
fn running(facts: &Facts, schedule: ScheduleId) -> impl Iterator<Item = WorkflowId> {
    facts
        .active_all()
        .filter(move |workflow| workflow.row.schedule.as_ref().is_some_and(|of| of.schedule == schedule))
        .map(|workflow| workflow.row.id)
}

impl Schedules {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            live: BTreeMap::new(),
            newest: BTreeMap::new(),
            calendar: BTreeSet::new(),
            started: BTreeSet::new(),
            left: BTreeSet::new(),
        }
    }

    fn delete(&self, world: &mut World, name: String) {
        world.call(self.place, 0, |engine| async move {
            Reply::Done(engine.delete_schedule(names::caller(), &name).await)
        });
    }
}

impl Operation for Schedules {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn weight(&self, climate: &Climate) -> u64 {
        climate.schedules
    }

    fn act(&mut self, world: &mut World) {
        let (name, overlap) = NAMES[world.dice.index(NAMES.len())];
        let caller = names::caller();
        match world.dice.below(10) {
            0..=3 => {
                let spec = ScheduleSpec {
                    playbook: "scheduled".to_owned(),
                    cron: ["*/3 * * * * *", "*/10 * * * * *", "* * * * *"][world.dice.index(3)].to_owned(),
                    time_zone: "UTC".to_owned(),
                    jitter_ms: [0, 0, 1_500][world.dice.index(3)],
                    overlap,
                    missed: [Missed::Skip, Missed::Once, Missed::All][world.dice.index(3)],
                    grace_ms: world.dice.between(1_000, 60_000),
                    parameters: serde_json::Map::new(),
                    labels: BTreeMap::new(),
                };
                world.call(self.place, 0, |engine| async move {
                    Reply::Done(engine.set_schedule(caller, name, spec, false).await.map(drop))
                });
            }
            4..=5 => {
                let paused = world.dice.chance(500);
                world.call(self.place, 0, |engine| async move {
                    Reply::Done(engine.pause_schedule(caller, name, paused).await.map(drop))
                });
            }
            6..=8 => world.call(self.place, 0, |engine| async move {
                Reply::Done(engine.owe_runs(caller, name, None, None).await.map(drop))
            }),
            _ => self.delete(world, name.to_owned()),
        }
    }

    fn answered(&mut self, _: &mut World, _: u64, reply: Reply) -> Result<(), Broken> {
        match reply {
            Reply::Done(Err(refusal)) => match refusal.code {
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded | ErrorCode::NotFound => Ok(()),
                _ => Err(broken(INVARIANT, format!("{refusal:?}"))),
            },
            _ => Ok(()),
        }
    }

    fn woken(&mut self, world: &mut World, _: u64) {
        for (name, _) in self.live.values() {
            self.delete(world, name.clone());
        }
        world.after(ROUND_MS, Event::Operation(self.place, 0));
    }

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        match kind {
            Kind::ScheduleSet(event) => {
                let paused = self.live.get(&event.schedule).is_some_and(|(_, paused)| *paused);
                self.live.insert(event.schedule, (event.name.clone(), paused));
            }
            Kind::SchedulePaused(event) => {
                if let Some((_, paused)) = self.live.get_mut(&event.schedule) {
                    *paused = event.paused;
                }
            }
            Kind::ScheduleDeleted(event) => {
                self.live.remove(&event.schedule);
                self.left.extend(running(facts, event.schedule));
            }
            Kind::ScheduleFired(event) => {
                let Some((name, paused)) = self.live.get(&event.schedule) else {
                    return Err(format!("{}, which does not exist, fires", event.schedule));
                };
                for due in event.owed.iter().filter(|due| !due.manual.unwrap_or_default()) {
                    if *paused {
                        return Err(format!("`{name}` is paused and fires for {}", due.due_ms));
                    }
                    if due.due_ms > place.at_ms {
                        return Err(format!("`{name}` fires at {} for {}", place.at_ms, due.due_ms));
                    }
                    if let Some(newest) = self.newest.insert(event.schedule, due.due_ms)
                        && newest >= due.due_ms
                    {
                        return Err(format!("`{name}` fires for {} after {newest}", due.due_ms));
                    }
                    self.calendar.insert((event.schedule, due.due_ms));
                }
            }
            Kind::WorkflowSubmitted(event) => {
                let Some(run) = &event.schedule else { return Ok(()) };
                let key = (run.schedule, run.due_ms);
                if !self.started.insert(key) && self.calendar.contains(&key) {
                    return Err(format!("{key:?} is started twice"));
                }
                let name = self.live.get(&run.schedule).map(|(name, _)| name.as_str());
                let running = running(facts, run.schedule)
                    .filter(|run| !self.left.contains(run))
                    .count();
                if running > 1 && name.is_some_and(|name| name != "allow") {
                    return Err(format!("{running} runs of `{name:?}` at once"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn at_rest(&self) -> bool {
        self.live.is_empty()
    }
}
