//! From decided records to one batch: log entries, rows, indexes and keys together.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_journal::chain::{Chain, seal_entry};
use gantry_journal::{Batch, ContentOwner, Epoch, LogPosition, Write, keys};
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{Event, LogEntry, Record, Row};
use gantry_proto::{JOURNAL_FORMAT, TenantId, WorkflowId};
use prost::Message;

use super::code;
use super::storage::{ContentError, Storage, content_owner};
use crate::core::rows::WorkflowRow;
use crate::core::{PartitionState, Recorded};

/// Records of one entry: its offsets must fit two bytes, and reading one record decodes its whole entry.
const ENTRY_RECORDS_MAX: usize = 2_048;

/// The stored form of a row.
#[must_use]
pub(crate) fn row(clear: &impl Message) -> Bytes {
    Row {
        format: JOURNAL_FORMAT,
        clear: clear.encode_to_vec().into(),
        sealed: None,
    }
    .encode_to_vec()
    .into()
}

/// The key that node rows are under: nodes belong to the installation, whomever they serve.
pub(crate) fn node_tenant() -> TenantId {
    TenantId::nil()
}

/// Builds the batch for everything decided since the last one. Returns it with the log's new end.
pub(crate) fn build(
    state: &PartitionState,
    storage: &Storage,
    epoch: Epoch,
    from: LogPosition,
    at_ms: u64,
    events: Vec<Recorded>,
) -> Result<(Batch, LogPosition), ContentError> {
    let mut writes = Vec::with_capacity(events.len() + 8);
    for event in &events {
        match (&event.kind, event.workflow) {
            (Kind::WorkflowSubmitted(_), Some(workflow)) => {
                writes.push(new_key(state, storage, event.tenant, workflow)?)
            }
            (Kind::UploadCreated(created), _) => {
                let owner = ContentOwner::from(created.upload).key_id();
                writes.push(new_key(state, storage, event.tenant, owner)?);
            }
            (Kind::ScheduleSet(set), Some(content)) => {
                writes.push(new_key(state, storage, event.tenant, content)?);
                writes.extend(set.replaces.map(|old| no_key(state, event.tenant, old)));
            }
            (Kind::BulkRequested(_), Some(content)) => {
                writes.push(new_key(state, storage, event.tenant, content)?);
            }
            (Kind::BulkExpired(_) | Kind::ScheduleDeleted(_), Some(content)) => {
                writes.push(no_key(state, event.tenant, content))
            }
            (Kind::ScopePaused(_), Some(content)) => writes.push(new_key(state, storage, event.tenant, content)?),
            (Kind::ScopeResumed(resumed), _) => {
                writes.extend(resumed.content.map(|old| no_key(state, event.tenant, old)));
            }
            _ => {}
        }
    }
    let end = log(state, storage, from, at_ms, events, &mut writes)?;
    rows(state, &mut writes);
    Ok((
        Batch {
            partition: state.partition,
            epoch,
            writes,
        },
        end,
    ))
}

fn new_key(
    state: &PartitionState,
    storage: &Storage,
    tenant: TenantId,
    content: WorkflowId,
) -> Result<Write, ContentError> {
    let wrapped = storage.new_key(tenant, content)?;
    Ok(Write::Put(keys::data_key(state.partition, tenant, content), wrapped.0))
}

fn no_key(state: &PartitionState, tenant: TenantId, content: WorkflowId) -> Write {
    Write::Delete(keys::data_key(state.partition, tenant, content))
}

fn log(
    state: &PartitionState,
    storage: &Storage,
    from: LogPosition,
    at_ms: u64,
    events: Vec<Recorded>,
    writes: &mut Vec<Write>,
) -> Result<LogPosition, ContentError> {
    let mut position = from;
    let mut open: Option<LogEntry> = None;
    for event in events {
        let full = open
            .as_ref()
            .is_some_and(|entry| entry.tenant != event.tenant || entry.records.len() >= ENTRY_RECORDS_MAX);
        if full {
            close(state, &mut position, open.take(), writes);
        }
        let payload = match (&event.payload, content_owner(Some(&event.kind), event.workflow)) {
            (Some(payload), Some(owner)) => Some(storage.seal(event.tenant, owner, event.seq, payload)?),
            _ => None,
        };
        let entry = open.get_or_insert_with(|| LogEntry {
            format: JOURNAL_FORMAT,
            first_seq: event.seq,
            at_ms,
            tenant: event.tenant,
            chain: Bytes::new(),
            records: Vec::new(),
        });
        entry.records.push(Record {
            event: Event { kind: Some(event.kind) },
            workflow: event.workflow,
            payload,
        });
    }
    close(state, &mut position, open, writes);
    Ok(position)
}

