//! What a task does once its needs have ended: one place, which knows every kind.

use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::state::TaskRef;
use crate::spec::definition::TaskKind;

impl Batching<'_> {
    /// The needs of a pending task have ended, and nothing keeps it from running.
    pub(in crate::core) fn begin(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let workflow = self.workflow(task.0);
        let Some((_, definition)) = workflow.and_then(|workflow| workflow.definition(task.1 as usize)) else {
            return Ok(());
        };
        let is_item = self.state.task(task).is_some_and(|task| task.row.origin.is_some());
        if definition.for_each.is_some() && !is_item {
            return self.fan_out(task);
        }
        match &definition.kind {
            TaskKind::Steps => self.readied(task),
            TaskKind::Workflow(_) => self.request_child(task),
        }
    }
}
