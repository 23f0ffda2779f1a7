//! Newest first, merged over partitions and indexes.

mod cursor;
mod query;

use std::collections::BinaryHeap;

use gantry_journal::keys;
use gantry_proto::{PartitionId, TenantId, WorkflowId, limits};

use self::cursor::{Cursor, Index, order};
pub(crate) use self::query::ListQuery;
use super::workflow::summary;
use crate::api::{Page, Refusal, WorkflowSummary};
use crate::core::rows::WorkflowRow;
use crate::engine::unreadable;
use crate::filter::STATES;
use crate::processor::load::{Records, decode, workflow_rows};
use crate::processor::storage::Storage;

/// Rows that were found.
pub(crate) struct Selected {
    /// Newest first.
    pub(crate) rows: Vec<WorkflowRow>,
    /// The last one that was looked at: the next search begins behind it.
    pub(crate) last: Option<WorkflowId>,
    /// How many were looked at.
    pub(crate) looked_at: usize,
    /// There is nothing behind the last one.
    pub(crate) complete: bool,
}

/// Searches at most `rows_max` rows for `limit` that match.
pub(crate) fn select(
    storage: &Storage,
    partitions: u16,
    tenant: TenantId,
    query: &ListQuery,
    (limit, rows_max): (usize, usize),
) -> Result<Selected, Refusal> {
    if let Some(parent) = query.parent() {
        return children(storage, partitions, tenant, parent, query, limit);
    }
    let mut cursors = Vec::new();
    let mut heads: BinaryHeap<((u64, [u8; 8]), usize)> = BinaryHeap::new();
    let first_page = limit / usize::from(partitions.max(1)) + 2;
    for index in indexes(query) {
        for partition in (0..partitions).filter_map(PartitionId::new) {
            let mut cursor = Cursor::new(index, partition, tenant, query, first_page);
            if let Some(id) = cursor.head(storage)? {
                heads.push((order(id), cursors.len()));
            }
            cursors.push(cursor);
        }
    }
    let mut found = Selected {
        rows: Vec::with_capacity(limit.min(64)),
        last: None,
        looked_at: 0,
        complete: true,
    };
    while let Some((_, at)) = heads.pop() {
        if found.rows.len() == limit || found.looked_at == rows_max {
            found.complete = false;
            break;
        }
        let cursor = &mut cursors[at];
        let Some((id, row)) = cursor.take(storage)? else {
            continue;
        };
        if let Some(next) = cursor.head(storage)? {
            heads.push((order(next), at));
        }
        found.looked_at += 1;
        found.last = Some(id);
        // What an index names may have been removed meanwhile.
        found.rows.extend(row.filter(|row| query.wanted(row, partitions)));
    }
    Ok(found)
}

/// Which indexes have all that can match: the rows themselves, unless states are asked for.
fn indexes(query: &ListQuery) -> Vec<Index> {
    let states = query.states();
    if states.len() == STATES.len() {
        return vec![Index::Rows];
    }
    let (ended, open): (Vec<_>, Vec<_>) = states.into_iter().partition(|state| state.is_end());
    let closed = ended
        .into_iter()
        .filter_map(|state| u8::try_from(i32::from(state)).ok());
    let active = (!open.is_empty()).then_some(Index::Active);
    active.into_iter().chain(closed.map(Index::Closed)).collect()
}

/// The workflows that one workflow started: its tasks say which, so nothing is searched.
fn children(
    storage: &Storage,
    partitions: u16,
    tenant: TenantId,
    parent: WorkflowId,
    query: &ListQuery,
    limit: usize,
) -> Result<Selected, Refusal> {
    let rows = workflow_rows(storage.store().as_ref(), tenant, parent).map_err(unreadable)?;
    let tasks = rows.into_iter().flat_map(|workflow| workflow.tasks);
    let mut ids: Vec<WorkflowId> = tasks.filter_map(|task| task.row.child).collect();
    ids.sort_by_key(|id| std::cmp::Reverse(order(*id)));
    let behind = |id: &WorkflowId| query.after().is_none_or(|after| order(*id) < order(after));
    let mut found = Selected {
        rows: Vec::new(),
        last: None,
        looked_at: 0,
        complete: true,
    };
    for id in ids.into_iter().filter(behind) {
        if found.rows.len() == limit {
            found.complete = false;
            break;
        }
        found.last = Some(id);
        found.looked_at += 1;
        let value = storage.store().get(&keys::workflow(id.partition(), tenant, id));
        // One that was only just asked for is not born yet.
        let Some(value) = value.map_err(unreadable)? else {
            continue;
        };
        let row: WorkflowRow = decode("a workflow row", &value).map_err(unreadable)?;
        found.rows.extend(Some(row).filter(|row| query.wanted(row, partitions)));
    }
    Ok(found)
}

/// One page.
pub(crate) fn list(
    storage: &Storage,
    partitions: u16,
    tenant: TenantId,
    query: &ListQuery,
) -> Result<Page<WorkflowSummary>, Refusal> {
    let limit = query.limit();
    let found = select(storage, partitions, tenant, query, (limit, limits::LIST_ROWS_MAX))?;
    let cut_short = !found.complete && found.rows.len() < limit;
    let mut items = Vec::with_capacity(found.rows.len());
    for row in &found.rows {
        items.push(summary(row, &mut Records::new(storage, row.id.partition()))?);
    }
    let next = found.last.filter(|_| !found.complete);
    Ok(Page {
        items,
        next_cursor: next.map(|id| id.to_string()),
        searched_to_ms: next.filter(|_| cut_short).map(WorkflowId::time_ms),
    })
}