fn close(state: &PartitionState, position: &mut LogPosition, entry: Option<LogEntry>, writes: &mut Vec<Write>) {
    let Some(mut entry) = entry else { return };
    let chain: Chain = seal_entry(&position.chain, &mut entry);
    let mut offsets: BTreeMap<WorkflowId, Vec<usize>> = BTreeMap::new();
    for (offset, record) in entry.records.iter().enumerate() {
        if let Some(workflow) = record.workflow {
            offsets.entry(workflow).or_default().push(offset);
        }
    }
    for (workflow, offsets) in offsets {
        // An entry holds fewer records than two bytes count.
        let value = keys::timeline_value(&offsets).unwrap_or_default();
        writes.push(Write::Put(
            keys::timeline(state.partition, entry.tenant, workflow, entry.first_seq),
            value,
        ));
    }
    *position = LogPosition {
        next_seq: entry.first_seq + entry.records.len() as u64,
        chain,
    };
    let key = keys::log(state.partition, entry.first_seq, entry.tenant);
    writes.push(Write::Put(key, entry.encode_to_vec().into()));
}

/// Rows and indexes of everything that changed.
fn rows(state: &PartitionState, writes: &mut Vec<Write>) {
    let partition = state.partition;
    let dirty = &state.dirty;
    for id in &dirty.workflows {
        let Some(workflow) = state.workflows.get(id) else {
            continue;
        };
        writes.push(Write::Put(
            keys::workflow(partition, workflow.row.tenant, *id),
            row(&workflow.row),
        ));
    }
    for reference in &dirty.tasks {
        let Some((workflow, task)) = state.workflows.get(&reference.0).zip(state.task(*reference)) else {
            continue;
        };
        let key = keys::task(partition, workflow.row.tenant, reference.0, task.row.id);
        writes.push(Write::Put(key, row(&task.row)));
    }
    code::rows(state, writes);
    for id in &dirty.begun {
        let Some(workflow) = state.workflows.get(id).filter(|_| !dirty.ended.contains(id)) else {
            continue;
        };
        writes.push(Write::Put(
            keys::active(partition, workflow.row.tenant, *id),
            Bytes::new(),
        ));
    }
    for id in &dirty.ended {
        let Some(workflow) = state.workflows.get(id).filter(|_| !dirty.begun.contains(id)) else {
            continue;
        };
        writes.push(Write::Delete(keys::active(partition, workflow.row.tenant, *id)));
    }
    kept(state, writes);
    for id in &dirty.nodes {
        let Some(node) = state.nodes.get(id) else { continue };
        writes.push(Write::Put(keys::node(partition, node_tenant(), *id), row(node)));
    }
    for (tenant, id) in &dirty.schedules {
        let key = keys::schedule(partition, *tenant, *id);
        writes.push(match state.schedules.get(id) {
            Some(schedule) => Write::Put(key, row(schedule)),
            None => Write::Delete(key),
        });
    }
    for (tenant, id) in &dirty.bulks {
        let key = keys::bulk(partition, *tenant, *id);
        writes.push(match state.bulks.get(id) {
            Some(bulk) => Write::Put(key, row(bulk)),
            None => Write::Delete(key),
        });
    }
    for (tenant, hash) in &dirty.idempotency {
        let key = keys::idempotency(partition, *tenant, hash);
        writes.push(match state.idempotency.get(&(*tenant, *hash)) {
            Some(entry) => Write::Put(key, row(entry)),
            None => Write::Delete(key),
        });
    }
    for (tenant, id) in &dirty.uploads {
        let key = keys::upload(partition, *tenant, *id);
        match state.uploads.get(id) {
            Some(upload) => writes.push(Write::Put(key, row(upload))),
            None => {
                writes.push(Write::Delete(key));
                // Its content is erased with the key; the object follows.
                let owner = ContentOwner::from(*id).key_id();
                writes.push(Write::Delete(keys::data_key(partition, *tenant, owner)));
            }
        }
    }
    mail(state, writes);
    limits(state, writes);
}

