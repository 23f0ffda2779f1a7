//! Bodies of legal holds and erasure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a workflow is held.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HoldBody {
    /// In words, at most 1024 bytes; shown in the workflow's events.
    #[serde(default)]
    pub(crate) reason: Option<String>,
}

/// Whether the workflow is held now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HoldAnswer {
    /// True while retention and erasure leave it alone.
    pub(crate) held: bool,
}

/// What was erased.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErasedAnswer {
    /// Workflows whose content can be opened nowhere any more.
    pub(crate) workflows: u64,
}
