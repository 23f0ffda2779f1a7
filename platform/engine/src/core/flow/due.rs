//! What a task does when the time has come until which it waited.

use gantry_proto::ErrorCode;
use gantry_proto::v1::{TaskEnd, WaitKind};

use super::said;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::state::TaskRef;
use crate::spec::definition::TaskKind;

impl Batching<'_> {
    /// The timer of a waiting task is due. Every way on from here ends the wait, so that no timer is due for ever.
    pub(in crate::core) fn due(&mut self, task: TaskRef) -> Result<(), ApplyError> {
        let kind = self.state.task(task).and_then(|task| task.row.wait_kind);
        let kind = kind.and_then(|kind| WaitKind::try_from(kind).ok());
        let workflow = self.workflow(task.0);
        let definition = workflow.and_then(|workflow| workflow.definition(task.1 as usize));
        let assess = definition.and_then(|(_, definition)| definition.assess.clone());
        let what = definition.map(|(_, definition)| definition.kind.clone());
        match (kind, what) {
            // Another child is started.
            (Some(WaitKind::RetryBackoff), Some(TaskKind::Workflow(_))) => {
                self.start(task)?;
                self.settle(task.0)
            }
            (None | Some(WaitKind::RetryBackoff | WaitKind::NodeRefused | WaitKind::Infrastructure), _) => {
                self.readied(task)
            }
            (Some(WaitKind::RunTimer), _) => {
                self.end_code_timers(task)?;
                self.readied(task)
            }
            // It waits for its workflow to be resumed; no timer of it is set.
            (Some(WaitKind::Exhausted), _) => self.readied(task),
            (Some(WaitKind::Sleep), _) => {
                self.complete(task, None, None)?;
                self.settle(task.0)
            }
            (Some(WaitKind::Signal), Some(TaskKind::Signal(signal))) => {
                self.signal_overdue(task, &signal)?;
                self.settle(task.0)
            }
            (Some(WaitKind::Approval), Some(TaskKind::Approval(approval))) => {
                self.approval_overdue(task, &approval)?;
                self.settle(task.0)
            }
            (Some(WaitKind::Assessment), _) if assess.is_some() => {
                if let Some(assess) = assess {
                    self.assessment_overdue(task, &assess)?;
                }
                self.settle(task.0)
            }
            (Some(_), _) => {
                // Its definition was erased under it.
                let message = "what is to happen now cannot be read any more";
                let code = ErrorCode::Internal.as_str();
                self.end_task(task, TaskEnd::Failed, Some(code), said(message))?;
                self.settle(task.0)
            }
        }
    }
}
