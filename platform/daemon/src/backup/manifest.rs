//! The first and the last file of a backup.

use serde::{Deserialize, Serialize};

use super::{BACKUP_FORMAT, BackupError};

/// What is backed up, and by whom. Fields are only ever added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) format: u32,
    /// Version of Gantry that made it.
    pub(crate) gantry: String,
    pub(crate) created_at_ms: u64,
    pub(crate) installation: String,
    pub(crate) partitions: u16,
    /// Id of the master key that the data keys are wrapped under.
    pub(crate) master_key: String,
    /// Whether artifacts are in it, and not only their list.
    pub(crate) artifacts: bool,
}

impl Header {
    /// Reads it, whatever a newer version may have added.
    pub(super) fn parse(text: &[u8]) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            #[serde(default)]
            gantry: String,
        }
        let damaged = |error: serde_json::Error| BackupError::damaged(super::HEADER, error.to_string());
        let head: Head = serde_json::from_slice(text).map_err(damaged)?;
        if head.format > BACKUP_FORMAT {
            return Err(BackupError::Newer {
                stored: head.format,
                writer: head.gantry,
            });
        }
        serde_json::from_slice(text).map_err(damaged)
    }
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) blake3: String,
}

/// What was found in it, for people and scripts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// `gantry journal verify` prints the same.
    pub(crate) verify_digest: String,
    pub(crate) records: u64,
    pub(crate) workflows: u64,
    pub(crate) artifacts: u64,
    /// How long commits were held.
    pub(crate) held_ms: u64,
}

/// All files but this one. Its presence says that the backup is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) summary: Summary,
    pub(crate) files: Vec<FileEntry>,
}

/// In the place of the manifest.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) reason: String,
}
