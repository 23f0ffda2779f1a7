//! What user code is given: durable steps and sleep.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_proto::ErrorCode;
use gantry_proto::v1::{
    ActivationKind, BeginOp, CompleteOp, FailOp, Fault, RecoveryPolicy, RunAssignment, SleepOp, StepAnswer,
    StepIdentity, StepOp, step_answer, step_op,
};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use crate::Failure;
use crate::identity::{activation_id, definition_digest, input_digest};

/// What happens to a step whose worker is lost.
pub type Policy = RecoveryPolicy;

/// An answer, or that the run is over for this worker.
pub(crate) type Answer = Result<StepAnswer, Gone>;

/// The fence is stale, or the engine refused the message.
#[derive(Debug, Clone)]
pub(crate) struct Gone(pub(crate) Option<Fault>);

/// An operation that waits to go out, with who wants its answer.
pub(crate) struct Outgoing {
    pub(crate) op: StepOp,
    pub(crate) answer: oneshot::Sender<Answer>,
}

#[derive(Default)]
struct Inner {
    outgoing: VecDeque<Outgoing>,
    /// Ends that are not acknowledged.
    unacknowledged: Vec<oneshot::Receiver<Answer>>,
    ordinals: BTreeMap<String, u32>,
}

/// A run's own side. Clones are the same run.
#[derive(Clone)]
pub struct Context {
    inner: Arc<Mutex<Inner>>,
    run: Arc<Run>,
}

struct Run {
    project: String,
    run: String,
    /// Nothing was journaled before this lease: begins need no answer where repeating is allowed.
    fresh: bool,
    failures: u32,
    definition: Bytes,
}

impl Context {
    pub(crate) fn new(assignment: &RunAssignment, artifact: &[u8; 32]) -> Self {
        let definition = definition_digest(artifact, &assignment.component, env!("CARGO_PKG_VERSION"), "");
        Self {
            inner: Arc::default(),
            run: Arc::new(Run {
                project: assignment.project.clone(),
                run: assignment.run.clone(),
                fresh: assignment.activations == 0,
                failures: assignment.failures,
                definition: Bytes::copy_from_slice(&definition),
            }),
        }
    }

