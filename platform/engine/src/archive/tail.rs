//! The engine as a source of history: which objects are valid, and every row that is in none of them.

use std::collections::{BTreeMap, BTreeSet};

use gantry_journal::ReadError;
use gantry_journal::archive::manifest;
use gantry_journal::archive::{ArchiveSource, SealedObject, Sink, Snapshot, SourceError, Table};
use gantry_journal::keys::{self, Kind, Parsed};
use gantry_proto::{PartitionId, TenantId, WorkflowId};

use super::rows::Tables;
use super::tables::{EVENTS, STEPS, TABLES};
use crate::Engine;
use crate::core::state::Workflow;
use crate::processor::code;
use crate::processor::load::{walk, workflow_rows};
use crate::processor::storage::Storage;
use crate::read::each_record;

/// Looks at a partition again when sealing moved on between two reads. It moves on once in minutes.
const LOOKS_MAX: usize = 8;

impl ArchiveSource for Engine {
    fn tables(&self) -> &'static [&'static Table] {
        &TABLES
    }

    fn snapshot(&self, tenant: TenantId) -> Result<Snapshot, SourceError> {
        let mut snapshot = Snapshot {
            tenant,
            objects: Vec::new(),
            through: BTreeMap::new(),
        };
        for partition in self.all_partitions() {
            let (objects, through) = sealed(self.storage(), partition, tenant)?;
            snapshot.objects.extend(objects);
            snapshot.through.insert(partition, through);
        }
        Ok(snapshot)
    }

    fn tail(&self, snapshot: &Snapshot, names: &[&str], sink: Sink<'_>) -> Result<(), SourceError> {
        let mut tables = Tables::new(names);
        for (partition, through) in &snapshot.through {
            for id in unsealed(self.storage(), *partition, snapshot.tenant, *through)? {
                // Removed meanwhile, or never there: nothing to hand out.
                let Some(workflow) = workflow_rows(self.storage().store().as_ref(), snapshot.tenant, id)? else {
                    continue;
                };
                collect(self.storage(), &workflow, &mut tables, sink)?;
            }
        }
        tables.rest().into_iter().try_for_each(sink)
    }
}

/// Adds everything of a workflow, and hands full batches on.
pub(super) fn collect(
    storage: &Storage,
    workflow: &Workflow,
    tables: &mut Tables,
    sink: Sink<'_>,
) -> Result<(), SourceError> {
    tables.workflow(workflow)?;
    if tables.wants(&STEPS) {
        let activations = code::stored(storage.store().as_ref(), workflow)?;
        tables.code(workflow, activations.into_values().collect())?;
    }
    tables.full().into_iter().try_for_each(&mut *sink)?;
    if !tables.wants(&EVENTS) {
        return Ok(());
    }
    each_record(storage, workflow, |view, record| {
        tables.event(&workflow.row, view, record)?;
        tables.full().into_iter().try_for_each(&mut *sink)
    })
}

/// The objects that count in a partition, and how far they go: of the same moment.
fn sealed(
    storage: &Storage,
    partition: PartitionId,
    tenant: TenantId,
) -> Result<(Vec<SealedObject>, u64), SourceError> {
    let store = storage.store().as_ref();
    for _ in 0..LOOKS_MAX {
        let through = manifest::sealed_through(store, partition, tenant)?;
        let rows = manifest::objects(store, partition, tenant)?;
        if manifest::sealed_through(store, partition, tenant)? != through {
            continue;
        }
        let valid = rows.into_iter().filter(|(_, _, row)| row.retired_at_ms.is_none());
        let objects = valid.filter_map(|(_, name, row)| {
            // A table of a newer version is none of ours.
            let table = TABLES.iter().find(|table| table.name == name.table)?;
            Some(SealedObject {
                table: table.name,
                name: row.name,
                day: name.day,
                rows: row.rows,
                size_bytes: row.size_bytes,
                digest: row.digest,
            })
        });
        return Ok((objects.collect(), through));
    }
    Err(SourceError::Busy)
}

/// Workflows of a tenant that are not sealed: active ones, and those whose end is behind `through`.
fn unsealed(
    storage: &Storage,
    partition: PartitionId,
    tenant: TenantId,
    through: u64,
) -> Result<BTreeSet<WorkflowId>, ReadError> {
    let store = storage.store().as_ref();
    let mut found = BTreeSet::new();
    // The active ones first: what ends meanwhile is then found once more, among the ended, and not missed.
    walk(store, &keys::tenant_of(Kind::Active, partition, tenant), |key, _| {
        if let Some(Parsed::Active { workflow, .. }) = keys::parse(key) {
            found.insert(workflow);
        }
        Ok(())
    })?;
    let ended = keys::ended_from(partition, tenant, through.saturating_add(1));
    walk(store, &ended, |key, _| {
        if let Some(Parsed::Ended { workflow, .. }) = keys::parse(key) {
            found.insert(workflow);
        }
        Ok(())
    })?;
    Ok(found)
}
