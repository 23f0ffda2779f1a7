//! Playbooks: named definitions with immutable, numbered versions.

use gantry_proto::{PrincipalId, TenantId};

use crate::error::ManageError;

/// A playbook as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Playbook {
    /// Unique in the tenant.
    pub name: String,
    /// Number of the newest version.
    pub latest: u32,
    /// Description of the newest version.
    pub description: Option<String>,
    /// First version.
    pub created_at_ms: u64,
    /// Newest version, or archived or restored since.
    pub changed_at_ms: u64,
    /// Archived: it runs no more by name, and takes no versions; what it started goes on.
    pub archived_at_ms: Option<u64>,
}

/// One version of a playbook. Never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaybookVersion {
    /// The playbook's name.
    pub name: String,
    /// From 1, without gap.
    pub version: u32,
    /// blake3 of the compiled definition.
    pub digest: [u8; 32],
    /// From the definition.
    pub description: Option<String>,
    /// What its author says about the change.
    pub note: Option<String>,
    /// When it was made.
    pub created_at_ms: u64,
    /// By whom.
    pub created_by: Option<PrincipalId>,
}

/// A version to be made; the definition was compiled before.
#[derive(Debug, Clone)]
pub struct NewPlaybookVersion {
    /// Whose.
    pub tenant: TenantId,
    /// The playbook's name; made if it does not exist.
    pub name: String,
    /// blake3 of the compiled definition.
    pub digest: [u8; 32],
    /// From the definition.
    pub description: Option<String>,
    /// What its author says about the change; at most [`NOTE_BYTES_MAX`] bytes.
    pub note: Option<String>,
    /// The definition as it was written.
    pub source: Vec<u8>,
    /// By whom.
    pub created_by: Option<PrincipalId>,
    /// Number of the newest version that the author has seen; the call conflicts when another has been made since. 0: the playbook must not exist.
    pub expected: Option<u32>,
}

/// What became of a new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// The version.
    pub version: PlaybookVersion,
    /// False: the newest version has this very definition, and nothing was made.
    pub created: bool,
}

/// A playbook with all its versions, as it is carried from one installation to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedPlaybook {
    /// Name.
    pub name: String,
    /// In order, from 1, each with its source.
    pub versions: Vec<(PlaybookVersion, Vec<u8>)>,
}

/// Versions of one playbook. An author who saves every minute needs weeks to reach it.
pub const VERSIONS_MAX: u32 = 10_000;

/// Playbooks of one tenant.
pub const PLAYBOOKS_MAX: u32 = 10_000;

/// A note on a version: a sentence or two.
pub const NOTE_BYTES_MAX: usize = 4 << 10;

/// Versioned definitions of a tenant. Writes return when they are durable.
#[async_trait::async_trait]
pub trait Playbooks: Send + Sync + 'static {
    /// Makes the next version, and the playbook with its first. Repeating the newest definition makes nothing.
    /// [`ManageError::Conflict`] when it is archived, or when [`NewPlaybookVersion::expected`] is not the newest.
    async fn create_playbook_version(&self, new: NewPlaybookVersion) -> Result<Versioned, ManageError>;

    /// Playbooks by name, after `after` (exclusive), at most `limit`.
    async fn playbooks(
        &self,
        tenant: TenantId,
        archived: bool,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Playbook>, ManageError>;

    /// One playbook.
    async fn playbook(&self, tenant: TenantId, name: &str) -> Result<Playbook, ManageError>;

    /// Its versions, newest first, before `before` (exclusive), at most `limit`.
    async fn playbook_versions(
        &self,
        tenant: TenantId,
        name: &str,
        before: Option<u32>,
        limit: u32,
    ) -> Result<Vec<PlaybookVersion>, ManageError>;

    /// One version with its source; the newest without a number. Archived playbooks are read as others.
    async fn playbook_source(
        &self,
        tenant: TenantId,
        name: &str,
        version: Option<u32>,
    ) -> Result<(PlaybookVersion, Vec<u8>), ManageError>;

    /// Archives a playbook, or takes it back. Repeating it changes nothing.
    async fn archive_playbook(
        &self,
        tenant: TenantId,
        name: &str,
        archive: bool,
        by: Option<PrincipalId>,
    ) -> Result<Playbook, ManageError>;

    /// Takes playbooks from another installation, all or none. Names that exist must have the same versions as far as both go; what is missing is added with
    /// its number. Returns how many versions were added. [`ManageError::Conflict`] names the first version that differs.
    async fn import_playbooks(
        &self,
        tenant: TenantId,
        playbooks: Vec<ExportedPlaybook>,
        by: Option<PrincipalId>,
    ) -> Result<u32, ManageError>;
}
