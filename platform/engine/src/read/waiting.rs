//! Why a task does not run though it has not ended. Answered for every such task.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::TaskId;
use gantry_proto::v1::WaitKind;

use super::workflow::{Loaded, handled, items_view};
use crate::api::{Candidate, FailureView, LimitKind, LimitScope, PauseScope, TaskState, WaitingView};
use crate::core::flow::limit_key;
use crate::core::limits::Claimant;
use crate::core::placement::{bound_to, missing};
use crate::core::rows::{LimitRow, NodeRow};
use crate::core::scopes::scopes_of;
use crate::core::state::TaskRef;
use crate::spec::definition::{DecidersDef, TaskKind};

/// Where somebody stands who waits for a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many go before it; `None`: its owner has not heard of it.
    pub queue_position: Option<u32>,
    /// How many hold the key.
    pub holders: u32,
    /// When the next one may start, of a rate.
    pub next_ms: Option<u64>,
}

/// By key and who asks.
pub(crate) type Standings = BTreeMap<([u8; 16], Claimant), Standing>;

/// The limit that is asked for.
fn asked(limits: &[LimitRow]) -> Option<&LimitRow> {
    limits.iter().find(|row| !row.granted)
}

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
    pub(crate) fn explain(&mut self, offers: &[Candidate], queue: &Queue, degraded: &[NodeRow], standings: &Standings) {
        for index in 0..self.workflow.tasks.len() {
            let row = &self.workflow.tasks[index].row;
            let waiting = match row.state() {
                TaskState::Ready if self.view.paused.is_some() || self.view.held.is_some() => self.paused(),
                TaskState::Ready => Some(self.placement(index, offers, queue, degraded)),
                _ if row.holder.is_some() || row.is_ended() => None,
                _ => self.waits_for(index, standings),
            };
            self.view.tasks[index].waiting = waiting;
        }
    }

    fn pending(&self, index: usize) -> WaitingView {
        let row = &self.workflow.tasks[index].row;
        if let Some(workflow) = row.open_child() {
            return WaitingView::Child { workflow };
        }
        if let Some(end) = handled(row) {
            return WaitingView::Standby { end };
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
    fn waits_for(&self, index: usize, standings: &Standings) -> Option<WaitingView> {
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
                    (WaitingView::Needs { tasks }, None) if tasks.is_empty() => {
                        let limit = self.limit(None, standings);
                        limit.unwrap_or(WaitingView::Needs { tasks })
                    }
                    (needs, _) => needs,
                }),
            },
            (Some(WaitKind::Limit), _) => self.limit(Some(index), standings),
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
            (Some(WaitKind::Assessment), _) => {
                let assess = self
                    .workflow
                    .definition(index)
                    .and_then(|(_, task)| task.assess.as_ref());
                let by = assess.map_or_else(DecidersDef::default, |assess| assess.by.clone());
                let most = assess.map_or(0, |assess| assess.reworks_max);
                Some(WaitingView::Assessment {
                    message: said(),
                    scopes: by.scopes,
                    keys: by.keys,
                    round: row.round,
                    reworks_left: most.saturating_sub(row.reworks),
                    until_ms: row.wait_until_ms,
                })
            }
            (Some(WaitKind::RetryBackoff), Some(TaskKind::Workflow(_))) => Some(WaitingView::RetryBackoff {
                until_ms: row.wait_until_ms.unwrap_or_default(),
                attempt: row.child_failures + 1,
                failure: Some(FailureView {
                    code: gantry_proto::ErrorCode::ChildFailed.as_str().to_owned(),
                    message: said(),
                    hint: None,
                }),
            }),
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

    /// Definitions and tenants that it is of, which may be paused.
    pub(crate) fn scopes(&self) -> Vec<[u8; 16]> {
        scopes_of(&self.workflow.row)
    }

    /// Limits that are asked for, by key and who asks.
    pub(crate) fn limits_asked(&self) -> Vec<([u8; 16], Claimant)> {
        let id = self.workflow.row.id;
        let tasks = self.workflow.tasks.iter().map(|task| (task.row.id, &task.row.limits));
        let all = tasks.chain([(TaskId::nil(), &self.workflow.row.limits)]);
        all.filter_map(|(task, limits)| Some((asked(limits)?.key[..].try_into().ok()?, (id, task))))
            .collect()
    }

    /// The limit that a task waits for, or the workflow.
    fn limit(&self, index: Option<usize>, standings: &Standings) -> Option<WaitingView> {
        let task = index.map(|index| &self.workflow.tasks[index].row);
        let row = asked(task.map_or(&self.workflow.row.limits, |task| &task.limits))?;
        let id = task.map(|task| task.id);
        let key: [u8; 16] = row.key[..].try_into().ok()?;
        let standing = standings.get(&(key, (self.workflow.row.id, id.unwrap_or_else(TaskId::nil))));
        let is_rate = row.terms.per_ms.is_some();
        Some(WaitingView::Limit {
            key: limit_key(&self.workflow, id, row.position),
            kind: if is_rate {
                LimitKind::Rate
            } else {
                LimitKind::Concurrency
            },
            scope: if id.is_some() {
                LimitScope::Task
            } else {
                LimitScope::Workflow
            },
            limit: row.terms.limit,
            per_ms: row.terms.per_ms,
            holders: standing.filter(|_| !is_rate).map(|standing| standing.holders),
            queue_position: standing.and_then(|standing| standing.queue_position),
            next_ms: standing.and_then(|standing| standing.next_ms),
        })
    }

    fn paused(&self) -> Option<WaitingView> {
        let own = self.view.paused.clone().map(|pause| (PauseScope::Workflow, pause));
        let held = || self.view.held.clone().map(|held| (held.scope, held.pause));
        own.or_else(held)
            .map(|(scope, pause)| WaitingView::Paused { scope, pause })
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
            let assigned = workflow.tasks[index].row.assigned_to == Some(node);
            return match assigned {
                true => WaitingView::AssignedNode { node },
                false => WaitingView::WorkspaceNode { node },
            };
        }
        let wants = workflow.wants(index);
        let lacks: Vec<(&Candidate, Vec<String>)> = offers
            .iter()
            .filter(|offer| bound.is_none_or(|node| node == offer.node))
            .map(|offer| {
                let lacks = wants.map_or_else(Vec::new, |wants| missing(workflow.row.tenant, &wants, offer));
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
