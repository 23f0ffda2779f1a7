//! Telling another partition.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload, letter};
use gantry_proto::{PartitionId, TenantId, WorkflowId};

use crate::core::apply::ApplyError;
use crate::core::decide::Batching;

impl Batching<'_> {
    /// Puts a letter into the outbox. It is about `from`, under whose key its payload is sealed.
    pub(in crate::core) fn send(
        &mut self,
        from: WorkflowId,
        to: PartitionId,
        letter: letter::Kind,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        self.post(self.tenant(from), Some(from), to, letter, payload)
    }

    /// The same, also about what is not a workflow; a payload needs one.
    pub(in crate::core) fn post(
        &mut self,
        tenant: TenantId,
        from: Option<WorkflowId>,
        to: PartitionId,
        letter: letter::Kind,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        let event = v1::MessageSent {
            to: to.index().into(),
            number: self.state.mail.sent.get(&to).map_or(0, |sent| sent.number) + 1,
            letter: v1::Letter { kind: Some(letter) },
        };
        self.emit(tenant, from, Kind::MessageSent(event), payload)
    }
}
