//! What follows for the tasks of a workflow once one of them has ended.

use gantry_proto::{ErrorCode, WorkflowId};

use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::state::{Task, Workflow};
use crate::lifecycle::task::TaskState;
use crate::spec::definition::{FailurePolicy, RunOn};

impl Batching<'_> {
    /// Brings a workflow to rest after a task ended: begins what may run, ends what never will, and ends the workflow when all have ended.
    pub(in crate::core) fn settle(&mut self, id: WorkflowId) -> Result<(), ApplyError> {
        // What is to start starts with the workflow. One that is to end ends.
        let held = |workflow: &Workflow| !workflow.row.is_ending();
        if self.state.is_paused(id) && self.workflow(id).is_some_and(held) {
            return Ok(());
        }
        if !self.admit(id)? {
            return Ok(());
        }
        loop {
            while let Some(next) = self.workflow(id).and_then(next_consequence) {
                match next {
                    Consequence::Begin(task) => self.begin((id, task))?,
                    Consequence::Stop(task, code, why) => self.stop_task((id, task), None, code, Some(why))?,
                }
            }
            if !self.advance_items(id)? {
                break;
            }
        }
        let Some(workflow) = self.workflow(id) else {
            return Ok(());
        };
        let open = |task: &Task| task.row.handles.is_none() && !task.row.is_ended();
        if workflow.row.is_ended() || workflow.tasks.iter().any(open) {
            return Ok(());
        }
        self.conclude(id)
    }
}

/// The first task that failed. Whether failed items fail their task is said by that task; what handles a failure changes nothing about it.
pub(super) fn failed(workflow: &Workflow) -> Option<&Task> {
    let counts = |task: &&Task| task.row.origin.is_none() && task.row.handles.is_none();
    let mut tasks = workflow.tasks.iter().filter(counts);
    tasks.find(|task| task.row.state() == TaskState::Failed)
}

/// One thing that follows for a task that does not run.
enum Consequence {
    Begin(u32),
    Stop(u32, ErrorCode, String),
}

/// The first consequence, in the order of the definition; `None` at rest.
fn next_consequence(workflow: &Workflow) -> Option<Consequence> {
    let body = workflow.body.as_ref()?;
    let failed = failed(workflow);
    let stopping = body.definition.on_task_failure == FailurePolicy::Stop && failed.is_some();
    for (position, task) in workflow.tasks.iter().enumerate() {
        let row = &task.row;
        // Items follow the task over a list that they are of; what handles the end follows the end.
        if row.is_ended() || row.origin.is_some() || row.handles.is_some() {
            continue;
        }
        let (_, definition) = workflow.definition(position)?;
        let needs = workflow.needs(position);
        let broken = needs
            .iter()
            .map(|need| &workflow.tasks[*need].row)
            .find(|need| need.is_ended() && need.state() != TaskState::Completed);
        if definition.run_on == RunOn::Success {
            if let Some(need) = broken {
                let why = format!("it needs task `{}`, which did not complete", need.name);
                return Some(Consequence::Stop(row.index, ErrorCode::DependencyFailed, why));
            }
            if stopping && row.cancel_grace_ms.is_none() {
                let name = failed.map_or("", |failed| failed.row.name.as_str());
                let why = format!("task `{name}` failed, and the workflow stops then");
                return Some(Consequence::Stop(row.index, ErrorCode::TaskFailed, why));
            }
        }
        if row.is_unbegun() && needs.iter().all(|need| workflow.tasks[*need].row.is_ended()) {
            return Some(Consequence::Begin(row.index));
        }
    }
    None
}
