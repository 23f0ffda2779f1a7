//! Why a task does not run though it has not ended. Answered for every such task.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::v1::WaitKind;

use super::workflow::{Loaded, items_view};
use crate::api::{Candidate, FailureView, PauseScope, TaskState, WaitingView};
use crate::core::placement::{bound_to, missing};
use crate::core::rows::NodeRow;
use crate::core::state::TaskRef;
use crate::spec::definition::{DecidersDef, TaskKind};

/// Positions of a workflow's tasks in its partition's ready queue.
pub(crate) type Queue = BTreeMap<TaskRef, u32>;

impl Loaded {
    /// Whether any task waits.
    pub(crate) fn waits(&self) -> bool {
        self.workflow
            .tasks
            .iter()
            .any(|task| task.row.holder.is_none() && !task.row.is_ended())
    }

    /// Says of each waiting task why it waits.
    pub(crate) fn explain(&mut self, offers: &[Candidate], queue: &Queue, degraded: &[NodeRow]) {
        for index in 0..self.workflow.tasks.len() {
            let row = &self.workflow.tasks[index].row;
            let waiting = match row.state() {
                TaskState::Ready if self.view.paused.is_some() => self.paused(),
                TaskState::Ready => Some(self.placement(index, offers, queue, degraded)),
                _ if row.holder.is_some() || row.is_ended() => None,
                _ => self.waits_for(index),
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

    /// What a task waits for that no node could give it.
    fn waits_for(&self, index: usize) -> Option<WaitingView> {
        let row = &self.workflow.tasks[index].row;
        let kind = row.wait_kind.and_then(|kind| WaitKind::try_from(kind).ok());
        let definition = self.workflow.definition(index).map(|(_, definition)| &definition.kind);
        let said = || self.reasons.get(&index).cloned().unwrap_or_default();
        match (kind, definition) {
            (Some(WaitKind::Exhausted), _) => {
                let steps = &self.view.tasks[index].steps;
                let current = row.current().and_then(|(current, _)| steps.get(current));
                let last = current.and_then(|step| step.attempts.last());
                let code = last.and_then(|last| last.failure.as_ref().map(|failure| failure.code.clone()));
                Some(WaitingView::Exhausted {
                    failure: FailureView {
                        code: code.unwrap_or_default(),
                        message: said(),
                        hint: None,
                    },
                })
            }
            (None, _) => match &row.escalated {
                Some(code) => Some(WaitingView::Escalated {
                    failure: FailureView {
                        code: code.clone(),
                        message: said(),
                        hint: None,
                    },
                }),
                None => Some(match (self.pending(index), self.paused()) {
                    (WaitingView::Needs { tasks }, Some(paused)) if tasks.is_empty() => paused,
                    (needs, _) => needs,
                }),
            },
            (Some(WaitKind::Child | WaitKind::Items), _) => Some(self.pending(index)),
            (Some(WaitKind::RunTimer), _) => Some(WaitingView::CodeSleeps {
                until_ms: row.wait_until_ms.unwrap_or_default(),
            }),
            (Some(WaitKind::Sleep), _) => Some(WaitingView::Sleep {
                until_ms: row.wait_until_ms.unwrap_or_default(),
            }),
            (Some(WaitKind::Signal), definition) => Some(WaitingView::Signal {
                name: match definition {
                    Some(TaskKind::Signal(signal)) => signal.name.clone(),
                    _ => String::new(),
                },
                until_ms: row.wait_until_ms,
            }),
            (Some(WaitKind::Approval), definition) => {
                let by = match definition {
                    Some(TaskKind::Approval(approval)) => approval.by.clone(),
                    _ => DecidersDef::default(),
                };
                Some(WaitingView::Approval {
                    message: said(),
                    scopes: by.scopes,
                    keys: by.keys,
                    until_ms: row.wait_until_ms,
                })
            }
            (Some(WaitKind::RetryBackoff | WaitKind::NodeRefused | WaitKind::Infrastructure), _) => {
                let steps = &self.view.tasks[index].steps;
                let current = row.current().and_then(|(current, _)| steps.get(current));
                let last = current.and_then(|step| step.attempts.last());
                Some(WaitingView::RetryBackoff {
                    until_ms: row.wait_until_ms.unwrap_or_default(),
                    attempt: last.map_or(1, |last| last.attempt + 1),
                    failure: last.and_then(|last| last.failure.clone()),
                })
            }
        }
    }

    fn paused(&self) -> Option<WaitingView> {
        self.view.paused.clone().map(|pause| WaitingView::Paused {
            scope: PauseScope::Workflow,
            pause,
        })
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
