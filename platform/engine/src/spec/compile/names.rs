//! Checks, before anything runs, that what a template reads can be there.

use std::collections::BTreeSet;

use indexmap::IndexMap;

use super::Check;
use crate::spec::issues::{Mark, at, hint};
use crate::spec::source::TaskSource;
use crate::spec::template::{Analysis, Reference, analyse, has_markup};

/// What a template at some place may read.
pub(super) struct Scope<'a> {
    parameters: &'a BTreeSet<&'a str>,
    /// All tasks of the workflow.
    all_tasks: BTreeSet<&'a str>,
    /// Those whose end is certain; `None`: not known at this place (`defaults` apply to every task).
    tasks: Option<BTreeSet<&'a str>>,
    steps: Steps<'a>,
    /// `task` is there.
    in_task: bool,
    /// Only `params` is there: it is rendered when the workflow is submitted.
    at_submit: bool,
    /// Tasks over a list.
    lists: BTreeSet<&'a str>,
}

/// Steps that a template may read.
enum Steps<'a> {
    /// `steps` is not there; the reason.
    None(&'static str),
    /// These have completed; all of the task, in order.
    Earlier(BTreeSet<&'a str>, Vec<&'a str>),
    /// Not known at this place.
    Any,
}

impl<'a> Scope<'a> {
    fn new(parameters: &'a BTreeSet<&'a str>, tasks: &'a IndexMap<String, TaskSource>) -> Self {
        Self {
            parameters,
            all_tasks: tasks.keys().map(String::as_str).collect(),
            tasks: None,
            steps: Steps::Any,
            in_task: true,
            at_submit: false,
            lists: tasks
                .iter()
                .filter(|(_, task)| task.for_each.is_some())
                .map(|(name, _)| name.as_str())
                .collect(),
        }
    }

    /// Of `defaults` of the workflow.
    pub(super) fn defaults(parameters: &'a BTreeSet<&'a str>, tasks: &'a IndexMap<String, TaskSource>) -> Self {
        Self::new(parameters, tasks)
    }

    /// Of what is rendered when the workflow is submitted.
    pub(super) fn parameters(parameters: &'a BTreeSet<&'a str>, tasks: &'a IndexMap<String, TaskSource>) -> Self {
        Self {
            at_submit: true,
            ..Self::new(parameters, tasks)
        }
    }

    /// Of the workflow's outputs.
    pub(super) fn outputs(parameters: &'a BTreeSet<&'a str>, tasks: &'a IndexMap<String, TaskSource>) -> Self {
        let scope = Self::new(parameters, tasks);
        Self {
            tasks: Some(scope.all_tasks.clone()),
            steps: Steps::None("outputs of the workflow read `tasks`"),
            in_task: false,
            ..scope
        }
    }

    /// Of settings of a task, which apply to each of its steps.
    pub(super) fn task(
        parameters: &'a BTreeSet<&'a str>,
        tasks: &'a IndexMap<String, TaskSource>,
        before: &BTreeSet<&'a str>,
    ) -> Self {
        Self {
            tasks: Some(before.clone()),
            ..Self::new(parameters, tasks)
        }
    }

    /// Of a task's workspace, which is built before its steps run.
    pub(super) fn workspace(
        parameters: &'a BTreeSet<&'a str>,
        tasks: &'a IndexMap<String, TaskSource>,
        before: &BTreeSet<&'a str>,
    ) -> Self {
        Self {
            steps: Steps::None("the workspace is built before the steps run"),
            ..Self::task(parameters, tasks, before)
        }
    }

    /// Of what a task says of itself before it begins: a condition, a time, a question.
    pub(super) fn waiting(
        parameters: &'a BTreeSet<&'a str>,
        tasks: &'a IndexMap<String, TaskSource>,
        before: &BTreeSet<&'a str>,
    ) -> Self {
        Self {
            steps: Steps::None("no step has run by then"),
            ..Self::task(parameters, tasks, before)
        }
    }

