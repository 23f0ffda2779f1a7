//! Records about pauses of definitions and tenants.

use gantry_proto::WorkflowId;
use gantry_proto::v1;

use super::{ApplyError, Place};
use crate::core::scopes::{ScopeRef, ScopeRow, scope_hash, scopes_of};
use crate::core::state::PartitionState;

/// Workflows of a scope that have not ended.
fn members(state: &PartitionState, (tenant, scope): ScopeRef) -> Vec<WorkflowId> {
    let own = state.workflows.values().map(|workflow| &workflow.row);
    let members = own.filter(|row| row.tenant == tenant && !row.is_ended() && scopes_of(row).contains(&scope));
    members.map(|row| row.id).collect()
}

pub(super) fn scope_paused(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ScopePaused,
) -> Result<(), ApplyError> {
    let scope = (place.tenant, scope_hash(event.definition.as_deref()));
    let row = ScopeRow {
        definition: event.definition.clone(),
        by: event.by,
        at_ms: event.at_ms,
        seq: place.workflow.map(|_| place.seq),
        content: place.workflow,
    };
    if state.scopes.0.insert(scope, row).is_some() {
        return Err(ApplyError::Contradiction {
            seq: place.seq,
            what: "it is paused already",
        });
    }
    state.dirty.scopes.insert(scope);
    for id in members(state, scope) {
        state.disarm(id);
    }
    Ok(())
}

pub(super) fn scope_resumed(
    state: &mut PartitionState,
    place: Place,
    event: &v1::ScopeResumed,
) -> Result<(), ApplyError> {
    let scope = (place.tenant, scope_hash(event.definition.as_deref()));
    if state.scopes.0.remove(&scope).is_none() {
        return Err(ApplyError::Unknown {
            seq: place.seq,
            what: "pause",
        });
    }
    state.dirty.scopes.insert(scope);
    for id in members(state, scope) {
        // It may be held for another reason as well.
        if !state.is_paused(id) {
            state.arm(id);
        }
    }
    Ok(())
}
