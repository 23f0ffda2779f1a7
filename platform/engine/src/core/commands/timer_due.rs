//! Timers are due.

use bytes::Bytes;
use gantry_proto::limits;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self};

use super::{Outcome, Reply};
use crate::core::apply::ApplyError;
use crate::core::decide::{Batching, Inputs};
use crate::core::state::Timer;

/// Timers are due at the time of the batch; at most one batch full is handled at once.
#[derive(Debug, Clone, Copy)]
pub struct TimerDue;

impl TimerDue {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        for _ in 0..limits::BATCH_COMMANDS_MAX {
            let Some((due, timer)) = batch.state.timers.first().copied() else {
                break;
            };
            if due > batch.now_ms {
                break;
            }
            match timer {
                Timer::Upload(upload) => {
                    let Some(row) = batch.state.uploads.get(&upload) else {
                        return Err(ApplyError::Unknown {
                            seq: batch.state.next_seq,
                            what: "upload",
                        });
                    };
                    let tenant = row.tenant;
                    batch.emit(tenant, None, Kind::UploadExpired(v1::UploadExpired { upload }), None)?;
                }
                Timer::Limit(key) => batch.limit_due(key)?,
                Timer::Schedule(schedule) => batch.fire(schedule)?,
                Timer::Bulk(bulk) => {
                    batch.record_bulk(bulk, Kind::BulkExpired(v1::BulkExpired { bulk }), None)?;
                }
                Timer::Task(task) => batch.due(task)?,
                Timer::TaskDeadline(task) => batch.task_overdue(task)?,
                Timer::WorkflowDeadline(id) => batch.workflow_overdue(id)?,
                Timer::Idempotency((tenant, key)) => {
                    let event = v1::IdempotencyExpired {
                        key_hash: Bytes::copy_from_slice(&key),
                    };
                    batch.emit(tenant, None, Kind::IdempotencyExpired(event), None)?;
                }
            }
        }
        Ok(Ok(Reply::Done))
    }
}
