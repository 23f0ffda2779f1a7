//! Tasks: what they need beside other tasks, and their steps.

use std::collections::BTreeSet;

use gantry_proto::UploadId;
use gantry_proto::limits::{STEPS_PER_TASK_MAX, WAIT_MS_MAX};
use indexmap::IndexMap;

use super::names::Scope;
use super::settings::Level;
use super::steps::Bare;
use super::{Check, ENTRIES_MAX, join};
use crate::spec::definition::{ArtifactInputDef, InputDef, Requires, StepDef, TaskDef, TaskKind, UploadInputDef};
use crate::spec::issues::hint;
use crate::spec::scalars;
use crate::spec::source::{DefaultsSource, InputSource, RequiresSource, StepSource, TaskSource};

/// Inputs of one task.
const INPUTS_MAX: usize = 100;

impl Check<'_> {
    pub(super) fn task(
        &mut self,
        path: &[String],
        source: &TaskSource,
        defaults: &DefaultsSource,
        parameters: &BTreeSet<&str>,
        tasks: &IndexMap<String, TaskSource>,
        before: &BTreeSet<&str>,
    ) -> TaskDef {
        let workspace_scope = Scope::workspace(parameters, tasks, before);
        let workspace = source
            .workspace
            .as_ref()
            .map(|workspace| self.workspace(&join(path, "workspace"), workspace, &workspace_scope, before, tasks));
        let inputs = self.inputs(
            &join(path, "inputs"),
            &source.inputs,
            &Scope::parameters(parameters, tasks),
            before,
            tasks,
        );
        let requires = self.requires(&join(path, "requires"), &source.requires);
        let before_steps = Scope::waiting(parameters, tasks, before);
        let for_each = self.items(path, source, &before_steps);
        self.over_list = for_each.is_some();
        let kind = self.kind(path, source, &before_steps);
        if let Some(when) = &source.when {
            self.condition(&join(path, "when"), when, &before_steps);
        }
        let limits = self.limits(
            path,
            source.concurrency.as_ref(),
            source.rate_limit.as_ref(),
            &before_steps,
        );
        self.code(path, source, &before_steps);
        self.assessed = source.assess.is_some();
        let steps = match kind {
            Some(TaskKind::Steps) => self.steps(path, source, defaults, parameters, tasks, before),
            _ => Vec::new(),
        };
        let assess = match kind {
            Some(TaskKind::Steps) => self.assess(path, source, &steps, (parameters, tasks, before)),
            _ => None,
        };
        self.assessed = false;
        self.over_list = false;
        TaskDef {
            for_each,
            needs: source.needs.as_ref().map(|needs| needs.list()).unwrap_or_default(),
            run_on: source.run_on,
            handles: None,
            kind: kind.unwrap_or_default(),
            when: source.when.clone(),
            deadline_ms: source
                .deadline
                .as_ref()
                .and_then(|deadline| self.duration(&join(path, "deadline"), deadline, 1, WAIT_MS_MAX)),
            assess,
            steps,
            workspace: workspace.unwrap_or_default(),
            inputs,
            requires,
            limits,
        }
    }

    fn steps(
        &mut self,
        path: &[String],
        source: &TaskSource,
        defaults: &DefaultsSource,
        parameters: &BTreeSet<&str>,
        tasks: &IndexMap<String, TaskSource>,
        before: &BTreeSet<&str>,
    ) -> Vec<StepDef> {
        let task_level = Level::task(source, path.to_vec());
        match (&source.steps, &source.run) {
            (None, Some(run)) => {
                let key = "step-1".to_owned();
                let all = [key.clone()];
                let scope = Scope::step(parameters, tasks, before, &[], &all);
                self.level_templates(&task_level, &scope);
                let settings = self.settings(&[Level::defaults(defaults), task_level]);
                let outputs = source.outputs.as_ref();
                let artifacts = source.artifacts.as_deref().unwrap_or_default();
                vec![self.step(
                    path,
                    Bare {
                        key,
                        run,
                        outputs,
                        artifacts,
                    },
                    settings,
                    &scope,
                )]
            }
            (Some(steps), _) => {
                for field in ["outputs", "artifacts"] {
                    let given = if field == "outputs" {
                        source.outputs.is_some()
                    } else {
                        source.artifacts.is_some()
                    };
                    if given {
                        self.complain_key(&join(path, field), format!("`{field}` of a task goes with `run`; with `steps`, put it into the step that makes them"));
                    }
                }
                self.level_templates(&task_level, &Scope::task(parameters, tasks, before));
                self.step_list(
                    &join(path, "steps"),
                    steps,
                    &[Level::defaults(defaults), task_level],
                    (parameters, tasks, before),
                )
            }
            (None, None) => Vec::new(),
        }
    }

    fn step_list<'s>(
        &mut self,
        path: &[String],
        steps: &'s [StepSource],
        outer: &[Level<'s>; 2],
        (parameters, tasks, before): (&BTreeSet<&str>, &IndexMap<String, TaskSource>, &BTreeSet<&str>),
    ) -> Vec<StepDef> {
        if steps.is_empty() {
            self.complain(path, "a task needs at least one step");
        }
        if steps.len() > STEPS_PER_TASK_MAX {
            self.complain(
                path,
                format!(
                    "{} steps are too many; at most {STEPS_PER_TASK_MAX} are allowed in a task",
                    steps.len()
                ),
            );
            return Vec::new();
        }
        let keys = self.step_keys(path, steps);
        let mut compiled = Vec::with_capacity(steps.len());
        for (position, step) in steps.iter().enumerate() {
            let place = join(path, position);
            let scope = Scope::step(parameters, tasks, before, &keys[..position], &keys);
            let level = Level::step(step, place.clone());
            self.level_templates(&level, &scope);
            let settings = self.settings(&[outer[0].clone(), outer[1].clone(), level]);
            let bare = Bare {
                key: keys[position].clone(),
                run: &step.run,
                outputs: step.outputs.as_ref(),
                artifacts: &step.artifacts,
            };
            compiled.push(self.step(&place, bare, settings, &scope));
        }
        compiled
    }

    /// The key of each step, given or counted, and whether they are unique.
    fn step_keys(&mut self, path: &[String], steps: &[StepSource]) -> Vec<String> {
        let mut keys: Vec<String> = Vec::with_capacity(steps.len());
        for (position, step) in steps.iter().enumerate() {
            let place = join(path, position);
            if step.key.is_some() && step.name.is_some() {
                self.complain_key(
                    &join(&place, "name"),
                    "`key` and `name` of a step mean the same; give one",
                );
            }
            let field = if step.key.is_some() { "key" } else { "name" };
            let given = step.key.as_ref().or(step.name.as_ref());
            if let Some(key) = given {
                self.checked(&join(&place, field), scalars::name(key, false));
            }
            let key = given.cloned().unwrap_or_else(|| format!("step-{}", position + 1));
            if let Some(first) = keys.iter().position(|other| *other == key) {
                let place = if given.is_some() { join(&place, field) } else { place };
                self.complain(
                    &place,
                    format!("the key `{key}` belongs to step {} of this task already", first + 1),
                );
            }
            keys.push(key);
        }
        keys
    }

    fn inputs(
        &mut self,
        path: &[String],
        inputs: &[InputSource],
        scope: &Scope<'_>,
        before: &BTreeSet<&str>,
        tasks: &IndexMap<String, TaskSource>,
    ) -> Vec<InputDef> {
        if inputs.len() > INPUTS_MAX {
            self.complain(
                path,
                format!("{} inputs are too many; at most {INPUTS_MAX} are allowed", inputs.len()),
            );
        }
        let mut compiled = Vec::with_capacity(inputs.len());
        for (position, input) in inputs.iter().enumerate() {
            let place = join(path, position);
            if let Some(upload) = &input.upload {
                compiled.extend(self.upload(&place, input, upload, scope));
                continue;
            }
            let Some(task) = &input.task else {
                self.complain(
                    &place,
                    "an input names the `task` whose artifacts it takes, or an `upload`",
                );
                continue;
            };
            self.needed(&join(&place, "task"), task, "its artifacts", before, tasks);
            let artifact = input.artifact.clone().unwrap_or_else(|| "**".to_owned());
            self.checked(&join(&place, "artifact"), scalars::glob(&artifact));
            let target = input.path.clone().unwrap_or_else(|| format!("inputs/{task}/"));
            self.checked(&join(&place, "path"), scalars::relative_path(&target));
            compiled.push(InputDef::Artifacts(ArtifactInputDef {
                task: task.clone(),
                artifact,
                path: target,
                optional: input.optional,
            }));
        }
        compiled
    }

    fn upload(&mut self, place: &[String], input: &InputSource, upload: &str, scope: &Scope<'_>) -> Option<InputDef> {
        let others = [
            ("task", input.task.is_some()),
            ("artifact", input.artifact.is_some()),
            ("optional", input.optional),
        ];
        for (field, _) in others.iter().filter(|(_, given)| *given) {
            self.complain_key(&join(place, field), format!("`{field}` does not go with `upload`"));
        }
        let path = join(place, "upload");
        self.text(&path, upload, scope, |text| {
            text.parse::<UploadId>().map(drop).map_err(|error| error.to_string())
        });
        let Some(target) = &input.path else {
            self.complain(
                place,
                "an upload needs a `path`: the file under the workspace that it becomes",
            );
            return None;
        };
        let path = join(place, "path");
        if target.ends_with('/') {
            self.complain(&path, "an upload becomes one file; name it");
        }
        self.checked(&path, scalars::relative_path(target));
        Some(InputDef::Upload(UploadInputDef {
            upload: upload.to_owned(),
            path: target.clone(),
        }))
    }

    /// That a task whose result is wanted exists and has ended by then.
    pub(super) fn needed(
        &mut self,
        path: &[String],
        task: &str,
        what: &str,
        before: &BTreeSet<&str>,
        tasks: &IndexMap<String, TaskSource>,
    ) {
        if !tasks.contains_key(task) {
            let close = hint(task, tasks.keys().map(String::as_str));
            self.complain(path, format!("there is no task `{task}`{close}"));
        } else if !before.contains(task) {
            self.complain(
                path,
                format!("`{task}` may not have ended by then; add it to `needs` to use {what}"),
            );
        }
    }

    fn requires(&mut self, path: &[String], source: &RequiresSource) -> Requires {
        if source.capabilities.len() > ENTRIES_MAX || source.labels.len() > ENTRIES_MAX {
            self.complain(
                path,
                format!("at most {ENTRIES_MAX} capabilities and {ENTRIES_MAX} labels may be required"),
            );
        }
        for (position, capability) in source.capabilities.iter().enumerate() {
            self.checked(
                &join(&join(path, "capabilities"), position),
                scalars::name(capability, true),
            );
        }
        let mut labels = IndexMap::new();
        for (name, value) in &source.labels {
            let place = join(&join(path, "labels"), name);
            if let Err(message) = scalars::name(name, true) {
                self.complain_key(&place, message);
            }
            let text = value.text();
            if text.len() > gantry_proto::limits::NAME_BYTES_MAX {
                self.complain(
                    &place,
                    format!(
                        "a label's value has at most {} bytes",
                        gantry_proto::limits::NAME_BYTES_MAX
                    ),
                );
            }
            labels.insert(name.clone(), text);
        }
        if let Some(arch) = &source.arch {
            self.checked(&join(path, "arch"), scalars::name(arch, false));
        }
        Requires {
            capabilities: source.capabilities.clone(),
            labels,
            arch: source.arch.clone(),
        }
    }
}
