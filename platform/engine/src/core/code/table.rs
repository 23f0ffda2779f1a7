//! The decision table of a begin: what a worker is answered, given what is known of the activation. Pure data in, pure data out.

use gantry_proto::limits;
use gantry_proto::v1::{ActivationWhat, RecoveryPolicy};

use super::row::{ActivationRow, ActivationState};

/// What a worker that begins an activation is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Execute it, as this attempt; `known`: the begin of this very attempt is journaled already.
    Execute {
        /// From 1.
        attempt: u32,
        /// Nothing is left to record.
        known: bool,
    },
    /// It has ended: take what the record at `seq` says.
    Replay {
        /// Which attempt it was.
        attempt: u32,
        /// Position of the record of its end.
        seq: u64,
    },
    /// It is being executed, or sleeps.
    Wait {
        /// When a timer is due.
        until_ms: Option<u64>,
    },
    /// The same key stands for something else than before: the code is not what it was.
    Conflict(Differs),
    /// Its holder is gone, and its policy forbids to execute it again; `known`: that is journaled already.
    Unknown {
        /// Which attempt it was.
        attempt: u32,
        /// Nothing is left to record.
        known: bool,
    },
    /// Its holder is gone, and its policy makes that a failure, which is still to be recorded.
    Fail {
        /// Which attempt it was.
        attempt: u32,
    },
    /// The run has as many as one may have.
    TooMany,
}

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differs {
    /// The definition: another version of the code.
    Definition,
    /// The input: the code came here by another way.
    Input,
}

impl Differs {
    /// In a sentence, with what to do.
    #[must_use]
    pub fn sentence(self, key: &str) -> String {
        match self {
            Self::Definition => format!(
                "step `{key}` was begun by another version of the code; finish the run with the version that began it, or start it anew"
            ),
            Self::Input => format!(
                "step `{key}` was begun with another input; code between steps must do the same at every replay (no clock, no randomness, no outside state)"
            ),
        }
    }
}

/// What is decided about an activation that is begun under `fence`, the live lease. `count`: activations that the run has.
#[must_use]
pub fn begin(known: Option<&ActivationRow>, what: &ActivationWhat, fence: u64, again: bool, count: usize) -> Begin {
    let Some(row) = known else {
        return if count >= limits::ACTIVATIONS_PER_TASK_MAX {
            Begin::TooMany
        } else {
            Begin::Execute {
                attempt: 1,
                known: false,
            }
        };
    };
    if row.definition != what.definition {
        return Begin::Conflict(Differs::Definition);
    }
    if row.input != what.input {
        return Begin::Conflict(Differs::Input);
    }
    let attempt = row.attempt;
    match (row.state(), row.end_seq) {
        (ActivationState::Completed | ActivationState::Failed, Some(seq)) => Begin::Replay { attempt, seq },
        (ActivationState::Unknown, _) => Begin::Unknown { attempt, known: true },
        (ActivationState::RetryReady, _) => Begin::Execute {
            attempt: attempt + 1,
            known: false,
        },
        _ if row.due_ms.is_some() => Begin::Wait { until_ms: row.due_ms },
        // Under this very lease: the holder repeats a message whose answer it did not get, or its code begins the same thing twice.
        _ if row.fence == fence && again => Begin::Execute { attempt, known: true },
        _ if row.fence == fence => Begin::Wait { until_ms: None },
        // A lease before this one, which is dead: one lives at a time.
        _ => match row.policy() {
            RecoveryPolicy::IdempotentRetry | RecoveryPolicy::DurableSteps => Begin::Execute {
                attempt: attempt + 1,
                known: false,
            },
            RecoveryPolicy::Fail => Begin::Fail { attempt },
            RecoveryPolicy::Unspecified | RecoveryPolicy::UnknownOutcome | RecoveryPolicy::Compensate => {
                Begin::Unknown { attempt, known: false }
            }
        },
    }
}