/// Limited keys: those who wait or hold, and how much of rates is used up; and what is paused.
fn limits(state: &PartitionState, writes: &mut Vec<Write>) {
    let (partition, dirty) = (state.partition, &state.dirty.limits);
    for (limit, who) in &dirty.claims {
        let key = keys::limit_claim(partition, limit.0, &limit.1, who.0, who.1);
        writes.push(match state.limits.key(limit).and_then(|limited| limited.claim(who)) {
            Some(claim) => Write::Put(key, row(claim)),
            None => Write::Delete(key),
        });
    }
    for scope in &state.dirty.scopes {
        let key = keys::paused_scope(partition, scope.0, &scope.1);
        writes.push(match state.scopes.0.get(scope) {
            Some(paused) => Write::Put(key, row(paused)),
            None => Write::Delete(key),
        });
    }
    for limit in &dirty.rates {
        let key = keys::limit_rate(partition, limit.0, &limit.1);
        writes.push(match state.limits.key(limit).and_then(|limited| limited.rate) {
            Some(rate) => Write::Put(key, row(&rate)),
            None => Write::Delete(key),
        });
    }
}

/// Letters, and how far they have come.
fn mail(state: &PartitionState, writes: &mut Vec<Write>) {
    let (partition, dirty) = (state.partition, &state.dirty.mail);
    for (tenant, (to, number)) in &dirty.open {
        let key = keys::outbox(partition, *tenant, *to, *number);
        writes.push(match state.mail.open.get(&(*to, *number)) {
            Some(letter) => Write::Put(key, row(letter)),
            None => Write::Delete(key),
        });
    }
    for to in &dirty.sent {
        if let Some(sent) = state.mail.sent.get(to) {
            writes.push(Write::Put(keys::sent(partition, *to), row(sent)));
        }
    }
    for from in &dirty.received {
        if let Some(received) = state.mail.received.get(from) {
            writes.push(Write::Put(keys::received(partition, *from), row(received)));
        }
    }
}

/// How a workflow ended, as the index has it.
pub(crate) fn closed_state(workflow: &WorkflowRow) -> u8 {
    // There are six states.
    u8::try_from(workflow.state).unwrap_or(u8::MAX)
}

/// Ends in their order, holds, and what is destroyed. Deletes come last: what was removed must not be put again by the same batch.
fn kept(state: &PartitionState, writes: &mut Vec<Write>) {
    let (partition, dirty) = (state.partition, &state.dirty);
    let ended = dirty.ended.iter().filter_map(|id| state.workflows.get(id));
    for workflow in ended.map(|workflow| &workflow.row) {
        let end_seq = workflow.end_seq.unwrap_or_default();
        let at_ms = workflow.ended_at_ms.unwrap_or_default();
        writes.push(Write::Put(
            keys::ended(partition, workflow.tenant, end_seq, workflow.id),
            Bytes::copy_from_slice(&at_ms.to_be_bytes()),
        ));
        let key = keys::closed(partition, workflow.tenant, closed_state(workflow), workflow.id);
        writes.push(Write::Put(key, Bytes::new()));
    }
    for (tenant, id) in &dirty.holds {
        let key = keys::hold(partition, *tenant, *id);
        writes.push(match state.holds.get(&(*tenant, *id)) {
            Some(hold) => Write::Put(key, row(hold)),
            None => Write::Delete(key),
        });
    }
    for ((tenant, id), erased) in &dirty.erased {
        writes.push(Write::Put(keys::erased(partition, *tenant, *id), row(erased)));
        writes.push(Write::Delete(keys::data_key(partition, *tenant, *id)));
    }
    writes.extend(dirty.deletes.iter().cloned().map(Write::Delete));
    for (tenant, id) in dirty.erased.keys().chain(&dirty.removed) {
        writes.push(Write::Put(keys::destroy(partition, *tenant, *id), Bytes::new()));
    }
}
