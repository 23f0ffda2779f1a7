//! Bulk operations: what gateways call, and the task that finds their workflows.

mod runner;

use gantry_journal::keys::{self, Kind};
use gantry_proto::v1::{BulkOperation, Payload};
use gantry_proto::{BulkId, ErrorCode, PartitionId, TenantId, limits};

use super::{Engine, not_found, unreadable};
use crate::api::{
    BulkAction, BulkItemView, BulkPreview, BulkReasonView, BulkRequest, BulkView, Bulks, Caller, Page, Refusal,
    WorkflowQuery,
};
use crate::core::bulk::BulkRow;
use crate::core::commands::{CancelBulk, StartBulk, outputs_of};
use crate::processor::load::{decode, walk};
use crate::processor::storage::Storage;
use crate::read;

pub(super) use runner::Runner;

fn refused(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

/// A request as it is journaled.
fn command(request: &BulkRequest, bulk: BulkId) -> Result<StartBulk, Refusal> {
    let comment_max = match request.action {
        BulkAction::Hold => limits::HOLD_REASON_BYTES_MAX,
        _ => limits::COMMENT_BYTES_MAX,
    };
    if let Some(comment) = request.comment.as_ref().filter(|text| text.len() > comment_max) {
        let message = format!("the comment has {} bytes; the limit is {comment_max}", comment.len());
        return Err(Refusal::new(ErrorCode::TooLarge, message));
    }
    let rate = request.rate.unwrap_or(limits::BULK_RATE_DEFAULT);
    if rate == 0 || rate > limits::BULK_RATE_MAX {
        return Err(refused(format!(
            "`rate` is 1 to {} workflows per second",
            limits::BULK_RATE_MAX
        )));
    }
    let mut payload = Payload {
        message: request.comment.clone(),
        ..Payload::default()
    };
    let (mut grace, mut hold, mut signal) = (None, None, None);
    let operation = match &request.action {
        BulkAction::Cancel { grace_ms } => {
            grace = *grace_ms;
            BulkOperation::Cancel
        }
        BulkAction::Pause { interrupt } => {
            hold = Some(*interrupt);
            BulkOperation::Pause
        }
        BulkAction::Resume => BulkOperation::Resume,
        BulkAction::Signal {
            signal: name,
            payload: given,
        } => {
            if name.is_empty() || name.len() > limits::NAME_BYTES_MAX {
                return Err(refused(format!(
                    "the name of a signal has 1 to {} bytes",
                    limits::NAME_BYTES_MAX
                )));
            }
            let json = serde_json::to_vec(&outputs_of(given.clone()))
                .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
            // It goes with every letter, and stays in the row of none.
            if json.len() > limits::BULK_PAYLOAD_BYTES_MAX {
                let message = format!(
                    "the payload has {} bytes; the limit for a bulk signal is {}",
                    json.len(),
                    limits::BULK_PAYLOAD_BYTES_MAX
                );
                return Err(Refusal::new(ErrorCode::TooLarge, message));
            }
            payload.outputs_json = Some(json.into());
            signal = Some(name.clone());
            BulkOperation::Signal
        }
        BulkAction::Retry => BulkOperation::Retry,
        BulkAction::Hold => BulkOperation::Hold,
        BulkAction::Release => BulkOperation::Release,
        BulkAction::Erase => BulkOperation::Erase,
    };
    let asked = serde_json::to_vec(&(&request.action, &request.filter, &request.comment, rate))
        .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
    Ok(StartBulk {
        bulk,
        tenant: request.caller.tenant,
        by: request.caller.principal,
        operation,
        filter: request.filter.clone(),
        rate,
        request_hash: blake3::hash(&asked).into(),
        grace_ms: grace,
        interrupt: hold,
        signal,
        payload: (payload != Payload::default()).then_some(payload),
    })
}

fn view(row: &BulkRow) -> BulkView {
    BulkView {
        id: row.id,
        operation: row
            .operation()
            .as_str_name()
            .trim_start_matches("BULK_OPERATION_")
            .to_ascii_lowercase(),
        filter: row.filter.clone(),
        state: row.state(),
        rate: row.rate,
        created_at_ms: row.created_at_ms,
        created_by: row.by,
        ended_at_ms: row.ended_at_ms,
        expires_at_ms: row.expires_at_ms,
        cancelled_by: row.cancelled_by,
        looked_at: row.looked_at,
        searched: row.complete,
        matched: row.matched,
        done: row.done,
        skipped: row.skipped,
        failed: row.failed,
        reasons: row
            .reasons
            .iter()
            .map(|reason| BulkReasonView {
                reason: reason.reason.clone(),
                failed: reason.failed,
                count: reason.count,
            })
            .collect(),
        others: row
            .others
            .iter()
            .map(|item| BulkItemView {
                workflow: item.workflow,
                failed: item.failed,
                reason: item.reason.clone(),
            })
            .collect(),
    }
}

fn stored(storage: &Storage, tenant: TenantId, bulk: BulkId) -> Result<BulkRow, Refusal> {
    let key = keys::bulk(bulk.partition(), tenant, bulk);
    let value = storage.store().get(&key).map_err(unreadable)?.ok_or_else(not_found)?;
    decode("the row of a bulk operation", &value).map_err(unreadable)
}

impl Engine {
    /// Where a bulk operation lives, and what it is called.
    fn bulk_id(&self, request: &BulkRequest) -> Result<BulkId, Refusal> {
        let count = self.partition_count();
        let Some(key) = &request.idempotency_key else {
            let entropy = gantry_journal::host::entropy()
                .map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
            let partition = u16::try_from(entropy % u64::from(count))
                .ok()
                .and_then(PartitionId::new);
            return Ok(BulkId::new(
                self.parts.clock.now_ms(),
                partition.unwrap_or_default(),
                entropy,
            ));
        };
        if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
            return Err(refused(format!(
                "an idempotency key has 1 to {} bytes",
                limits::IDEMPOTENCY_KEY_BYTES_MAX
            )));
        }
        let tenant = request.caller.tenant;
        let partition = PartitionId::of(tenant, "bulk", key.as_bytes(), count);
        Ok(BulkId::derive(0, partition, &[tenant.as_bytes(), key.as_bytes()]))
    }
}

