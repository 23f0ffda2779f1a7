//! What the code of one run did since its worker's last message: decided in order, in one batch.

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, ActivationEnd, ActivationWhat, Assignee, Fault, Payload, RecoveryPolicy, RetryPolicy};
use gantry_proto::{ErrorCode, NodeId, limits};

use super::{Outcome, Reply, live, verdict};
use crate::api::Verdict;
use crate::core::apply::ApplyError;
use crate::core::code::table::{self, Begin};
use crate::core::code::{ActivationKey, ActivationRow, ActivationState};
use crate::core::decide::{Batching, Inputs};
use crate::core::state::TaskRef;

/// What a run did.
#[derive(Debug, Clone)]
pub struct RunSteps {
    /// Who says so.
    pub node: NodeId,
    /// Which run.
    pub assignee: Assignee,
    /// In order.
    pub ops: Vec<RunOp>,
}

/// One thing that code did.
#[derive(Debug, Clone)]
pub enum RunOp {
    /// It comes to an activation.
    Begin {
        /// Which.
        activation: ActivationKey,
        /// What it is.
        what: ActivationWhat,
        /// The answer to the first try was lost, and the worker has not begun.
        again: bool,
    },
    /// An activation completed.
    Complete {
        /// Which.
        activation: ActivationKey,
        /// What it is.
        what: ActivationWhat,
        /// Which attempt.
        attempt: u32,
        /// Its result, JSON.
        output: Bytes,
    },
    /// An activation failed.
    Fail {
        /// Which.
        activation: ActivationKey,
        /// What it is.
        what: ActivationWhat,
        /// Which attempt.
        attempt: u32,
        /// How.
        fault: Fault,
        /// The worker will begin it again.
        retry: bool,
    },
    /// The code sleeps, and gives its lease back until then.
    Sleep {
        /// The timer.
        activation: ActivationKey,
        /// What it is.
        what: ActivationWhat,
        /// How long.
        delay_ms: u64,
    },
    /// The code returned.
    Return {
        /// What, JSON.
        output: Bytes,
    },
    /// The code failed.
    Raise {
        /// How.
        fault: Fault,
        /// Whether it is tried again, and when.
        retry: Option<RetryPolicy>,
    },
}

/// What a worker is answered to one [`RunOp`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAnswer {
    /// Execute it, as this attempt.
    Execute(u32),
    /// It has ended: the record at `seq` says how.
    Replay {
        /// Which attempt it was.
        attempt: u32,
        /// Position of the record.
        seq: u64,
    },
    /// It is being executed, or sleeps until then.
    Wait(Option<u64>),
    /// Not what it was before; nothing was recorded.
    Conflict(String),
    /// Nobody knows what became of this attempt, and it must not be executed again.
    Unknown(u32),
    /// Journaled.
    Recorded,
    /// Not looked at: something before it was not accepted, or ended the lease.
    Skipped,
}

/// Whether the rest of a message is still looked at.
enum Next {
    Go(RunAnswer),
    Stop(RunAnswer),
}

impl RunSteps {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let task = live(batch.state, self.node, &self.assignee);
        let Some(task) = task.filter(|task| batch.is_code(*task)) else {
            return verdict(Verdict::Stale);
        };
        let mut answers = Vec::with_capacity(self.ops.len());
        let mut stopped = false;
        for op in self.ops {
            if stopped {
                answers.push(RunAnswer::Skipped);
                continue;
            }
            match op.decide(batch, task, self.assignee.fence)? {
                Next::Go(answer) => answers.push(answer),
                Next::Stop(answer) => {
                    stopped = true;
                    answers.push(answer);
                }
            }
        }
        Ok(Ok(Reply::Run(answers)))
    }
}

fn known(batch: &Batching<'_>, task: TaskRef, activation: &ActivationKey) -> Option<ActivationRow> {
    batch.state.activations.get(&task)?.get(activation).cloned()
}

fn count(batch: &Batching<'_>, task: TaskRef) -> usize {
    batch.state.activations.get(&task).map_or(0, |all| all.len())
}

fn too_many() -> RunAnswer {
    RunAnswer::Conflict(format!(
        "a run has at most {} steps; begin a child or another run for the rest",
        limits::ACTIVATIONS_PER_TASK_MAX
    ))
}