    /// Of one step.
    pub(super) fn step(
        parameters: &'a BTreeSet<&'a str>,
        tasks: &'a IndexMap<String, TaskSource>,
        before: &BTreeSet<&'a str>,
        earlier: &'a [String],
        all: &'a [String],
    ) -> Self {
        let earlier = earlier.iter().map(String::as_str).collect();
        Self {
            steps: Steps::Earlier(earlier, all.iter().map(String::as_str).collect()),
            ..Self::task(parameters, tasks, before)
        }
    }

    /// Of what is said of a task whose steps are done.
    pub(super) fn done(
        parameters: &'a BTreeSet<&'a str>,
        tasks: &'a IndexMap<String, TaskSource>,
        before: &BTreeSet<&'a str>,
        steps: &'a [String],
    ) -> Self {
        Self::step(parameters, tasks, before, steps, steps)
    }

    fn roots(&self) -> Vec<&'static str> {
        let mut roots = vec!["params", "tasks", "workflow"];
        if self.in_task {
            roots.push("task");
            if !matches!(self.steps, Steps::None(_)) {
                roots.extend(["steps", "attempt"]);
            }
        }
        roots
    }

    /// What is wrong with a reference.
    fn refuse(&self, reference: &Reference) -> Option<String> {
        self.refuse_path(&reference.path)
    }

    /// What is wrong with reading this.
    pub(super) fn refuse_path(&self, path: &[String]) -> Option<String> {
        let name = path.join(".");
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if self.at_submit && path.first().is_some_and(|root| *root != "params") {
            return Some(format!(
                "`{name}` is not known when the workflow is submitted, which is when this is filled in; only `params` is"
            ));
        }
        match path.as_slice() {
            ["params"] | ["tasks"] | ["workflow"] => None,
            ["task"] if self.in_task => None,
            ["attempt"] if self.in_task && !matches!(self.steps, Steps::None(_)) => None,
            ["params", parameter, ..] => (!self.parameters.contains(parameter)).then(|| {
                format!(
                    "`params.{parameter}` is not declared under `parameters`{}",
                    hint(parameter, self.parameters.iter().copied())
                )
            }),
            ["workflow", field, ..] => fixed("workflow", field, &["id", "name"]),
            ["task", field, ..] if self.in_task => fixed("task", field, &["name"]),
            ["tasks", task, rest @ ..] => self.refuse_task(task, rest.first().copied()),
            ["steps", rest @ ..] if self.in_task => self.refuse_step(rest),
            [root, ..] => {
                let roots = self.roots();
                let close = hint(root, roots.iter().copied());
                let listed = roots
                    .iter()
                    .map(|root| format!("`{root}`"))
                    .collect::<Vec<_>>()
                    .join(", ");
                Some(match close.is_empty() {
                    true => format!("`{name}` is undefined; there is {listed}"),
                    false => format!("`{name}` is undefined{close}"),
                })
            }
            [] => None,
        }
    }

    fn refuse_task(&self, task: &str, field: Option<&str>) -> Option<String> {
        if !self.all_tasks.contains(task) {
            return Some(format!(
                "`tasks.{task}`: there is no task `{task}`{}",
                close("tasks", task, &self.all_tasks)
            ));
        }
        if self.tasks.as_ref().is_some_and(|tasks| !tasks.contains(task)) {
            return Some(format!(
                "`tasks.{task}` may not have ended by then; add `{task}` to `needs`"
            ));
        }
        let fields: &[&str] = match self.lists.contains(task) {
            true => &["outputs", "state", "code", "items"],
            false => &["outputs", "state", "code"],
        };
        field.and_then(|field| fixed(&format!("tasks.{task}"), field, fields))
    }

    fn refuse_step(&self, rest: &[&str]) -> Option<String> {
        let (earlier, all) = match &self.steps {
            Steps::None(reason) => return Some(format!("`steps` cannot be read here: {reason}")),
            Steps::Any => return None,
            Steps::Earlier(earlier, all) => (earlier, all),
        };
        let step = *rest.first()?;
        if earlier.contains(step) {
            return rest
                .get(1)
                .and_then(|field| fixed(&format!("steps.{step}"), field, &["outputs"]));
        }
        if all.contains(&step) {
            return Some(format!(
                "`steps.{step}` does not run before this step; only earlier steps can be read"
            ));
        }
        let names: BTreeSet<&str> = all.iter().copied().collect();
        Some(format!(
            "`steps.{step}`: this task has no step `{step}`{}",
            close("steps", step, &names)
        ))
    }
}

