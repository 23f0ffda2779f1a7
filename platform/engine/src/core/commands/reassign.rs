//! A person decides where a task runs.

use gantry_proto::v1::{self, StopFor};
use gantry_proto::{ErrorCode, NodeId};

use super::Rejection;
use super::task_decide::refused;
use crate::api::Reassignment;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::placement::bound_by_mates;
use crate::core::rows::TaskRow;
use crate::core::state::TaskRef;

/// Where a task is: its holder, where its tree is kept, or where its last attempt ran.
fn place_of(row: &TaskRow) -> Option<NodeId> {
    let attempts = row.steps.iter().flat_map(|step| &step.attempts);
    let last = || {
        attempts
            .max_by_key(|attempt| (attempt.fence, attempt.attempt))
            .map(|last| last.node)
    };
    row.holder.or(row.home).or(row.refused_by).or_else(last)
}

/// What is recorded. Refused, if its workspace keeps it from going there.
pub(super) fn event(
    batch: &Batching<'_>,
    task: TaskRef,
    to: &Reassignment,
    event: v1::TaskDecided,
) -> Result<v1::TaskDecided, Rejection> {
    let workflow = batch.workflow(task.0).ok_or(Rejection::NotFound)?;
    let position = task.1 as usize;
    let row = &workflow.tasks.get(position).ok_or(Rejection::NotFound)?.row;
    let excluded = match (to.away, place_of(row)) {
        (false, _) => Vec::new(),
        (true, Some(node)) => vec![node],
        (true, None) => {
            let message = format!("task `{}` has been on no node that it could be taken from", row.name);
            return Err(refused(ErrorCode::Conflict, message));
        }
    };
    if let Some(node) = to.node.filter(|node| excluded.contains(node)) {
        let message = format!(
            "task `{}` is on {node}: it cannot go there and away from there",
            row.name
        );
        return Err(refused(ErrorCode::InvalidRequest, message));
    }
    let keeps_off = |kept: NodeId| to.node.is_some_and(|node| node != kept) || excluded.contains(&kept);
    if let Some(kept) = row.home.filter(|kept| keeps_off(*kept) && !to.restart) {
        let message = format!(
            "the workspace of task `{}` is on {kept}, with what its steps did; with `restart` all of them begin anew elsewhere",
            row.name
        );
        return Err(refused(ErrorCode::Conflict, message));
    }
    if let Some(kept) = bound_by_mates(workflow, position).filter(|kept| keeps_off(*kept)) {
        let message = format!("task `{}` shares a workspace with tasks that are on {kept}", row.name);
        return Err(refused(ErrorCode::Conflict, message));
    }
    Ok(v1::TaskDecided {
        node: to.node,
        excluded,
        restart: to.restart.then_some(true),
        ..event
    })
}

/// What runs where it may not is ended, and runs where it may under a newer fence. A holder that does not answer loses its lease as ever.
pub(super) fn follow(batch: &mut Batching<'_>, task: TaskRef) -> Result<(), ApplyError> {
    let Some(row) = batch.state.task(task).map(|task| &task.row) else {
        return Ok(());
    };
    let stays = |node: NodeId| row.assigned_to == Some(node) && !row.restart;
    let leaves = row.holder.is_some_and(|node| !stays(node));
    if leaves {
        batch.interrupt(task, StopFor::Reassign)?;
    }
    Ok(())
}
