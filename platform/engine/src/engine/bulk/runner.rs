//! The task that finds the workflows of bulk operations, page by page. Where each stands is durable: this task may die at any time, and goes on from there.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use gantry_proto::v1::{BulkItem, BulkOperation, Payload};
use gantry_proto::{BulkId, ErrorCode, PartitionId, limits};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::{Engine, Waker};
use crate::api::{Caller, Keeping as _, Refusal, TimeRange, WorkflowQuery};
use crate::core::bulk::BulkRow;
use crate::core::commands::BulkPage;
use crate::processor::Message;
use crate::processor::load::Records;
use crate::read;

/// After something failed that may heal, it is tried again so much later.
const RETRY: Duration = Duration::from_secs(1);

/// When each operation may take further workflows. In memory: a restart lets each take a page at once.
type Pace = BTreeMap<BulkId, Instant>;

/// See the module.
pub(crate) struct Runner {
    /// Weak: the engine owns this task.
    pub(crate) engine: Weak<Engine>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) shutdown: CancellationToken,
}

impl Runner {
    /// Runs until shutdown.
    pub(crate) async fn run(self) {
        let mut pace = Pace::new();
        loop {
            let again = match self.engine.upgrade() {
                // Cancel safe: a page that was found and not taken is found again.
                Some(engine) => tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    again = engine.advance_bulks(&mut pace) => again,
                },
                None => return,
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = self.waker.woken() => {}
                () = sleep_until(again) => {}
            }
        }
    }
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Engine {
    /// Lets every operation take a page that may; returns when to look again without being woken.
    async fn advance_bulks(&self, pace: &mut Pace) -> Option<Instant> {
        let mut again: Option<Instant> = None;
        let mut sooner = |time: Instant| again = Some(again.map_or(time, |known| known.min(time)));
        let mut known = Pace::new();
        for partition in self.all_partitions() {
            let Ok(rows) = self.searching(partition).await else {
                sooner(Instant::now() + RETRY);
                continue;
            };
            for row in rows {
                let id = row.id;
                let mut next = pace.get(&id).copied().unwrap_or_else(Instant::now);
                // A full window is opened by a report, which wakes us.
                if next <= Instant::now() && row.open() < limits::BULK_WINDOW as u64 {
                    next = match self.advance(row).await {
                        Ok(pause) => Instant::now() + pause,
                        Err(error) => {
                            tracing::warn!(bulk = %id, %error, "a bulk operation cannot go on now; it is tried again");
                            Instant::now() + RETRY
                        }
                    };
                }
                if next > Instant::now() {
                    sooner(next);
                }
                known.insert(id, next);
            }
        }
        *pace = known;
        again
    }

    async fn searching(&self, partition: PartitionId) -> Result<Vec<BulkRow>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.post(partition, Message::Bulks { reply })?;
        answer.await.map_err(|_| super::super::stopped())
    }

    /// Takes one page; returns how long the rate lets the operation rest.
    async fn advance(&self, row: BulkRow) -> Result<Duration, Refusal> {
        let room = usize::try_from(row.open()).map_or(0, |open| limits::BULK_WINDOW.saturating_sub(open));
        let rate = usize::try_from(row.rate).unwrap_or(1).max(1);
        // About a tenth of a second's share: the rate holds within a second, too.
        let limit = room.min(rate.div_ceil(10)).max(1);
        let query = read::ListQuery::new(WorkflowQuery {
            filter: Some(row.filter.clone()),
            created: TimeRange {
                from_ms: None,
                to_ms: Some(row.created_at_ms.saturating_add(1)),
            },
            after: row.through,
            ..WorkflowQuery::default()
        })?;
        let partitions = self.partition_count();
        let (tenant, seq, bulk, after) = (row.tenant, row.requested_seq, row.id, row.through);
        let mut page = self
            .blocking(move |storage| {
                let found = read::select(storage, partitions, tenant, &query, (limit, limits::LIST_ROWS_MAX))?;
                let payload: Option<Payload> = Records::new(storage, bulk.partition())
                    .payload(seq)
                    .map_err(read::content)?;
                Ok(BulkPage {
                    bulk,
                    tenant,
                    after,
                    through: found.last,
                    workflows: found.rows.iter().map(|row| row.id).collect(),
                    looked_at: u32::try_from(found.looked_at).unwrap_or(u32::MAX),
                    complete: found.complete,
                    results: None,
                    payload,
                })
            })
            .await?;
        let share = Duration::from_millis((page.workflows.len() * 1_000 / rate) as u64);
        if matches!(
            row.operation(),
            BulkOperation::Hold | BulkOperation::Release | BulkOperation::Erase
        ) {
            page.results = Some(self.keep_page(&row, &page).await?);
        }
        self.call(bulk.partition(), page).await?;
        Ok(share)
    }

    /// Holds, releases or erases the workflows of a page. A page that is found again after a crash is done again, which changes nothing.
    ///
    /// # Errors
    /// What another try may heal.
    async fn keep_page(&self, row: &BulkRow, page: &BulkPage) -> Result<(u32, Vec<BulkItem>), Refusal> {
        let caller = Caller {
            tenant: row.tenant,
            principal: row.by,
        };
        let reason = page.payload.as_ref().and_then(|payload| payload.message.clone());
        let (mut done, mut others) = (0, Vec::new());
        for workflow in page.workflows.iter().copied() {
            let outcome = match row.operation() {
                BulkOperation::Hold => self.hold(caller, workflow, reason.clone()).await,
                BulkOperation::Release => self.release(caller, workflow).await,
                _ => self.erase(caller, workflow).await,
            };
            match outcome {
                Ok(()) => done += 1,
                Err(refusal) if matches!(refusal.code, ErrorCode::StorageUnavailable | ErrorCode::Overloaded) => {
                    return Err(refusal);
                }
                Err(refusal) => others.push(BulkItem {
                    workflow,
                    failed: true,
                    reason: refusal.code.as_str().to_owned(),
                }),
            }
        }
        Ok((done, others))
    }
}
