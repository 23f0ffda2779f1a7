//! Why a backup or a restore did not come about.

use std::io;
use std::path::PathBuf;

use gantry_engine::verify::VerifyError;
use gantry_journal::{OpenError, ReadError};

use crate::data_dir::DataDirError;

/// Why there is no backup, or nothing restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    /// The journal itself is not sound: a backup of it would only look like one.
    #[error("the journal does not verify, and a backup of it would be worth nothing: {0}")]
    Unsound(#[from] VerifyError),
    #[error("read the journal: {0}")]
    Read(#[from] ReadError),
    #[error(transparent)]
    Journal(#[from] OpenError),
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("copy the directory: {0}")]
    Directory(String),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    /// A file of the backup is missing, cut or changed.
    #[error("the backup is damaged: {what}: {detail}. Use another one")]
    Damaged { what: String, detail: String },
    /// The backup was broken off: it has no manifest.
    #[error(
        "the backup is not complete, it has no {}: it was broken off. Use another one",
        super::MANIFEST
    )]
    Incomplete,
    #[error(
        "the backup has format {stored}, this Gantry ({version}) reads up to {known}: restore it with Gantry {writer} or newer",
        version = env!("CARGO_PKG_VERSION"), known = super::BACKUP_FORMAT
    )]
    Newer { stored: u32, writer: String },
    /// The other side gave up, and said why.
    #[error("the daemon could not finish the backup: {0}")]
    Remote(String),
    #[error("{} is not empty: a restore needs a directory of its own, or one that does not exist yet", .0.display())]
    NotEmpty(PathBuf),
    #[error("{} exists already: a backup never replaces anything", .0.display())]
    Exists(PathBuf),
    /// The keys belong to another master key.
    #[error("the backup was made under master key {expected}, and {} is {found}: give the right one with --master-key", path.display())]
    OtherMasterKey {
        path: PathBuf,
        expected: String,
        found: String,
    },
    /// All was written, and the journal is another one.
    #[error(
        "the restored journal has the verify digest {found}, the backup was made of {expected}: the backup is damaged. Use another one"
    )]
    Digest { expected: String, found: String },
    #[error(transparent)]
    Erasures(#[from] gantry_journal::ErasureError),
    #[error("the daemon is shutting down")]
    Stopped,
}

impl BackupError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(super) fn damaged(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Damaged {
            what: what.into(),
            detail: detail.into(),
        }
    }
}
