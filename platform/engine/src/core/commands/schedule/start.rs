//! The playbook of an owed run was looked up: start it, or say why not.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload};
use gantry_proto::{ErrorCode, ScheduleId, TenantId, WorkflowId};

use super::super::{Outcome, Reply, Submit};
use crate::core::decide::{Batching, Inputs};

/// Start a run that was asked for. One that is not owed any more (it was started, or the schedule deleted) is left.
#[derive(Debug, Clone)]
pub struct StartRun {
    /// Whose.
    pub tenant: TenantId,
    /// Which schedule.
    pub schedule: ScheduleId,
    /// For which time.
    pub due_ms: u64,
    /// What to start, or why it cannot be.
    pub run: Result<Box<Submit>, (ErrorCode, String)>,
}

impl StartRun {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, inputs: Inputs) -> Outcome {
        let found = batch.state.schedules.get(&self.schedule);
        let owed =
            found.is_some_and(|row| row.tenant == self.tenant && row.asked.iter().any(|due| due.due_ms == self.due_ms));
        if !owed {
            return Ok(Ok(Reply::Done));
        }
        match self.run {
            Ok(mut submit) => {
                // The same time has the same workflow, whoever asks again.
                let id = WorkflowId::derive(
                    batch.now_ms,
                    batch.state.partition,
                    &[self.schedule.as_bytes(), &self.due_ms.to_be_bytes()],
                );
                submit.id = Some(id);
                submit.schedule = Some(v1::ScheduleRun {
                    schedule: self.schedule,
                    due_ms: self.due_ms,
                });
                submit.decide(batch, inputs)
            }
            Err((code, message)) => {
                let event = v1::ScheduleFailed {
                    schedule: self.schedule,
                    due_ms: self.due_ms,
                    code: code.as_str().to_owned(),
                };
                let payload = Payload {
                    message: Some(message),
                    ..Payload::default()
                };
                batch.record_schedule(self.schedule, Kind::ScheduleFailed(event), Some(payload))?;
                batch.release_schedule(self.schedule)?;
                Ok(Ok(Reply::Done))
            }
        }
    }
}
