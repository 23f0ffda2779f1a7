//! At most one live fence per task, and only its holder's word counts.

use std::collections::BTreeMap;

use gantry_proto::v1::event::Kind;
use gantry_proto::{NodeId, TaskId};

use super::Check;
use crate::oracle::{Seen, Verdict};

#[derive(Debug, Default, Clone, Copy)]
struct Fence {
    newest: u64,
    live: Option<NodeId>,
}

#[derive(Default)]
pub(crate) struct Fences {
    tasks: BTreeMap<TaskId, Fence>,
}

impl Fences {
    fn live(&self, task: TaskId, fence: u64, what: &str) -> Verdict {
        let known = self.tasks.get(&task).copied().unwrap_or_default();
        if known.live.is_some() && known.newest == fence {
            Ok(())
        } else {
            Err(format!("{what} of {task} under fence {fence}, while {known:?}"))
        }
    }
}

impl Check for Fences {
    fn invariant(&self) -> &'static str {
        "at most one live fence per task"
    }

    fn before(&mut self, seen: &Seen<'_>) -> Verdict {
        match seen.kind {
            Kind::TaskClaimed(event) => {
                let fence = self.tasks.entry(event.task).or_default();
                if let Some(holder) = fence.live {
                    return Err(format!(
                        "{} is leased to {} while {holder} holds fence {}",
                        event.task, event.holder, fence.newest
                    ));
                }
                if event.fence <= fence.newest {
                    return Err(format!(
                        "{} gets fence {} after {}",
                        event.task, event.fence, fence.newest
                    ));
                }
                *fence = Fence {
                    newest: event.fence,
                    live: Some(event.holder),
                };
            }
            Kind::LeaseEnded(event) => {
                self.live(event.task, event.fence, "an end of the lease")?;
                self.tasks.entry(event.task).or_default().live = None;
            }
            Kind::StepAssigned(event) => self.live(event.task, event.fence, "an assignment")?,
            Kind::StepRunning(event) => self.live(event.task, event.fence, "a start")?,
            // Attempt 0: its plan could not be made, with or without a lease.
            Kind::StepEnded(event) if event.attempt > 0 => self.live(event.task, event.fence, "an end of a step")?,
            Kind::TaskEnded(event) => {
                if let Some(holder) = self.tasks.get(&event.task).and_then(|fence| fence.live) {
                    return Err(format!("{} ends while {holder} holds it", event.task));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
