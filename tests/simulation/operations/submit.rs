//! Submissions, with and without idempotency keys, repeated with the same body and with another.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_engine::api::{Backend as _, Refusal, Submit, SubmitReceipt};
use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;
use gantry_proto::{ErrorCode, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Told, Verdict, broken};
use crate::world::{Event, World};

const INVARIANT: &str = "a key starts one workflow, however often it is asked";

/// One submission as its client sees it.
struct Asked {
    definition: &'static str,
    key: Option<String>,
    priority: Option<u32>,
    done: bool,
}

pub(crate) struct Submissions {
    place: usize,
    asked: Vec<Asked>,
    /// Remembered keys by their hash: what they started, and until when.
    keys: BTreeMap<Bytes, (WorkflowId, u64)>,
}

impl Submissions {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            asked: Vec::new(),
            keys: BTreeMap::new(),
        }
    }

    fn send(&self, world: &mut World, tag: u64) {
        let Some(asked) = usize::try_from(tag).ok().and_then(|index| self.asked.get(index)) else {
            return;
        };
        let submit = Submit {
            caller: names::caller(),
            source: Bytes::from_static(asked.definition.as_bytes()),
            parameters: serde_json::Map::new(),
            idempotency_key: asked.key.clone(),
            idempotency_ttl_ms: None,
            labels: Vec::new(),
            attributes: serde_json::Map::new(),
            traceparent: None,
            playbook: None,
            priority: asked.priority,
        };
        world.call(self.place, tag, |engine| async move {
            Reply::Submitted(engine.submit(submit).await)
        });
    }

    /// Whether the key was used with another body too: then either may be the first.
    fn two_bodies(&self, asked: &Asked) -> bool {
        self.asked
            .iter()
            .any(|each| each.key.is_some() && each.key == asked.key && each.definition != asked.definition)
    }

    fn heard(
        &mut self,
        world: &mut World,
        index: usize,
        answer: Result<SubmitReceipt, Refusal>,
    ) -> Result<bool, Broken> {
        let asked = &self.asked[index];
        match answer {
            Ok(receipt) => {
                world.oracle.told(world.now, &Told::Submitted(receipt.workflow))?;
                let name = world.oracle.facts.name(receipt.workflow).unwrap_or_default();
                if !asked.definition.starts_with(&format!("{{name: {name},")) {
                    return Err(broken(
                        INVARIANT,
                        format!("`{}` got {receipt:?}, which is `{name}`", asked.definition),
                    ));
                }
                if !world.workflows.contains(&receipt.workflow) {
                    world.workflows.push(receipt.workflow);
                }
                Ok(true)
            }
            Err(refusal) => match refusal.code {
                ErrorCode::IdempotencyMismatch if self.two_bodies(asked) => Ok(true),
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded => Ok(false),
                _ => Err(broken(
                    INVARIANT,
                    format!("`{}` was refused: {refusal:?}", asked.definition),
                )),
            },
        }
    }
}

impl Operation for Submissions {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: one, tasks: {t: {steps: [{run: 'true'}, {run: 'true'}, {run: 'true'}]}}}",
            "{name: one, tasks: {t: {steps: [{run: 'true'}]}}}",
            "{name: diamond, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], steps: [{run: 'true'}]}, c: {needs: [a], steps: [{run: 'true'}]}, d: {needs: [b, c], run_on: always, steps: [{run: 'true'}]}}}",
            "{name: go-on, on_task_failure: continue, tasks: {a: {steps: [{run: 'true'}]}, b: {steps: [{run: 'true'}]}, c: {needs: [b], steps: [{run: 'true'}, {run: 'echo {{ steps[\"step-1\"].outputs.n }}'}]}}}",
            "{name: hand, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], workspace: {from: a}, steps: [{run: 'true'}, {run: 'true'}]}}}",
            "{name: unplanned, tasks: {a: {steps: [{run: 'true'}, {run: 'echo {{ steps[\"step-1\"].outputs.absent.more }}'}]}, b: {steps: [{run: 'true'}]}}}",
            "{name: unplanned, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], steps: [{run: 'echo {{ tasks.a.outputs.absent.more }}'}]}}}",
            "{name: gpu, tasks: {t: {requires: {capabilities: [gpu]}, steps: [{run: 'true'}]}}}",
            "{name: nowhere, tasks: {t: {requires: {capabilities: [none-has-this]}, steps: [{run: 'true'}]}, u: {needs: [t], steps: [{run: 'true'}]}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        60
    }

    fn act(&mut self, world: &mut World) {
        let keyed: Vec<usize> = (0..self.asked.len())
            .filter(|index| self.asked[*index].key.is_some())
            .collect();
        let again = if world.dice.chance(200) {
            world.dice.pick(&keyed).copied()
        } else {
            None
        };
        let asked = match again {
            Some(index) => {
                let first = &self.asked[index];
                let definition = if world.dice.chance(300) {
                    "{name: other, tasks: {t: {steps: [{run: 'false'}]}}}"
                } else {
                    first.definition
                };
                Asked {
                    definition,
                    key: first.key.clone(),
                    priority: first.priority,
                    done: false,
                }
            }
            None => {
                let Some(definition) = world.dice.pick(&world.definitions).copied() else {
                    return;
                };
                let key = world.dice.chance(400).then(|| format!("key {}", self.asked.len()));
                let priority = world.dice.chance(300).then(|| [0, 1, 9][world.dice.index(3)]);
                Asked {
                    definition,
                    key,
                    priority,
                    done: false,
                }
            }
        };
        self.asked.push(asked);
        self.send(world, self.asked.len() as u64 - 1);
    }

    fn answered(&mut self, world: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        let Some(index) = usize::try_from(tag).ok().filter(|index| *index < self.asked.len()) else {
            return Ok(());
        };
        let heard = match reply {
            Reply::Submitted(answer) => self.heard(world, index, answer)?,
            _ => false,
        };
        // With a key it is asked again until there is an answer; without one nobody knows what to ask for.
        self.asked[index].done = heard || self.asked[index].key.is_none();
        if !self.asked[index].done {
            let pause_ms = world.dice.between(50, 3_000);
            world.after(pause_ms, Event::Operation(self.place, tag));
        }
        Ok(())
    }

    fn woken(&mut self, world: &mut World, mark: u64) {
        self.send(world, mark);
    }

    fn recorded(&mut self, _: &Facts, place: &Place, kind: &Kind) -> Verdict {
        match kind {
            Kind::IdempotencyRecorded(event) => {
                let entry = (event.workflow, event.expires_at_ms);
                if let Some((workflow, until_ms)) = self.keys.insert(event.key_hash.clone(), entry)
                    && until_ms > place.at_ms
                {
                    return Err(format!(
                        "a key of {workflow}, good until {until_ms}, starts {} at {}",
                        event.workflow, place.at_ms
                    ));
                }
            }
            Kind::IdempotencyExpired(event) => {
                if let Some((workflow, until_ms)) = self.keys.remove(&event.key_hash)
                    && until_ms > place.at_ms
                {
                    return Err(format!(
                        "the key of {workflow} is good until {until_ms} and was forgotten at {}",
                        place.at_ms
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn at_rest(&self) -> bool {
        self.asked.iter().all(|asked| asked.done)
    }
}
