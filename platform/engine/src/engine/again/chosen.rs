//! Which tasks run again, and which are carried over.

use gantry_proto::ErrorCode;

use crate::api::{AgainFrom, Refusal};
use crate::core::Body;
use crate::core::rows::TaskRow;
use crate::core::state::Workflow;
use crate::lifecycle::task::TaskState;
use crate::spec::definition::WorkspaceSourceDef;

/// Position of the task and of its step that a request names.
pub(super) fn place(old: &Workflow, body: &Body, from: &AgainFrom) -> Result<(usize, usize), Refusal> {
    let named = |row: &TaskRow| row.name == from.task || row.id.to_string() == from.task;
    let position = old.tasks.iter().position(|task| named(&task.row));
    let unknown = || {
        let names: Vec<_> = body.definition.tasks.keys().map(String::as_str).collect();
        Refusal::new(
            ErrorCode::InvalidRequest,
            format!("there is no task `{}`; there are {}", from.task, names.join(", ")),
        )
    };
    let position = position.ok_or_else(unknown)?;
    if old.tasks[position].row.origin.is_some() {
        let message = format!(
            "`{}` is an item; begin from the task over the list that it is of",
            from.task
        );
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let Some(step) = &from.step else {
        return Ok((position, 0));
    };
    let (_, definition) = old.definition(position).ok_or_else(unknown)?;
    let by_key = definition.steps.iter().position(|each| each.key == *step);
    let by_number = || {
        step.parse::<usize>()
            .ok()
            .filter(|number| *number < definition.steps.len())
    };
    let Some(found) = by_key.or_else(by_number) else {
        let keys: Vec<_> = definition.steps.iter().map(|step| step.key.as_str()).collect();
        let message = format!("task `{}` has no step `{step}`; it has {}", from.task, keys.join(", "));
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    };
    if found > 0 {
        let message = format!(
            "to begin at step `{step}`, task `{}` needs the tree that the steps before left, and trees are not kept when a workflow has ended",
            from.task
        );
        return Err(Refusal::new(ErrorCode::WorkspaceGone, message)
            .with_hint(format!("Begin from the task: {{\"task\": \"{}\"}}.", from.task)));
    }
    Ok((position, found))
}

/// By position, whether a task of the definition runs again: `from`, what did not complete, and what needs one of these.
pub(super) fn redo(old: &Workflow, body: &Body, from: Option<usize>) -> Result<Vec<bool>, Refusal> {
    let count = body.definition.tasks.len();
    let mut redo: Vec<bool> = old
        .tasks
        .iter()
        .take(count)
        .enumerate()
        .map(|(position, task)| from == Some(position) || task.row.state() != TaskState::Completed)
        .collect();
    if !redo.contains(&true) {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "every task completed: there is nothing to do again",
        )
        .with_hint("Say from which task on: {\"from\": {\"task\": \"...\"}}."));
    }
    // Needs form no cycle: after as many rounds as there are tasks, all is said.
    let mut changed = true;
    while changed {
        changed = false;
        for position in 0..count {
            let needs = body.needs.get(position).map_or(&[][..], Vec::as_slice);
            if !redo[position] && needs.iter().any(|need| redo[*need]) {
                redo[position] = true;
                changed = true;
            }
        }
    }
    Ok(redo)
}

/// Tasks that take over the tree of another one need it on their node, so both run again or none.
pub(super) fn check_workspaces(old: &Workflow, body: &Body, redo: &[bool]) -> Result<(), Refusal> {
    for (position, task) in body
        .definition
        .tasks
        .values()
        .enumerate()
        .filter(|(position, _)| redo[*position])
    {
        for workspace in &task.workspace {
            let WorkspaceSourceDef::From(name) = &workspace.source else {
                continue;
            };
            let source = body.definition.tasks.get_index_of(name.as_str());
            if source.is_some_and(|source| !redo[source]) {
                let taker = &old.tasks[position].row.name;
                let message = format!(
                    "task `{taker}` works on the tree of task `{name}`, and trees are not kept when a workflow has ended"
                );
                return Err(Refusal::new(ErrorCode::WorkspaceGone, message)
                    .with_hint(format!("Begin from task `{name}`, which makes it again.")));
            }
        }
    }
    Ok(())
}
