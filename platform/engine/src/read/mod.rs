//! Views over stored rows and records. Everything in here blocks, and reads durable state only.

mod code;
mod definition;
mod events;
mod list;
mod scopes;
mod trace;
mod uploads;
mod waiting;
mod workflow;

use gantry_journal::keys::{self, Kind};
use gantry_journal::{SealError, StreamKey};
use gantry_proto::{NodeId, PartitionId, TenantId};

pub(crate) use code::{run, state as code_state};
pub(crate) use definition::definition_view;
pub(crate) use events::{each_record, events};
pub(crate) use list::{ListQuery, list, select};
pub(crate) use scopes::{scope, scope_owner, scopes};
pub(crate) use uploads::{StoredUpload, upload, uploads};
pub(crate) use waiting::{Queue, Standing, Standings};
pub(crate) use workflow::{cause_text, load, source};

use crate::api::{FailureView, NodeView, Refusal};
use crate::core::rows::{NodeRow, TaskRow};
use crate::engine::{erased, unreadable};
use crate::processor::load::{decode, walk};
use crate::processor::node_tenant;
use crate::processor::storage::{ContentError, Storage};

pub(crate) fn content(error: ContentError) -> Refusal {
    match error {
        ContentError::Seal(SealError::Erased) => erased(),
        other => unreadable(other),
    }
}

/// Whether an attempt has ended; `None` when there is no such attempt.
pub(crate) fn attempt_ended(storage: &Storage, stream: &StreamKey) -> Result<Option<bool>, Refusal> {
    let key = keys::task(stream.workflow.partition(), stream.tenant, stream.workflow, stream.task);
    let Some(value) = storage.store().get(&key).map_err(unreadable)? else {
        return Ok(None);
    };
    let row: TaskRow = decode("a task row", &value).map_err(unreadable)?;
    let step = row.steps.get(stream.step as usize);
    let attempt = step.and_then(|step| step.attempts.iter().find(|attempt| attempt.attempt == stream.attempt));
    Ok(attempt.map(|attempt| !attempt.is_open()))
}

/// Nodes that serve a tenant, by name.
pub(crate) fn nodes(storage: &Storage, partitions: u16, tenant: TenantId) -> Result<Vec<NodeRow>, Refusal> {
    let mut found = all_nodes(storage, partitions)?;
    found.retain(|row| row.serves.is_none_or(|serves| serves == tenant));
    found.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(found)
}

/// Every node of the installation.
pub(crate) fn all_nodes(storage: &Storage, partitions: u16) -> Result<Vec<NodeRow>, Refusal> {
    let mut found = Vec::new();
    for partition in (0..partitions).filter_map(PartitionId::new) {
        walk(
            storage.store().as_ref(),
            &keys::all_of(Kind::Node, partition),
            |_, value| {
                found.push(decode("a node row", value)?);
                Ok(())
            },
        )
        .map_err(unreadable)?;
    }
    Ok(found)
}

/// One node.
pub(crate) fn node(
    storage: &Storage,
    partition: PartitionId,
    tenant: TenantId,
    node: NodeId,
) -> Result<Option<NodeRow>, Refusal> {
    let value = storage
        .store()
        .get(&keys::node(partition, node_tenant(), node))
        .map_err(unreadable)?;
    let row = value
        .map(|value| decode::<NodeRow>("a node row", &value))
        .transpose()
        .map_err(unreadable)?;
    Ok(row.filter(|row| row.serves.is_none_or(|serves| serves == tenant)))
}

/// What readers see of a node.
pub(crate) fn node_view(row: &NodeRow, seen_at_ms: u64, running: u32, containers: u64) -> NodeView {
    NodeView {
        id: row.id,
        name: row.name.clone(),
        state: row.state(),
        fault: row.fault.as_ref().map(|fault| FailureView {
            code: fault.code.clone(),
            message: fault.message.clone(),
            hint: fault.hint.clone(),
        }),
        version: row.version.clone(),
        slots: row.slots,
        running,
        cpu_millis: row.cpu_millis,
        memory_bytes: row.memory_bytes,
        capabilities: row.capabilities.clone(),
        labels: row
            .labels
            .iter()
            .map(|label| (label.key.clone(), label.value.clone()))
            .collect(),
        arch: row.arch.clone(),
        os: row.os.clone(),
        containers,
        registered_at_ms: row.registered_at_ms,
        seen_at_ms: seen_at_ms.max(row.registered_at_ms),
    }
}