/// Whether activations of this policy may be executed a second time, so that their begin need not be durable before they are.
#[must_use]
pub fn may_repeat(policy: RecoveryPolicy) -> bool {
    matches!(policy, RecoveryPolicy::IdempotentRetry | RecoveryPolicy::DurableSteps)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gantry_proto::v1::ActivationKind;

    use super::*;

    fn what(policy: RecoveryPolicy) -> ActivationWhat {
        let mut what = ActivationWhat {
            key: "step:a:0".to_owned(),
            definition: Bytes::from_static(&[1; 16]),
            input: Bytes::from_static(&[2; 16]),
            ..ActivationWhat::default()
        };
        what.set_kind(ActivationKind::Step);
        what.set_policy(policy);
        what
    }

    fn row(state: ActivationState, policy: RecoveryPolicy, fence: u64) -> ActivationRow {
        let mut row = ActivationRow {
            attempt: 3,
            fence,
            ..ActivationRow::begun(0, &what(policy), 1)
        };
        row.set_state(state);
        if !matches!(state, ActivationState::Active) {
            row.end_seq = Some(9);
        }
        row
    }

    #[test]
    fn every_row_of_the_table() {
        use ActivationState as S;
        use RecoveryPolicy as P;
        let execute = |attempt, known| Begin::Execute { attempt, known };
        let replay = Begin::Replay { attempt: 3, seq: 9 };
        let unknown = |known| Begin::Unknown { attempt: 3, known };
        for (state, policy, fence, again, expected) in [
            (S::Completed, P::IdempotentRetry, 6, false, replay),
            (S::Completed, P::UnknownOutcome, 7, true, replay),
            (S::Failed, P::IdempotentRetry, 6, false, replay),
            (S::RetryReady, P::UnknownOutcome, 7, false, execute(4, false)),
            (S::Unknown, P::UnknownOutcome, 6, false, unknown(true)),
            (S::Active, P::UnknownOutcome, 7, true, execute(3, true)),
            (S::Active, P::IdempotentRetry, 7, false, Begin::Wait { until_ms: None }),
            (S::Active, P::IdempotentRetry, 6, false, execute(4, false)),
            (S::Active, P::DurableSteps, 6, true, execute(4, false)),
            (S::Active, P::UnknownOutcome, 6, true, unknown(false)),
            (S::Active, P::Compensate, 6, false, unknown(false)),
            (S::Active, P::Fail, 6, false, Begin::Fail { attempt: 3 }),
        ] {
            let decided = begin(Some(&row(state, policy, fence)), &what(policy), 7, again, 1);
            assert_eq!(decided, expected, "{state:?} {policy:?} fence {fence} again {again}");
        }
    }

    #[test]
    fn another_definition_or_input_is_a_conflict_whatever_the_state() {
        use ActivationState as S;
        for state in [S::Active, S::Completed, S::Failed, S::RetryReady, S::Unknown] {
            let known = row(state, RecoveryPolicy::IdempotentRetry, 6);
            let mut other = what(RecoveryPolicy::IdempotentRetry);
            other.input = Bytes::from_static(&[3; 16]);
            assert_eq!(
                begin(Some(&known), &other, 7, false, 1),
                Begin::Conflict(Differs::Input)
            );
            other.definition = Bytes::from_static(&[3; 16]);
            assert_eq!(
                begin(Some(&known), &other, 7, false, 1),
                Begin::Conflict(Differs::Definition)
            );
        }
    }

    #[test]
    fn new_ones_are_executed_up_to_the_limit_and_timers_are_waited_for() {
        let new = what(RecoveryPolicy::IdempotentRetry);
        let max = limits::ACTIVATIONS_PER_TASK_MAX;
        assert_eq!(
            begin(None, &new, 1, false, max - 1),
            Begin::Execute {
                attempt: 1,
                known: false
            }
        );
        assert_eq!(begin(None, &new, 1, false, max), Begin::TooMany);
        let timer = ActivationRow {
            due_ms: Some(5),
            ..row(ActivationState::Active, RecoveryPolicy::IdempotentRetry, 6)
        };
        assert_eq!(
            begin(Some(&timer), &new, 7, false, 1),
            Begin::Wait { until_ms: Some(5) }
        );
    }
}
