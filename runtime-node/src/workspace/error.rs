//! Why a workspace could not be built, mounted or sealed.

use std::io;
use std::path::{Path, PathBuf};

use gantry_proto::ErrorCode;
use gantry_proto::v1::Fault;

use crate::atomic;
use crate::tree::{CopyError, NormaliseError};

/// Why a workspace could not be built, mounted or sealed.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// What was asked for is not allowed or makes no sense; asking again changes nothing.
    #[error("{reason}")]
    Refused {
        /// What and why.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// The source could not be fetched.
    #[error("{source_name} could not be fetched: {reason}")]
    Fetch {
        /// The source.
        source_name: String,
        /// What git or the server said.
        reason: String,
    },
    /// The source could not be fetched, which is not the source's fault: the node or the server could not do it for too long.
    #[error("{source_name} could not be fetched by this node: {reason}")]
    Unavailable {
        /// The source.
        source_name: String,
        /// What the system or the server said.
        reason: String,
    },
    /// The lease is gone, says the server.
    #[error("the lease has passed to another holder")]
    Stale,
    /// What earlier steps left on this node is not here any more.
    #[error("{reason}")]
    Gone {
        /// What is missing.
        reason: String,
    },
    /// The step left a tree that cannot be kept.
    #[error("{reason}")]
    BadTree {
        /// What and why.
        reason: String,
    },
    /// The disk of the node is full.
    #[error("the node's disk is full ({path})")]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// A file of ours cannot be read or written.
    #[error("workspace {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A manifest is not what was written.
    #[error("workspace manifest {path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// All group ids are in use.
    #[error("all group ids for workspaces are in use")]
    NoGid,
    /// Given up: the step was cancelled or the node shuts down.
    #[error("given up")]
    Cancelled,
}

impl WorkspaceError {
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
            hint: None,
        }
    }

    pub(crate) fn gone(reason: impl Into<String>) -> Self {
        Self::Gone { reason: reason.into() }
    }

    pub(crate) fn refused_with(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
            hint: Some(hint.into()),
        }
    }

    pub(crate) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        if atomic::is_disk_full(&source) {
            return Self::DiskFull { path: path.to_owned() };
        }
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// What programs match on.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Refused { .. } | Self::BadTree { .. } => ErrorCode::WorkspaceRefused,
            Self::Fetch { .. } | Self::Unavailable { .. } => ErrorCode::WorkspaceFetchFailed,
            Self::Stale => ErrorCode::StaleFence,
            Self::Gone { .. } => ErrorCode::InfrastructureLost,
            Self::DiskFull { .. } => ErrorCode::DiskFull,
            Self::Io { .. } | Self::Damaged { .. } | Self::NoGid | Self::Cancelled => ErrorCode::Internal,
        }
    }

    /// As it crosses process borders.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let fault = Fault::new(self.code(), self.to_string());
        match self {
            Self::Refused { hint: Some(hint), .. } => fault.with_hint(hint),
            Self::DiskFull { .. } => {
                fault.with_hint("free space in the node's state directory; work is taken again by itself")
            }
            _ => fault,
        }
    }

    /// From a copy of a tree that a user named.
    pub(crate) fn from_copy(root: &Path, error: CopyError) -> Self {
        match error {
            CopyError::Io { path, source } => Self::io(&root.join(path), source),
            CopyError::Cancelled => Self::Cancelled,
            other => Self::refused(format!("{} cannot be copied: {other}", root.display())),
        }
    }

    pub(crate) fn from_normalise(error: NormaliseError) -> Self {
        match error {
            NormaliseError::Io { path, source } => Self::io(&path, source),
            other => Self::BadTree {
                reason: format!("the step's workspace cannot be kept: {other}"),
            },
        }
    }
}
