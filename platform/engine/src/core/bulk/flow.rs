//! What the owner of a bulk operation decides.

use std::collections::BTreeMap;

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload, letter};
use gantry_proto::{BulkId, PartitionId, TenantId, WorkflowId, limits};

use super::BulkRow;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;

impl Batching<'_> {
    /// Records something about a bulk operation.
    pub(in crate::core) fn record_bulk(
        &mut self,
        bulk: BulkId,
        kind: Kind,
        payload: Option<Payload>,
    ) -> Result<(), ApplyError> {
        let row = self.state.bulks.get(&bulk);
        let (tenant, content) = row.map(|row| (row.tenant, row.content)).unwrap_or_default();
        self.emit(tenant, Some(content), kind, payload)
    }

    /// Sends letters for a page of workflows, one for each of their partitions or more when there are many.
    pub(in crate::core) fn send_bulk(
        &mut self,
        row: &BulkRow,
        workflows: &[WorkflowId],
        payload: Option<&Payload>,
    ) -> Result<(), ApplyError> {
        let mut by_partition: BTreeMap<PartitionId, Vec<WorkflowId>> = BTreeMap::new();
        for workflow in workflows {
            by_partition.entry(workflow.partition()).or_default().push(*workflow);
        }
        for (to, workflows) in by_partition {
            for part in workflows.chunks(limits::BULK_LETTER_ITEMS_MAX) {
                let items = v1::BulkItems {
                    bulk: row.id,
                    by: row.by,
                    operation: row.operation,
                    filter: row.filter.clone(),
                    workflows: part.to_vec(),
                    grace_ms: row.grace_ms,
                    interrupt: row.interrupt,
                    signal: row.signal.clone(),
                };
                let letter = letter::Kind::BulkItems(items);
                self.post(row.tenant, Some(row.content), to, letter, payload.cloned())?;
            }
        }
        Ok(())
    }

    /// A partition says what became of workflows.
    pub(in crate::core) fn bulk_reported(
        &mut self,
        tenant: TenantId,
        results: v1::BulkResults,
    ) -> Result<(), ApplyError> {
        let bulk = results.bulk;
        // It stays as long as anything of it is under way.
        if self.state.bulks.get(&bulk).is_none_or(|row| row.tenant != tenant) {
            return Ok(());
        }
        let event = v1::BulkReported {
            bulk,
            done: results.done,
            others: results.others,
        };
        self.record_bulk(bulk, Kind::BulkReported(event), None)?;
        self.settle_bulk(bulk)
    }

    /// Ends a bulk operation of which nothing is under way.
    pub(in crate::core) fn settle_bulk(&mut self, bulk: BulkId) -> Result<(), ApplyError> {
        let rests = |row: &BulkRow| row.ended_at_ms.is_none() && !row.searches() && row.open() == 0;
        if self.state.bulks.get(&bulk).is_some_and(rests) {
            let event = v1::BulkEnded {
                bulk,
                expires_at_ms: self.now_ms.saturating_add(limits::BULK_KEPT_MS),
            };
            self.record_bulk(bulk, Kind::BulkEnded(event), None)?;
        }
        Ok(())
    }
}
