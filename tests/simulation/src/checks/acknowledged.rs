//! What was acknowledged is durable when it is said, and stays.

use std::collections::{BTreeMap, BTreeSet};

use gantry_engine::api::{StepState, WorkflowState};
use gantry_engine::core::rows::TaskRow;
use gantry_engine::processor::load::workflow_rows;
use gantry_proto::WorkflowId;
use gantry_proto::v1::{Assignee, EndCause, StepResult, WorkflowEnd};

use super::Check;
use crate::disk::Disk;
use crate::names;
use crate::oracle::{Facts, Told, Verdict};

#[derive(Default)]
pub(crate) struct Acknowledged {
    workflows: BTreeSet<WorkflowId>,
    cancelled: BTreeSet<WorkflowId>,
    results: BTreeMap<names::AttemptKey, (Assignee, StepState)>,
}

fn attempt_state(row: &TaskRow, assignee: &Assignee) -> Option<StepState> {
    let step = row.steps.get(assignee.step as usize)?;
    let attempt = step
        .attempts
        .iter()
        .find(|each| each.attempt == assignee.attempt && each.fence == assignee.fence)?;
    Some(attempt.state())
}

fn fits(result: &StepResult, state: StepState) -> bool {
    match result.cause() {
        EndCause::Exited if result.exit_code == Some(0) => state == StepState::Completed,
        EndCause::Cancelled => matches!(state, StepState::Cancelled | StepState::Lost),
        EndCause::Lost => state == StepState::Lost,
        _ => state == StepState::Failed,
    }
}

impl Check for Acknowledged {
    fn invariant(&self) -> &'static str {
        "nothing acknowledged is lost, and nothing is told before it is durable"
    }

    fn told(&mut self, facts: &Facts, _: u64, told: &Told<'_>) -> Verdict {
        match told {
            Told::Submitted(workflow) => {
                if !facts.knows(*workflow) {
                    return Err(format!("{workflow} was acknowledged and is not durable"));
                }
                self.workflows.insert(*workflow);
            }
            Told::Cancelled(workflow) => {
                self.cancelled.insert(*workflow);
            }
            Told::Assigned(assignment) => {
                let assignee = &assignment.assignee;
                let row = facts.task(assignee);
                let known = row.is_some_and(|row| {
                    // A lease that was refused takes its attempt out of the row again.
                    attempt_state(row, assignee).is_some() || row.fence > assignee.fence || row.holder.is_none()
                });
                if !known {
                    return Err(format!(
                        "a node was sent an assignment that is not durable: {assignee:?}"
                    ));
                }
            }
            Told::Accepted(assignee, result) => {
                let state = facts.task(assignee).and_then(|row| attempt_state(row, assignee));
                let Some(state) = state.filter(|state| fits(result, *state)) else {
                    return Err(format!(
                        "{result:?} of {assignee:?} was acknowledged; durable is {state:?}"
                    ));
                };
                self.results
                    .insert(names::attempt(assignee), ((*assignee).clone(), state));
            }
            Told::Renewed(..) => {}
        }
        Ok(())
    }

    fn quiet(&mut self, facts: &Facts, disk: &Disk) -> Verdict {
        for id in &self.workflows {
            let rows = workflow_rows(disk.durable(), names::tenant(), *id).map_err(|error| error.to_string())?;
            if rows.is_none() {
                return Err(format!("{id} was acknowledged and is gone"));
            }
        }
        for id in &self.cancelled {
            let row = facts.ended.get(id).map(|ended| &ended.row);
            let state = row.map(gantry_engine::core::rows::WorkflowRow::state);
            // One whose failure was decided has failed; only what handled that is ended.
            let had_failed = row.is_some_and(|row| {
                row.ending
                    .as_ref()
                    .is_some_and(|ending| ending.end() == WorkflowEnd::Failed)
            });
            if state != Some(WorkflowState::Cancelled) && !had_failed {
                return Err(format!(
                    "the cancellation of {id} was acknowledged, and it is {state:?}"
                ));
            }
        }
        for (assignee, state) in self.results.values() {
            let found = facts.task(assignee).and_then(|row| attempt_state(row, assignee));
            if found != Some(*state) {
                return Err(format!("{assignee:?} was acknowledged as {state:?} and is {found:?}"));
            }
        }
        Ok(())
    }
}
