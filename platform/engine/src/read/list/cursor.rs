//! The workflows of one partition as one index has them, newest first, page by page.

use bytes::Bytes;
use gantry_journal::Direction;
use gantry_journal::keys::{self, KeyRange, Parsed};
use gantry_proto::{PartitionId, TenantId, WorkflowId};

use super::ListQuery;
use crate::api::Refusal;
use crate::core::rows::WorkflowRow;
use crate::engine::unreadable;
use crate::processor::load::decode;
use crate::processor::storage::Storage;

/// Rows that one scan takes at most.
const PAGE_ROWS_MAX: usize = 256;

/// An id's time and its row's may differ by this: the id of a child is made by its parent's partition, whose clock is another one, and that of a workflow with
/// uploads before they are copied.
const SLACK_MS: u64 = 3_600_000;

/// Where workflows are looked up.
#[derive(Debug, Clone, Copy)]
pub(super) enum Index {
    /// All of them.
    Rows,
    /// Those that have not ended.
    Active,
    /// Those that ended so.
    Closed(u8),
}

impl Index {
    fn all(self, partition: PartitionId, tenant: TenantId) -> KeyRange {
        match self {
            Self::Rows => keys::workflows_of(partition, tenant),
            Self::Active => keys::actives_of(partition, tenant),
            Self::Closed(state) => keys::closed_of(partition, tenant, state),
        }
    }

    fn key(self, partition: PartitionId, tenant: TenantId, id: WorkflowId) -> Bytes {
        match self {
            Self::Rows => keys::workflow(partition, tenant, id),
            Self::Active => keys::active(partition, tenant, id),
            Self::Closed(state) => keys::closed(partition, tenant, state, id),
        }
    }
}

/// By time, then by tail of the id: the partition bits stand between, and must not order.
pub(super) fn order(id: WorkflowId) -> (u64, [u8; 8]) {
    let mut tail = [0u8; 8];
    tail.copy_from_slice(&id.as_bytes()[8..]);
    (id.time_ms(), tail)
}

/// What `after` would be in any partition: where a partition's scan begins.
fn moved(partition: PartitionId, after: WorkflowId) -> WorkflowId {
    let mut bytes = *after.as_bytes();
    let [high, low] = partition.index().to_be_bytes();
    bytes[6] = (bytes[6] & 0xf0) | (high & 0x0f);
    bytes[7] = low;
    WorkflowId::from_bytes(bytes)
}

/// Before every id of this time and of later ones.
fn before(time_ms: u64) -> WorkflowId {
    let mut bytes = [0u8; 16];
    bytes[..6].copy_from_slice(&time_ms.min((1 << 48) - 1).to_be_bytes()[2..]);
    WorkflowId::from_bytes(bytes)
}

pub(super) struct Cursor {
    index: Index,
    tenant: TenantId,
    partition: PartitionId,
    from: Bytes,
    to: Bytes,
    page: std::iter::Peekable<std::vec::IntoIter<(WorkflowId, Bytes)>>,
    page_rows: usize,
    exhausted: bool,
}

impl Cursor {
    pub(super) fn new(
        index: Index,
        partition: PartitionId,
        tenant: TenantId,
        query: &ListQuery,
        page_rows: usize,
    ) -> Self {
        let KeyRange { mut from, mut to } = index.all(partition, tenant);
        let created = query.created();
        if let Some(time) = created.from_ms {
            from = from.max(index.key(partition, tenant, before(time.saturating_sub(SLACK_MS))));
        }
        if let Some(time) = created.to_ms {
            to = to.min(index.key(partition, tenant, before(time.saturating_add(SLACK_MS))));
        }
        if let Some(after) = query.after() {
            to = to.min(index.key(partition, tenant, moved(partition, after)));
        }
        Self {
            index,
            tenant,
            partition,
            exhausted: from >= to,
            from,
            to,
            page: Vec::new().into_iter().peekable(),
            page_rows: page_rows.clamp(4, PAGE_ROWS_MAX),
        }
    }

    /// The next one.
    pub(super) fn head(&mut self, storage: &Storage) -> Result<Option<WorkflowId>, Refusal> {
        if self.page.peek().is_none() && !self.exhausted {
            let pairs = storage
                .store()
                .scan(&self.from, &self.to, Direction::Reverse, self.page_rows)
                .map_err(unreadable)?;
            self.exhausted = pairs.len() < self.page_rows;
            // Who asks for more than a page reads on.
            self.page_rows = (self.page_rows * 2).min(PAGE_ROWS_MAX);
            if let Some((last, _)) = pairs.last() {
                self.to = last.clone();
            }
            let entries: Vec<(WorkflowId, Bytes)> = pairs
                .into_iter()
                .filter_map(|(key, value)| match keys::parse(&key)? {
                    Parsed::Workflow { workflow, .. }
                    | Parsed::Active { workflow, .. }
                    | Parsed::Closed { workflow, .. } => Some((workflow, value)),
                    _ => None,
                })
                .collect();
            self.page = entries.into_iter().peekable();
        }
        Ok(self.page.peek().map(|(id, _)| *id))
    }

    /// Takes the next one, with its row.
    pub(super) fn take(&mut self, storage: &Storage) -> Result<Option<(WorkflowId, Option<WorkflowRow>)>, Refusal> {
        let Some((id, value)) = self.page.next() else {
            return Ok(None);
        };
        let value = match self.index {
            Index::Rows => Some(value),
            Index::Active | Index::Closed(_) => storage
                .store()
                .get(&keys::workflow(self.partition, self.tenant, id))
                .map_err(unreadable)?,
        };
        let row = value.map(|value| decode("a workflow row", &value)).transpose();
        Ok(Some((id, row.map_err(unreadable)?)))
    }
}
