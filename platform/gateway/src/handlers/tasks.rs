//! Tasks and steps: parts of a workflow's view.

use axum::response::Response;
use gantry_engine::api::{StepView, TaskView, WorkflowView};
use gantry_proto::WorkflowId;
use http::StatusCode;

use super::json;
use crate::call::{GuardedCall, short};
use crate::dto::Items;
use crate::problem::Problem;

/// The workflow that the path begins with.
pub(super) async fn workflow(call: &GuardedCall) -> Result<(WorkflowId, WorkflowView), Problem> {
    let id = call.id(0, "workflow")?;
    Ok((id, call.shared.backend.workflow(call.key.tenant, id).await?))
}

/// A task by name or id.
pub(super) fn find_task(view: WorkflowView, wanted: &str) -> Result<TaskView, Problem> {
    view.tasks
        .into_iter()
        .find(|task| task.name == wanted || task.id.to_string() == wanted)
        .ok_or_else(|| Problem::not_found(&format!("task `{}` in this workflow", short(wanted))))
}

/// A step by key, else by index.
pub(super) fn find_step(task: TaskView, wanted: &str) -> Result<StepView, Problem> {
    let index = wanted.parse::<u32>().ok();
    let position = task
        .steps
        .iter()
        .position(|step| step.key == wanted)
        .or_else(|| task.steps.iter().position(|step| Some(step.index) == index))
        .ok_or_else(|| Problem::not_found(&format!("step `{}` in this task", short(wanted))))?;
    let mut steps = task.steps;
    Ok(steps.swap_remove(position))
}

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let (_, view) = workflow(&call).await?;
    json(StatusCode::OK, &Items { items: view.tasks })
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let (_, view) = workflow(&call).await?;
    json(StatusCode::OK, &find_task(view, call.text(1))?)
}

pub(crate) async fn steps(call: GuardedCall) -> Result<Response, Problem> {
    let (_, view) = workflow(&call).await?;
    json(
        StatusCode::OK,
        &Items {
            items: find_task(view, call.text(1))?.steps,
        },
    )
}

pub(crate) async fn step(call: GuardedCall) -> Result<Response, Problem> {
    let (_, view) = workflow(&call).await?;
    json(
        StatusCode::OK,
        &find_step(find_task(view, call.text(1))?, call.text(2))?,
    )
}
