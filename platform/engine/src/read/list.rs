//! Newest first, merged over partitions.

use std::collections::BinaryHeap;

use gantry_journal::Direction;
use gantry_journal::keys::{self, Parsed};
use gantry_proto::{PartitionId, TenantId, WorkflowId, limits};

use super::workflow::summary;
use crate::api::{Page, Refusal, WorkflowQuery, WorkflowSummary};
use crate::core::rows::WorkflowRow;
use crate::engine::unreadable;
use crate::processor::load::{Records, decode, workflow_rows};
use crate::processor::storage::Storage;

/// Rows that one scan of a partition takes.
const PAGE_ROWS: usize = 64;
/// Rows that one page looks at before it is cut short: a filter that matches nothing must not read the whole history at once.
const LOOKED_AT_MAX: usize = 20_000;

/// The rows of one partition, newest first, page by page.
struct Cursor {
    partition: PartitionId,
    from: Vec<u8>,
    to: Vec<u8>,
    page: std::vec::IntoIter<WorkflowRow>,
    exhausted: bool,
}

impl Cursor {
    fn next(&mut self, storage: &Storage) -> Result<Option<WorkflowRow>, Refusal> {
        if self.page.len() == 0 && !self.exhausted {
            let pairs = storage
                .store()
                .scan(&self.from, &self.to, Direction::Reverse, PAGE_ROWS)
                .map_err(unreadable)?;
            self.exhausted = pairs.len() < PAGE_ROWS;
            if let Some((last, _)) = pairs.last() {
                self.to = last.to_vec();
            }
            let mut rows = Vec::with_capacity(pairs.len());
            for (key, value) in &pairs {
                if matches!(keys::parse(key), Some(Parsed::Workflow { .. })) {
                    rows.push(decode::<WorkflowRow>("a workflow row", value).map_err(unreadable)?);
                }
            }
            self.page = rows.into_iter();
        }
        Ok(self.page.next())
    }
}

/// By time, then by tail of the id: the partition bits stand between, and must not order.
fn order(id: WorkflowId) -> (u64, [u8; 8]) {
    let mut tail = [0u8; 8];
    tail.copy_from_slice(&id.as_bytes()[8..]);
    (id.time_ms(), tail)
}

/// The greatest id that is before `after` in the list's order could be in any partition: the key where a partition's scan begins.
fn upper(partition: PartitionId, tenant: TenantId, after: WorkflowId) -> Vec<u8> {
    let mut bytes = *after.as_bytes();
    let [high, low] = partition.index().to_be_bytes();
    bytes[6] = (bytes[6] & 0xf0) | (high & 0x0f);
    bytes[7] = low;
    keys::workflow(partition, tenant, WorkflowId::from_bytes(bytes)).to_vec()
}

fn limit(query: &WorkflowQuery) -> usize {
    match query.limit {
        0 => limits::PAGE_ITEMS_DEFAULT as usize,
        asked => asked.min(limits::PAGE_ITEMS_MAX) as usize,
    }
}

fn wanted(query: &WorkflowQuery, row: &WorkflowRow) -> bool {
    (query.states.is_empty() || query.states.contains(&row.state()))
        && query.name.as_ref().is_none_or(|name| *name == row.name)
        && query
            .playbook
            .as_ref()
            .is_none_or(|name| row.playbook.as_ref().is_some_and(|playbook| playbook.name == *name))
}

/// One page of the workflows that one workflow started: its tasks say which, so nothing is searched.
fn children(
    storage: &Storage,
    tenant: TenantId,
    parent: WorkflowId,
    query: &WorkflowQuery,
) -> Result<Page<WorkflowSummary>, Refusal> {
    let rows = workflow_rows(storage.store().as_ref(), tenant, parent).map_err(unreadable)?;
    let tasks = rows.into_iter().flat_map(|workflow| workflow.tasks);
    let mut ids: Vec<WorkflowId> = tasks.filter_map(|task| task.row.child).collect();
    ids.sort_by_key(|id| std::cmp::Reverse(order(*id)));
    let behind = |id: &WorkflowId| query.after.is_none_or(|after| order(*id) < order(after));
    let limit = limit(query);
    let mut items = Vec::new();
    let mut last = None;
    for id in ids.into_iter().filter(behind) {
        if items.len() == limit {
            return Ok(Page {
                items,
                next_cursor: last.map(|id: WorkflowId| id.to_string()),
            });
        }
        last = Some(id);
        let value = storage.store().get(&keys::workflow(id.partition(), tenant, id));
        // One that was only just asked for is not born yet.
        let Some(value) = value.map_err(unreadable)? else {
            continue;
        };
        let row: WorkflowRow = decode("a workflow row", &value).map_err(unreadable)?;
        if wanted(query, &row) {
            items.push(summary(&row, &mut Records::new(storage, id.partition()))?);
        }
    }
    Ok(Page {
        items,
        next_cursor: None,
    })
}

/// One page.
pub(crate) fn list(
    storage: &Storage,
    partitions: u16,
    tenant: TenantId,
    query: &WorkflowQuery,
) -> Result<Page<WorkflowSummary>, Refusal> {
    if let Some(parent) = query.parent {
        return children(storage, tenant, parent, query);
    }
    let limit = limit(query);
    let mut cursors = Vec::new();
    let mut heads: BinaryHeap<((u64, [u8; 8]), usize)> = BinaryHeap::new();
    let mut rows: Vec<Option<WorkflowRow>> = Vec::new();
    for partition in (0..partitions).filter_map(PartitionId::new) {
        let range = keys::workflows_of(partition, tenant);
        let to = query
            .after
            .map_or_else(|| range.to.to_vec(), |after| upper(partition, tenant, after));
        let mut cursor = Cursor {
            partition,
            from: range.from.to_vec(),
            to,
            page: Vec::new().into_iter(),
            exhausted: false,
        };
        let first = cursor.next(storage)?;
        if let Some(row) = &first {
            heads.push((order(row.id), cursors.len()));
        }
        rows.push(first);
        cursors.push(cursor);
    }
    let mut items = Vec::with_capacity(limit.min(64));
    let mut looked_at = 0usize;
    let mut last: Option<WorkflowId> = None;
    while let Some((_, index)) = heads.pop() {
        if items.len() == limit || looked_at == LOOKED_AT_MAX {
            // There is more: the next page begins behind the last one that was looked at.
            return Ok(Page {
                items,
                next_cursor: last.map(|id| id.to_string()),
            });
        }
        let Some(row) = rows[index].take() else { continue };
        looked_at += 1;
        last = Some(row.id);
        if wanted(query, &row) {
            items.push(summary(&row, &mut Records::new(storage, cursors[index].partition))?);
        }
        let next = cursors[index].next(storage)?;
        if let Some(row) = &next {
            heads.push((order(row.id), index));
        }
        rows[index] = next;
    }
    Ok(Page {
        items,
        next_cursor: None,
    })
}
