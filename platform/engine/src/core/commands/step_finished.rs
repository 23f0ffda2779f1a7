//! A step attempt ended: the record after which it is never executed again, and what follows, in one batch.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Assignee, EndCause, LeaseEnd, Payload, StepEnd, StepResult};
use gantry_proto::{ErrorCode, NodeId};

use super::{Outcome, live, reported, verdict};
use crate::api::Verdict;
use crate::core::decide::{Batching, Inputs};

/// A step attempt ended.
#[derive(Debug, Clone)]
pub struct StepFinished {
    /// Who says so.
    pub node: NodeId,
    /// Which attempt.
    pub assignee: Assignee,
    /// How.
    pub result: StepResult,
}

impl StepFinished {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let Self { node, assignee, result } = self;
        let Some(task) = live(batch.state, node, &assignee) else {
            let known = reported(batch.state, node, &assignee);
            return verdict(if known { Verdict::Accepted } else { Verdict::Stale });
        };
        let cancelled = batch
            .state
            .task(task)
            .is_some_and(|task| task.row.cancel_grace_ms.is_some());
        let end = match result.cause() {
            EndCause::Exited if result.exit_code == Some(0) => StepEnd::Completed,
            EndCause::Cancelled if cancelled => StepEnd::Cancelled,
            // Ended on a request that was not ours: the dead-man deadline, or the node stopping.
            EndCause::Cancelled | EndCause::Lost => StepEnd::Lost,
            _ => StepEnd::Failed,
        };
        let code = (end == StepEnd::Failed || end == StepEnd::Cancelled).then(|| code(&result));
        let payload = Payload {
            outputs_json: result.outputs_json.filter(|_| end == StepEnd::Completed),
            attrs_json: result.attrs_json,
            message: result.fault.as_ref().map(|fault| fault.message.clone()),
            hint: result.fault.as_ref().and_then(|fault| fault.hint.clone()),
            artifacts: if end == StepEnd::Completed {
                result.artifacts
            } else {
                Vec::new()
            },
            ..Payload::default()
        };
        let event = v1::StepEnded {
            task: assignee.task,
            fence: assignee.fence,
            step: assignee.step,
            attempt: assignee.attempt,
            end: end.into(),
            cause: result.cause,
            code: code.map(|code| code.as_str().to_owned()),
            exit_code: result.exit_code,
            signal: result.signal,
            oom_seen: result.oom_seen,
            started_at_ms: result.started_at_ms,
            finished_at_ms: Some(result.finished_at_ms),
            last_seq: result.last_seq,
            user_cpu_us: result.user_cpu_us,
            system_cpu_us: result.system_cpu_us,
            max_rss_bytes: result.max_rss_bytes,
            sandbox: result.sandbox,
            prepare_ms: result.prepare_ms,
            capture_ms: result.capture_ms,
        };
        let payload = (payload != Payload::default()).then_some(payload);
        batch.record(task.0, Kind::StepEnded(event), payload)?;
        batch.after_step(task, LeaseEnd::Lost)?;
        verdict(Verdict::Accepted)
    }
}

/// What programs match on: the node's own code where it knows better, else what follows from the cause.
fn code(result: &StepResult) -> ErrorCode {
    let reported = result.fault.as_ref().and_then(|fault| fault.code.parse().ok());
    match result.cause() {
        EndCause::Exited => ErrorCode::StepExit,
        EndCause::Signalled => ErrorCode::StepSignal,
        EndCause::Timeout => ErrorCode::StepTimeout,
        EndCause::Cancelled => ErrorCode::StepCancelled,
        EndCause::Oom => ErrorCode::StepOutOfMemory,
        EndCause::OutputLimit => ErrorCode::StepOutputLimit,
        EndCause::Invalid => reported.unwrap_or(ErrorCode::StepCannotStart),
        EndCause::Contract => reported.unwrap_or(ErrorCode::StepBadOutput),
        EndCause::Lost => ErrorCode::InfrastructureLost,
    }
}