/// What a misspelt name may have meant. `steps.step-1` reads as a subtraction.
fn close(root: &str, name: &str, names: &BTreeSet<&str>) -> String {
    match names
        .iter()
        .find(|candidate| candidate.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')))
    {
        Some(candidate) => format!("; a name with `-` is written {root}[\"{candidate}\"]"),
        None => hint(name, names.iter().copied()),
    }
}

fn fixed(owner: &str, field: &str, fields: &[&str]) -> Option<String> {
    (!fields.contains(&field)).then(|| {
        let listed = fields
            .iter()
            .map(|field| format!("`{field}`"))
            .collect::<Vec<_>>()
            .join(" and ");
        format!("`{owner}.{field}` does not exist; `{owner}` has {listed}")
    })
}

impl Check<'_> {
    /// What is wrong with reading this of what only some tasks have; `None` when it is not about that.
    fn refuse_own(&self, path: &[String]) -> Option<Option<String>> {
        let root = path.first()?.as_str();
        let fields: &[&str] = match root {
            "failure" if self.handling => &["code", "message", "task", "task_code"],
            "rework" if self.assessed => &["round", "feedback"],
            _ => return None,
        };
        Some(path.get(1).and_then(|field| fixed(root, field, fields)))
    }

    /// Parses a template and checks what it reads.
    pub(super) fn template(&mut self, path: &[String], text: &str, scope: &Scope<'_>) {
        if !has_markup(text) {
            return;
        }
        match analyse(text) {
            Err(error) => {
                let mark = self.place(path, text, error.line, error.column);
                self.issues.push(at(error.message, path, mark));
            }
            Ok(Analysis { references, problems }) => {
                for problem in problems {
                    let mark = self.place(path, text, problem.line, problem.column);
                    self.issues.push(at(problem.message, path, mark));
                }
                for reference in references {
                    let of_item = matches!(reference.path.first().map(String::as_str), Some("item" | "item_index"));
                    if self.over_list && of_item {
                        continue;
                    }
                    let refused = self
                        .refuse_own(&reference.path)
                        .unwrap_or_else(|| scope.refuse(&reference));
                    if let Some(message) = refused {
                        let mark = self.place(path, text, reference.line, reference.column);
                        self.issues.push(at(message, path, mark));
                    }
                }
            }
        }
    }

    /// Where a place inside of a text stands in the source. Exact when the text's line is found there as it is; else the beginning of the text.
    fn place(&self, path: &[String], text: &str, line: u32, column: u32) -> Mark {
        let start = self.root.mark_of(path);
        let Some(content) = text
            .lines()
            .nth(line.saturating_sub(1) as usize)
            .filter(|content| !content.trim().is_empty())
        else {
            return start;
        };
        // The text begins on the line of its mark (plain, quoted) or on the next (block).
        for offset in [0, 1] {
            let number = start
                .line
                .saturating_sub(1)
                .saturating_add(line.saturating_sub(1))
                .saturating_add(offset);
            let Some(found) = self.lines.get(number as usize) else {
                continue;
            };
            let skipped = if number + 1 == start.line {
                start.column.saturating_sub(1) as usize
            } else {
                0
            };
            let Some(tail) = found.char_indices().nth(skipped).map(|(index, _)| &found[index..]) else {
                continue;
            };
            if let Some(position) = tail.find(content) {
                let before = u32::try_from(skipped + tail[..position].chars().count()).unwrap_or(u32::MAX);
                return Mark {
                    line: number + 1,
                    column: before + column.max(1),
                };
            }
        }
        start
    }
}
