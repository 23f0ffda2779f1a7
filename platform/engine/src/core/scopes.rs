//! Paused definitions and tenants, as every partition knows them. All of it is a fold over the log.

use std::collections::BTreeMap;

use gantry_proto::{PrincipalId, TenantId, WorkflowId};

use super::rows::WorkflowRow;

/// A definition of a tenant by the hash of its name, or with zeroes the tenant.
pub type ScopeRef = (TenantId, [u8; 16]);

/// The hash of a scope: a definition's name, or none for the tenant.
#[must_use]
pub fn scope_hash(definition: Option<&str>) -> [u8; 16] {
    let mut scope = [0; 16];
    if let Some(name) = definition {
        scope.copy_from_slice(&blake3::hash(name.as_bytes()).as_bytes()[..16]);
    }
    scope
}

/// A paused definition or tenant.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeRow {
    /// Its name; absent: the tenant.
    #[prost(string, optional, tag = "1")]
    pub definition: Option<String>,
    /// Who paused it.
    #[prost(message, required, tag = "2")]
    pub by: PrincipalId,
    /// When.
    #[prost(uint64, required, tag = "3")]
    pub at_ms: u64,
    /// At its owner: position of the record with the reason.
    #[prost(uint64, optional, tag = "4")]
    pub seq: Option<u64>,
    /// At its owner: what the reason is sealed under.
    #[prost(message, optional, tag = "5")]
    pub content: Option<WorkflowId>,
}

/// Paused scopes of a partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scopes(pub BTreeMap<ScopeRef, ScopeRow>);

impl Scopes {
    /// Whether a workflow is of a paused definition or tenant.
    #[must_use]
    pub fn hold(&self, row: &WorkflowRow) -> bool {
        !self.0.is_empty()
            && scopes_of(row)
                .iter()
                .any(|scope| self.0.contains_key(&(row.tenant, *scope)))
    }

    /// How many of a tenant there are.
    #[must_use]
    pub fn of_tenant(&self, tenant: TenantId) -> usize {
        let own = self.0.range((tenant, [0; 16])..);
        own.take_while(|((each, _), _)| *each == tenant).count()
    }
}

/// Scopes that a workflow is of: its tenant, the name of its definition, the playbook that it runs.
#[must_use]
pub fn scopes_of(row: &WorkflowRow) -> Vec<[u8; 16]> {
    let mut scopes = vec![scope_hash(None), scope_hash(Some(&row.name))];
    let playbook = row.playbook.as_ref().filter(|playbook| playbook.name != row.name);
    scopes.extend(playbook.map(|playbook| scope_hash(Some(&playbook.name))));
    scopes
}
