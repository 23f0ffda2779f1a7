//! From a document to a definition.

mod assess;
mod attributes;
mod child;
mod code;
mod condition;
mod handlers;
mod items;
mod kind;
mod limits;
mod names;
mod needs;
mod retry;
mod settings;
mod steps;
mod tasks;
mod workspace;

use std::collections::BTreeSet;

use gantry_proto::limits::{DEFINITION_BYTES_MAX, PRIORITY_MAX, TASKS_PER_WORKFLOW_MAX, WAIT_MS_MAX};
use indexmap::IndexMap;

use super::definition::{Definition, TaskDef};
use super::document::{self, Node};
use super::issues::{Mark, at, tidy};
use super::source::WorkflowSource;
use super::{parameters, scalars, shape};
use crate::api::Issue;
use names::Scope;

/// Outputs, labels and environment variables of one place.
const ENTRIES_MAX: usize = 256;
/// A description: a sentence, not a manual.
const DESCRIPTION_BYTES_MAX: usize = 4_096;

/// A definition that passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The definition.
    pub definition: Definition,
    /// blake3 of the definition's JSON, fields and entries in the definition's order. Layout and comments of the source do not change it.
    pub digest: [u8; 32],
}

/// Compiles a definition, YAML or JSON.
///
/// # Errors
/// Every place that is wrong, with line and column where there is one, at most 100.
pub fn compile(source: &[u8]) -> Result<Compiled, Vec<Issue>> {
    let root = document::parse(source).map_err(|issue| vec![issue])?;
    let shape = shape::check(&root);
    if !shape.is_empty() {
        return Err(tidy(shape));
    }
    let workflow: WorkflowSource =
        serde_json::from_value(root.to_json()).map_err(|error| vec![at(error.to_string(), &[], Mark::UNKNOWN)])?;
    let text = String::from_utf8_lossy(source);
    let mut check = Check {
        root: &root,
        lines: text.lines().collect(),
        issues: Vec::new(),
        over_list: false,
        handling: false,
        assessed: false,
    };
    let definition = check.workflow(&workflow);
    if !check.issues.is_empty() {
        return Err(tidy(check.issues));
    }
    let json = serde_json::to_vec(&definition).map_err(|error| vec![at(error.to_string(), &[], Mark::UNKNOWN)])?;
    // Aliases and defaults may repeat what the source says once; the compiled form is what the journal keeps.
    if json.len() > 4 * DEFINITION_BYTES_MAX {
        let message = format!(
            "with defaults and aliases filled in, the definition has {} bytes; at most {} are allowed",
            json.len(),
            4 * DEFINITION_BYTES_MAX
        );
        return Err(vec![at(message, &[], Mark::UNKNOWN)]);
    }
    let digest = blake3::hash(&json).into();
    Ok(Compiled { definition, digest })
}

/// A place in the document: keys and indexes from the root.
type Path = Vec<String>;

/// A path with one more segment.
fn join(path: &[String], segment: impl ToString) -> Path {
    let mut longer = path.to_vec();
    longer.push(segment.to_string());
    longer
}

/// One run of the checks.
struct Check<'a> {
    root: &'a Node,
    /// Of the source, for places inside of texts.
    lines: Vec<&'a str>,
    issues: Vec<Issue>,
    /// The task at hand is one over a list: `item` is there.
    over_list: bool,
    /// What is at hand runs before the workflow ends: `failure` is there.
    handling: bool,
    /// The task at hand is assessed: `rework` is there.
    assessed: bool,
}

