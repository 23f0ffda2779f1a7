//! An assessment as the engine runs it.

use serde::{Deserialize, Serialize};

use super::definition::DecidersDef;

/// How the result of a task is judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssessmentDef {
    /// What to look at (template, over the outputs of its steps too).
    #[serde(default)]
    pub message: Option<String>,
    /// Longest wait; none: as long as it takes.
    #[serde(default)]
    pub deadline_ms: Option<u64>,
    /// What happens then.
    #[serde(default)]
    pub on_deadline: OnAssessmentDeadline,
    /// Who may decide.
    #[serde(default)]
    pub by: DecidersDef,
    /// How often it may be done again.
    pub reworks_max: u32,
    /// What happens when it is to be done again once more.
    #[serde(default)]
    pub exhausted: ReworksExhausted,
}

/// What happens when nobody judges in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnAssessmentDeadline {
    /// The task completes, as if accepted.
    Accept,
    /// The task fails, as if rejected.
    Reject,
    /// The task fails.
    #[default]
    Fail,
    /// The task is given to a person.
    Escalate,
}

/// What happens when a result is to be reworked and may not be any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReworksExhausted {
    /// The task fails.
    #[default]
    Fail,
    /// The task is given to a person.
    Escalate,
}
