//! Holding a definition or a tenant, and letting it go on.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, letter};
use gantry_proto::{ErrorCode, PartitionId, PrincipalId, TenantId, WorkflowId, limits};

use super::{Outcome, Rejection, Reply};
use crate::core::apply::ApplyError;
use crate::core::decide::{Batching, Inputs};
use crate::core::flow::said;
use crate::core::scopes::{ScopeRef, scope_hash, scopes_of};

/// Hold a definition or a tenant, or let it go on. Sent to the partition that owns the scope, which tells all others.
#[derive(Debug, Clone)]
pub struct PauseScope {
    /// Whose.
    pub tenant: TenantId,
    /// Name of a workflow or a playbook; none: all of the tenant.
    pub definition: Option<String>,
    /// By whom.
    pub by: PrincipalId,
    /// Or resume.
    pub paused: bool,
    /// Why, in words.
    pub comment: Option<String>,
}

impl PauseScope {
    pub(super) fn decide(self, batch: &mut Batching<'_>, inputs: Inputs) -> Outcome {
        let scope = (self.tenant, scope_hash(self.definition.as_deref()));
        let known = batch.state.scopes.0.get(&scope).cloned();
        if known.is_some() == self.paused {
            // Said again. Whoever asks waits for the letters of the first time.
            return Ok(Ok(Reply::Spread(batch.sent_to_all())));
        }
        if self.paused && batch.state.scopes.of_tenant(self.tenant) >= limits::PAUSED_SCOPES_MAX {
            return Ok(Err(Rejection::Refused {
                code: ErrorCode::Overloaded,
                message: format!(
                    "{} definitions are paused already, the most there can be; resume some, or pause the tenant",
                    limits::PAUSED_SCOPES_MAX
                ),
            }));
        }
        let at_ms = batch.now_ms;
        let letter = v1::ScopePause {
            definition: self.definition.clone(),
            paused: self.paused,
            by: self.by,
            at_ms,
        };
        match known.and_then(|known| known.content) {
            None => {
                let content = WorkflowId::new(at_ms, batch.state.partition, inputs.entropy);
                let event = v1::ScopePaused {
                    definition: self.definition,
                    by: self.by,
                    at_ms,
                };
                let comment = self.comment.and_then(said);
                batch.emit(self.tenant, Some(content), Kind::ScopePaused(event), comment)?;
            }
            Some(content) => {
                let event = v1::ScopeResumed {
                    definition: self.definition,
                    by: self.by,
                    content: Some(content),
                };
                batch.emit(self.tenant, None, Kind::ScopeResumed(event), None)?;
                batch.release_scope(scope)?;
            }
        }
        for to in (0..batch.state.settings.partitions).filter_map(PartitionId::new) {
            if to != batch.state.partition {
                let letter = letter::Kind::ScopePause(letter.clone());
                batch.post(self.tenant, None, to, letter, None)?;
            }
        }
        Ok(Ok(Reply::Spread(batch.sent_to_all())))
    }
}

impl Batching<'_> {
    /// Numbers of the newest letters to all other partitions.
    fn sent_to_all(&self) -> Vec<(PartitionId, u64)> {
        let sent = self.state.mail.sent.iter();
        sent.map(|(to, sent)| (*to, sent.number)).collect()
    }

    /// The owner of a scope says that it is paused, or goes on.
    pub(super) fn scope_told(&mut self, tenant: TenantId, letter: v1::ScopePause) -> Result<(), ApplyError> {
        let scope = (tenant, scope_hash(letter.definition.as_deref()));
        if self.state.scopes.0.contains_key(&scope) == letter.paused {
            return Ok(());
        }
        if letter.paused {
            let event = v1::ScopePaused {
                definition: letter.definition,
                by: letter.by,
                at_ms: letter.at_ms,
            };
            return self.emit(tenant, None, Kind::ScopePaused(event), None);
        }
        let event = v1::ScopeResumed {
            definition: letter.definition,
            by: letter.by,
            content: None,
        };
        self.emit(tenant, None, Kind::ScopeResumed(event), None)?;
        self.release_scope(scope)
    }

    /// What waited for a scope goes on, where nothing else holds it.
    fn release_scope(&mut self, (tenant, scope): ScopeRef) -> Result<(), ApplyError> {
        let rows = self.state.workflows.values().map(|workflow| &workflow.row);
        let members = rows.filter(|row| row.tenant == tenant && !row.is_ended() && scopes_of(row).contains(&scope));
        let ids: Vec<WorkflowId> = members.map(|row| row.id).collect();
        for id in ids {
            if !self.state.is_paused(id) {
                self.deliver(id)?;
                self.settle(id)?;
            }
        }
        Ok(())
    }
}
