//! Removing workflows whose retention is over.

use bytes::Bytes;
use gantry_journal::keys::{self, KeyRange};
use gantry_journal::{Direction, ReadError, Store};
use gantry_proto::{PartitionId, TenantId, WorkflowId, limits};

use super::seal::ended_of;
use super::{House, KeepError};
use crate::core::commands::{Expired, Remove};
use crate::core::rows::WorkflowRow;
use crate::processor::batch::closed_state;
use crate::processor::load::{decode, walk};

impl House<'_> {
    /// Removes the rows of what a tenant keeps no longer. Holds are left alone.
    pub(super) async fn expire(&mut self, partition: PartitionId, tenant: TenantId) -> Result<(), KeepError> {
        let Some(retention_ms) = self.parts.config.retention.of(tenant) else {
            return Ok(());
        };
        let before_ms = self.now_ms.saturating_sub(retention_ms);
        let mut from = keys::ended_from(partition, tenant, 0).from;
        loop {
            let begin = from.clone();
            let gathered = self.blocking(move |store| Ok(gather(store, partition, tenant, &begin, before_ms)?));
            let (workflows, next) = gathered.await?;
            let count = workflows.len() as u64;
            if count > 0 {
                let command = Remove {
                    tenant,
                    retention_ms,
                    workflows,
                };
                self.engine.destroy(partition, command.into()).await?;
                self.done.removed += count;
                self.removed.insert((partition, tenant));
            }
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }
}

/// The next workflows that are due, with all their keys, and where to go on.
fn gather(
    store: &dyn Store,
    partition: PartitionId,
    tenant: TenantId,
    from: &Bytes,
    before_ms: u64,
) -> Result<(Vec<Expired>, Option<Bytes>), ReadError> {
    let to = keys::ended_from(partition, tenant, 0).to;
    let page = store.scan(from, &to, Direction::Forward, limits::DESTROY_BATCH_MAX)?;
    let mut found = Vec::new();
    for (key, value) in &page {
        let Some((_, workflow, at_ms)) = ended_of(key, value) else {
            continue;
        };
        if at_ms > before_ms {
            return Ok((found, None));
        }
        if store.get(&keys::hold(partition, tenant, workflow))?.is_none() {
            let keys = keys_of(store, partition, tenant, workflow, key)?;
            found.push(Expired { workflow, keys });
        }
    }
    let more = page.last().filter(|_| page.len() == limits::DESTROY_BATCH_MAX);
    Ok((found, more.map(|(key, _)| KeyRange::of_key(key).to)))
}

/// Everything that is stored of an ended workflow beside its log records.
fn keys_of(
    store: &dyn Store,
    partition: PartitionId,
    tenant: TenantId,
    workflow: WorkflowId,
    ended: &Bytes,
) -> Result<Vec<Bytes>, ReadError> {
    let mut found = vec![
        ended.clone(),
        keys::workflow(partition, tenant, workflow),
        keys::data_key(partition, tenant, workflow),
        keys::erased(partition, tenant, workflow),
    ];
    if let Some(value) = store.get(&keys::workflow(partition, tenant, workflow))? {
        let row: WorkflowRow = decode("a workflow row", &value)?;
        found.push(keys::closed(partition, tenant, closed_state(&row), workflow));
    }
    for range in [
        keys::tasks_of(partition, tenant, workflow),
        keys::activations_of(partition, tenant, workflow),
        keys::timeline_from(partition, tenant, workflow, 0),
    ] {
        walk(store, &range, |key, _| {
            found.push(Bytes::copy_from_slice(key));
            Ok(())
        })?;
    }
    Ok(found)
}
