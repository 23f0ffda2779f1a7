//! What the partitions of the workflows decide: each is acted upon as if its owner had been asked alone.

use gantry_proto::v1::{self, BulkItem, BulkOperation, Payload, WaitKind, letter};
use gantry_proto::{ErrorCode, TenantId, WorkflowId};
use indexmap::IndexMap;
use serde_json::Map;

use crate::api::TaskDecision;
use crate::core::apply::ApplyError;
use crate::core::commands::{Cancel, Pause, Rejection, Reply, Resume, Signal, TaskDecide};
use crate::core::decide::{Batching, Inputs};
use crate::core::rows::TaskRow;
use crate::filter::Filter;
use crate::lifecycle::task::TaskState;
use crate::lifecycle::workflow::WorkflowState;
use crate::spec::definition::DeciderScope;

/// It has ended, or was removed.
const ENDED: &str = "ended";
/// The filter fits it no more.
const CHANGED: &str = "changed";
/// It is as it was to become.
const NOTHING: &str = "nothing_to_do";

/// What became of a workflow.
enum Became {
    Done,
    Skipped(&'static str),
    Failed(String),
}

impl Batching<'_> {
    /// The partition of some workflows has its part of a bulk operation.
    pub(in crate::core) fn bulk_items(
        &mut self,
        tenant: TenantId,
        items: v1::BulkItems,
        payload: Option<Payload>,
        inputs: Inputs,
    ) -> Result<(), ApplyError> {
        // What the owner parsed parses here too: one process has one version.
        let filter = Filter::parse(&items.filter).ok();
        let payload = payload.unwrap_or_default();
        let mut results = v1::BulkResults {
            bulk: items.bulk,
            done: 0,
            others: Vec::new(),
        };
        for workflow in &items.workflows {
            let became = self.bulk_item(tenant, *workflow, filter.as_ref(), &items, &payload, inputs)?;
            let (failed, reason) = match became {
                Became::Done => {
                    results.done += 1;
                    continue;
                }
                Became::Skipped(reason) => (false, reason.to_owned()),
                Became::Failed(reason) => (true, reason),
            };
            results.others.push(BulkItem {
                workflow: *workflow,
                failed,
                reason,
            });
        }
        let to = items.bulk.partition();
        self.post(tenant, None, to, letter::Kind::BulkResults(results), None)
    }

    fn bulk_item(
        &mut self,
        tenant: TenantId,
        id: WorkflowId,
        filter: Option<&Filter>,
        items: &v1::BulkItems,
        payload: &Payload,
        inputs: Inputs,
    ) -> Result<Became, ApplyError> {
        let partitions = self.state.settings.partitions;
        let found = self.workflow(id);
        let Some(row) = found
            .map(|found| &found.row)
            .filter(|row| row.tenant == tenant && !row.is_ended())
        else {
            return Ok(Became::Skipped(ENDED));
        };
        if filter.is_none_or(|filter| !filter.matches(row, partitions)) {
            return Ok(Became::Skipped(CHANGED));
        }
        let paused = row.state() == WorkflowState::Paused;
        let by = items.by;
        let outcome = match items.operation() {
            BulkOperation::Cancel if row.cancel_by.is_some() => return Ok(Became::Skipped(NOTHING)),
            BulkOperation::Pause if paused => return Ok(Became::Skipped(NOTHING)),
            BulkOperation::Resume if !paused => return Ok(Became::Skipped(NOTHING)),
            BulkOperation::Cancel => Cancel {
                tenant,
                workflow: id,
                by,
                grace_ms: items.grace_ms,
            }
            .decide(self, inputs)?,
            BulkOperation::Pause => Pause {
                tenant,
                workflow: id,
                by,
                interrupt: items.interrupt.unwrap_or(false),
                comment: payload.message.clone(),
            }
            .decide(self, inputs)?,
            BulkOperation::Resume => Resume {
                tenant,
                workflow: id,
                by,
            }
            .decide(self, inputs)?,
            BulkOperation::Signal => Signal {
                tenant,
                workflow: id,
                by,
                name: items.signal.clone().unwrap_or_default(),
                id: None,
                outputs_json: payload.outputs_json.clone().unwrap_or_else(|| "{}".into()),
            }
            .decide(self, inputs)?,
            // No letter says these.
            BulkOperation::Hold | BulkOperation::Release | BulkOperation::Erase => {
                return Ok(Became::Failed(ErrorCode::Internal.as_str().to_owned()));
            }
            BulkOperation::Retry => return self.bulk_retry(tenant, id, items, payload, inputs),
        };
        Ok(became(outcome))
    }

    /// Every task that waits for a decision to try again, or for its next attempt, starts now.
    fn bulk_retry(
        &mut self,
        tenant: TenantId,
        id: WorkflowId,
        items: &v1::BulkItems,
        payload: &Payload,
        inputs: Inputs,
    ) -> Result<Became, ApplyError> {
        let tasks: Vec<String> = self
            .workflow(id)
            .into_iter()
            .flat_map(|workflow| &workflow.tasks)
            .filter(|task| waits_for_retry(&task.row))
            .map(|task| task.row.id.to_string())
            .collect();
        if tasks.is_empty() {
            return Ok(Became::Skipped(NOTHING));
        }
        let mut result = Became::Done;
        for task in tasks {
            let decision = TaskDecide {
                tenant,
                workflow: id,
                task,
                by: items.by,
                scope: DeciderScope::Operate,
                decision: TaskDecision::Retry {
                    env: IndexMap::new(),
                    params: Map::new(),
                },
                comment: payload.message.clone(),
            };
            if let failed @ Became::Failed(_) = became(decision.decide(self, inputs)?) {
                result = failed;
            }
        }
        Ok(result)
    }
}

fn waits_for_retry(row: &TaskRow) -> bool {
    let kind = row.wait_kind.and_then(|kind| WaitKind::try_from(kind).ok());
    row.state() == TaskState::Escalated
        || (row.state() == TaskState::Pending
            && matches!(
                kind,
                Some(WaitKind::RetryBackoff | WaitKind::NodeRefused | WaitKind::Infrastructure | WaitKind::Exhausted)
            ))
}

fn became(outcome: Result<Reply, Rejection>) -> Became {
    match outcome {
        Ok(_) => Became::Done,
        Err(Rejection::Refused { code, .. }) => Became::Failed(code.as_str().to_owned()),
        Err(Rejection::NotFound | Rejection::IdempotencyMismatch(_)) => {
            Became::Failed(ErrorCode::NotFound.as_str().to_owned())
        }
    }
}
