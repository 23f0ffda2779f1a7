//! What a compiled definition says.

use crate::api::{DefinitionView, TaskOutline};
use crate::spec::Compiled;

/// The view of a definition.
///
/// # Errors
/// When a task cannot be written as JSON, which compiled ones can.
pub(crate) fn definition_view(compiled: &Compiled) -> Result<DefinitionView, serde_json::Error> {
    let definition = &compiled.definition;
    let mut tasks = Vec::with_capacity(definition.tasks.len());
    for (name, task) in &definition.tasks {
        tasks.push(TaskOutline {
            name: name.clone(),
            needs: task.needs.clone(),
            steps: task.steps.iter().map(|step| step.key.clone()).collect(),
            digest: blake3::hash(&serde_json::to_vec(task)?).to_hex().to_string(),
        });
    }
    Ok(DefinitionView {
        name: definition.name.clone(),
        description: definition.description.clone(),
        digest: hex::encode(compiled.digest),
        parameters: definition.parameters.clone(),
        tasks,
        outputs: definition.outputs.keys().cloned().collect(),
    })
}