#[async_trait::async_trait]
impl Bulks for Engine {
    async fn start_bulk(&self, request: BulkRequest) -> Result<BulkView, Refusal> {
        // Refused here, so that what runs can rely on it.
        read::ListQuery::new(WorkflowQuery {
            filter: Some(request.filter.clone()),
            ..WorkflowQuery::default()
        })?;
        let bulk = self.bulk_id(&request)?;
        let command = command(&request, bulk)?;
        self.call(bulk.partition(), command).await?;
        self.bulk(request.caller.tenant, bulk).await
    }

    async fn preview_bulk(&self, tenant: TenantId, filter: String) -> Result<BulkPreview, Refusal> {
        let query = read::ListQuery::new(WorkflowQuery {
            filter: Some(filter),
            ..WorkflowQuery::default()
        })?;
        let partitions = self.partition_count();
        let bounds = (limits::BULK_PREVIEW_ROWS_MAX, limits::BULK_PREVIEW_ROWS_MAX);
        let found = self
            .blocking(move |storage| read::select(storage, partitions, tenant, &query, bounds))
            .await?;
        let mut preview = BulkPreview {
            matched: found.rows.len() as u64,
            by_state: std::collections::BTreeMap::new(),
            newest: found.rows.iter().take(10).map(|row| row.id).collect(),
            looked_at: found.looked_at as u64,
            complete: found.complete,
        };
        for row in &found.rows {
            *preview.by_state.entry(row.state().text().to_owned()).or_default() += 1;
        }
        Ok(preview)
    }

    async fn bulks(&self, tenant: TenantId, after: Option<BulkId>, limit: usize) -> Result<Page<BulkView>, Refusal> {
        let partitions = self.partition_count();
        self.blocking(move |storage| {
            let mut rows: Vec<BulkRow> = Vec::new();
            for partition in (0..partitions).filter_map(PartitionId::new) {
                let range = keys::tenant_of(Kind::Bulk, partition, tenant);
                walk(storage.store().as_ref(), &range, |_, value| {
                    rows.push(decode("the row of a bulk operation", value)?);
                    Ok(())
                })
                .map_err(unreadable)?;
            }
            let order = |row: &BulkRow| std::cmp::Reverse((row.created_at_ms, row.id));
            rows.sort_by_key(order);
            // One that was forgotten meanwhile was among the oldest: then nothing is behind it.
            let begin = match after {
                None => 0,
                Some(after) => rows
                    .iter()
                    .position(|row| row.id == after)
                    .map_or(rows.len(), |at| at + 1),
            };
            let rest = &rows[begin..];
            let items: Vec<BulkView> = rest.iter().take(limit).map(view).collect();
            let more = rest.len() > items.len();
            Ok(Page {
                next_cursor: items.last().filter(|_| more).map(|last| last.id.to_string()),
                items,
                searched_to_ms: None,
            })
        })
        .await
    }

    async fn bulk(&self, tenant: TenantId, bulk: BulkId) -> Result<BulkView, Refusal> {
        self.partition(bulk.partition())?;
        self.blocking(move |storage| stored(storage, tenant, bulk).map(|row| view(&row)))
            .await
    }

    async fn cancel_bulk(&self, caller: Caller, bulk: BulkId) -> Result<BulkView, Refusal> {
        let command = CancelBulk {
            bulk,
            tenant: caller.tenant,
            by: caller.principal,
        };
        self.call(bulk.partition(), command).await?;
        self.bulk(caller.tenant, bulk).await
    }
}
