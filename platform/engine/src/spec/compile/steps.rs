//! One step: its command, outputs and artifacts.

use gantry_proto::limits::{ARTIFACTS_PER_STEP_MAX, COMMAND_BYTES_MAX};

use super::names::Scope;
use super::settings::Settings;
use super::{Check, ENTRIES_MAX, join};
use crate::spec::definition::{ArtifactDef, RunDef, StepDef};
use crate::spec::scalars;
use crate::spec::source::{ArtifactSource, OneOrMany, RunSource};

/// Arguments of a command.
const ARGUMENTS_MAX: usize = 1_000;

/// What a step has of its own, in its long or short form.
pub(super) struct Bare<'a> {
    pub(super) key: String,
    pub(super) run: &'a RunSource,
    pub(super) outputs: Option<&'a OneOrMany>,
    pub(super) artifacts: &'a [ArtifactSource],
}

impl Check<'_> {
    pub(super) fn step(&mut self, path: &[String], source: Bare<'_>, settings: Settings, scope: &Scope<'_>) -> StepDef {
        let run = self.command(&join(path, "run"), source.run, scope);
        let outputs = source.outputs.map(OneOrMany::list).unwrap_or_default();
        let list = matches!(source.outputs, Some(OneOrMany::Many(_)));
        if outputs.len() > ENTRIES_MAX {
            self.complain(
                &join(path, "outputs"),
                format!(
                    "{} outputs are too many; at most {ENTRIES_MAX} are allowed",
                    outputs.len()
                ),
            );
        }
        for (position, name) in outputs.iter().enumerate() {
            let outputs_path = join(path, "outputs");
            let place = if list {
                join(&outputs_path, position)
            } else {
                outputs_path
            };
            self.checked(&place, scalars::identifier(name));
            if outputs[..position].contains(name) {
                self.complain(&place, format!("the output `{name}` is named twice"));
            }
        }
        let artifacts = self.artifacts(&join(path, "artifacts"), source.artifacts);
        let Settings {
            image,
            env,
            workdir,
            timeout_ms,
            retry,
            resources,
            output_limit_bytes,
            grace_ms,
        } = settings;
        StepDef {
            key: source.key,
            run,
            image,
            env,
            workdir,
            timeout_ms,
            retry,
            outputs,
            artifacts,
            resources,
            output_limit_bytes,
            grace_ms,
        }
    }

    fn command(&mut self, path: &[String], source: &RunSource, scope: &Scope<'_>) -> RunDef {
        match source {
            RunSource::Shell(script) => {
                if script.trim().is_empty() {
                    self.complain(path, "the script is empty");
                }
                self.command_size(path, script.len());
                self.template(path, script, scope);
                RunDef::Shell(script.clone())
            }
            RunSource::Argv(arguments) => {
                let arguments: Vec<String> = arguments.iter().map(super::super::source::Scalar::text).collect();
                if arguments.first().is_none_or(|first| first.trim().is_empty()) {
                    self.complain(path, "the command is empty; its first item is the program");
                }
                if arguments.len() > ARGUMENTS_MAX {
                    self.complain(
                        path,
                        format!(
                            "{} arguments are too many; at most {ARGUMENTS_MAX} are allowed",
                            arguments.len()
                        ),
                    );
                }
                self.command_size(path, arguments.iter().map(String::len).sum());
                for (position, argument) in arguments.iter().enumerate() {
                    self.template(&join(path, position), argument, scope);
                }
                RunDef::Argv(arguments)
            }
        }
    }

    fn command_size(&mut self, path: &[String], bytes: usize) {
        if bytes > COMMAND_BYTES_MAX {
            self.complain(path, format!("the command has {bytes} bytes; at most {COMMAND_BYTES_MAX} are allowed: put it into a file of the workspace"));
        }
    }

    fn artifacts(&mut self, path: &[String], sources: &[ArtifactSource]) -> Vec<ArtifactDef> {
        if sources.len() > ARTIFACTS_PER_STEP_MAX {
            self.complain(
                path,
                format!(
                    "{} globs are too many; at most {ARTIFACTS_PER_STEP_MAX} are allowed",
                    sources.len()
                ),
            );
        }
        let mut compiled = Vec::with_capacity(sources.len());
        for (position, source) in sources.iter().enumerate() {
            let place = join(path, position);
            let (glob, required, glob_place) = match source {
                ArtifactSource::Glob(glob) => (glob, true, place),
                ArtifactSource::Full(fields) => (&fields.glob, fields.required.unwrap_or(true), join(&place, "glob")),
            };
            self.checked(&glob_place, scalars::glob(glob));
            compiled.push(ArtifactDef {
                glob: glob.clone(),
                required,
            });
        }
        compiled
    }
}
