//! The source form of what runs before a workflow ends.

use std::collections::BTreeMap;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;

use super::retry_source::RetrySource;
use super::source::{
    ArtifactSource, Duration, InputSource, OneOrMany, RequiresSource, ResourcesSource, RunSource, Scalar, StepSource,
    TaskSource, WorkspaceSource,
};

/// What runs before a workflow ends. It changes nothing about the end.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HandlerSource {
    /// Longest time that the end waits for it, from its decision on; 10 min when absent, at most a day.
    #[serde(default)]
    pub(super) deadline: Option<Duration>,
    /// The tree that the steps work on; empty when absent.
    #[serde(default)]
    pub(super) workspace: Option<WorkspaceSource>,
    /// Artifacts of tasks and uploads, put into the workspace before the first step.
    #[serde(default)]
    pub(super) inputs: Vec<InputSource>,
    /// What a node must offer.
    #[serde(default)]
    pub(super) requires: RequiresSource,
    /// Steps in order.
    #[serde(default)]
    pub(super) steps: Option<Vec<StepSource>>,
    /// Short form of a single step: what it runs.
    #[serde(default)]
    pub(super) run: Option<RunSource>,
    /// Local image of the steps (template).
    #[serde(default)]
    pub(super) image: Option<String>,
    /// Environment of the steps (templates).
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(super) env: IndexMap<String, Scalar>,
    /// Longest time of one attempt at a step.
    #[serde(default)]
    pub(super) timeout: Option<Duration>,
    /// What happens after a failed attempt at a step. Without attempts left it fails, whatever `exhausted` says.
    #[serde(default)]
    pub(super) retry: Option<RetrySource>,
    /// Size of the sandboxes.
    #[serde(default)]
    pub(super) resources: Option<ResourcesSource>,
    /// With `run` only: names that `$GANTRY_OUTPUT` must set.
    #[serde(default)]
    pub(super) outputs: Option<OneOrMany>,
    /// With `run` only: files to keep.
    #[serde(default)]
    pub(super) artifacts: Option<Vec<ArtifactSource>>,
}

impl HandlerSource {
    /// The same as a task.
    pub(super) fn task(&self) -> TaskSource {
        TaskSource {
            deadline: self.deadline.clone(),
            workspace: self.workspace.clone(),
            inputs: self.inputs.clone(),
            requires: self.requires.clone(),
            steps: self.steps.clone(),
            run: self.run.clone(),
            image: self.image.clone(),
            env: self.env.clone(),
            timeout: self.timeout.clone(),
            retry: self.retry.clone(),
            resources: self.resources.clone(),
            outputs: self.outputs.clone(),
            artifacts: self.artifacts.clone(),
            ..TaskSource::default()
        }
    }
}
