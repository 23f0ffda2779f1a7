//! Retries: as often as was asked for, after the pause that was asked for.

use std::collections::BTreeMap;

use gantry_engine::core::apply::Place;
use gantry_proto::TaskId;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{StepEnd, WaitKind};

use crate::climate::Climate;
use crate::operations::Operation;
use crate::oracle::{Facts, Verdict};
use crate::world::World;

/// Attempts of the first step of the definition below, and its first pause.
const ATTEMPTS: u32 = 3;
const BACKOFF_MS: u64 = 1_000;

#[derive(Default)]
pub(crate) struct Retry {
    failed: BTreeMap<(TaskId, u32), u32>,
}

impl Operation for Retry {
    fn invariant(&self) -> &'static str {
        "a step is retried as often and as late as its definition says"
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: retry, tasks: {t: {steps: [{run: 'true', retry: {attempts: 3, backoff: 1s}}, {run: 'true'}]}}}",
            "{name: retry, tasks: {t: {steps: [{run: 'true', retry: {attempts: 3, backoff: 1s}}]}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        0
    }

    fn act(&mut self, _: &mut World) {}

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        let Some(workflow) = place.workflow else { return Ok(()) };
        let active = facts.active(workflow).map(|workflow| &workflow.row);
        let row = active.or_else(|| facts.ended.get(&workflow).map(|ended| &ended.row));
        if row.is_none_or(|row| row.name != "retry") {
            return Ok(());
        }
        match kind {
            Kind::StepEnded(event) if event.end == i32::from(StepEnd::Failed) && event.step == 0 => {
                let failed = self.failed.entry((event.task, event.step)).or_default();
                *failed += 1;
                if *failed > ATTEMPTS {
                    return Err(format!("step 0 of {} failed {failed} times", event.task));
                }
            }
            Kind::TaskWaiting(event) if event.kind == i32::from(WaitKind::RetryBackoff) => {
                let waits_ms = event.until_ms.unwrap_or(0).saturating_sub(place.at_ms);
                if waits_ms < BACKOFF_MS {
                    return Err(format!(
                        "{} pauses for {waits_ms} ms, and was to pause for {BACKOFF_MS} ms",
                        event.task
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
