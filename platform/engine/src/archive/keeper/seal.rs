//! Ended workflows into sealed objects.

use bytes::Bytes;
use gantry_journal::archive::manifest::{self, ObjectRow, SealedRow};
use gantry_journal::archive::{Day, FileWriter, ObjectName, SourceError, Table};
use gantry_journal::keys::{self, Parsed};
use gantry_journal::{Direction, Write};
use gantry_proto::{PartitionId, TenantId, WorkflowId, limits};

use super::{House, KeepError};
use crate::archive::rows::Tables;
use crate::archive::tables::TABLES;
use crate::archive::tail::collect;
use crate::processor::load::workflow_rows;
use crate::processor::storage::Storage;

/// What has just ended waits a little: its last readers find it in the hot store.
const SETTLE_MS: u64 = 60_000;

/// One object to be.
struct File {
    table: &'static Table,
    bytes: Bytes,
    rows: u64,
}

/// Workflows that are sealed together: of one partition, tenant and day.
struct Unit {
    day: Day,
    from_seq: u64,
    to_seq: u64,
    workflows: u64,
    files: Vec<File>,
}

impl House<'_> {
    /// Seals what is due of a tenant in a partition: when the oldest has waited long enough, all that has settled.
    pub(super) async fn seal(&mut self, partition: PartitionId, tenant: TenantId) -> Result<(), KeepError> {
        let (now_ms, after_ms) = (self.now_ms, self.parts.config.seal_after_ms);
        let mut due = false;
        loop {
            let epoch = self.epoch(partition)?;
            let begun = due;
            let gathered = self.engine.off_thread(move |storage| {
                // Once begun, all that has settled goes along: objects are few and large.
                let wait_ms = if begun { SETTLE_MS.min(after_ms) } else { after_ms };
                gather(
                    storage,
                    partition,
                    tenant,
                    now_ms.saturating_sub(wait_ms),
                    now_ms.saturating_sub(SETTLE_MS.min(after_ms)),
                )
            });
            let Some(unit) = gathered.await? else { return Ok(()) };
            due = true;
            let mut writes = Vec::with_capacity(unit.files.len() + 1);
            for file in unit.files {
                let name = ObjectName {
                    tenant,
                    day: unit.day,
                    table: file.table.name.to_owned(),
                    partition,
                    epoch,
                    from_seq: unit.from_seq,
                    to_seq: unit.to_seq,
                    generation: 0,
                };
                let row = self.store(&name, file.bytes, file.rows, unit.workflows).await?;
                writes.push(Write::Put(manifest::key(&name, file.table.id), manifest::encode(&row)));
            }
            let sealed = SealedRow {
                through_seq: unit.to_seq,
            };
            writes.push(Write::Put(keys::sealed(partition, tenant), manifest::encode(&sealed)));
            self.write(partition, epoch, writes).await?;
            self.done.sealed += unit.workflows;
        }
    }

    /// Uploads an object; it counts once its row is durable.
    pub(super) async fn store(
        &mut self,
        name: &ObjectName,
        bytes: Bytes,
        rows: u64,
        workflows: u64,
    ) -> Result<ObjectRow, KeepError> {
        let text = name.to_string();
        let row = ObjectRow {
            name: text.clone(),
            rows,
            size_bytes: bytes.len() as u64,
            digest: Bytes::copy_from_slice(blake3::hash(&bytes).as_bytes()),
            sealed_at_ms: self.now_ms,
            retired_at_ms: None,
            workflows,
        };
        self.pace(bytes.len()).await?;
        self.parts.objects.put(&text, bytes).await?;
        self.done.objects += 1;
        self.done.bytes += row.size_bytes;
        Ok(row)
    }
}

/// The next unit, or `None` when its first workflow ended after `first_before_ms`. What ended after `before_ms` is left for later. Blocks.
fn gather(
    storage: &Storage,
    partition: PartitionId,
    tenant: TenantId,
    first_before_ms: u64,
    before_ms: u64,
) -> Result<Option<Unit>, KeepError> {
    let store = storage.store().as_ref();
    let through = manifest::sealed_through(store, partition, tenant)?;
    let range = keys::ended_from(partition, tenant, through.saturating_add(1));
    let ended = store.scan(&range.from, &range.to, Direction::Forward, limits::SEAL_WORKFLOWS_MAX)?;
    let ended: Vec<(u64, WorkflowId, u64)> = ended.iter().filter_map(|(key, value)| ended_of(key, value)).collect();
    let Some((from_seq, _, first_ms)) = ended.first().copied().filter(|(_, _, at_ms)| *at_ms <= first_before_ms) else {
        return Ok(None);
    };
    let mut unit = Unit {
        day: Day::of_ms(first_ms),
        from_seq,
        to_seq: from_seq,
        workflows: 0,
        files: Vec::new(),
    };
    let mut tables = Tables::all();
    let mut writers = Vec::with_capacity(TABLES.len());
    for table in TABLES {
        writers.push((table, FileWriter::new(table)?));
    }
    let same = |at_ms: u64| Day::of_ms(at_ms) == unit.day && at_ms <= before_ms.max(first_ms);
    for (seq, id, _) in ended.iter().copied().take_while(|(_, _, at_ms)| same(*at_ms)) {
        if let Some(workflow) = workflow_rows(store, tenant, id)? {
            let mut failed = None;
            let mut sink = |batch: gantry_journal::archive::Batch| {
                let writer = writers.iter_mut().find(|(table, _)| table.id == batch.table.id);
                let written = writer.map_or(Ok(()), |(_, writer)| writer.write(batch));
                written.map_err(|error| {
                    failed = Some(error);
                    SourceError::Stopped
                })
            };
            let collected = collect(storage, &workflow, &mut tables, &mut sink);
            if let Some(error) = failed {
                return Err(error.into());
            }
            collected?;
        }
        unit.to_seq = seq;
        unit.workflows += 1;
        let size: usize = writers.iter().map(|(_, writer)| writer.size_bytes()).sum();
        if size + tables.size_bytes() >= limits::SEALED_OBJECT_BYTES_MAX {
            break;
        }
    }
    for batch in tables.rest() {
        if let Some((_, writer)) = writers.iter_mut().find(|(table, _)| table.id == batch.table.id) {
            writer.write(batch)?;
        }
    }
    for (table, writer) in writers {
        let rows = writer.rows();
        if rows > 0 {
            unit.files.push(File {
                table,
                bytes: writer.finish()?,
                rows,
            });
        }
    }
    Ok(Some(unit))
}

/// Position of the end, workflow, and time of the end.
pub(super) fn ended_of(key: &[u8], value: &[u8]) -> Option<(u64, WorkflowId, u64)> {
    match keys::parse(key)? {
        Parsed::Ended { end_seq, workflow, .. } => {
            Some((end_seq, workflow, u64::from_be_bytes(value.try_into().ok()?)))
        }
        _ => None,
    }
}