impl Check<'_> {
    /// Something is wrong with the value at a path.
    fn complain(&mut self, path: &[String], message: impl Into<String>) {
        self.issues.push(at(message.into(), path, self.root.mark_of(path)));
    }

    /// Something is wrong with the key at the end of a path.
    fn complain_key(&mut self, path: &[String], message: impl Into<String>) {
        self.issues.push(at(message.into(), path, self.root.key_mark_of(path)));
    }

    /// Reports an error of a value and goes on without it.
    fn checked<T>(&mut self, path: &[String], result: Result<T, String>) -> Option<T> {
        result.map_err(|message| self.complain(path, message)).ok()
    }

    fn workflow(&mut self, source: &WorkflowSource) -> Definition {
        let top = |name: &str| vec![name.to_owned()];
        self.checked(&top("name"), scalars::name(&source.name, true));
        if source
            .description
            .as_ref()
            .is_some_and(|text| text.len() > DESCRIPTION_BYTES_MAX)
        {
            self.complain(
                &top("description"),
                format!("a description has at most {DESCRIPTION_BYTES_MAX} bytes"),
            );
        }
        let parameters = self.parameters(&source.parameters);
        if source.tasks.is_empty() {
            self.complain(&top("tasks"), "a workflow needs at least one task");
        }
        if source.tasks.len() > TASKS_PER_WORKFLOW_MAX {
            self.complain(
                &top("tasks"),
                format!(
                    "{} tasks are too many; at most {TASKS_PER_WORKFLOW_MAX} are allowed",
                    source.tasks.len()
                ),
            );
        }
        let parameter_names: BTreeSet<&str> = source.parameters.keys().map(String::as_str).collect();
        let graph = self.needs(&source.tasks);
        let default_scope = Scope::defaults(&parameter_names, &source.tasks);
        self.settings_templates(&source.defaults, &default_scope);
        let limits = self.limits(
            &[],
            source.concurrency.as_ref(),
            source.rate_limit.as_ref(),
            &Scope::parameters(&parameter_names, &source.tasks),
        );
        let mut tasks: IndexMap<String, TaskDef> = IndexMap::with_capacity(source.tasks.len());
        for (name, task) in &source.tasks {
            let before = graph.before(name);
            let path = ["tasks".to_owned(), name.clone()];
            let compiled = self.task(&path, task, &source.defaults, &parameter_names, &source.tasks, &before);
            self.own_keys(&path, &limits, &compiled.limits);
            tasks.insert(name.clone(), compiled);
        }
        self.handlers(source, &parameter_names, &mut tasks);
        let outputs = self.outputs(source, &parameter_names);
        let attributes = self.attributes(source, &Scope::parameters(&parameter_names, &source.tasks));
        Definition {
            name: source.name.clone(),
            description: source.description.clone(),
            parameters,
            tasks,
            outputs,
            priority: source.priority.and_then(|priority| {
                let checked = u32::try_from(priority)
                    .ok()
                    .filter(|priority| *priority <= PRIORITY_MAX);
                let checked = checked.ok_or_else(|| format!("the priority is {priority}; it is 0 to {PRIORITY_MAX}"));
                self.checked(&top("priority"), checked)
            }),
            attributes,
            on_task_failure: source.on_task_failure,
            limits,
            deadline_ms: source
                .deadline
                .as_ref()
                .and_then(|deadline| self.duration(&top("deadline"), deadline, 1, WAIT_MS_MAX)),
        }
    }

    fn parameters(&mut self, source: &IndexMap<String, serde_json::Value>) -> serde_json::Value {
        let path = vec!["parameters".to_owned()];
        if source.len() > ENTRIES_MAX {
            self.complain(
                &path,
                format!(
                    "{} parameters are too many; at most {ENTRIES_MAX} are allowed",
                    source.len()
                ),
            );
        }
        for (name, schema) in source {
            if let Err(message) = scalars::identifier(name) {
                self.complain_key(&join(&path, name), message);
            }
            for (place, message) in parameters::check_schema(schema) {
                let mut path = join(&path, name);
                path.extend(place);
                self.complain(&path, format!("parameter `{name}`: {message}"));
            }
        }
        parameters::object_schema(source)
    }

    fn outputs(&mut self, source: &WorkflowSource, parameters: &BTreeSet<&str>) -> IndexMap<String, String> {
        let path = vec!["outputs".to_owned()];
        if source.outputs.len() > ENTRIES_MAX {
            self.complain(
                &path,
                format!(
                    "{} outputs are too many; at most {ENTRIES_MAX} are allowed",
                    source.outputs.len()
                ),
            );
        }
        let scope = Scope::outputs(parameters, &source.tasks);
        let mut outputs = IndexMap::new();
        for (name, value) in &source.outputs {
            let place = join(&path, name);
            if let Err(message) = scalars::name(name, true) {
                self.complain_key(&place, message);
            }
            let text = value.text();
            self.template(&place, &text, &scope);
            outputs.insert(name.clone(), text);
        }
        outputs
    }
}
