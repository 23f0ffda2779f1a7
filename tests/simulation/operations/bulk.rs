//! Bulk operations: signals for everything that waits for one, and their ends by request. Each comes from a principal of its own, by which its signals are known.

use std::collections::{BTreeMap, BTreeSet};

use gantry_engine::api::{BulkAction, BulkRequest, Bulks as _, Caller};
use gantry_engine::core::apply::Place;
use gantry_engine::lifecycle::bulk::BulkState;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::letter;
use gantry_proto::{BulkId, ErrorCode, PartitionId, PrincipalId, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Verdict, broken};
use crate::world::World;

const INVARIANT: &str = "a bulk operation acts upon each workflow once, and what it says adds up";

/// Numbers of principals begin here; others are small.
const PRINCIPALS: u64 = 1 << 20;

#[derive(Default)]
pub(crate) struct Bulk {
    place: usize,
    asked: u64,
    /// Acknowledged.
    started: BTreeSet<BulkId>,
    /// Workflows that letters named.
    sent: BTreeSet<(BulkId, WorkflowId)>,
    /// By whom each was asked for.
    by: BTreeMap<BulkId, PrincipalId>,
    /// Signals that workflows got by them.
    signals: BTreeSet<(PrincipalId, WorkflowId)>,
}

impl Bulk {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            ..Self::default()
        }
    }

    fn caller(number: u64) -> Caller {
        Caller {
            principal: PrincipalId::new(1, PartitionId::default(), PRINCIPALS + number),
            ..names::caller()
        }
    }
}

impl Operation for Bulk {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn definitions(&self) -> &'static [&'static str] {
        &["{name: bulk, tasks: {w: {signal: {name: go, timeout: 40s}}, t: {needs: w, run: 'true'}}}"]
    }

    fn weight(&self, _: &Climate) -> u64 {
        4
    }

    fn act(&mut self, world: &mut World) {
        let started: Vec<BulkId> = self.started.iter().copied().collect();
        if world.dice.chance(200)
            && let Some(bulk) = world.dice.pick(&started).copied()
        {
            world.call(self.place, u64::MAX, |engine| async move {
                Reply::Bulk(engine.cancel_bulk(names::caller(), bulk).await.map(|view| view.id))
            });
            return;
        }
        let number = self.asked;
        self.asked += 1;
        let request = BulkRequest {
            caller: Self::caller(number),
            action: BulkAction::Signal {
                signal: "go".to_owned(),
                payload: serde_json::Value::Null,
            },
            filter: match world.dice.below(3) {
                0 => "true".to_owned(),
                1 => "state in ['active', 'paused'] && name == 'bulk'".to_owned(),
                _ => "name == 'bulk'".to_owned(),
            },
            comment: None,
            rate: Some(1_000),
            // The same key again finds the same operation, whoever answered before.
            idempotency_key: world.dice.chance(500).then(|| format!("bulk-{number}")),
        };
        world.call(self.place, number, |engine| async move {
            Reply::Bulk(engine.start_bulk(request).await.map(|view| view.id))
        });
    }

    fn answered(&mut self, _: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        match reply {
            Reply::Bulk(Ok(bulk)) if tag != u64::MAX => {
                self.started.insert(bulk);
                Ok(())
            }
            Reply::Bulk(Err(refusal)) => match refusal.code {
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded => Ok(()),
                _ => Err(broken(INVARIANT, format!("{refusal:?}"))),
            },
            _ => Ok(()),
        }
    }

    fn recorded(&mut self, _: &Facts, place: &Place, kind: &Kind) -> Verdict {
        match kind {
            Kind::BulkRequested(event) => {
                self.by.insert(event.bulk, event.by);
            }
            Kind::MessageSent(sent) => {
                let Some(letter::Kind::BulkItems(items)) = &sent.letter.kind else {
                    return Ok(());
                };
                for workflow in &items.workflows {
                    if !self.sent.insert((items.bulk, *workflow)) {
                        return Err(format!("{} sends for {workflow} a second time", items.bulk));
                    }
                }
            }
            Kind::SignalReceived(event) if self.by.values().any(|by| *by == event.by) => {
                let workflow = place.workflow.unwrap_or_default();
                if !self.signals.insert((event.by, workflow)) {
                    return Err(format!("{workflow} gets a second signal of {}", event.by));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn quiet(&self, world: &World) -> Verdict {
        for bulk in &self.started {
            let fold = world.oracle.facts.folds.get(&bulk.partition());
            let Some(row) = fold.and_then(|fold| fold.bulks.get(bulk)) else {
                return Err(format!("{bulk} was acknowledged, and is not there"));
            };
            if !matches!(row.state(), BulkState::Completed | BulkState::Cancelled) {
                return Err(format!("{bulk} is {} when nothing is under way", row.state()));
            }
            let sent = self.sent.iter().filter(|(of, _)| of == bulk).count() as u64;
            let signals = self.signals.iter().filter(|(by, _)| *by == row.by).count() as u64;
            let reported = row.done + row.skipped + row.failed;
            if (row.matched, reported, row.done) != (sent, sent, signals) {
                return Err(format!(
                    "{bulk} sent for {sent} workflows and {signals} got a signal, but it says {} matched, {} done, {} skipped, {} refused",
                    row.matched, row.done, row.skipped, row.failed
                ));
            }
        }
        Ok(())
    }
}
