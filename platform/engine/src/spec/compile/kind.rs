//! What a task is: exactly one of the keys that say so.

use super::{Check, join};
use crate::spec::definition::TaskKind;
use crate::spec::source::TaskSource;

/// The keys that say what a task is, and whether they are given.
fn heads(source: &TaskSource) -> [(&'static str, bool); 2] {
    [("run", source.run.is_some()), ("steps", source.steps.is_some())]
}

impl Check<'_> {
    /// The kind of a task; `None` when it has no one kind, which was complained of.
    pub(super) fn kind(&mut self, path: &[String], source: &TaskSource) -> Option<TaskKind> {
        let name = path.last().map(String::as_str).unwrap_or_default();
        let heads = heads(source);
        let given: Vec<&str> = heads.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        match given.as_slice() {
            [] => {
                self.complain_key(
                    path,
                    format!("task `{name}` has nothing to run; give it `run` or `steps`"),
                );
                None
            }
            ["run" | "steps"] => Some(TaskKind::Steps),
            _ => {
                self.complain_key(
                    &join(path, "run"),
                    format!("task `{name}` has both `run` and `steps`; `run` is the short form of a single step"),
                );
                None
            }
        }
    }
}
