//! Bodies of bulk operations.

use gantry_directory::Verb;
use gantry_engine::api::{BulkAction, BulkPreview, BulkView};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// What is done to each workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BulkName {
    /// It is asked to end.
    Cancel,
    /// Nothing new of it starts.
    Pause,
    /// It goes on.
    Resume,
    /// It is given a signal.
    Signal,
    /// Tasks of it that were given to a person, ran out of attempts or wait for their next one start now.
    Retry,
    /// It is kept whatever its retention; the comment is the reason. For admins.
    Hold,
    /// It is kept no longer than its retention. For admins.
    Release,
    /// What users wrote in it is destroyed, if it has ended and is not held. For admins.
    Erase,
}

impl BulkName {
    /// What a key must be allowed to do to one workflow, to do it to many.
    pub(crate) const fn verb(self) -> Verb {
        match self {
            Self::Cancel => Verb::Cancel,
            Self::Pause | Self::Resume => Verb::Pause,
            Self::Signal => Verb::Signal,
            Self::Retry => Verb::Decide,
            Self::Hold | Self::Release => Verb::Hold,
            Self::Erase => Verb::Erase,
        }
    }
}

/// One command for every workflow that a filter fits.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkBody {
    /// What is done.
    pub(crate) operation: BulkName,
    /// To which workflows, as in the list: `state == 'active' && label.team == 'ops'`. `true` fits all.
    #[serde(rename = "where")]
    pub(crate) filter: String,
    /// With `cancel`: time between the polite signal and SIGKILL; each step's own when absent.
    #[serde(default)]
    pub(crate) grace_ms: Option<u64>,
    /// With `pause`: running steps end too, and run again later.
    #[serde(default)]
    pub(crate) interrupt: Option<bool>,
    /// With `signal`: its name.
    #[serde(default)]
    pub(crate) signal: Option<String>,
    /// With `signal`: any JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub(crate) payload: Option<serde_json::Value>,
    /// Why; recorded where the operation takes a comment (pause, retry, hold).
    #[serde(default)]
    pub(crate) comment: Option<String>,
    /// To so many workflows per second at most: 1 to 1000, 100 when absent.
    #[serde(default)]
    pub(crate) rate: Option<u32>,
    /// Only count what the filter fits.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

impl BulkBody {
    /// The operation with its arguments; those of others are refused.
    pub(crate) fn action(&mut self) -> Result<BulkAction, Problem> {
        let action = match self.operation {
            BulkName::Cancel => BulkAction::Cancel {
                grace_ms: self.grace_ms.take(),
            },
            BulkName::Pause => BulkAction::Pause {
                interrupt: self.interrupt.take().unwrap_or(false),
            },
            BulkName::Resume => BulkAction::Resume,
            BulkName::Signal => BulkAction::Signal {
                signal: self
                    .signal
                    .take()
                    .ok_or_else(|| Problem::invalid("`signal` must say the name of the signal"))?,
                payload: self.payload.take().unwrap_or_default(),
            },
            BulkName::Retry => BulkAction::Retry,
            BulkName::Hold => BulkAction::Hold,
            BulkName::Release => BulkAction::Release,
            BulkName::Erase => BulkAction::Erase,
        };
        let left = [
            ("grace_ms", self.grace_ms.is_some()),
            ("interrupt", self.interrupt.is_some()),
            ("signal", self.signal.is_some()),
            ("payload", self.payload.is_some()),
        ];
        match left.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Problem::invalid(format!("`{name}` does not belong to this operation"))),
            None => Ok(action),
        }
    }
}

/// What became of a request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum BulkAnswer {
    /// It runs.
    Started(BulkView),
    /// `dry_run`: what it would be about.
    Preview(BulkPreview),
}
