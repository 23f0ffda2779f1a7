//! Concurrency keys and rates: definitions that share them, and what owners of keys may let start.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gantry_engine::core::apply::Place;
use gantry_engine::core::queue::rank;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{LimitClaim, LimitTerms};
use gantry_proto::{TaskId, WorkflowId, limits};

use crate::climate::Climate;
use crate::operations::Operation;
use crate::oracle::{Facts, Verdict};
use crate::world::World;

const INVARIANT: &str = "a limit is never passed, lets start in turn, and is given back";

type Claimant = (WorkflowId, Option<TaskId>);

/// One key, as its owner's records say.
#[derive(Default)]
struct Key {
    /// Who waits, by rank and position of the record that asked.
    waiting: BTreeMap<Claimant, ((u64, u64), LimitTerms)>,
    holding: BTreeSet<Claimant>,
    /// When those started that a rate let start.
    started_ms: Vec<u64>,
}

#[derive(Default)]
pub(crate) struct Limits {
    keys: BTreeMap<Bytes, Key>,
}

fn who(claim: &LimitClaim) -> Claimant {
    (claim.workflow, claim.task)
}

impl Key {
    fn taken(&mut self, who: Claimant, place: &Place, is_rate: bool) -> Verdict {
        let Some((own, terms)) = self.waiting.remove(&who) else {
            return Err(format!("{who:?} starts and did not wait"));
        };
        if let Some((first, _)) = self.waiting.values().find(|(other, _)| *other < own) {
            return Err(format!("{who:?} of rank {own:?} starts before one of {first:?}"));
        }
        if !is_rate {
            self.holding.insert(who);
            if self.holding.len() > terms.limit as usize {
                return Err(format!("{} hold a key of {}", self.holding.len(), terms.limit));
            }
            return Ok(());
        }
        self.started_ms.push(place.at_ms);
        let interval_us = terms.per_ms() * 1_000 / u64::from(terms.limit);
        let burst = terms.burst.unwrap_or(terms.limit) as usize;
        // So many more than the burst take so many intervals.
        for (more, earlier_ms) in (1u64..).zip(self.started_ms.iter().rev().skip(burst)) {
            let passed_us = (place.at_ms - earlier_ms + 1) * 1_000;
            if passed_us < more * interval_us {
                let starts = burst as u64 + more;
                return Err(format!("{starts} starts within {passed_us} us of a rate of {terms:?}"));
            }
        }
        Ok(())
    }
}

impl Operation for Limits {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: keyed, tasks: {t: {concurrency: {key: k, limit: 2}, steps: [{run: 'true'}]}, u: {steps: [{run: 'true'}]}}}",
            "{name: keyed-whole, concurrency: {key: w, limit: 1}, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], steps: [{run: 'true'}]}}}",
            "{name: keyed-twice, priority: 7, tasks: {t: {concurrency: [{key: k, limit: 2}, {key: w, limit: 1}], steps: [{run: 'true'}]}}}",
            "{name: paced, tasks: {t: {rate_limit: {key: r, limit: 2, per: 3s}, steps: [{run: 'true'}]}}}",
            "{name: latest, concurrency: {key: n, limit: 1, on_limit: cancel_running}, tasks: {t: {steps: [{run: 'true'}]}}}",
            "{name: latest-task, tasks: {t: {concurrency: {key: n, limit: 1, on_limit: cancel_running}, steps: [{run: 'true'}]}}}",
            "{name: impatient, on_task_failure: continue, tasks: {t: {concurrency: {key: k, limit: 2, on_limit: refuse}, steps: [{run: 'true'}]}, u: {steps: [{run: 'true'}]}}}",
            "{name: impatient-whole, rate_limit: {key: r, limit: 2, per: 3s, on_limit: refuse}, concurrency: {key: w, limit: 1, on_limit: refuse}, tasks: {t: {steps: [{run: 'true'}]}}}",
        ]
    }

    /// They are submitted like all others.
    fn weight(&self, _: &Climate) -> u64 {
        0
    }

    fn act(&mut self, _: &mut World) {}

    fn recorded(&mut self, _: &Facts, place: &Place, kind: &Kind) -> Verdict {
        match kind {
            Kind::LimitAsked(event) => {
                let key = self.keys.entry(event.claim.key.clone()).or_default();
                let priority = event.priority.unwrap_or(limits::PRIORITY_DEFAULT);
                let rank = (rank(place.at_ms, priority), place.seq);
                key.waiting.insert(who(&event.claim), (rank, event.terms));
            }
            Kind::LimitTaken(event) => {
                let key = self.keys.entry(event.claim.key.clone()).or_default();
                return key.taken(who(&event.claim), place, event.arrival_us.is_some());
            }
            Kind::LimitLeft(event) => {
                let key = self.keys.entry(event.claim.key.clone()).or_default();
                key.waiting.remove(&who(&event.claim));
                key.holding.remove(&who(&event.claim));
            }
            _ => {}
        }
        Ok(())
    }

    fn at_rest(&self) -> bool {
        self.keys
            .values()
            .all(|key| key.waiting.is_empty() && key.holding.is_empty())
    }

    fn quiet(&self, world: &World) -> Verdict {
        let left = world.oracle.facts.folds.values().map(|fold| fold.limits.claims());
        match left.sum::<usize>() {
            0 => Ok(()),
            left => Err(format!("{left} wait for limits or hold them, and all have ended")),
        }
    }
}
