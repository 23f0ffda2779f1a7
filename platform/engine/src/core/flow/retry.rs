//! Whether a failed step is tried again, when, and what happens when it is not.

use gantry_proto::ErrorCode;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, EndCause, LeaseEnd, TaskEnd, WaitKind};

use super::said;
use crate::api::StepState;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::rows::{AttemptRow, StepRow, TaskRow};
use crate::core::state::TaskRef;
use crate::spec::definition::{Exhausted, RetryClass, RetryDef, RetryRule};

/// The class of a failed attempt.
pub(super) fn class_of(attempt: &AttemptRow) -> RetryClass {
    match attempt.cause.and_then(|cause| EndCause::try_from(cause).ok()) {
        Some(EndCause::Signalled) => RetryClass::Signal,
        Some(EndCause::Timeout) => RetryClass::Timeout,
        Some(EndCause::Oom) => RetryClass::Oom,
        Some(EndCause::OutputLimit) => RetryClass::OutputLimit,
        Some(EndCause::Contract) => RetryClass::Contract,
        Some(EndCause::Invalid) => RetryClass::Invalid,
        _ => RetryClass::Exit,
    }
}

/// Pause before the next attempt, when `failed` have failed by the same rule. Jitter takes off a part, the same for the same attempt wherever it is
/// reckoned.
fn backoff_ms(rule: &RetryRule, failed: u32, seed: u64) -> u64 {
    let exponent = i32::try_from(failed.saturating_sub(1)).unwrap_or(i32::MAX);
    let factor = rule.factor.max(1.0).powi(exponent);
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    {
        let wanted = (rule.backoff_ms as f64 * factor).min(rule.max_backoff_ms as f64);
        // 53 bits: what a float holds exactly.
        let part = (seed >> 11) as f64 / (1u64 << 53) as f64;
        (wanted * (1.0 - rule.jitter.clamp(0.0, 1.0) * part)) as u64
    }
}

fn seed(row: &TaskRow, step: usize, attempt: u32) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(row.id.as_bytes());
    hasher.update(&(step as u64).to_be_bytes());
    hasher.update(&attempt.to_be_bytes());
    let hash = hasher.finalize();
    u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
}

/// The pause before another attempt; none when there is none.
pub(super) fn next_pause(retry: &RetryDef, row: &TaskRow, index: usize, step: &StepRow, now_ms: u64) -> Option<u64> {
    let counted = || {
        let attempts = step.attempts.iter();
        attempts.filter(|attempt| attempt.epoch == row.epoch && attempt.state() == StepState::Failed)
    };
    let last = step.attempts.last()?;
    let class = class_of(last);
    if class == RetryClass::Exit
        && let Some(codes) = &retry.exit_codes
        && !last.exit_code.is_some_and(|code| codes.contains(&code))
    {
        return None;
    }
    let (rule, failed) = match retry.on.get(&class) {
        Some(None) => return None,
        // A class with a rule of its own is counted by itself.
        Some(Some(own)) => (own, counted().filter(|attempt| class_of(attempt) == class).count()),
        None => (
            &retry.rule,
            counted()
                .filter(|attempt| !retry.on.contains_key(&class_of(attempt)))
                .count(),
        ),
    };
    let failed = u32::try_from(failed).unwrap_or(u32::MAX);
    if failed >= rule.attempts {
        return None;
    }
    let pause = backoff_ms(rule, failed, seed(row, index, last.attempt));
    let mut tries = step.attempts.iter().filter(|attempt| attempt.epoch == row.epoch);
    let begun_ms = tries.next().map_or(now_ms, |first| first.assigned_at_ms);
    let age_ms = now_ms.saturating_add(pause).saturating_sub(begun_ms);
    retry.max_age_ms.is_none_or(|most| age_ms <= most).then_some(pause)
}

/// The pause before another child of a task is started; none when there is none.
pub(super) fn next_child(retry: &RetryDef, row: &TaskRow, now_ms: u64) -> Option<u64> {
    let failed = row.child_failures;
    if failed >= retry.rule.attempts {
        return None;
    }
    let pause = backoff_ms(&retry.rule, failed, seed(row, 0, failed));
    let begun_ms = row.started_at_ms.unwrap_or(now_ms);
    let age_ms = now_ms.saturating_add(pause).saturating_sub(begun_ms);
    retry.max_age_ms.is_none_or(|most| age_ms <= most).then_some(pause)
}

impl Batching<'_> {
    /// No attempt follows: the task fails, pauses its workflow, or is given to a person.
    pub(super) fn exhausted(
        &mut self,
        task: TaskRef,
        what: Exhausted,
        code: Option<&str>,
        why: String,
    ) -> Result<(), ApplyError> {
        let leased = self.state.task(task).is_some_and(|task| task.row.holder.is_some());
        if leased {
            self.end_lease(task, LeaseEnd::Done, None)?;
        }
        match what {
            Exhausted::Fail => {
                self.end_task(task, TaskEnd::Failed, code, said(why))?;
                self.settle(task.0)
            }
            Exhausted::Escalate => {
                let code = code.and_then(|code| code.parse().ok()).unwrap_or(ErrorCode::StepExit);
                self.escalate(task, code, why)
            }
            Exhausted::Pause => {
                self.wait_until(task, WaitKind::Exhausted, None, said(why.clone()))?;
                if self.state.is_paused(task.0) {
                    return Ok(());
                }
                let event = v1::WorkflowPaused {
                    by: None,
                    code: code.map(str::to_owned),
                };
                self.record(task.0, Kind::WorkflowPaused(event), said(why))
            }
        }
    }
}
