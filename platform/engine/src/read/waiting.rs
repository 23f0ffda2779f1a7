//! Why a task does not run though it has not ended. Answered for every such task.

use std::collections::{BTreeMap, BTreeSet};

use super::workflow::{Loaded, items_view};
use crate::api::{Candidate, FailureView, TaskState, WaitingView};
use crate::core::placement::{bound_to, missing};
use crate::core::rows::NodeRow;
use crate::core::state::TaskRef;

/// Positions of a workflow's tasks in its partition's ready queue.
pub(crate) type Queue = BTreeMap<TaskRef, u32>;

impl Loaded {
    /// Whether any task waits.
    pub(crate) fn waits(&self) -> bool {
        self.workflow
            .tasks
            .iter()
            .any(|task| matches!(task.row.state(), TaskState::Pending | TaskState::Ready))
    }

    /// Says of each waiting task why it waits.
    pub(crate) fn explain(&mut self, offers: &[Candidate], queue: &Queue, degraded: &[NodeRow]) {
        for index in 0..self.workflow.tasks.len() {
            let row = &self.workflow.tasks[index].row;
            let waiting = match row.state() {
                TaskState::Pending => Some(self.pending(index)),
                TaskState::Ready => Some(self.placement(index, offers, queue, degraded)),
                _ => None,
            };
            self.view.tasks[index].waiting = waiting;
        }
    }

    fn pending(&self, index: usize) -> WaitingView {
        let row = &self.workflow.tasks[index].row;
        if let Some(workflow) = row.open_child() {
            return WaitingView::Child { workflow };
        }
        if row.fan_seq.is_some() {
            let items = items_view(&self.workflow, row.index);
            return WaitingView::Items {
                done: items.completed + items.failed,
                total: items.total,
            };
        }
        if let Some(until_ms) = row.wait_until_ms {
            return WaitingView::RetryBackoff { until_ms };
        }
        match row.origin {
            // Its needs have ended, or it would not be there.
            Some(origin) => {
                let before = self.workflow.items(origin).take_while(|item| item.row.item < row.item);
                let ahead = before.filter(|item| item.row.is_unbegun()).count();
                WaitingView::Parallelism {
                    ahead: u32::try_from(ahead).unwrap_or(u32::MAX),
                }
            }
            None => self.needs(index),
        }
    }

    fn needs(&self, index: usize) -> WaitingView {
        let needs = self.workflow.body.as_ref().and_then(|body| body.needs.get(index));
        let open = needs
            .into_iter()
            .flatten()
            .filter_map(|need| self.workflow.tasks.get(*need));
        WaitingView::Needs {
            tasks: open
                .filter(|task| !task.row.is_ended())
                .map(|task| task.row.name.clone())
                .collect(),
        }
    }

    fn placement(&self, index: usize, offers: &[Candidate], queue: &Queue, degraded: &[NodeRow]) -> WaitingView {
        let workflow = &self.workflow;
        let bound = bound_to(workflow, index);
        if let Some(node) = bound.filter(|node| offers.iter().all(|offer| offer.node != *node)) {
            return WaitingView::WorkspaceNode { node };
        }
        let definition = workflow.definition(index);
        let lacks: Vec<(&Candidate, Vec<String>)> = offers
            .iter()
            .filter(|offer| bound.is_none_or(|node| node == offer.node))
            .map(|offer| {
                let lacks = definition.map_or_else(Vec::new, |(_, task)| missing(workflow.row.tenant, task, offer));
                (offer, lacks)
            })
            .collect();
        let fault_of = |offer: &Candidate| degraded.iter().find(|node| node.id == offer.node);
        // A degraded node takes nothing, however much room it has: only the others can be waited for.
        let (impaired, fit): (Vec<_>, Vec<_>) = lacks
            .iter()
            .filter(|(_, lacks)| lacks.is_empty())
            .partition(|(offer, _)| fault_of(offer).is_some());
        if !fit.is_empty() {
            let reference = (workflow.row.id, workflow.tasks[index].row.index);
            return WaitingView::Capacity {
                queue_position: queue.get(&reference).copied().unwrap_or(0),
            };
        }
        if !impaired.is_empty() {
            let faults = impaired
                .iter()
                .filter_map(|(offer, _)| fault_of(offer)?.fault.as_ref())
                .map(|fault| FailureView {
                    code: fault.code.clone(),
                    message: fault.message.clone(),
                    hint: fault.hint.clone(),
                });
            return WaitingView::NodesDegraded {
                faults: faults.collect(),
            };
        }
        if lacks.is_empty() {
            return WaitingView::NoNode;
        }
        // What the nearest node lacks is what would have to be added.
        let nearest = lacks.iter().map(|(_, lack)| lack.len()).min().unwrap_or(0);
        let missing: BTreeSet<String> = lacks
            .into_iter()
            .filter(|(_, lack)| lack.len() == nearest)
            .flat_map(|(_, lack)| lack)
            .collect();
        WaitingView::Unplaceable {
            missing: missing.into_iter().collect(),
        }
    }
}
