//! Making few objects of many, and leaving out what was removed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gantry_journal::archive::manifest::{self, ObjectRow};
use gantry_journal::archive::{Column, Day, FileReader, FileWriter, ObjectName, Table};
use gantry_journal::keys;
use gantry_journal::{ReadError, Store, Write};
use gantry_proto::{PartitionId, TenantId, limits};

use super::seal::ended_of;
use super::{House, KeepError};
use crate::archive::tables::{TABLES, WORKFLOWS};
use crate::processor::load::walk;

/// Objects of a day that is not over yet, before they are made into one.
const OPEN_DAY_OBJECTS_MAX: usize = 8;

type Stored = (Bytes, ObjectName, ObjectRow);

/// Objects that become one, without the rows of workflows that are no more.
struct Merge {
    table: &'static Table,
    objects: Vec<Stored>,
    /// Ids of the workflows that are still there; `None`: all are.
    left: Option<BTreeSet<String>>,
}

impl House<'_> {
    /// Compacts a tenant's objects in a partition, and takes out of them what was removed.
    pub(super) async fn compact(
        &mut self,
        partition: PartitionId,
        tenant: TenantId,
        first: bool,
    ) -> Result<(), KeepError> {
        let today = Day::of_ms(self.now_ms);
        // What a removal left in objects is looked for after removals, and everywhere for those that a crash or an error cut off.
        let look = first || self.removed.contains(&(partition, tenant));
        let plans = self
            .blocking(move |store| Ok(plan(store, partition, tenant, today, look)?))
            .await?;
        for merge in plans {
            self.merge(partition, tenant, merge).await?;
        }
        Ok(())
    }

    async fn merge(&mut self, partition: PartitionId, tenant: TenantId, merge: Merge) -> Result<(), KeepError> {
        let Merge { table, objects, left } = merge;
        let epoch = self.epoch(partition)?;
        let (Some((_, first, _)), Some((_, last, _))) = (objects.first(), objects.last()) else {
            return Ok(());
        };
        let name = ObjectName {
            tenant,
            day: first.day,
            table: table.name.to_owned(),
            partition,
            epoch,
            from_seq: first.from_seq,
            to_seq: last.to_seq,
            generation: objects.iter().map(|(_, name, _)| name.generation).max().unwrap_or(0) + 1,
        };
        let mut writes = Vec::with_capacity(objects.len() + 1);
        let workflows: u64 = match &left {
            Some(left) => left.len() as u64,
            None => objects.iter().map(|(_, _, row)| row.workflows).sum(),
        };
        if workflows > 0 {
            let mut parts = Vec::with_capacity(objects.len());
            for (_, _, row) in &objects {
                parts.push(self.parts.objects.get(&row.name, &row.digest).await?);
            }
            let merged = self.engine.off_thread(move |_| rewrite(table, parts, left.as_ref()));
            let (bytes, rows) = merged.await?;
            if rows > 0 {
                let row = self.store(&name, bytes, rows, workflows).await?;
                writes.push(Write::Put(manifest::key(&name, table.id), manifest::encode(&row)));
            }
        }
        self.done.retired += objects.len() as u64;
        for (key, _, mut row) in objects {
            row.retired_at_ms = Some(self.now_ms);
            writes.push(Write::Put(key, manifest::encode(&row)));
        }
        self.write(partition, epoch, writes).await
    }
}

/// What is to be made into what.
fn plan(
    store: &dyn Store,
    partition: PartitionId,
    tenant: TenantId,
    today: Day,
    look: bool,
) -> Result<Vec<Merge>, ReadError> {
    let mut groups: BTreeMap<(u8, Day), Vec<Stored>> = BTreeMap::new();
    for stored in manifest::objects(store, partition, tenant)? {
        let Some(table) = TABLES.iter().find(|table| table.name == stored.1.table) else {
            continue;
        };
        if stored.2.retired_at_ms.is_none() {
            groups.entry((table.id, stored.1.day)).or_default().push(stored);
        }
    }
    let mut plans = Vec::new();
    // The tables of a day cover the same ends: what is left is looked up once.
    let mut known: BTreeMap<(u64, u64), BTreeSet<String>> = BTreeMap::new();
    for ((id, day), objects) in groups {
        let Some(table) = TABLES.iter().find(|table| table.id == id) else {
            continue;
        };
        let mut rest = Vec::with_capacity(objects.len());
        for stored in objects {
            let covers = (stored.1.from_seq, stored.1.to_seq);
            if !look {
                rest.push(stored);
                continue;
            }
            let left = match known.get(&covers) {
                Some(left) => left.clone(),
                None => left_in(store, partition, tenant, covers)?,
            };
            known.insert(covers, left.clone());
            if (left.len() as u64) < stored.2.workflows {
                plans.push(Merge {
                    table,
                    objects: vec![stored],
                    left: Some(left),
                });
            } else {
                rest.push(stored);
            }
        }
        if day < today || rest.len() >= OPEN_DAY_OBJECTS_MAX {
            plans.extend(runs(table, rest));
        }
    }
    Ok(plans)
}

/// Workflows whose end is in the range and that are still there.
fn left_in(
    store: &dyn Store,
    partition: PartitionId,
    tenant: TenantId,
    (from, to): (u64, u64),
) -> Result<BTreeSet<String>, ReadError> {
    let mut range = keys::ended_from(partition, tenant, from);
    range.to = keys::ended_from(partition, tenant, to.saturating_add(1)).from;
    let mut left = BTreeSet::new();
    walk(store, &range, |key, value| {
        left.extend(ended_of(key, value).map(|(_, workflow, _)| workflow.to_string()));
        Ok(())
    })?;
    Ok(left)
}

/// Neighbours that are small enough to be one object.
fn runs(table: &'static Table, objects: Vec<Stored>) -> Vec<Merge> {
    let mut runs = Vec::new();
    let (mut run, mut size) = (Vec::new(), 0u64);
    for stored in objects {
        let bytes = stored.2.size_bytes;
        if size + bytes > limits::SEALED_OBJECT_BYTES_MAX as u64 && !run.is_empty() {
            runs.push(std::mem::take(&mut run));
            size = 0;
        }
        size += bytes;
        run.push(stored);
    }
    runs.push(run);
    let several = runs.into_iter().filter(|run| run.len() > 1);
    several
        .map(|objects| Merge {
            table,
            objects,
            left: None,
        })
        .collect()
}

/// One file of several, with the rows of `left` only.
fn rewrite(
    table: &'static Table,
    parts: Vec<Bytes>,
    left: Option<&BTreeSet<String>>,
) -> Result<(Bytes, u64), KeepError> {
    let id = if table.id == WORKFLOWS.id { "id" } else { "workflow_id" };
    let column = table.schema.position(id).unwrap_or(0);
    let mut writer = FileWriter::new(table)?;
    for part in parts {
        let mut reader = FileReader::open(table, part)?;
        while let Some(mut batch) = reader.next_batch()? {
            if let (Some(left), Some(Column::Text(ids))) = (left, batch.columns.get(column)) {
                let keep: Vec<bool> = ids
                    .iter()
                    .map(|id| id.as_ref().is_some_and(|id| left.contains(id)))
                    .collect();
                batch.retain(&keep);
            }
            if batch.rows() > 0 {
                writer.write(batch)?;
            }
        }
    }
    let rows = writer.rows();
    Ok((writer.finish()?, rows))
}
