//! Signals: early, late, more than once. When faults are over everything that waits for one gets one.

use std::collections::{BTreeMap, BTreeSet};

use gantry_engine::api::{Backend as _, SignalRequest};
use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;
use gantry_proto::{ErrorCode, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Verdict, broken};
use crate::world::{Event, World};

const INVARIANT: &str = "a signal that is acknowledged counts once and goes to one task";

/// Pause between two rounds, once faults are over.
const ROUND_MS: u64 = 4_500;

struct Asked {
    workflow: WorkflowId,
    id: Option<String>,
    done: bool,
}

pub(crate) struct Signals {
    place: usize,
    asked: Vec<Asked>,
    received: BTreeMap<WorkflowId, u64>,
    acknowledged: BTreeMap<WorkflowId, u64>,
    ids: BTreeSet<(WorkflowId, Vec<u8>)>,
    delivered: BTreeSet<(WorkflowId, u64)>,
}

impl Signals {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            asked: Vec::new(),
            received: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            ids: BTreeSet::new(),
            delivered: BTreeSet::new(),
        }
    }

    fn send(&self, world: &mut World, tag: usize) {
        let asked = &self.asked[tag];
        let workflow = asked.workflow;
        let request = SignalRequest {
            name: "go".to_owned(),
            id: asked.id.clone(),
            payload: serde_json::json!({"n": tag}),
        };
        world.call(self.place, tag as u64, |engine| async move {
            Reply::Signalled(engine.signal(names::caller(), workflow, request).await)
        });
    }

    /// Workflows with a task that waits for the signal.
    fn candidates(world: &World) -> Vec<WorkflowId> {
        let named = world.oracle.facts.active_all().filter(|each| each.row.name == "signal");
        named.map(|workflow| workflow.row.id).collect()
    }

    fn ask(&mut self, world: &mut World, workflow: WorkflowId) {
        let id = world.dice.chance(600).then(|| format!("signal {}", self.asked.len()));
        self.asked.push(Asked {
            workflow,
            id,
            done: false,
        });
        self.send(world, self.asked.len() - 1);
    }
}

impl Operation for Signals {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: signal, tasks: {a: {signal: {name: go}}, b: {needs: [a], steps: [{run: 'echo {{ tasks.a.outputs.n }}'}]}}}",
            "{name: signal, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], signal: {name: go}}, c: {needs: [b], signal: {name: go, timeout: 20s, on_timeout: continue}}}}",
            "{name: signal, tasks: {a: {signal: {name: go, timeout: 5s, on_timeout: escalate}}, b: {signal: {name: go, timeout: 5s}}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        8
    }

    fn act(&mut self, world: &mut World) {
        let candidates = Self::candidates(world);
        if let Some(workflow) = world.dice.pick(&candidates).copied() {
            self.ask(world, workflow);
        }
    }

    fn answered(&mut self, world: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        let Some(index) = usize::try_from(tag).ok().filter(|index| *index < self.asked.len()) else {
            return Ok(());
        };
        let workflow = self.asked[index].workflow;
        let with_id = self.asked[index].id.is_some();
        let heard = match reply {
            Reply::Signalled(Ok(receipt)) => {
                if receipt.duplicate && !with_id {
                    return Err(broken(INVARIANT, "a signal without id is called a duplicate"));
                }
                *self.acknowledged.entry(workflow).or_default() += 1;
                let durable = self.received.get(&workflow).copied().unwrap_or(0);
                let told = self.acknowledged[&workflow];
                if told > durable {
                    return Err(broken(
                        INVARIANT,
                        format!("{told} signals of {workflow} were acknowledged, {durable} are durable"),
                    ));
                }
                true
            }
            Reply::Signalled(Err(refusal)) => match refusal.code {
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded => false,
                // It ended meanwhile, or nobody would take so many.
                ErrorCode::Conflict | ErrorCode::SignalsFull => true,
                _ => return Err(broken(INVARIANT, format!("{workflow}: {refusal:?}"))),
            },
            _ => false,
        };
        self.asked[index].done = heard || !with_id;
        if !self.asked[index].done {
            let pause_ms = world.dice.between(50, 3_000);
            world.after(pause_ms, Event::Operation(self.place, tag));
        }
        Ok(())
    }

    fn woken(&mut self, world: &mut World, mark: u64) {
        match usize::try_from(mark).ok().filter(|index| *index < self.asked.len()) {
            Some(index) => self.send(world, index),
            None => {
                for workflow in Self::candidates(world) {
                    self.ask(world, workflow);
                }
                world.after(ROUND_MS, Event::Operation(self.place, u64::MAX));
            }
        }
    }

    fn recorded(&mut self, _: &Facts, place: &Place, kind: &Kind) -> Verdict {
        let Some(workflow) = place.workflow else { return Ok(()) };
        match kind {
            Kind::SignalReceived(event) => {
                *self.received.entry(workflow).or_default() += 1;
                if let Some(id) = &event.id_hash
                    && !self.ids.insert((workflow, id.to_vec()))
                {
                    return Err(format!("a signal of {workflow} counts twice"));
                }
            }
            Kind::SignalDelivered(event) if !self.delivered.insert((workflow, event.signal_seq)) => {
                return Err(format!("signal {} of {workflow} goes to two tasks", event.signal_seq));
            }
            _ => {}
        }
        Ok(())
    }

    fn at_rest(&self) -> bool {
        self.asked.iter().all(|asked| asked.done)
    }
}
