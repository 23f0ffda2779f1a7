//! Tasks that wait for a decision.

use gantry_proto::ErrorCode;
use gantry_proto::v1::{TaskEnd, WaitKind};
use serde_json::{Map, Value, json};

use super::said;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::plan;
use crate::core::state::TaskRef;
use crate::spec::definition::{ApprovalDef, OnApprovalDeadline};

/// Outputs of a task that was approved.
pub(in crate::core) fn approved(by: &str, comment: Option<&str>) -> Map<String, Value> {
    let mut outputs = Map::new();
    outputs.insert("decision".to_owned(), json!("approved"));
    outputs.insert("by".to_owned(), json!(by));
    outputs.insert("comment".to_owned(), json!(comment.unwrap_or_default()));
    outputs
}

impl Batching<'_> {
    /// Asks for a decision.
    pub(in crate::core) fn ask(&mut self, task: TaskRef, approval: &ApprovalDef) -> Result<(), ApplyError> {
        let rendered = self
            .workflow(task.0)
            .map(|workflow| plan::render(workflow, task.1 as usize, &approval.message));
        match rendered.unwrap_or_else(|| Ok(String::new())) {
            Err(error) => {
                let code = ErrorCode::TemplateError.as_str();
                let message = format!("`message`: {error}");
                self.end_task(task, TaskEnd::Failed, Some(code), said(message))
            }
            Ok(message) => {
                let until_ms = approval
                    .deadline_ms
                    .map(|deadline| self.now_ms.saturating_add(deadline));
                self.wait_until(task, WaitKind::Approval, until_ms, said(message))
            }
        }
    }

    /// Nobody decided in time.
    pub(in crate::core) fn approval_overdue(
        &mut self,
        task: TaskRef,
        approval: &ApprovalDef,
    ) -> Result<(), ApplyError> {
        let why = "nobody decided in time";
        match approval.on_deadline {
            OnApprovalDeadline::Approve => self.complete(task, None, Some(&approved("deadline", Some(why)))),
            OnApprovalDeadline::Reject => {
                let code = ErrorCode::ApprovalRejected.as_str();
                self.end_task(
                    task,
                    TaskEnd::Failed,
                    Some(code),
                    said(format!("{why}, which counts as rejected")),
                )
            }
            OnApprovalDeadline::Fail => {
                let code = ErrorCode::DeadlineExceeded.as_str();
                self.end_task(task, TaskEnd::Failed, Some(code), said(why))
            }
            OnApprovalDeadline::Escalate => self.escalate(task, ErrorCode::DeadlineExceeded, why.to_owned()),
        }
    }
}
