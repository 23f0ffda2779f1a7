//! The source form of retries.

use schemars::JsonSchema;
use serde::Deserialize;

use super::definition::Exhausted;
use super::source::Duration;

/// Retry after a failed attempt. A plain number is `attempts`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = 3)]
pub(super) enum RetrySource {
    /// Attempts in all.
    Attempts(u64),
    /// Everything.
    Full(Box<RetryFields>),
}

/// Retry after a failed attempt. Attempts that infrastructure lost do not count.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryFields {
    /// Attempts in all, 1 to 100.
    pub(super) attempts: u64,
    /// Wait before the second attempt; 1 s when absent.
    #[serde(default)]
    pub(super) backoff: Option<Duration>,
    /// Factor from one wait to the next, at least 1; 2 when absent.
    #[serde(default)]
    pub(super) factor: Option<f64>,
    /// Longest wait; 1 min when absent.
    #[serde(default)]
    pub(super) max_backoff: Option<Duration>,
    /// Part of a wait that may be taken off by chance, 0 to 1; 0 when absent.
    #[serde(default)]
    pub(super) jitter: Option<f64>,
    /// No attempt begins later than this after the first.
    #[serde(default)]
    pub(super) max_age: Option<Duration>,
    /// Rules by how the attempt failed.
    #[serde(default)]
    pub(super) on: RetryOnSource,
    /// What happens when no attempt follows: `fail` when absent.
    #[serde(default)]
    pub(super) exhausted: Option<Exhausted>,
}

/// Rules by how an attempt failed. A class with a rule of its own is counted by itself.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryOnSource {
    /// Only these exit codes are tried again.
    #[serde(default)]
    pub(super) exit_codes: Option<Vec<i64>>,
    /// Another exit code than 0.
    #[serde(default)]
    pub(super) exit: Option<RetryRuleSource>,
    /// Ended by a signal.
    #[serde(default)]
    pub(super) signal: Option<RetryRuleSource>,
    /// Longer than its timeout.
    #[serde(default)]
    pub(super) timeout: Option<RetryRuleSource>,
    /// Out of memory.
    #[serde(default)]
    pub(super) oom: Option<RetryRuleSource>,
    /// Printed too much.
    #[serde(default)]
    pub(super) output_limit: Option<RetryRuleSource>,
    /// Outputs or artifacts not as declared.
    #[serde(default)]
    pub(super) contract: Option<RetryRuleSource>,
    /// Could not be started as asked.
    #[serde(default)]
    pub(super) invalid: Option<RetryRuleSource>,
}

/// `false`: not tried again. A map: what differs from the rule of the other failures.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RetryRuleSource {
    /// Whether it is tried again.
    Whether(bool),
    /// A rule.
    Rule(RetryRuleFields),
}

/// What differs from the rule of the other failures.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RetryRuleFields {
    /// Attempts of this class in all.
    #[serde(default)]
    pub(super) attempts: Option<u64>,
    /// Wait before the next one.
    #[serde(default)]
    pub(super) backoff: Option<Duration>,
    /// Factor from one wait to the next.
    #[serde(default)]
    pub(super) factor: Option<f64>,
    /// Longest wait.
    #[serde(default)]
    pub(super) max_backoff: Option<Duration>,
    /// Part of a wait that may be taken off by chance.
    #[serde(default)]
    pub(super) jitter: Option<f64>,
}
