//! Folds a partition's log from its first record and compares the outcome with the stored rows. Needs no keys: the clear side is all of the state.

use std::collections::BTreeSet;

use gantry_journal::keys::{self, Kind, Parsed};
use gantry_journal::{LogReader, ReadError, Store};
use gantry_proto::{PartitionId, WorkflowId};

use crate::core::apply::{ApplyError, Place, apply};
use crate::core::bulk::BulkRow;
use crate::core::rows::{IdempotencyRow, NodeRow, ScheduleRow, UploadRow};
use crate::core::state::Workflow;
use crate::core::{PartitionState, Settings};
use crate::inspect;
use crate::processor::code;
use crate::processor::load::{decode, limits, mail, scopes, walk, workflow_rows};
use crate::processor::node_tenant;
use crate::verify_kept::Kept;

/// What was found sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Log entries read.
    pub entries: u64,
    /// Records folded.
    pub records: u64,
    /// Workflows compared.
    pub workflows: u64,
    /// Digest of the log's chain: of everything that happened.
    pub chain: [u8; 32],
    /// Digest of every row and index: of what follows from it.
    pub state: [u8; 32],
    /// Digest of both: equal histories have equal digests.
    pub digest: [u8; 32],
}

/// What is not sound.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VerifyError {
    /// The log or a row cannot be read, or its chain is broken.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record does not follow from those before it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A record without a known kind: a newer version wrote it.
    #[error("record {0} is of a kind that this version does not know; use a newer Gantry")]
    UnknownKind(u64),
    /// The stored rows are not the fold of the log.
    #[error("{what} is not what the log says: {detail}")]
    Differs {
        /// Which row.
        what: String,
        /// How.
        detail: String,
    },
}

pub(crate) fn differs(what: impl Into<String>, detail: impl Into<String>) -> VerifyError {
    VerifyError::Differs {
        what: what.into(),
        detail: detail.into(),
    }
}

fn code_differs(error: code::Differs) -> VerifyError {
    match error {
        code::Differs::Read(error) => error.into(),
        code::Differs::Row(what) => differs(what, "row and log disagree"),
    }
}

/// Folds and compares one partition. Blocks; its memory is that of the active workflows.
///
/// # Errors
/// The first thing that is not sound.
pub fn verify(store: &dyn Store, partition: PartitionId) -> Result<Report, VerifyError> {
    let mut state = PartitionState::new(partition, Settings::default());
    let mut report = Report::default();
    let mut hasher = blake3::Hasher::new();
    let mut kept = Kept::default();
    for entry in LogReader::from_start(store, partition) {
        let entry = entry?;
        report.entries += 1;
        hasher.update(&entry.chain);
        for (seq, record) in (entry.first_seq..).zip(&entry.records) {
            let kind = record.event.kind.as_ref().ok_or(VerifyError::UnknownKind(seq))?;
            let place = Place {
                seq,
                at_ms: entry.at_ms,
                tenant: entry.tenant,
                workflow: record.workflow,
            };
            apply(&mut state, place, kind, None)?;
            report.records += 1;
        }
        // An ended workflow changes no more: compare and forget it, so that memory stays that of the active ones.
        let dirty = std::mem::take(&mut state.dirty);
        for id in dirty.ended {
            if let Some(workflow) = state.workflows.get(&id) {
                let there = compare(store, workflow)?;
                if there {
                    code::compare(store, &state, id).map_err(code_differs)?;
                }
                kept.ended(&workflow.row, there);
                state.forget(id);
            }
        }
        kept.erased.extend(dirty.erased);
        for (tenant, id) in dirty.removed {
            kept.removed(tenant, id)?;
        }
    }
    for workflow in state.workflows.values() {
        if !compare(store, workflow)? {
            return Err(differs(format!("workflow {}", workflow.row.id), "it has no row"));
        }
        code::compare(store, &state, workflow.row.id).map_err(code_differs)?;
    }
    let compared = kept.check(store, &state)?;
    indexes(store, partition, &state, &compared)?;
    side_rows(store, partition, &state)?;
    report.workflows = (compared.len() + state.workflows.len()) as u64;
    report.chain = *hasher.finalize().as_bytes();
    report.state = inspect::state_digest(store, partition)?;
    report.digest = *blake3::hash(&[report.chain, report.state].concat()).as_bytes();
    Ok(report)
}

/// `false` when there is no row: right for what was removed since, and nothing else.
fn compare(store: &dyn Store, folded: &Workflow) -> Result<bool, VerifyError> {
    let id = folded.row.id;
    let Some(stored) = workflow_rows(store, folded.row.tenant, id)? else {
        return Ok(false);
    };
    if stored.row != folded.row {
        return Err(differs(
            format!("workflow {id}"),
            format!("stored {:?}, folded {:?}", stored.row, folded.row),
        ));
    }
    for (stored, folded) in stored.tasks.iter().zip(&folded.tasks) {
        if stored.row != folded.row {
            let detail = format!("stored {:?}, folded {:?}", stored.row, folded.row);
            return Err(differs(format!("task {}", folded.row.id), detail));
        }
    }
    if stored.tasks.len() != folded.tasks.len() {
        return Err(differs(format!("workflow {id}"), "the number of its tasks"));
    }
    Ok(true)
}

