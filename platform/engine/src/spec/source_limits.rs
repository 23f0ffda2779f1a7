//! The source form of limits.

use schemars::JsonSchema;
use serde::Deserialize;

use super::definition::OnLimit;
use super::source::Duration;

/// One concurrency key or a list of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ConcurrencySource {
    /// One.
    One(ConcurrencyFields),
    /// Several, all of which are needed.
    Many(Vec<ConcurrencyFields>),
}

/// A key that only so many may hold at once.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConcurrencyFields {
    /// What is shared (template): everybody in the tenant who renders the same text.
    pub(super) key: String,
    /// How many may hold it at once.
    pub(super) limit: u64,
    /// What happens when they do: `wait` for a turn by priority and age, `refuse`, which fails, or `cancel_running`, which ends the oldest ones.
    #[serde(default)]
    pub(super) on_limit: OnLimit,
}

/// One rate limit or a list of them.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RateSource {
    /// One.
    One(RateFields),
    /// Several, all of which are needed.
    Many(Vec<RateFields>),
}

/// A rate at which may be started.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RateFields {
    /// What is shared (template): everybody in the tenant who renders the same text.
    pub(super) key: String,
    /// How many may start in a period.
    pub(super) limit: u64,
    /// The period.
    pub(super) per: Duration,
    /// How many may start at once after a while without starts; `limit` when absent. With 1 they are evenly spaced.
    #[serde(default)]
    pub(super) burst: Option<u64>,
    /// What happens when there is no start left: `wait` for a turn by priority and age, or `refuse`, which fails.
    #[serde(default)]
    pub(super) on_limit: OnRate,
}

/// What happens when a rate has no start left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnRate {
    /// It waits for its turn, by priority and age.
    #[default]
    Wait,
    /// It fails.
    Refuse,
}
