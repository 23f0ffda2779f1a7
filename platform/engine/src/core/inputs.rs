//! Artifacts of needed tasks, for the workspace of another one.

use gantry_proto::ErrorCode;
use gantry_proto::v1;
use serde_json::{Map, Value, json};

use super::body::Body;
use super::plan::{PlanFault, artifacts};
use super::state::{Task, Workflow};
use crate::spec;
use crate::spec::definition::{InputDef, UploadInputDef};

/// Stored files of a task; those of items each below a directory with the item's number.
fn stored<'w>(workflow: &'w Workflow, task: &'w Task) -> Vec<(String, &'w v1::Artifact)> {
    let mut stored: Vec<_> = artifacts(task).map(|artifact| (String::new(), artifact)).collect();
    if task.row.fan_seq.is_some() {
        for item in workflow.items(task.row.index) {
            let number = item.row.item.unwrap_or_default();
            stored.extend(artifacts(item).map(|artifact| (format!("{number}/"), artifact)));
        }
    }
    stored
}

/// What a task takes from tasks that it needs.
pub(super) fn inputs(workflow: &Workflow, body: &Body, wanted: &[InputDef]) -> Result<Vec<v1::InputPlan>, PlanFault> {
    let mut inputs = Vec::new();
    for input in wanted {
        let refused = |message: String| PlanFault::new(ErrorCode::ArtifactRefused, message);
        let input = match input {
            InputDef::Upload(input) => {
                inputs.push(upload(body, input).map_err(refused)?);
                continue;
            }
            InputDef::Artifacts(input) => input,
        };
        let glob = globset::GlobBuilder::new(&input.artifact)
            .literal_separator(true)
            .build()
            .map_err(|error| refused(format!("input `{}`: {error}", input.artifact)))?
            .compile_matcher();
        let source = body
            .definition
            .tasks
            .get_index_of(input.task.as_str())
            .and_then(|index| workflow.tasks.get(index));
        let source = source.ok_or_else(|| refused(format!("there is no task `{}` to take inputs from", input.task)))?;
        // A later step may store the same name again: the last one holds.
        let mut found: Map<String, Value> = Map::new();
        let stored = stored(workflow, source);
        for (index, (item, artifact)) in stored.iter().enumerate() {
            if glob.is_match(&artifact.name) {
                found.insert(format!("{item}{}", artifact.name), json!(index));
            }
        }
        let into_directory = input.path.ends_with('/');
        if found.is_empty() && !input.optional {
            let message = format!(
                "task `{}` stored no artifact that matches `{}`",
                input.task, input.artifact
            );
            return Err(refused(message));
        }
        if found.len() > 1 && !into_directory {
            let message = format!(
                "{} artifacts of task `{}` match `{}`, but `{}` is one file; end it with `/` to make it a directory",
                found.len(),
                input.task,
                input.artifact,
                input.path
            );
            return Err(refused(message));
        }
        for index in found.values().filter_map(Value::as_u64) {
            let (item, artifact) = &stored[usize::try_from(index).unwrap_or(0)];
            let path = if into_directory {
                format!("{}{item}{}", input.path, artifact.name)
            } else {
                input.path.clone()
            };
            inputs.push(v1::InputPlan {
                artifact: artifact.id,
                path,
                sha256: artifact.sha256.clone(),
                size_bytes: artifact.size_bytes,
                mode: None,
            });
        }
    }
    Ok(inputs)
}

/// An upload as input: the workflow's own copy of it.
fn upload(body: &Body, input: &UploadInputDef) -> Result<v1::InputPlan, String> {
    let id = spec::upload_of(&input.upload, &body.parameters)?;
    let copies = body.uploads.get(&id);
    let copy = copies.ok_or_else(|| format!("the workflow was submitted without a copy of upload `{id}`"))?;
    Ok(v1::InputPlan {
        artifact: copy.id,
        path: input.path.clone(),
        sha256: copy.sha256.clone(),
        size_bytes: copy.size_bytes,
        mode: None,
    })
}