/// The active index lists exactly what has not ended, and no row is there that the log does not know.
fn indexes(
    store: &dyn Store,
    partition: PartitionId,
    state: &PartitionState,
    ended: &BTreeSet<WorkflowId>,
) -> Result<(), VerifyError> {
    let mut active = BTreeSet::new();
    walk(store, &keys::all_of(Kind::Active, partition), |key, _| {
        if let Some(Parsed::Active { workflow, .. }) = keys::parse(key) {
            active.insert(workflow);
        }
        Ok(())
    })?;
    if !active.iter().eq(state.workflows.keys()) {
        return Err(differs("the active index", format!("it lists {active:?}")));
    }
    let mut stray = None;
    walk(store, &keys::all_of(Kind::Workflow, partition), |key, _| {
        if let Some(Parsed::Workflow { workflow, .. }) = keys::parse(key)
            && !active.contains(&workflow)
            && !ended.contains(&workflow)
        {
            stray = Some(workflow);
        }
        Ok(())
    })?;
    match stray {
        Some(workflow) => Err(differs(format!("workflow {workflow}"), "it has a row, and no record")),
        None => Ok(()),
    }
}

fn side_rows(store: &dyn Store, partition: PartitionId, state: &PartitionState) -> Result<(), VerifyError> {
    let mut keys_left = state.idempotency.clone();
    let mut wrong = Vec::new();
    walk(store, &keys::all_of(Kind::Idempotency, partition), |key, value| {
        if let Some(Parsed::Idempotency { tenant, key_hash, .. }) = keys::parse(key) {
            let row: IdempotencyRow = decode("an idempotency row", value)?;
            if keys_left.remove(&(tenant, key_hash)) != Some(row) {
                wrong.push(format!("idempotency key {}", hex::encode(key_hash)));
            }
        }
        Ok(())
    })?;
    wrong.extend(
        keys_left
            .keys()
            .map(|(_, hash)| format!("idempotency key {}", hex::encode(hash))),
    );
    let mut schedules_left = state.schedules.clone();
    walk(store, &keys::all_of(Kind::Schedule, partition), |_, value| {
        let row: ScheduleRow = decode("a schedule row", value)?;
        if schedules_left.remove(&row.id).as_ref() != Some(&row) {
            wrong.push(format!("schedule {}", row.id));
        }
        Ok(())
    })?;
    wrong.extend(schedules_left.keys().map(|id| format!("schedule {id}")));
    let mut bulks_left = state.bulks.clone();
    walk(store, &keys::all_of(Kind::Bulk, partition), |_, value| {
        let row: BulkRow = decode("the row of a bulk operation", value)?;
        if bulks_left.remove(&row.id).as_ref() != Some(&row) {
            wrong.push(format!("bulk operation {}", row.id));
        }
        Ok(())
    })?;
    wrong.extend(bulks_left.keys().map(|id| format!("bulk operation {id}")));
    let mut nodes_left = state.nodes.clone();
    walk(store, &keys::all_of(Kind::Node, partition), |_, value| {
        let row: NodeRow = decode("a node row", value)?;
        if nodes_left.remove(&row.id).as_ref() != Some(&row) {
            wrong.push(format!("node {}", row.id));
        }
        Ok(())
    })?;
    wrong.extend(
        nodes_left
            .keys()
            .map(|id| format!("node {id} (key tenant {})", node_tenant())),
    );
    let mut uploads_left = state.uploads.clone();
    walk(store, &keys::all_of(Kind::Upload, partition), |_, value| {
        let row: UploadRow = decode("an upload row", value)?;
        if uploads_left.remove(&row.id).as_ref() != Some(&row) {
            wrong.push(format!("upload {}", row.id));
        }
        Ok(())
    })?;
    wrong.extend(uploads_left.keys().map(|id| format!("upload {id}")));
    let mail = mail(store, partition)?;
    if mail != state.mail {
        let detail = format!("stored {mail:?}, folded {:?}", state.mail);
        return Err(differs("the letters between partitions", detail));
    }
    if scopes(store, partition)? != state.scopes {
        return Err(differs("what is paused", "rows and log disagree"));
    }
    let mut stored = limits(store, partition)?;
    let limited: Vec<_> = stored.all().map(|(key, _)| *key).collect();
    for key in limited {
        stored.rearm(key);
    }
    if stored != state.limits {
        let detail = format!("stored {stored:?}, folded {:?}", state.limits);
        return Err(differs("the limited keys", detail));
    }
    match wrong.into_iter().next() {
        Some(what) => Err(differs(what, "row and log disagree")),
        None => Ok(()),
    }
}