impl RunOp {
    fn decide(self, batch: &mut Batching<'_>, task: TaskRef, fence: u64) -> Result<Next, ApplyError> {
        match self {
            Self::Begin {
                activation,
                what,
                again,
            } => begin(batch, task, fence, activation, what, again, None),
            Self::Complete {
                activation,
                what,
                attempt,
                output,
            } => {
                let payload = Payload {
                    outputs_json: Some(output),
                    ..Payload::default()
                };
                let end = (ActivationEnd::Completed, None);
                end_one(batch, task, fence, (activation, what, attempt), end, payload)
            }
            Self::Fail {
                activation,
                what,
                attempt,
                fault,
                retry,
            } => {
                let payload = Payload {
                    message: Some(fault.message),
                    hint: fault.hint,
                    ..Payload::default()
                };
                let end = if retry {
                    ActivationEnd::Retry
                } else {
                    ActivationEnd::Failed
                };
                end_one(
                    batch,
                    task,
                    fence,
                    (activation, what, attempt),
                    (end, Some(fault.code)),
                    payload,
                )
            }
            Self::Sleep {
                activation,
                what,
                delay_ms,
            } => {
                let due_ms = batch.now_ms.saturating_add(delay_ms);
                match begin(batch, task, fence, activation, what, false, Some(due_ms))? {
                    Next::Go(RunAnswer::Execute(_)) => {
                        batch.suspend_code(task, delay_ms)?;
                        Ok(Next::Stop(RunAnswer::Recorded))
                    }
                    // The time has come: the code goes on under this lease.
                    other => Ok(other),
                }
            }
            Self::Return { output } => {
                batch.return_code(task, output)?;
                Ok(Next::Stop(RunAnswer::Recorded))
            }
            Self::Raise { fault, retry } => {
                batch.raise_code(task, &fault, retry.as_ref())?;
                Ok(Next::Stop(RunAnswer::Recorded))
            }
        }
    }
}

fn begin(
    batch: &mut Batching<'_>,
    task: TaskRef,
    fence: u64,
    activation: ActivationKey,
    what: ActivationWhat,
    again: bool,
    due_ms: Option<u64>,
) -> Result<Next, ApplyError> {
    let row = known(batch, task, &activation);
    let decided = table::begin(row.as_ref(), &what, fence, again, count(batch, task));
    let ended = |end: ActivationEnd, attempt: u32, code: ErrorCode| v1::ActivationEnded {
        task: task.1,
        activation: Bytes::copy_from_slice(&activation),
        fence,
        attempt,
        end: end.into(),
        what: None,
        code: Some(code.as_str().to_owned()),
    };
    let gone = || crate::core::flow::said("its worker was lost while it was executed, and nobody knows what it did");
    Ok(match decided {
        Begin::Execute { attempt, known } => {
            if !known {
                let event = v1::ActivationBegun {
                    task: task.1,
                    activation: Bytes::copy_from_slice(&activation),
                    fence,
                    attempt,
                    what,
                    due_ms,
                };
                batch.record(task.0, Kind::ActivationBegun(event), None)?;
            }
            Next::Go(RunAnswer::Execute(attempt))
        }
        Begin::Replay { attempt, seq } => Next::Go(RunAnswer::Replay { attempt, seq }),
        Begin::Wait { until_ms } => Next::Go(RunAnswer::Wait(until_ms)),
        Begin::Conflict(differs) => Next::Stop(RunAnswer::Conflict(differs.sentence(&what.key))),
        Begin::TooMany => Next::Stop(too_many()),
        Begin::Unknown { attempt, known } => {
            if !known {
                let event = ended(ActivationEnd::Unknown, attempt, ErrorCode::OutcomeUnknown);
                batch.record(task.0, Kind::ActivationEnded(event), gone())?;
            }
            Next::Go(RunAnswer::Unknown(attempt))
        }
        Begin::Fail { attempt } => {
            let seq = batch.state.next_seq;
            let event = ended(ActivationEnd::Failed, attempt, ErrorCode::InfrastructureLost);
            batch.record(task.0, Kind::ActivationEnded(event), gone())?;
            Next::Go(RunAnswer::Replay { attempt, seq })
        }
    })
}

/// Records the end of an activation. Its begin may be missing when it may be executed again: then the end says what it was.
fn end_one(
    batch: &mut Batching<'_>,
    task: TaskRef,
    fence: u64,
    (activation, what, attempt): (ActivationKey, ActivationWhat, u32),
    (end, code): (ActivationEnd, Option<String>),
    payload: Payload,
) -> Result<Next, ApplyError> {
    let conflict = |why: &str| Ok(Next::Stop(RunAnswer::Conflict(format!("step `{}` {why}", what.key))));
    let row = known(batch, task, &activation);
    if let Some(row) = &row {
        if row.definition != what.definition || row.input != what.input {
            return conflict("is not what it was when it was begun");
        }
        if row.attempt == attempt && row.state() == ActivationState::from(end) && row.fence == fence {
            // Said again: the acknowledgement was lost.
            return Ok(Next::Go(RunAnswer::Recorded));
        }
        if row.state() != ActivationState::Active || row.fence != fence || row.attempt != attempt {
            return conflict("was begun by another attempt, or has ended");
        }
    } else {
        let policy = RecoveryPolicy::try_from(what.policy).unwrap_or_default();
        if attempt != 1 || !table::may_repeat(policy) {
            return conflict("must be begun before it ends");
        }
        if count(batch, task) >= limits::ACTIVATIONS_PER_TASK_MAX {
            return Ok(Next::Stop(too_many()));
        }
    }
    let event = v1::ActivationEnded {
        task: task.1,
        activation: Bytes::copy_from_slice(&activation),
        fence,
        attempt,
        end: end.into(),
        what: row.is_none().then_some(what),
        code,
    };
    batch.record(task.0, Kind::ActivationEnded(event), Some(payload))?;
    Ok(Next::Go(RunAnswer::Recorded))
}
