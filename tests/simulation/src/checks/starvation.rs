//! Nobody is overtaken by an equal that came later, nor by one of higher priority that came later than the bound of aging.

use gantry_engine::core::queue::rank;
use gantry_engine::core::state::{Task, Workflow};
use gantry_proto::v1::event::Kind;
use gantry_proto::{WorkflowId, limits};

use super::Check;
use crate::oracle::{Seen, Verdict};

#[derive(Default)]
pub(crate) struct Starvation;

/// Bound to a node by its workspace: its turn depends on that node.
fn bound(name: &str, task: &Task) -> bool {
    task.row.home.is_some() || name == "hand"
}

/// The less, the sooner.
fn standing(workflow: &Workflow, since_ms: u64) -> u64 {
    rank(since_ms, workflow.row.priority.unwrap_or(limits::PRIORITY_DEFAULT))
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
        let name = &workflow.row.name;
        let since = mine.row.queued_at_ms.map(|since| standing(workflow, since));
        if bound(name, mine) {
            return Ok(());
        }
        // The same task of the same definition asks for the same of its node, with the same priority.
        let equal = |(id, other): &(&WorkflowId, &Workflow)| other.row.name == *name && !seen.state.is_paused(**id);
        for (id, other) in seen.state.workflows.iter().filter(equal) {
            let Some(task) = other.tasks.get(claimed.1 as usize) else {
                continue;
            };
            let waits = task.row.queued_at_ms.filter(|_| !bound(name, task));
            let waits = waits.map(|since| standing(other, since));
            if let Some(waits) = waits
                && (waits, (*id, claimed.1)) < (since.unwrap_or(u64::MAX), claimed)
            {
                return Err(format!(
                    "{claimed:?} was placed on {} before {}, whose rank is {waits}, not {since:?}",
                    event.holder, task.row.id
                ));
            }
        }
        Ok(())
    }
}
