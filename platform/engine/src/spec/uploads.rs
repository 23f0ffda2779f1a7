//! Which uploads a submission takes: known before anything runs, because their content is copied when it is submitted.

use std::collections::BTreeMap;

use gantry_proto::UploadId;
use serde_json::{Map, Value, json};

use super::definition::{Definition, InputDef};
use super::template::render;
use crate::api::Issue;

/// The upload that an input's template names.
///
/// # Errors
/// In words, when the template does not render or gives no upload's id.
pub fn upload_of(template: &str, parameters: &Map<String, Value>) -> Result<UploadId, String> {
    let text = render(template, &json!({ "params": parameters })).map_err(|error| error.message)?;
    text.trim()
        .parse()
        .map_err(|error: gantry_proto::ids::ParseIdError| error.to_string())
}

/// Every upload that a submission takes, with the first place that names it.
///
/// # Errors
/// Every input whose upload cannot be told.
pub fn uploads(
    definition: &Definition,
    parameters: &Map<String, Value>,
) -> Result<BTreeMap<UploadId, String>, Vec<Issue>> {
    let (mut found, mut issues) = (BTreeMap::new(), Vec::new());
    for (name, task) in &definition.tasks {
        for (position, input) in task.inputs.iter().enumerate() {
            let InputDef::Upload(input) = input else { continue };
            let path = format!("/tasks/{name}/inputs/{position}/upload");
            match upload_of(&input.upload, parameters) {
                Ok(upload) => {
                    found.entry(upload).or_insert(path);
                }
                Err(message) => issues.push(Issue {
                    message,
                    path: Some(path),
                    line: None,
                    column: None,
                }),
            }
        }
    }
    if issues.is_empty() { Ok(found) } else { Err(issues) }
}
