//! A step attempt's process runs. Informational: nothing depends on it, so it rides along with the next batch.

use gantry_proto::NodeId;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self};

use super::{Outcome, live, verdict};
use crate::api::{StepState, Verdict};
use crate::core::decide::{Batching, Inputs};

/// A step attempt's process runs.
#[derive(Debug, Clone)]
pub struct StepStarted {
    /// Who says so.
    pub node: NodeId,
    /// The message.
    pub started: v1::StepStarted,
}

impl StepStarted {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let assignee = self.started.assignee;
        let Some(task) = live(batch.state, self.node, &assignee) else {
            return verdict(Verdict::Stale);
        };
        let running = batch
            .state
            .task(task)
            .and_then(|task| task.row.open())
            .is_some_and(|(_, open)| open.state() == StepState::Running);
        if !running {
            let event = v1::StepRunning {
                task: assignee.task,
                fence: assignee.fence,
                step: assignee.step,
                attempt: assignee.attempt,
                sandbox: self.started.sandbox,
                started_at_ms: self.started.started_at_ms,
            };
            batch.record(task.0, Kind::StepRunning(event), None)?;
        }
        verdict(Verdict::Accepted)
    }
}
