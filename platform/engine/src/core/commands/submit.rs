//! Starting a workflow.

use std::sync::Arc;

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Label, Payload};
use gantry_proto::{PrincipalId, TenantId, WorkflowId};

use super::{Outcome, Rejection, Reply};
use crate::api::SubmitReceipt;
use crate::core::body::Body;
use crate::core::carried::Carried;
use crate::core::decide::{Batching, Inputs};
use crate::core::flow::Birth;

/// Start a workflow; everything was checked and compiled before.
#[derive(Debug, Clone)]
pub struct Submit {
    /// Whose.
    pub tenant: TenantId,
    /// By whom.
    pub by: PrincipalId,
    /// The compiled definition with parameters.
    pub body: Arc<Body>,
    /// blake3 of the definition.
    pub digest: Bytes,
    /// The definition and parameters, to be sealed.
    pub payload: Payload,
    /// Hash of the idempotency key, and of the request.
    pub idempotency: Option<([u8; 32], [u8; 32])>,
    /// How long the key is remembered; none: as the settings say.
    pub idempotency_ttl_ms: Option<u64>,
    /// Labels.
    pub labels: Vec<Label>,
    /// What it is found by.
    pub attributes: Vec<v1::SearchAttribute>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Instead of the definition's.
    pub priority: Option<u32>,
    /// The playbook version that the definition is.
    pub playbook: Option<v1::PlaybookRef>,
    /// The id to start it under, when content was sealed for it before; its key is prepared. A fresh one when absent.
    pub id: Option<WorkflowId>,
    /// The workflow that it restarts or forks.
    pub origin: Option<v1::Origin>,
    /// What it has from there.
    pub carried: Vec<Carried>,
    /// The schedule that starts it.
    pub schedule: Option<v1::ScheduleRun>,
}

impl Submit {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, inputs: Inputs) -> Outcome {
        let partition = batch.state.partition;
        if let Some((key, request)) = self.idempotency
            && let Some(known) = batch.state.idempotency.get(&(self.tenant, key))
            // Past its time it is only not yet swept.
            && known.expires_at_ms > batch.now_ms
        {
            if known.request_hash[..] != request {
                return Ok(Err(Rejection::IdempotencyMismatch(known.workflow)));
            }
            return Ok(Ok(Reply::Submitted(SubmitReceipt {
                workflow: known.workflow,
                replayed: true,
            })));
        }
        let fresh = || WorkflowId::new(batch.now_ms, partition, inputs.entropy);
        let id = self.id.unwrap_or_else(fresh);
        if batch.state.workflows.contains_key(&id) {
            // 62 random bits collided within a millisecond; the next try has others.
            return Ok(Err(Rejection::Refused {
                code: gantry_proto::ErrorCode::Overloaded,
                message: "the id was taken in the same millisecond; try again".to_owned(),
            }));
        }
        if let Some((key, request)) = self.idempotency {
            let old = batch.state.idempotency.contains_key(&(self.tenant, key));
            if old {
                let event = v1::IdempotencyExpired {
                    key_hash: Bytes::copy_from_slice(&key),
                };
                batch.emit(self.tenant, None, Kind::IdempotencyExpired(event), None)?;
            }
            let ttl_ms = self
                .idempotency_ttl_ms
                .unwrap_or(batch.state.settings.idempotency_ttl_ms);
            let event = v1::IdempotencyRecorded {
                key_hash: Bytes::copy_from_slice(&key),
                request_hash: Bytes::copy_from_slice(&request),
                workflow: id,
                expires_at_ms: batch.now_ms.saturating_add(ttl_ms),
            };
            batch.emit(self.tenant, None, Kind::IdempotencyRecorded(event), None)?;
        }
        batch.bear(Birth {
            id,
            tenant: self.tenant,
            by: self.by,
            body: self.body,
            payload: self.payload,
            digest: self.digest,
            idempotency_hash: self.idempotency.map(|(key, _)| Bytes::copy_from_slice(&key)),
            labels: self.labels,
            attributes: self.attributes,
            origin: self.origin,
            carried: self.carried,
            traceparent: self.traceparent,
            lineage: None,
            playbook: self.playbook,
            priority: self.priority,
            schedule: self.schedule,
        })?;
        Ok(Ok(Reply::Submitted(SubmitReceipt {
            workflow: id,
            replayed: false,
        })))
    }
}
