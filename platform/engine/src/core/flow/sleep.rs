//! Tasks that wait for a time.

use gantry_proto::v1::{TaskEnd, WaitKind};
use gantry_proto::{ErrorCode, limits};

use super::said;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::plan;
use crate::core::state::TaskRef;
use crate::spec::definition::SleepDef;
use crate::spec::time_ms;

impl Batching<'_> {
    /// Begins to sleep. A time that has passed is no sleep at all.
    pub(in crate::core) fn sleep(&mut self, task: TaskRef, sleep: &SleepDef) -> Result<(), ApplyError> {
        let until_ms = match sleep {
            SleepDef::ForMs(ms) => self.now_ms.saturating_add(*ms),
            SleepDef::Until(template) => match self.time_of(task, template) {
                Ok(until_ms) => until_ms,
                Err((code, message)) => {
                    return self.end_task(task, TaskEnd::Failed, Some(code.as_str()), said(message));
                }
            },
        };
        if until_ms <= self.now_ms {
            return self.complete(task, None, None);
        }
        self.wait_until(task, WaitKind::Sleep, Some(until_ms), None)
    }

    fn time_of(&self, task: TaskRef, template: &str) -> Result<u64, (ErrorCode, String)> {
        let text = self
            .workflow(task.0)
            .map(|workflow| plan::render(workflow, task.1 as usize, template));
        let text = text
            .unwrap_or_else(|| Ok(String::new()))
            .map_err(|error| (ErrorCode::TemplateError, format!("`until`: {error}")))?;
        let until_ms = time_ms(&text).map_err(|message| (ErrorCode::TemplateError, format!("`until`: {message}")))?;
        if until_ms > self.now_ms.saturating_add(limits::WAIT_MS_MAX) {
            let days = limits::WAIT_MS_MAX / 86_400_000;
            let message = format!("`until`: {} is more than {days} days ahead", text.trim());
            return Err((ErrorCode::TemplateError, message));
        }
        Ok(until_ms)
    }
}