    /// Times that this run's code failed before.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.run.failures
    }

    /// What goes out next: everything since the code last waited.
    pub(crate) fn take(&self) -> Vec<Outgoing> {
        self.inner.lock().outgoing.drain(..).collect()
    }

    fn identity(&self, kind: ActivationKind, key: String, policy: Policy, input: &[u8]) -> StepIdentity {
        let mut step = StepIdentity {
            key,
            definition_digest: self.run.definition.clone(),
            input_digest: Bytes::copy_from_slice(&input_digest(input)),
            ..StepIdentity::default()
        };
        step.set_kind(kind);
        step.set_policy(policy);
        step
    }

    fn key(&self, prefix: &str, name: &str) -> String {
        let mut inner = self.inner.lock();
        let ordinal = inner.ordinals.entry(format!("{prefix}:{name}")).or_default();
        let key = format!("{prefix}:{name}:{ordinal}");
        *ordinal += 1;
        key
    }

    fn push(&self, kind: step_op::Kind) -> oneshot::Receiver<Answer> {
        let (answer, told) = oneshot::channel();
        self.inner.lock().outgoing.push_back(Outgoing {
            op: StepOp { kind: Some(kind) },
            answer,
        });
        told
    }

    /// Waits until every step that has ended is durably so; the next step, and the end of the run, wait for it by themselves.
    ///
    /// # Errors
    /// That the run is over for this worker.
    pub async fn durable(&self) -> Result<(), Failure> {
        self.settled().await
    }

    async fn settled(&self) -> Result<(), Failure> {
        let waiting = std::mem::take(&mut self.inner.lock().unacknowledged);
        for told in waiting {
            match heard(told.await)?.kind {
                Some(step_answer::Kind::Recorded(_)) => {}
                other => return Err(refused(other)),
            }
        }
        Ok(())
    }

    /// A durable step that may be executed again when its worker is lost: `code` runs unless its result is journaled.
    ///
    /// # Errors
    /// What `code` says, now or in the run that is replayed; or that the run is over for this worker.
    pub async fn step<T, R>(&self, name: &str, code: impl FnOnce() -> R + Send) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned + Send,
        R: Future<Output = Result<T, Failure>> + Send,
    {
        self.step_with(name, Policy::IdempotentRetry, &(), code).await
    }

    /// [`Self::step`], with a policy and an input that must be the same at every replay.
    ///
    /// # Errors
    /// As [`Self::step`]; an unknown outcome has the code `outcome-unknown`, another input than before `not-deterministic`.
    pub async fn step_with<T, I, R>(
        &self,
        name: &str,
        policy: Policy,
        input: &I,
        code: impl FnOnce() -> R + Send,
    ) -> Result<T, Failure>
    where
        T: Serialize + DeserializeOwned + Send,
        I: Serialize + Sync,
        R: Future<Output = Result<T, Failure>> + Send,
    {
        let input = serde_json::to_vec(input).map_err(|error| Failure::of(error.to_string()))?;
        let step = self.identity(ActivationKind::Step, self.key("step", name), policy, &input);
        let repeats = matches!(policy, Policy::IdempotentRetry | Policy::DurableSteps);
        let attempt = if self.run.fresh && repeats {
            self.settled().await?;
            1
        } else {
            // Goes out together with the ends before it.
            let told = self.push(step_op::Kind::Begin(BeginOp {
                step: step.clone(),
                again: None,
            }));
            self.settled().await?;
            let answer = heard(told.await)?;
            self.check(&answer, &step)?;
            match answer.kind {
                Some(step_answer::Kind::Execute(execute)) => execute.attempt,
                Some(step_answer::Kind::Replay(replay)) => {
                    return match (replay.output, replay.fault) {
                        (Some(output), _) => parsed(&output),
                        (None, fault) => Err(Failure::standing(fault.unwrap_or_default())),
                    };
                }
                other => return Err(refused(other)),
            }
        };
        match code().await {
            Ok(value) => {
                let output = serde_json::to_vec(&value).map_err(|error| Failure::of(error.to_string()))?;
                let told = self.push(step_op::Kind::Complete(CompleteOp {
                    step,
                    attempt,
                    output: output.into(),
                }));
                self.inner.lock().unacknowledged.push(told);
                Ok(value)
            }
            Err(failure) => {
                let told = self.push(step_op::Kind::Fail(FailOp {
                    step,
                    attempt,
                    fault: failure.fault.clone(),
                    retry: failure.retry,
                }));
                self.inner.lock().unacknowledged.push(told);
                self.settled().await?;
                Err(failure)
            }
        }
    }

    /// Sleeps durably, without a slot: the lease ends, and the run goes on by replay when the time has come.
    ///
    /// # Errors
    /// That the run is over for this worker, which a sleep is, the first time.
    pub async fn sleep(&self, name: &str, duration: Duration) -> Result<(), Failure> {
        let key = self.key("sleep", name);
        let step = self.identity(ActivationKind::Timer, key, Policy::IdempotentRetry, b"null");
        let told = self.push(step_op::Kind::Sleep(SleepOp {
            step: step.clone(),
            delay_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        }));
        self.settled().await?;
        let answer = heard(told.await)?;
        self.check(&answer, &step)?;
        match answer.kind {
            Some(step_answer::Kind::Replay(_)) => Ok(()),
            // The lease has ended: the driver drops this future.
            Some(step_answer::Kind::Recorded(_)) => std::future::pending().await,
            other => Err(refused(other)),
        }
    }

    /// The server must have come to the same id.
    fn check(&self, answer: &StepAnswer, step: &StepIdentity) -> Result<(), Failure> {
        let kind = u32::try_from(step.kind).unwrap_or_default();
        let own = activation_id(&self.run.project, &self.run.run, step.parent(), kind, &step.key);
        match &answer.activation {
            Some(id) if *id != own => Err(Failure::standing(Fault::new(
                ErrorCode::ProtocolMismatch,
                format!("the server's id of step `{}` is {id}, ours is {own}", step.key),
            ))),
            _ => Ok(()),
        }
    }
}

fn parsed<T: DeserializeOwned>(output: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(output).map_err(|error| Failure::of(format!("a recorded result does not parse: {error}")))
}

fn heard(told: Result<Answer, oneshot::error::RecvError>) -> Result<StepAnswer, Failure> {
    let gone = |fault: Option<Fault>| {
        Failure::standing(
            fault.unwrap_or_else(|| Fault::new(ErrorCode::StaleFence, "the run has passed to another worker")),
        )
    };
    told.map_err(|_| gone(None))?.map_err(|Gone(fault)| gone(fault))
}

fn refused(kind: Option<step_answer::Kind>) -> Failure {
    use step_answer::Kind;
    let (code, message) = match kind {
        Some(Kind::Conflict(conflict)) => (ErrorCode::NotDeterministic, conflict.message),
        Some(Kind::Unknown(_)) => (
            ErrorCode::OutcomeUnknown,
            "its worker was lost, and nobody knows what the step did".to_owned(),
        ),
        Some(Kind::Wait(_)) => (ErrorCode::Conflict, "the step is being executed already".to_owned()),
        other => (ErrorCode::ProtocolMismatch, format!("an unexpected answer: {other:?}")),
    };
    Failure::standing(Fault::new(code, message))
}
