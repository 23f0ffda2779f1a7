//! Rows of activations: written, read, compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_journal::keys::{self, Parsed};
use gantry_journal::{ReadError, Store, Write};
use gantry_proto::WorkflowId;

use super::batch::row;
use super::load::{Records, decode, walk};
use super::storage::ContentError;
use crate::core::PartitionState;
use crate::core::body::StepResultBody;
use crate::core::code::{ActivationKey, ActivationRow};
use crate::core::state::Workflow;
use crate::lifecycle::task::TaskState;

/// Writes the rows that changed.
pub(super) fn rows(state: &PartitionState, writes: &mut Vec<Write>) {
    for (reference, key) in &state.dirty.activations {
        let found = state.activations.get(reference).and_then(|all| all.get(key));
        let Some((workflow, activation)) = state.workflows.get(&reference.0).zip(found) else {
            continue;
        };
        writes.push(Write::Put(
            keys::activation(state.partition, workflow.row.tenant, reference.0, key),
            row(activation),
        ));
    }
}

/// The stored rows of a workflow.
///
/// # Errors
/// When they cannot be read.
pub(crate) fn stored(
    store: &dyn Store,
    workflow: &Workflow,
) -> Result<BTreeMap<ActivationKey, ActivationRow>, ReadError> {
    let mut found = BTreeMap::new();
    if workflow.tasks.iter().all(|task| task.row.component.is_none()) {
        return Ok(found);
    }
    let id = workflow.row.id;
    let range = keys::activations_of(id.partition(), workflow.row.tenant, id);
    walk(store, &range, |key, value| {
        if let Some(Parsed::Activation { activation, .. }) = keys::parse(key) {
            found.insert(activation, decode("a row of a step of code", value)?);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Puts the activations of a loaded workflow into the state; those of ended tasks are needed no more.
pub(super) fn load(store: &dyn Store, workflow: &Workflow, state: &mut PartitionState) -> Result<(), ReadError> {
    for (key, row) in stored(store, workflow)? {
        let reference = (workflow.row.id, row.task);
        state.activations.entry(reference).or_default().insert(key, row);
    }
    Ok(())
}

/// Opens what tasks of code returned.
pub(super) fn open_results(workflow: &mut Workflow, records: &mut Records<'_>) -> Result<(), ContentError> {
    for task in &mut workflow.tasks {
        let row = &task.row;
        if row.component.is_none() || row.state() != TaskState::Completed {
            continue;
        }
        let payload = row.end_seq.map(|seq| records.payload(seq)).transpose()?.flatten();
        task.result = payload.map(|payload| Arc::new(StepResultBody::of_code(&payload)));
    }
    Ok(())
}

/// Why stored and folded rows are not the same.
pub(crate) enum Differs {
    /// The store cannot be read.
    Read(ReadError),
    /// This row.
    Row(String),
}

/// Compares the folded activations of a workflow with its stored rows.
pub(crate) fn compare(store: &dyn Store, state: &PartitionState, id: WorkflowId) -> Result<(), Differs> {
    let Some(workflow) = state.workflows.get(&id) else {
        return Ok(());
    };
    let mut stored = stored(store, workflow).map_err(Differs::Read)?;
    let named = |key: &ActivationKey| Differs::Row(format!("step {} of workflow {id}", hex::encode(key)));
    for task in &workflow.tasks {
        for (key, row) in state.activations.get(&(id, task.row.index)).into_iter().flatten() {
            if stored.remove(key).as_ref() != Some(row) {
                return Err(named(key));
            }
        }
    }
    stored.keys().next().map_or(Ok(()), |key| Err(named(key)))
}
