//! Paused definitions and tenants, as their owners have them.

use gantry_journal::SealError;
use gantry_journal::keys::{self, Kind};
use gantry_proto::{PartitionId, TenantId};

use super::content;
use crate::api::{HeldView, PauseScope, PauseView, Refusal};
use crate::core::scopes::ScopeRow;
use crate::engine::unreadable;
use crate::processor::load::{Records, decode, walk};
use crate::processor::storage::{ContentError, Storage};

/// The partition that owns a scope.
pub(crate) fn scope_owner(tenant: TenantId, scope: &[u8; 16], partitions: u16) -> PartitionId {
    PartitionId::of(tenant, "pause", scope, partitions)
}

fn view(storage: &Storage, partition: PartitionId, row: ScopeRow) -> Result<HeldView, Refusal> {
    let said = match row.seq.map(|seq| Records::new(storage, partition).payload(seq)) {
        None | Some(Err(ContentError::Seal(SealError::Erased))) => None,
        Some(said) => said.map_err(content)?,
    };
    Ok(HeldView {
        scope: match row.definition {
            Some(_) => PauseScope::Definition,
            None => PauseScope::Tenant,
        },
        definition: row.definition,
        pause: PauseView {
            by: Some(row.by.to_string()),
            since_ms: row.at_ms,
            why: said.and_then(|payload| payload.message),
        },
    })
}

/// One of them; `None`: it is not paused.
pub(crate) fn scope(
    storage: &Storage,
    partitions: u16,
    tenant: TenantId,
    scope: &[u8; 16],
) -> Result<Option<HeldView>, Refusal> {
    let partition = scope_owner(tenant, scope, partitions);
    let key = keys::paused_scope(partition, tenant, scope);
    let Some(value) = storage.store().get(&key).map_err(unreadable)? else {
        return Ok(None);
    };
    let row: ScopeRow = decode("a pause", &value).map_err(unreadable)?;
    view(storage, partition, row).map(Some)
}

/// All of a tenant, the tenant itself first, then by name.
pub(crate) fn scopes(storage: &Storage, partitions: u16, tenant: TenantId) -> Result<Vec<HeldView>, Refusal> {
    let mut rows = Vec::new();
    for partition in (0..partitions).filter_map(PartitionId::new) {
        let range = keys::tenant_of(Kind::PausedScope, partition, tenant);
        let walked = walk(storage.store().as_ref(), &range, |_, value| {
            let row: ScopeRow = decode("a pause", value)?;
            // Every partition knows of it; its owner has the reason.
            rows.extend(row.content.is_some().then_some((partition, row)));
            Ok(())
        });
        walked.map_err(unreadable)?;
    }
    rows.sort_by(|(_, one), (_, other)| one.definition.cmp(&other.definition));
    rows.into_iter()
        .map(|(partition, row)| view(storage, partition, row))
        .collect()
}
