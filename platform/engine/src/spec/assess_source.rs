//! The source form of an assessment.

use schemars::JsonSchema;
use serde::Deserialize;

use super::definition::{OnAssessmentDeadline, ReworksExhausted};
use super::source::Duration;
use super::source_waits::DecidersSource;

/// A judgement to wait for: `accept`, `rework` with feedback, or `reject`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AssessSource {
    /// What to look at (template, over the outputs of the steps too).
    #[serde(default)]
    pub(super) message: Option<String>,
    /// Longest wait; no limit when absent.
    #[serde(default)]
    pub(super) deadline: Option<Duration>,
    /// What happens then: `fail` when absent.
    #[serde(default)]
    pub(super) on_deadline: Option<OnAssessmentDeadline>,
    /// Who may decide; every key that may operate, when absent.
    #[serde(default)]
    pub(super) by: Option<DecidersSource>,
    /// How often it may be done again, 0 to 20; 3 when absent.
    #[serde(default)]
    pub(super) max_reworks: Option<u64>,
    /// What happens when a rework is asked for after that: `fail` when absent.
    #[serde(default)]
    pub(super) exhausted: Option<ReworksExhausted>,
}
