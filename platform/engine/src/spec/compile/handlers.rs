//! What runs before a workflow ends: tasks that need no other, know why, and end in bounded time.

use std::collections::BTreeSet;

use gantry_proto::limits::{HANDLER_MS_DEFAULT, HANDLER_MS_MAX, TASKS_PER_WORKFLOW_MAX};
use indexmap::IndexMap;

use super::{Check, join};
use crate::spec::definition::{Exhausted, Handles, TaskDef};
use crate::spec::handler_source::HandlerSource;
use crate::spec::source::WorkflowSource;

impl Check<'_> {
    /// Adds the tasks that handle the workflow's end, behind all others.
    pub(super) fn handlers(
        &mut self,
        source: &WorkflowSource,
        parameters: &BTreeSet<&str>,
        tasks: &mut IndexMap<String, TaskDef>,
    ) {
        let handlers = [
            (Handles::Failure, &source.on_failure),
            (Handles::Cancel, &source.on_cancel),
        ];
        for (handles, handler) in handlers {
            let Some(handler) = handler else { continue };
            let name = handles.task();
            if source.tasks.contains_key(name) {
                let path = ["tasks".to_owned(), name.to_owned()];
                self.complain_key(
                    &path,
                    format!("`{name}` is what the task of the workflow's `{name}` is called"),
                );
                continue;
            }
            let compiled = self.handler(handles, handler, source, parameters);
            tasks.insert(name.to_owned(), compiled);
        }
        let added = tasks.len() - source.tasks.len();
        if added > 0 && source.tasks.len() <= TASKS_PER_WORKFLOW_MAX && tasks.len() > TASKS_PER_WORKFLOW_MAX {
            let message = format!(
                "with what runs before its end the workflow has {} tasks; at most {TASKS_PER_WORKFLOW_MAX} are allowed",
                tasks.len()
            );
            self.complain(&["tasks".to_owned()], message);
        }
    }

    fn handler(
        &mut self,
        handles: Handles,
        handler: &HandlerSource,
        source: &WorkflowSource,
        parameters: &BTreeSet<&str>,
    ) -> TaskDef {
        let path = [handles.task().to_owned()];
        let task = handler.task();
        // All of them have ended by then.
        let before: BTreeSet<&str> = source.tasks.keys().map(String::as_str).collect();
        self.handling = true;
        let mut compiled = self.task(&path, &task, &source.defaults, parameters, &source.tasks, &before);
        self.handling = false;
        let deadline = handler.deadline.as_ref();
        let deadline =
            deadline.and_then(|deadline| self.duration(&join(&path, "deadline"), deadline, 1, HANDLER_MS_MAX));
        compiled.deadline_ms = Some(deadline.unwrap_or(HANDLER_MS_DEFAULT));
        compiled.handles = Some(handles);
        // The end waits for it, so it does not wait for anybody.
        for step in &mut compiled.steps {
            step.retry.exhausted = Exhausted::Fail;
        }
        compiled
    }
}
