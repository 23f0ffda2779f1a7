//! Everything that grows has a bound.

use std::collections::BTreeMap;

use gantry_proto::v1::StepEnd;
use gantry_proto::v1::event::Kind;
use gantry_proto::{TaskId, limits};

use super::Check;
use crate::oracle::{Seen, Verdict};

#[derive(Default)]
pub(crate) struct Bounds {
    lost: BTreeMap<(TaskId, u32), u32>,
}

impl Check for Bounds {
    fn invariant(&self) -> &'static str {
        "queues and retries are bounded"
    }

    fn before(&mut self, seen: &Seen<'_>) -> Verdict {
        if let Kind::StepEnded(event) = seen.kind
            && event.end == i32::from(StepEnd::Lost)
        {
            let lost = self.lost.entry((event.task, event.step)).or_default();
            *lost += 1;
            if *lost > limits::INFRASTRUCTURE_ATTEMPTS_MAX {
                return Err(format!("step {} of {} was lost {lost} times", event.step, event.task));
            }
        }
        Ok(())
    }
}
