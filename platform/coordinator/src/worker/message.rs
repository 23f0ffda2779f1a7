//! Between what workers say and what the engine takes: checked sizes, ids computed, digests shortened.

use bytes::Bytes;
use gantry_engine::api::{RunOp, RunReply};
use gantry_proto::v1::{
    ActivationKind, ActivationWhat, Assignee, Execute, Fault, Recorded, RecoveryPolicy, Replay, Skipped, StepAnswer,
    StepConflict, StepIdentity, StepOp, UnknownOutcome, Wait, step_answer, step_op,
};
use gantry_proto::{ErrorCode, limits};

use super::identity::{ACTIVATION_ID_BYTES, ActivationIdentity};

/// Digests on the wire are SHA-256; their first half is kept.
const DIGEST_BYTES: usize = 32;

/// The strings that activation ids of a run are made of, beside the worker's own part.
#[derive(Debug)]
pub(super) struct RunIdentity {
    project: String,
    run: String,
}

impl RunIdentity {
    /// Of the run that an assignment is for: a workflow of code alone, or one task among others.
    pub(super) fn of(assignee: &Assignee, run_is_task: bool) -> Self {
        Self {
            project: assignee.tenant.to_string(),
            run: if run_is_task {
                assignee.task.to_string()
            } else {
                assignee.workflow.to_string()
            },
        }
    }
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(ErrorCode::InvalidRequest, message)
}

fn too_large(what: &str, bytes: usize, limit: u64) -> Fault {
    Fault::new(
        ErrorCode::TooLarge,
        format!("{what} has {bytes} bytes; the limit is {limit}"),
    )
    .with_hint("keep large data elsewhere, and return where it is")
}

fn digest(what: &str, bytes: &Bytes) -> Result<Bytes, Fault> {
    if bytes.len() != DIGEST_BYTES {
        return Err(invalid(format!("the {what} digest of a step has {DIGEST_BYTES} bytes")));
    }
    Ok(bytes.slice(..ACTIVATION_ID_BYTES))
}

fn identified(run: &RunIdentity, step: StepIdentity) -> Result<(ActivationIdentity, ActivationWhat), Fault> {
    if step.key.is_empty() || step.key.len() > limits::ACTIVATION_KEY_BYTES_MAX {
        return Err(invalid(format!(
            "the key of a step has 1 to {} bytes",
            limits::ACTIVATION_KEY_BYTES_MAX
        )));
    }
    let known = ActivationKind::try_from(step.kind).is_ok_and(|kind| kind != ActivationKind::Unspecified)
        && RecoveryPolicy::try_from(step.policy).is_ok_and(|policy| policy != RecoveryPolicy::Unspecified);
    if !known {
        return Err(invalid(
            "a step has a kind and a recovery policy that this version knows",
        ));
    }
    let parent = step.parent.as_deref().unwrap_or_default();
    let kind = u32::try_from(step.kind).unwrap_or_default();
    let identity = ActivationIdentity::new(&run.project, &run.run, parent, kind, &step.key);
    let what = ActivationWhat {
        definition: digest("definition", &step.definition_digest)?,
        input: digest("input", &step.input_digest)?,
        kind: step.kind,
        policy: step.policy,
        key: step.key,
    };
    Ok((identity, what))
}

fn output(what: &str, json: Bytes) -> Result<Bytes, Fault> {
    if json.len() as u64 > limits::STEP_OUTPUTS_BYTES_MAX {
        return Err(too_large(what, json.len(), limits::STEP_OUTPUTS_BYTES_MAX));
    }
    Ok(json)
}

