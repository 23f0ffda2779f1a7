//! What a task is: exactly one of the keys that say so.

use super::names::Scope;
use super::{Check, join};
use crate::spec::definition::TaskKind;
use crate::spec::source::TaskSource;

/// The keys that say what a task is, and whether they are given.
fn heads(source: &TaskSource) -> [(&'static str, bool); 3] {
    [
        ("run", source.run.is_some()),
        ("steps", source.steps.is_some()),
        ("workflow", source.workflow.is_some()),
    ]
}

/// Keys of a task that mean something for steps only, and whether they are given.
fn of_steps(source: &TaskSource) -> [(&'static str, bool); 13] {
    [
        ("workspace", source.workspace.is_some()),
        ("inputs", !source.inputs.is_empty()),
        (
            "requires",
            !source.requires.capabilities.is_empty()
                || !source.requires.labels.is_empty()
                || source.requires.arch.is_some(),
        ),
        ("image", source.image.is_some()),
        ("env", !source.env.is_empty()),
        ("workdir", source.workdir.is_some()),
        ("timeout", source.timeout.is_some()),
        ("retry", source.retry.is_some()),
        ("resources", source.resources.is_some()),
        ("output_limit", source.output_limit.is_some()),
        ("grace", source.grace.is_some()),
        ("outputs", source.outputs.is_some()),
        ("artifacts", source.artifacts.is_some()),
    ]
}

impl Check<'_> {
    /// The kind of a task; `None` when it has no one kind, which was complained of.
    pub(super) fn kind(&mut self, path: &[String], source: &TaskSource, scope: &Scope<'_>) -> Option<TaskKind> {
        let name = path.last().map(String::as_str).unwrap_or_default();
        let heads = heads(source);
        let given: Vec<&str> = heads.iter().filter(|(_, given)| *given).map(|(key, _)| *key).collect();
        match given.as_slice() {
            [] => {
                self.complain_key(
                    path,
                    format!("task `{name}` has nothing to do; give it `run`, `steps` or `workflow`"),
                );
                None
            }
            ["run" | "steps"] => Some(TaskKind::Steps),
            ["workflow"] => {
                for (field, _) in of_steps(source).iter().filter(|(_, given)| *given) {
                    let message = format!("`{field}` goes with steps; task `{name}` is a `workflow` and runs none");
                    self.complain_key(&join(path, field), message);
                }
                let child = source.workflow.as_ref()?;
                let child = self.child(&join(path, "workflow"), child, scope)?;
                Some(TaskKind::Workflow(Box::new(child)))
            }
            [first, second, ..] if given.contains(&"workflow") => {
                let message = format!("task `{name}` has both `{first}` and `{second}`; a task is one of them");
                self.complain_key(&join(path, second), message);
                None
            }
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
