//! Tasks whose result is judged before they have completed.

use gantry_proto::ErrorCode;
use gantry_proto::v1::{StopFor, TaskEnd, WaitKind};

use super::said;
use super::stop::ending_code;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::plan;
use crate::core::state::TaskRef;
use crate::spec::definition::{AssessmentDef, OnAssessmentDeadline, ReworksExhausted};

impl Batching<'_> {
    /// All steps of a task that holds no lease any more are done: it completes, or somebody is asked. `asked`: what it was to be ended for.
    pub(super) fn steps_done(&mut self, task: TaskRef, asked: Option<StopFor>) -> Result<(), ApplyError> {
        let workflow = self.workflow(task.0);
        let definition = workflow.and_then(|workflow| workflow.definition(task.1 as usize));
        let assess = definition.and_then(|(_, definition)| definition.assess.clone());
        match (assess, asked) {
            (None, _) => self.end_task(task, TaskEnd::Completed, None, None)?,
            // Nobody is asked about what is to end.
            (Some(_), Some(StopFor::End)) => {
                let code = workflow.map_or(ErrorCode::TaskFailed, ending_code);
                self.end_task(task, TaskEnd::Cancelled, Some(code.as_str()), None)?;
            }
            (Some(_), Some(StopFor::Deadline | StopFor::Limit)) => {
                let failing = self.state.task(task).and_then(|task| task.row.to_fail());
                let (code, why) = failing.unwrap_or((ErrorCode::DeadlineExceeded, ""));
                self.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(why))?;
            }
            (Some(assess), Some(StopFor::Pause | StopFor::Reassign) | None) => self.assess(task, &assess)?,
        }
        self.settle(task.0)
    }

    /// Asks for a judgement.
    fn assess(&mut self, task: TaskRef, assess: &AssessmentDef) -> Result<(), ApplyError> {
        let rendered = assess.message.as_deref().map(|message| {
            let workflow = self.workflow(task.0);
            workflow.map_or_else(
                || Ok(String::new()),
                |workflow| plan::render_done(workflow, task.1 as usize, message),
            )
        });
        let message = match rendered.transpose() {
            Ok(message) => message,
            Err(error) => {
                let code = ErrorCode::TemplateError.as_str();
                let why = said(format!("`message` of `assess`: {error}"));
                return self.end_task(task, TaskEnd::Failed, Some(code), why);
            }
        };
        let until_ms = assess.deadline_ms.map(|deadline| self.now_ms.saturating_add(deadline));
        self.wait_until(task, WaitKind::Assessment, until_ms, message.and_then(said))
    }

    /// Nobody judged in time.
    pub(in crate::core) fn assessment_overdue(
        &mut self,
        task: TaskRef,
        assess: &AssessmentDef,
    ) -> Result<(), ApplyError> {
        let why = "nobody assessed its result in time";
        let failed = |batch: &mut Self, code: ErrorCode, why: String| {
            batch.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(why))
        };
        match assess.on_deadline {
            OnAssessmentDeadline::Accept => self.complete(task, None, None),
            OnAssessmentDeadline::Reject => {
                let why = format!("{why}, which counts as rejected");
                failed(self, ErrorCode::AssessmentRejected, why)
            }
            OnAssessmentDeadline::Fail => failed(self, ErrorCode::DeadlineExceeded, why.to_owned()),
            OnAssessmentDeadline::Escalate => self.escalate(task, ErrorCode::DeadlineExceeded, why.to_owned()),
        }
    }

    /// Another round was asked for, and there is none left.
    pub(in crate::core) fn reworks_exhausted(
        &mut self,
        task: TaskRef,
        assess: &AssessmentDef,
        feedback: &str,
    ) -> Result<(), ApplyError> {
        let why = format!(
            "it was to be reworked once more than the {} times that it may: {feedback}",
            assess.reworks_max
        );
        match assess.exhausted {
            ReworksExhausted::Fail => {
                let code = ErrorCode::ReworkExhausted.as_str();
                self.end_task(task, TaskEnd::Failed, Some(code), said(why))
            }
            ReworksExhausted::Escalate => self.escalate(task, ErrorCode::ReworkExhausted, why),
        }
    }
}
