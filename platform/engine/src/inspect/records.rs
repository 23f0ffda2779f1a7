//! Records of a partition as JSON, in order.

use gantry_journal::{KeyRing, LogReader, ReadError, SealError, Store, WrappedKey, keys};
use gantry_proto::v1::{LogEntry, Payload, Record};
use gantry_proto::{PartitionId, TenantId, WorkflowId};
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::render;
use crate::processor::storage::{ContentError, content_owner, open_payload};

/// Which records.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter {
    /// Only those of this workflow.
    pub workflow: Option<WorkflowId>,
    /// Only from this sequence on.
    pub from_seq: u64,
}

/// One record.
#[derive(Debug, Clone)]
pub struct RecordView {
    /// Where it stands in its partition.
    pub seq: u64,
    /// All of it: partition, seq, time, tenant, workflow, kind, the fields of the event, and the payload where it was asked for.
    pub json: Value,
}

/// Opens payloads: keys of the store under a master key.
pub struct Unsealer<'a> {
    store: &'a dyn Store,
    keyring: &'a dyn KeyRing,
}

impl std::fmt::Debug for Unsealer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unsealer").finish_non_exhaustive()
    }
}

impl<'a> Unsealer<'a> {
    /// Of a store, with its master key.
    #[must_use]
    pub fn new(store: &'a dyn Store, keyring: &'a dyn KeyRing) -> Self {
        Self { store, keyring }
    }

    /// The data key of a workflow.
    ///
    /// # Errors
    /// [`SealError::Erased`] when it was destroyed, [`SealError::Unwrap`] when the master key is not the one.
    pub fn key(&self, tenant: TenantId, workflow: WorkflowId) -> Result<gantry_journal::DataKey, ContentError> {
        let stored = self
            .store
            .get(&keys::data_key(workflow.partition(), tenant, workflow))?;
        let wrapped = stored.ok_or(SealError::Erased)?;
        Ok(self.keyring.unwrap(tenant, workflow, &WrappedKey(wrapped))?)
    }

    fn payload(&self, tenant: TenantId, workflow: WorkflowId, seq: u64, sealed: &[u8]) -> Result<Value, ContentError> {
        match self.key(tenant, workflow) {
            Ok(key) => Ok(readable(&open_payload(&key, workflow, seq, sealed)?)),
            Err(ContentError::Seal(SealError::Erased)) => Ok(json!({"erased": true})),
            Err(error) => Err(error),
        }
    }
}

/// JSON documents as what they say, the rest as it is.
fn readable(payload: &Payload) -> Value {
    let mut fields = match render::message("Payload", &payload.encode_to_vec()) {
        Some(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    for (name, value) in &mut fields {
        let Value::String(encoded) = &*value else { continue };
        if name.ends_with("_json") {
            let document = hex::decode(encoded)
                .ok()
                .and_then(|bytes| serde_json::from_slice(&bytes).ok());
            *value = document.unwrap_or(Value::Null);
        } else if name == "source" {
            let text = hex::decode(encoded).unwrap_or_default();
            *value = json!(String::from_utf8_lossy(&text));
        }
    }
    Value::Object(fields)
}

/// Hands the records of a partition to `each`, oldest first, the chain checked on the way. Returns how many entries were read.
///
/// # Errors
/// What cannot be read or opened, or what `each` says.
pub fn records<E: From<ContentError>>(
    store: &dyn Store,
    partition: PartitionId,
    filter: Filter,
    unsealer: Option<&Unsealer<'_>>,
    mut each: impl FnMut(RecordView) -> Result<(), E>,
) -> Result<(), E> {
    let read = |error: ReadError| E::from(ContentError::Read(error));
    for entry in LogReader::from_seq(store, partition, filter.from_seq).map_err(read)? {
        let entry = entry.map_err(read)?;
        for (seq, record) in (entry.first_seq..).zip(&entry.records) {
            if seq < filter.from_seq || filter.workflow.is_some_and(|wanted| record.workflow != Some(wanted)) {
                continue;
            }
            each(RecordView {
                seq,
                json: view(&entry, seq, record, partition, unsealer)?,
            })?;
        }
    }
    Ok(())
}

fn view(
    entry: &LogEntry,
    seq: u64,
    record: &Record,
    partition: PartitionId,
    unsealer: Option<&Unsealer<'_>>,
) -> Result<Value, ContentError> {
    let (kind, data) = render::event(&record.event.encode_to_vec()).unwrap_or_default();
    let mut fields = Map::new();
    fields.insert("partition".into(), json!(partition.index()));
    fields.insert("seq".into(), json!(seq));
    fields.insert("at_ms".into(), json!(entry.at_ms));
    fields.insert("tenant".into(), json!(entry.tenant.to_string()));
    if let Some(workflow) = record.workflow {
        fields.insert("workflow".into(), json!(workflow.to_string()));
    }
    fields.insert("kind".into(), json!(kind));
    fields.insert("data".into(), data);
    if let Some(sealed) = &record.payload {
        fields.insert("payload_bytes".into(), json!(sealed.len()));
        let owner = content_owner(record.event.kind.as_ref(), record.workflow);
        if let (Some(unsealer), Some(owner)) = (unsealer, owner) {
            fields.insert("payload".into(), unsealer.payload(entry.tenant, owner, seq, sealed)?);
        }
    }
    Ok(Value::Object(fields))
}
