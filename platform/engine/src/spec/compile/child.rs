//! A task that is another workflow: its definition is compiled with that of its parent, so that everything wrong with it is said at submission.

use serde_json::Value;

use super::names::Scope;
use super::{Check, ENTRIES_MAX, join};
use crate::spec::definition::{ChildDef, Definition, InputDef, RetryDef};
use crate::spec::issues::{hint, pointer};
use crate::spec::source::{ChildSource, TaskSource};

impl Check<'_> {
    pub(super) fn child(&mut self, path: &[String], source: &ChildSource, scope: &Scope<'_>) -> Option<ChildDef> {
        let place = join(path, "definition");
        let node = self.root.at(&place)?;
        let mut inner = Check {
            root: node,
            lines: std::mem::take(&mut self.lines),
            issues: Vec::new(),
            over_list: false,
            handling: false,
            assessed: false,
        };
        let definition = inner.workflow(&source.definition);
        let Check { lines, issues, .. } = inner;
        self.lines = lines;
        let prefix = pointer(&place);
        self.issues.extend(issues.into_iter().map(|mut issue| {
            issue.path = Some(prefix.clone() + issue.path.as_deref().unwrap_or_default());
            issue
        }));
        self.child_parameters(path, source, &definition, scope);
        for (name, task) in &definition.tasks {
            // A copy of an upload is made for the workflow that is submitted.
            if task.inputs.iter().any(|input| matches!(input, InputDef::Upload(_))) {
                let place = [
                    place.clone(),
                    vec!["tasks".to_owned(), name.clone(), "inputs".to_owned()],
                ]
                .concat();
                let message =
                    format!("task `{name}` of a child workflow cannot take an upload; take it in a task of the parent");
                self.complain(&place, message);
            }
        }
        Some(ChildDef {
            source: node.to_json().to_string(),
            definition,
            parameters: source.parameters.clone(),
            detached: source.detached,
            retry: None,
        })
    }

    /// What happens when the child of a task failed.
    pub(super) fn child_retry(&mut self, path: &[String], source: &TaskSource) -> Option<RetryDef> {
        let retry = source.retry.as_ref()?;
        let place = join(path, "retry");
        if source.workflow.as_ref().is_some_and(|child| child.detached) {
            self.complain_key(&place, "nobody waits for a detached child, so it is not tried again");
        }
        let compiled = self.retry(&place, retry);
        if !compiled.on.is_empty() || compiled.exit_codes.is_some() {
            self.complain_key(
                &join(&place, "on"),
                "`on` tells failures of steps apart; a child workflow fails or does not",
            );
        }
        Some(compiled)
    }

    fn child_parameters(&mut self, path: &[String], source: &ChildSource, child: &Definition, scope: &Scope<'_>) {
        let place = join(path, "parameters");
        if source.parameters.len() > ENTRIES_MAX {
            self.complain(&place, format!("at most {ENTRIES_MAX} parameters are allowed"));
        }
        let known = child.parameters.get("properties").and_then(Value::as_object);
        for (name, value) in &source.parameters {
            let place = join(&place, name);
            if known.is_none_or(|known| !known.contains_key(name)) {
                let names = known.into_iter().flat_map(|known| known.keys().map(String::as_str));
                let message = format!("the child workflow has no parameter `{name}`{}", hint(name, names));
                self.complain_key(&place, message);
            }
            self.values(&place, value, scope);
        }
        let required = child.parameters.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !source.parameters.contains_key(name) {
                let message = format!("the child workflow's parameter `{name}` has no default and is not given");
                self.complain(&place, message);
            }
        }
    }

    /// Checks the templates in a value.
    pub(super) fn values(&mut self, path: &[String], value: &Value, scope: &Scope<'_>) {
        match value {
            Value::String(text) => self.template(path, text, scope),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.values(&join(path, index), item, scope);
                }
            }
            Value::Object(fields) => {
                for (name, field) in fields {
                    self.values(&join(path, name), field, scope);
                }
            }
            _ => {}
        }
    }
}
