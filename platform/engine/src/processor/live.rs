//! Which step attempts are live, for the paths that must not wait for a batch: output, progress and artifacts.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_proto::v1::Assignee;
use gantry_proto::{NodeId, TaskId};
use parking_lot::RwLock;
use tokio::sync::OwnedRwLockReadGuard;

use crate::api::Verdict;
use crate::core::PartitionState;

/// Live attempts of a partition by task. An attempt enters when its assignment is durable, and leaves when its end is durable. In between, while its
/// end is decided and not durable, nothing is said about it: the end may yet be lost with a failed commit.
#[derive(Debug, Default)]
pub struct LiveTable {
    /// `None` while the partition is not owned: then nothing can be said.
    inner: RwLock<Option<HashMap<TaskId, Live>>>,
}

#[derive(Debug)]
struct Live {
    node: NodeId,
    assignee: Assignee,
    ending: bool,
    /// Read-locked by whoever stores output of the attempt.
    writers: Arc<tokio::sync::RwLock<()>>,
}

impl Live {
    fn new(node: NodeId, assignee: Assignee) -> Self {
        Self {
            node,
            assignee,
            ending: false,
            writers: Arc::default(),
        }
    }
}

/// Leave to store output: while it is held, the end of the attempt does not become durable.
#[derive(Debug)]
pub enum Writing {
    /// The attempt is live.
    Live(OwnedRwLockReadGuard<()>),
    /// It is not.
    Stale,
}

impl LiveTable {
    /// Whether exactly this attempt is live at this node; `None` while that cannot be said.
    #[must_use]
    pub fn check(&self, node: NodeId, assignee: &Assignee) -> Option<Verdict> {
        self.writing(node, assignee).map(|writing| match writing {
            Writing::Live(_) => Verdict::Accepted,
            Writing::Stale => Verdict::Stale,
        })
    }

    /// Keeps the end of a live attempt back while its output is stored; `None` while nothing can be said.
    #[must_use]
    pub fn writing(&self, node: NodeId, assignee: &Assignee) -> Option<Writing> {
        let inner = self.inner.read();
        let live = inner.as_ref()?.get(&assignee.task);
        match live.filter(|live| live.node == node && live.assignee == *assignee) {
            None => Some(Writing::Stale),
            Some(live) if live.ending => None,
            // Only an end locks it, which has then just begun.
            Some(live) => Arc::clone(&live.writers).try_read_owned().ok().map(Writing::Live),
        }
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
                live.insert(task.row.id, Live::new(holder, assignee));
            }
        }
        *self.inner.write() = Some(live);
    }

    pub(super) fn disown(&self) {
        *self.inner.write() = None;
    }

    pub(super) fn insert(&self, node: NodeId, assignee: Assignee) {
        if let Some(live) = self.inner.write().as_mut() {
            live.insert(assignee.task, Live::new(node, assignee));
        }
    }

    /// The end of the task's attempt is decided: no further output is taken, and what is being stored is stored when this returns.
    pub(super) async fn end(&self, task: TaskId) {
        let writers = {
            let mut inner = self.inner.write();
            inner.as_mut().and_then(|live| live.get_mut(&task)).map(|live| {
                live.ending = true;
                Arc::clone(&live.writers)
            })
        };
        if let Some(writers) = writers {
            drop(writers.write().await);
        }
    }

    pub(super) fn remove(&self, task: TaskId) {
        if let Some(live) = self.inner.write().as_mut() {
            live.remove(&task);
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::{PartitionId, TenantId, WorkflowId};

    use super::*;

    fn attempt() -> (NodeId, Assignee) {
        let partition = PartitionId::default();
        let assignee = Assignee {
            tenant: TenantId::nil(),
            workflow: WorkflowId::new(1, partition, 1),
            task: TaskId::new(1, partition, 2),
            fence: 1,
            step: 0,
            attempt: 1,
        };
        (NodeId::new(1, partition, 3), assignee)
    }

    #[tokio::test]
    async fn an_end_waits_for_output_and_nothing_is_said_until_it_is_durable() {
        let (node, assignee) = attempt();
        let table = LiveTable {
            inner: RwLock::new(Some(HashMap::new())),
        };
        table.insert(node, assignee.clone());
        let writing = table.writing(node, &assignee).unwrap();
        assert!(matches!(writing, Writing::Live(_)));
        {
            let end = table.end(assignee.task);
            tokio::pin!(end);
            assert!(futures_util::poll!(&mut end).is_pending(), "output is being stored");
            assert_eq!(table.check(node, &assignee), None, "the end may yet be lost");
            assert!(table.writing(node, &assignee).is_none(), "no further output");
            drop(writing);
            end.await;
        }
        assert_eq!(table.check(node, &assignee), None);
        table.remove(assignee.task);
        assert_eq!(table.check(node, &assignee), Some(Verdict::Stale));
    }
}
