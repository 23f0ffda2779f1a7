//! Results that are judged: accepted, reworked, rejected; late, twice, and about a round that is over.

use std::collections::{BTreeMap, BTreeSet};

use gantry_engine::api::{Backend as _, DeciderScope, DecisionRequest, TaskDecision, TaskState};
use gantry_engine::core::apply::Place;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{Decision, WaitKind};
use gantry_proto::{ErrorCode, TaskId, WorkflowId};

use crate::client::Reply;
use crate::climate::Climate;
use crate::names;
use crate::operations::Operation;
use crate::oracle::{Broken, Facts, Verdict, broken};
use crate::world::World;

const INVARIANT: &str = "a result is judged once, in its round, and reworked as often as it may be";

/// Name of the definitions below, and the reworks that they allow.
const NAME: &str = "judged";
const REWORKS: u32 = 2;

pub(crate) struct Assess {
    place: usize,
    asked: Vec<(WorkflowId, TaskDecision)>,
    /// Reworks since the last retry, by task.
    reworks: BTreeMap<TaskId, u32>,
    /// Tasks whose result waits to be judged.
    pending: BTreeSet<TaskId>,
}

impl Assess {
    pub(crate) fn at(place: usize) -> Self {
        Self {
            place,
            asked: Vec::new(),
            reworks: BTreeMap::new(),
            pending: BTreeSet::new(),
        }
    }
}

impl Operation for Assess {
    fn invariant(&self) -> &'static str {
        INVARIANT
    }

    fn definitions(&self) -> &'static [&'static str] {
        &[
            "{name: judged, tasks: {t: {assess: {deadline: 5m, on_deadline: accept, max_reworks: 2}, steps: [{run: 'true'}, {run: 'echo {{ rework.feedback }}'}]}, u: {needs: [t], steps: [{run: 'true'}]}}}",
            "{name: judged, tasks: {t: {deadline: 10m, assess: {deadline: 2m, on_deadline: escalate, max_reworks: 2, exhausted: escalate}, steps: [{run: 'true'}]}}}",
        ]
    }

    fn weight(&self, _: &Climate) -> u64 {
        15
    }

    fn act(&mut self, world: &mut World) {
        let judged = world
            .oracle
            .facts
            .active_all()
            .filter(|workflow| workflow.row.name == NAME);
        // What waits to be judged, above all; and any other, which must refuse it.
        let (open, others): (Vec<_>, Vec<_>) = judged
            .map(|workflow| {
                (
                    workflow.row.id,
                    workflow.tasks[0].row.state(),
                    workflow.tasks[0].row.round,
                )
            })
            .partition(|(_, state, _)| matches!(state, TaskState::OutputPendingAssessment | TaskState::Escalated));
        let from = if open.is_empty() || world.dice.chance(100) {
            &others
        } else {
            &open
        };
        let Some((workflow, _, round)) = world.dice.pick(from).copied() else {
            return;
        };
        let round = world
            .dice
            .chance(500)
            .then(|| round.saturating_sub(u32::from(world.dice.chance(200))));
        let decision = match world.dice.below(10) {
            0..=3 => TaskDecision::Rework { round },
            4 | 5 => TaskDecision::Accept { round },
            6 => TaskDecision::Reject,
            7 => TaskDecision::Fail,
            8 => TaskDecision::Resolve {
                outputs: serde_json::Map::new(),
            },
            _ => TaskDecision::Retry {
                env: Default::default(),
                params: serde_json::Map::new(),
            },
        };
        self.asked.push((workflow, decision.clone()));
        let request = DecisionRequest {
            task: "t".to_owned(),
            scope: DeciderScope::Operate,
            decision,
            comment: Some("once more".to_owned()),
        };
        world.call(self.place, self.asked.len() as u64 - 1, |engine| async move {
            Reply::Decided(engine.decide(names::caller(), workflow, request).await)
        });
    }

    fn answered(&mut self, world: &mut World, tag: u64, reply: Reply) -> Result<(), Broken> {
        let index = usize::try_from(tag).unwrap_or(usize::MAX);
        let Some((workflow, decision)) = self.asked.get(index) else {
            return Ok(());
        };
        let ended = |state: TaskState| match decision {
            TaskDecision::Accept { .. } | TaskDecision::Resolve { .. } => state == TaskState::Completed,
            TaskDecision::Reject | TaskDecision::Fail => state == TaskState::Failed,
            _ => true,
        };
        match reply {
            Reply::Decided(Ok(state)) if ended(state) => {
                let facts = &world.oracle.facts;
                let active = facts
                    .active(*workflow)
                    .map(|workflow| workflow.tasks[0].row.decision.clone());
                let gone = || facts.ended.get(workflow).map(|ended| ended.tasks[0].decision.clone());
                match active.or_else(gone).flatten() {
                    Some(_) => Ok(()),
                    None => Err(broken(
                        INVARIANT,
                        format!("{decision:?} of {workflow} was acknowledged and is not durable"),
                    )),
                }
            }
            Reply::Decided(Ok(state)) => Err(broken(INVARIANT, format!("after {decision:?} {workflow} is {state}"))),
            Reply::Decided(Err(refusal)) => match refusal.code {
                ErrorCode::StorageUnavailable | ErrorCode::Overloaded | ErrorCode::Conflict => Ok(()),
                _ => Err(broken(INVARIANT, format!("{workflow}: {refusal:?}"))),
            },
            _ => Ok(()),
        }
    }

    fn recorded(&mut self, facts: &Facts, place: &Place, kind: &Kind) -> Verdict {
        if place.workflow.is_none_or(|id| facts.name(id) != Some(NAME)) {
            return Ok(());
        }
        if let Kind::TaskDecided(event) = kind {
            self.pending.remove(&event.task);
        }
        match kind {
            Kind::TaskWaiting(event) if event.kind == i32::from(WaitKind::Assessment) => {
                if self.pending.insert(event.task) {
                    Ok(())
                } else {
                    Err(format!("the result of {} is there a second time", event.task))
                }
            }
            Kind::TaskEscalated(event) => {
                self.pending.remove(&event.task);
                Ok(())
            }
            Kind::TaskDecided(event) if event.decision() == Decision::Retry => {
                self.reworks.remove(&event.task);
                Ok(())
            }
            Kind::TaskDecided(event) if event.decision() == Decision::Rework => {
                let reworks = self.reworks.entry(event.task).or_default();
                *reworks += u32::from(!event.over());
                match (*reworks, event.over()) {
                    (reworks, _) if reworks > REWORKS => Err(format!("{} is reworked {reworks} times", event.task)),
                    (reworks, true) if reworks < REWORKS => Err(format!("{} may be reworked still", event.task)),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
