//! A node that connected says what it holds of this partition's work: each is kept or refused, and what it does not name is lost.

use std::collections::BTreeSet;

use gantry_proto::v1::{Assignee, HeldVerdict, LeaseEnd};
use gantry_proto::{NodeId, TaskId};

use super::{Outcome, Reply, live, reported};
use crate::core::decide::{Batching, Inputs};
use crate::core::state::TaskRef;

/// A node says what it holds.
#[derive(Debug, Clone)]
pub struct Reconcile {
    /// Who.
    pub node: NodeId,
    /// What it holds of this partition.
    pub holding: Vec<Assignee>,
    /// Tasks of this partition whose workspaces it keeps.
    pub workspaces: Vec<TaskId>,
}

impl Reconcile {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let mut kept: Vec<TaskRef> = Vec::new();
        let mut verdicts = Vec::with_capacity(self.holding.len());
        for assignee in self.holding {
            let task = live(batch.state, self.node, &assignee);
            kept.extend(task);
            // A result that is journaled already is kept too: the node sends it again, gets the acknowledgement that was lost, and keeps the layer.
            let keep = task.is_some() || reported(batch.state, self.node, &assignee);
            verdicts.push(HeldVerdict {
                assignee,
                keep,
                output_seq: None,
            });
        }
        let held: Vec<TaskRef> = batch
            .state
            .held
            .get(&self.node)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        for task in held.into_iter().filter(|task| !kept.contains(task)) {
            batch.lose(task, LeaseEnd::Lost, "its node came back without it")?;
        }
        // An order to end what is kept may have been lost with a stream or a process.
        for task in kept {
            batch.order_cancel(task);
        }
        // An order to release may have been lost with a process: what no active workflow names is needed no more.
        let active: BTreeSet<TaskId> = batch
            .state
            .workflows
            .values()
            // Workers keep no workspaces: nothing is asked then.
            .filter(|_| !self.workspaces.is_empty())
            .flat_map(|workflow| &workflow.tasks)
            .map(|task| task.row.id)
            .collect();
        let release = self
            .workspaces
            .into_iter()
            .filter(|task| !active.contains(task))
            .collect();
        Ok(Ok(Reply::Held { verdicts, release }))
    }
}
