//! Bodies of playbooks.

use gantry_directory::playbooks::{Playbook, PlaybookVersion};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A playbook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaybookView {
    /// Unique in the tenant.
    pub(crate) name: String,
    /// Number of the newest version.
    pub(crate) latest: u32,
    /// Description of the newest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// First version.
    pub(crate) created_at_ms: u64,
    /// Newest version, or archived or restored since.
    pub(crate) changed_at_ms: u64,
    /// Archived: takes no versions and starts nothing by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) archived_at_ms: Option<u64>,
}

impl From<Playbook> for PlaybookView {
    fn from(playbook: Playbook) -> Self {
        Self {
            name: playbook.name,
            latest: playbook.latest,
            description: playbook.description,
            created_at_ms: playbook.created_at_ms,
            changed_at_ms: playbook.changed_at_ms,
            archived_at_ms: playbook.archived_at_ms,
        }
    }
}

/// One version of a playbook.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaybookVersionView {
    /// The playbook's name.
    pub(crate) name: String,
    /// From 1, without gap.
    pub(crate) version: u32,
    /// blake3 of the compiled definition, hexadecimal.
    pub(crate) digest: String,
    /// From the definition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    /// What its author says about the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// When it was made.
    pub(crate) created_at_ms: u64,
    /// By which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_by: Option<String>,
}

impl From<PlaybookVersion> for PlaybookVersionView {
    fn from(version: PlaybookVersion) -> Self {
        Self {
            name: version.name,
            version: version.version,
            digest: hex::encode(version.digest),
            description: version.description,
            note: version.note,
            created_at_ms: version.created_at_ms,
            created_by: version.created_by.map(|id| id.to_string()),
        }
    }
}

/// A version to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreatePlaybookBody {
    /// Name of the playbook; default: the definition's own name.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// The definition: YAML or JSON as text, or a JSON object.
    #[schema(value_type = Object)]
    pub(crate) definition: serde_json::Value,
    /// What changed, for people.
    #[serde(default)]
    pub(crate) note: Option<String>,
    /// Number of the newest version that you have seen (0: none); refused when another has been made since.
    #[serde(default)]
    pub(crate) expected: Option<u32>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedPlaybookVersion {
    /// The version.
    #[serde(flatten)]
    pub(crate) version: PlaybookVersionView,
    /// False: the newest version says the same, and nothing was made.
    pub(crate) created: bool,
}

/// How two versions differ.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaybookDiff {
    /// The older one.
    pub(crate) from: PlaybookVersionView,
    /// The newer one.
    pub(crate) to: PlaybookVersionView,
    /// Tasks that only the newer one has.
    pub(crate) tasks_added: Vec<String>,
    /// Tasks that only the older one has.
    pub(crate) tasks_removed: Vec<String>,
    /// Tasks that both have and that differ in what they do.
    pub(crate) tasks_changed: Vec<String>,
    /// Parameters that only the newer one has.
    pub(crate) parameters_added: Vec<String>,
    /// Parameters that only the older one has.
    pub(crate) parameters_removed: Vec<String>,
    /// Parameters whose schema differs.
    pub(crate) parameters_changed: Vec<String>,
    /// The texts, as a unified diff; empty when they are the same.
    pub(crate) text: String,
}

/// Playbooks as they are carried from one installation to another.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaybookBundle {
    /// Version of this format: 1.
    pub(crate) format: u32,
    /// The playbooks.
    pub(crate) playbooks: Vec<BundledPlaybook>,
}

/// A playbook in a bundle.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BundledPlaybook {
    /// Its name.
    pub(crate) name: String,
    /// In order, from 1.
    pub(crate) versions: Vec<BundledVersion>,
}

/// A version in a bundle.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BundledVersion {
    /// From 1, without gap.
    pub(crate) version: u32,
    /// The definition as it was written.
    pub(crate) definition: String,
    /// What its author said about the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
    /// When it was made.
    pub(crate) created_at_ms: u64,
}

/// What an import did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportAnswer {
    /// Versions that were not there before.
    pub(crate) versions_added: u32,
}
