//! Host directories that workspaces may be copied from.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use super::error::WorkspaceError;

/// The node's allow-list, resolved once at start.
#[derive(Debug, Clone, Default)]
pub struct AllowList {
    roots: Vec<PathBuf>,
}

impl AllowList {
    /// Resolves every entry.
    ///
    /// # Errors
    /// When an entry does not exist or cannot be resolved; it is named.
    pub fn resolve(paths: &[PathBuf]) -> Result<Self, WorkspaceError> {
        let roots = paths
            .iter()
            .map(|path| fs::canonicalize(path).map_err(|error| WorkspaceError::io(path, error)));
        Ok(Self {
            roots: roots.collect::<Result<_, _>>()?,
        })
    }

    /// The real path of an existing path, if it lies at or beneath an entry.
    ///
    /// # Errors
    /// [`WorkspaceError::Refused`]. It does not tell whether a path outside exists.
    pub fn check(&self, path: &str) -> Result<PathBuf, WorkspaceError> {
        let refused = || {
            WorkspaceError::refused_with(
                format!("the path {path} is not on this node's list of allowed paths"),
                "add its directory to the node's allowed paths, or use a git remote or an upload",
            )
        };
        if !Path::new(path).is_absolute() || path.contains('\0') {
            return Err(WorkspaceError::refused(format!("the path {path} is not absolute")));
        }
        let real = fs::canonicalize(path).map_err(|_| refused())?;
        if self.roots.iter().any(|root| real.starts_with(root)) {
            Ok(real)
        } else {
            Err(refused())
        }
    }

    /// Opens a checked directory. A part of the path that was replaced by a link since the check is refused, not followed.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub(super) fn open(&self, path: &str) -> Result<(PathBuf, OwnedFd), WorkspaceError> {
        let real = self.check(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(CWD, &real, flags, Mode::empty(), resolve) {
            Ok(dir) => Ok((real, dir)),
            Err(error) => {
                let error = io::Error::from(error);
                match error.kind() {
                    io::ErrorKind::NotADirectory => Err(WorkspaceError::refused(format!("{path} is not a directory"))),
                    _ => Err(WorkspaceError::io(&real, error)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn escapes_by_link_dots_and_prefix_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("allowed");
        fs::create_dir_all(root.join("project")).unwrap();
        fs::create_dir_all(dir.path().join("allowed-not")).unwrap();
        fs::create_dir_all(dir.path().join("secret")).unwrap();
        symlink(dir.path().join("secret"), root.join("link")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        let list = AllowList::resolve(std::slice::from_ref(&root)).unwrap();
        let path = |tail: &str| format!("{}/{tail}", dir.path().display());
        assert!(list.check(&path("allowed/project")).is_ok());
        assert!(list.check(&path("allowed/project/../project")).is_ok());
        for outside in [
            "allowed/link",
            "allowed/../secret",
            "allowed-not",
            "secret",
            "allowed/missing",
            "missing",
        ] {
            let error = list.check(&path(outside)).unwrap_err();
            assert!(matches!(error, WorkspaceError::Refused { .. }), "{outside}: {error}");
        }
        assert!(list.check("relative").is_err());
        assert!(matches!(
            list.open(&path("allowed/file")),
            Err(WorkspaceError::Refused { .. })
        ));
        assert!(AllowList::default().check("/etc").is_err());
    }
}
