//! Limits as the owner of a key sees them: who asks is let start in its turn, refused, or makes others end.

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, LimitPolicy, letter};
use gantry_proto::{ErrorCode, TaskId, TenantId, WorkflowId, limits};

use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::limits::{Claimant, LimitRef, LimitedKey};

fn claim(key: &LimitRef, (workflow, task): Claimant) -> v1::LimitClaim {
    v1::LimitClaim {
        key: Bytes::copy_from_slice(&key.1),
        workflow,
        task: (!task.is_nil()).then_some(task),
    }
}

fn key_of(tenant: TenantId, claim: &v1::LimitClaim) -> Option<(LimitRef, Claimant)> {
    let key = claim.key[..].try_into().ok()?;
    Some(((tenant, key), (claim.workflow, claim.task.unwrap_or_else(TaskId::nil))))
}

impl Batching<'_> {
    fn key(&self, key: &LimitRef) -> Option<&LimitedKey> {
        self.state.limits.key(key)
    }

    /// Somebody asks whether it may start.
    pub(in crate::core) fn limit_asked(
        &mut self,
        tenant: TenantId,
        request: v1::LimitRequest,
    ) -> Result<(), ApplyError> {
        let Some((key, who)) = key_of(tenant, &request.claim) else {
            return Ok(());
        };
        if self.key(&key).is_some_and(|limited| limited.claim(&who).is_some()) {
            return Ok(());
        }
        if self.state.limits.claims() >= limits::LIMIT_CLAIMS_PER_PARTITION_MAX {
            return self.refuse_limit(&key, who, ErrorCode::LimitsFull);
        }
        let (policy, limit) = (request.terms.policy(), request.terms.limit);
        let event = v1::LimitAsked {
            claim: request.claim,
            terms: request.terms,
            priority: request.priority,
        };
        self.emit(tenant, None, Kind::LimitAsked(event), None)?;
        self.advance_limit(&key)?;
        let waits = self
            .key(&key)
            .is_some_and(|limited| limited.waiting().any(|each| *each == who));
        match policy {
            LimitPolicy::Refuse if waits => {
                self.leave_limit(&key, who)?;
                self.refuse_limit(&key, who, ErrorCode::LimitReached)?;
                self.advance_limit(&key)
            }
            LimitPolicy::CancelRunning if waits => self.overtake(&key, limit),
            _ => Ok(()),
        }
    }

    /// The oldest ones end for the newest one.
    fn overtake(&mut self, key: &LimitRef, limit: u32) -> Result<(), ApplyError> {
        let oldest = self.key(key).map_or_else(Vec::new, |limited| limited.overtaken(limit));
        for who in oldest {
            let holds = self
                .key(key)
                .and_then(|limited| limited.claim(&who))
                .is_some_and(|row| row.taken_at_ms.is_some());
            if holds {
                let event = v1::LimitEvicted { claim: claim(key, who) };
                self.emit(key.0, None, Kind::LimitEvicted(event), None)?;
            } else {
                self.leave_limit(key, who)?;
            }
            self.refuse_limit(key, who, ErrorCode::LimitOvertaken)?;
        }
        Ok(())
    }

    fn leave_limit(&mut self, key: &LimitRef, who: Claimant) -> Result<(), ApplyError> {
        let event = v1::LimitLeft { claim: claim(key, who) };
        self.emit(key.0, None, Kind::LimitLeft(event), None)
    }

    fn refuse_limit(&mut self, key: &LimitRef, who: Claimant, code: ErrorCode) -> Result<(), ApplyError> {
        let refusal = v1::LimitRefusal {
            claim: claim(key, who),
            code: code.as_str().to_owned(),
        };
        self.post(key.0, None, home(who.0), letter::Kind::LimitRefusal(refusal), None)
    }

    /// Somebody neither waits nor holds any more.
    pub(in crate::core) fn limit_released(
        &mut self,
        tenant: TenantId,
        claim: &v1::LimitClaim,
    ) -> Result<(), ApplyError> {
        let Some((key, who)) = key_of(tenant, claim) else {
            return Ok(());
        };
        // It was refused, or overtaken while it waited.
        if self.key(&key).is_none_or(|limited| limited.claim(&who).is_none()) {
            return Ok(());
        }
        self.leave_limit(&key, who)?;
        self.advance_limit(&key)
    }

    /// Lets start whoever may.
    fn advance_limit(&mut self, key: &LimitRef) -> Result<(), ApplyError> {
        while let Some((who, arrival_us)) = self.key(key).and_then(|limited| limited.startable(self.now_ms)) {
            let event = v1::LimitTaken {
                claim: claim(key, who),
                arrival_us,
            };
            self.emit(key.0, None, Kind::LimitTaken(event), None)?;
            let grant = v1::LimitGrant { claim: claim(key, who) };
            self.post(key.0, None, home(who.0), letter::Kind::LimitGrant(grant), None)?;
        }
        Ok(())
    }

    /// The timer of a key is due: a rate has room again or nothing to remember, or holders are asked whether they still hold.
    pub(in crate::core) fn limit_due(&mut self, key: LimitRef) -> Result<(), ApplyError> {
        self.advance_limit(&key)?;
        let now_ms = self.now_ms;
        let Some(limited) = self.key(&key) else {
            return Ok(());
        };
        if limited.waiters() == 0
            && limited
                .rate
                .is_some_and(|rate| rate.arrival_us <= now_ms.saturating_mul(1_000))
        {
            let event = v1::LimitForgotten {
                key: Bytes::copy_from_slice(&key.1),
            };
            return self.emit(key.0, None, Kind::LimitForgotten(event), None);
        }
        let long = limited.unknown_since(now_ms.saturating_sub(limits::LIMIT_PROBE_MS));
        let claims: Vec<v1::LimitClaim> = long
            .take(limits::LIMIT_PROBES_MAX)
            .map(|who| claim(&key, *who))
            .collect();
        if claims.is_empty() {
            return Ok(());
        }
        let event = v1::LimitProbed {
            key: Bytes::copy_from_slice(&key.1),
            claims: claims.clone(),
        };
        self.emit(key.0, None, Kind::LimitProbed(event), None)?;
        for claim in claims {
            let to = home(claim.workflow);
            self.post(
                key.0,
                None,
                to,
                letter::Kind::LimitProbe(v1::LimitProbe { claim }),
                None,
            )?;
        }
        Ok(())
    }
}

fn home(workflow: WorkflowId) -> gantry_proto::PartitionId {
    workflow.partition()
}
