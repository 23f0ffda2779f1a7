//! Which step attempts are live, for the paths that must not wait for a batch: output, progress and artifacts.

use std::collections::HashMap;

use gantry_proto::v1::Assignee;
use gantry_proto::{NodeId, TaskId};
use parking_lot::RwLock;

use crate::api::Verdict;
use crate::core::PartitionState;

/// Live attempts of a partition by task. An attempt enters when its assignment is durable, and leaves when its end is decided.
#[derive(Debug, Default)]
pub struct LiveTable {
    /// `None` while the partition is not owned: then nothing can be said.
    inner: RwLock<Option<HashMap<TaskId, (NodeId, Assignee)>>>,
}

impl LiveTable {
    /// Whether exactly this attempt is live at this node; `None` while that cannot be said.
    #[must_use]
    pub fn check(&self, node: NodeId, assignee: &Assignee) -> Option<Verdict> {
        let inner = self.inner.read();
        let live = inner
            .as_ref()?
            .get(&assignee.task)
            .is_some_and(|(holder, each)| *holder == node && each == assignee);
        Some(if live { Verdict::Accepted } else { Verdict::Stale })
    }

    /// Whether the partition is owned.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        self.inner.read().is_some()
    }

    pub(super) fn own(&self, state: &PartitionState) {
        let mut live = HashMap::new();
        for (id, workflow) in &state.workflows {
            for task in &workflow.tasks {
                let Some((holder, (step, open))) = task.row.holder.zip(task.row.open()) else {
                    continue;
                };
                let assignee = Assignee {
                    tenant: workflow.row.tenant,
                    workflow: *id,
                    task: task.row.id,
                    fence: task.row.fence,
                    step: u32::try_from(step).unwrap_or(u32::MAX),
                    attempt: open.attempt,
                };
                live.insert(task.row.id, (holder, assignee));
            }
        }
        *self.inner.write() = Some(live);
    }

    pub(super) fn disown(&self) {
        *self.inner.write() = None;
    }

    pub(super) fn insert(&self, node: NodeId, assignee: Assignee) {
        if let Some(live) = self.inner.write().as_mut() {
            live.insert(assignee.task, (node, assignee));
        }
    }

    pub(super) fn remove(&self, task: TaskId) {
        if let Some(live) = self.inner.write().as_mut() {
            live.remove(&task);
        }
    }
}
