//! Nobody is overtaken by an equal that came later. (The bound of aging joins here with priorities.)

use gantry_engine::core::state::Task;
use gantry_proto::v1::event::Kind;

use super::Check;
use crate::oracle::{Seen, Verdict};

#[derive(Default)]
pub(crate) struct Starvation;

/// Bound to a node by its workspace: its turn depends on that node.
fn bound(name: &str, task: &Task) -> bool {
    task.row.home.is_some() || name == "hand"
}

impl Check for Starvation {
    fn invariant(&self) -> &'static str {
        "nobody starves"
    }

    fn before(&mut self, seen: &Seen<'_>) -> Verdict {
        let Kind::TaskClaimed(event) = seen.kind else {
            return Ok(());
        };
        let Some(claimed) = seen.place.workflow.and_then(|id| seen.state.find(id, event.task)) else {
            return Ok(());
        };
        let Some((workflow, mine)) = seen.state.workflows.get(&claimed.0).zip(seen.state.task(claimed)) else {
            return Ok(());
        };
        let (name, since) = (&workflow.row.name, mine.row.queued_at_ms);
        if bound(name, mine) {
            return Ok(());
        }
        // The same task of the same definition asks for the same of its node, with the same priority.
        for (id, other) in seen.state.workflows.iter().filter(|(_, other)| other.row.name == *name) {
            let Some(task) = other.tasks.get(claimed.1 as usize) else {
                continue;
            };
            let waits = task.row.queued_at_ms.filter(|_| !bound(name, task));
            if let Some(waits) = waits
                && (waits, (*id, claimed.1)) < (since.unwrap_or(u64::MAX), claimed)
            {
                return Err(format!(
                    "{claimed:?} was placed on {} before {}, which waits since {waits}",
                    event.holder, task.row.id
                ));
            }
        }
        Ok(())
    }
}