/// Texts of a fault are for people: cut, not refused, or the failure itself could not be reported. Codes are ours or the code's own.
fn fault(mut fault: Fault) -> Fault {
    let cut = |text: &mut String| {
        let mut end = text.len().min(limits::FAULT_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    };
    cut(&mut fault.message);
    if let Some(hint) = &mut fault.hint {
        cut(hint);
    }
    let plain = |code: &str| {
        code.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    if fault.code.is_empty() || fault.code.len() > limits::NAME_BYTES_MAX || !plain(&fault.code) {
        ErrorCode::WorkerFailed.as_str().clone_into(&mut fault.code);
    }
    fault
}

/// What a run's ops are to the engine, and the printed id of each, in order.
pub(super) fn ops(run: &RunIdentity, ops: Vec<StepOp>) -> Result<(Vec<RunOp>, Vec<Option<String>>), Fault> {
    if ops.is_empty() || ops.len() > limits::RUN_OPS_MAX {
        return Err(invalid(format!(
            "a message has 1 to {} operations",
            limits::RUN_OPS_MAX
        )));
    }
    let mut taken = Vec::with_capacity(ops.len());
    let mut ids = Vec::with_capacity(ops.len());
    for op in ops {
        let (op, identity) = one(run, op)?;
        taken.push(op);
        ids.push(identity.map(|identity| identity.text()));
    }
    Ok((taken, ids))
}

fn one(run: &RunIdentity, op: StepOp) -> Result<(RunOp, Option<ActivationIdentity>), Fault> {
    use step_op::Kind;
    let kind = op
        .kind
        .ok_or_else(|| invalid("an operation of a kind that this version does not know"))?;
    Ok(match kind {
        Kind::Begin(begin) => {
            let (identity, what) = identified(run, begin.step)?;
            let op = RunOp::Begin {
                activation: identity.id(),
                what,
                again: begin.again.unwrap_or(false),
            };
            (op, Some(identity))
        }
        Kind::Complete(complete) => {
            let (identity, what) = identified(run, complete.step)?;
            let op = RunOp::Complete {
                activation: identity.id(),
                what,
                attempt: complete.attempt,
                output: output("the output of a step", complete.output)?,
            };
            // Acknowledgements need no id: the worker knows what it said.
            (op, None)
        }
        Kind::Fail(fail) => {
            let (identity, what) = identified(run, fail.step)?;
            let op = RunOp::Fail {
                activation: identity.id(),
                what,
                attempt: fail.attempt,
                fault: fault(fail.fault),
                retry: fail.retry,
            };
            (op, None)
        }
        Kind::Sleep(sleep) => {
            let (identity, what) = identified(run, sleep.step)?;
            let op = RunOp::Sleep {
                activation: identity.id(),
                what,
                delay_ms: sleep.delay_ms.min(limits::RUN_SLEEP_MS_MAX),
            };
            (op, Some(identity))
        }
        Kind::Return(returned) => {
            let op = RunOp::Return {
                output: output("the result of a run", returned.output)?,
            };
            (op, None)
        }
        Kind::Raise(raise) => {
            let op = RunOp::Raise {
                fault: fault(raise.fault),
                retry: raise.retry,
            };
            (op, None)
        }
    })
}

/// The engine's replies as they are sent.
pub(super) fn answers(replies: Vec<RunReply>, ids: Vec<Option<String>>) -> Vec<StepAnswer> {
    use step_answer::Kind;
    let mut ids = ids.into_iter();
    let answer = |reply| StepAnswer {
        activation: ids.next().flatten(),
        kind: Some(match reply {
            RunReply::Execute(attempt) => Kind::Execute(Execute { attempt }),
            RunReply::Replay { attempt, end } => {
                let (output, fault) = match end {
                    Ok(output) => (Some(output), None),
                    Err(fault) => (None, Some(fault)),
                };
                Kind::Replay(Replay { attempt, output, fault })
            }
            RunReply::Wait(until_ms) => Kind::Wait(Wait { until_ms }),
            RunReply::Conflict(message) => Kind::Conflict(StepConflict { message }),
            RunReply::Unknown(attempt) => Kind::Unknown(UnknownOutcome { attempt }),
            RunReply::Recorded => Kind::Recorded(Recorded {}),
            RunReply::Skipped => Kind::Skipped(Skipped {}),
        }),
    };
    replies.into_iter().map(answer).collect()
}
