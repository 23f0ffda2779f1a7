//! Tasks of code: what a worker runs, and what it is given.

use gantry_proto::limits::NAME_BYTES_MAX;
use serde_json::Value;

use super::names::Scope;
use super::{Check, join};
use crate::spec::source::TaskSource;

impl Check<'_> {
    /// Checks `component` and `with`; nothing when the task is something else.
    pub(super) fn code(&mut self, path: &[String], source: &TaskSource, scope: &Scope<'_>) {
        let Some(component) = &source.component else {
            if source.with.is_some() {
                self.complain_key(
                    &join(path, "with"),
                    "`with` goes with `component`: it is what the code is given",
                );
            }
            return;
        };
        if component.is_empty() || component.len() > NAME_BYTES_MAX {
            let message = format!("the name of a component has 1 to {NAME_BYTES_MAX} bytes");
            self.complain(&join(path, "component"), message);
        }
        for (key, given) in [
            ("assess", source.assess.is_some()),
            ("workspace", source.workspace.is_some()),
            ("inputs", !source.inputs.is_empty()),
            ("outputs", source.outputs.is_some()),
            ("artifacts", source.artifacts.is_some()),
        ] {
            if given {
                self.complain_key(
                    &join(path, key),
                    format!("`{key}` is for steps; code gets `with` and returns its outputs"),
                );
            }
        }
        if let Some(with) = &source.with {
            self.texts(&join(path, "with"), with, scope);
        }
    }

    fn texts(&mut self, path: &[String], value: &Value, scope: &Scope<'_>) {
        match value {
            Value::String(text) => self.template(path, text, scope),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.texts(&join(path, index), item, scope);
                }
            }
            Value::Object(members) => {
                for (key, item) in members {
                    self.texts(&join(path, key), item, scope);
                }
            }
            _ => {}
        }
    }
}
