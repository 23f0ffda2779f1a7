//! Waits for a time, as people write them.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Duration;

/// How long to wait: a span of time, or a time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = "10m")]
pub(in crate::spec) enum SleepSource {
    /// From when the task begins.
    For(Duration),
    /// Until a time.
    Until(SleepFields),
}

/// Until when to wait.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::spec) struct SleepFields {
    /// A time as RFC 3339 writes it (template): 2030-01-31T08:00:00Z.
    pub(in crate::spec) until: String,
}
