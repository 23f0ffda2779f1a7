//! Tasks of code: leased to a worker instead of a node, they have no fixed steps but activations, which the worker begins as its code comes to them.
//!
//! - [`table`]: what a worker is answered that begins an activation.
//! - [`row`]: the stored form of an activation.
//! - `apply`: what records about activations change.
//! - `flow`: what follows when code returns, fails, sleeps, or loses its lease.

pub(super) mod apply;
mod flow;
pub mod row;
pub mod table;

use bytes::Bytes;
use gantry_proto::v1;

use super::plan::{self, PlanFault};
use super::state::{PartitionState, TaskRef};

pub use row::{ActivationKey, ActivationRow, ActivationState};

/// What is told to the worker that a task of code is leased to.
pub(super) fn input(state: &PartitionState, reference: TaskRef) -> Result<Bytes, PlanFault> {
    let workflow = state.workflows.get(&reference.0);
    let body = workflow.and_then(|workflow| workflow.body.as_deref());
    match body.and_then(|body| body.input.clone()) {
        Some(input) => Ok(input),
        None => plan::code_input(state, reference),
    }
}

/// The assignment of a leased task of code.
pub(super) fn assignment(state: &PartitionState, reference: TaskRef, input: Bytes) -> Option<v1::RunAssignment> {
    let workflow = state.workflows.get(&reference.0)?;
    let row = &state.task(reference)?.row;
    let activations = state.activations.get(&reference).map_or(0, |all| all.len());
    Some(v1::RunAssignment {
        assignee: v1::Assignee {
            tenant: workflow.row.tenant,
            workflow: reference.0,
            task: row.id,
            fence: row.fence,
            step: 0,
            attempt: row.attempt,
        },
        component: row.component.clone()?,
        input,
        lease_ms: state.settings.lease_ms,
        project: workflow.row.tenant.to_string(),
        // A workflow of code alone is its own run; among other tasks each task is one.
        run: if workflow.row.code.unwrap_or(false) {
            reference.0.to_string()
        } else {
            row.id.to_string()
        },
        activations: u32::try_from(activations).unwrap_or(u32::MAX),
        failures: row.code_failures.unwrap_or(0),
    })
}
