//! Group, group bits and setgid of a tree, so that the next user id can read and write it.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use gantry_proto::limits::TREE_DEPTH_MAX;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags};

use super::{join, names, open_dir, open_root};

/// Past so many entries one sync of the file system is cheaper than one per file.
const SYNC_EACH_MAX: usize = 64;

/// Why a tree could not be normalised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NormaliseError {
    /// The system said no.
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Too many directories within each other.
    #[error("{path} is deeper than {TREE_DEPTH_MAX} directories")]
    TooDeep { path: PathBuf },
}

/// Permission bits of a file after a step: no setuid, and what its owner may, the workspace's group may.
pub(crate) fn file_mode(mode: u32) -> u32 {
    let execute = if mode & 0o111 == 0 { 0 } else { 0o110 };
    (mode & 0o777) | 0o660 | execute
}

/// Permission bits of a directory: new entries inherit the workspace's group.
pub(crate) fn dir_mode(mode: u32) -> u32 {
    (mode & 0o777) | 0o2770
}

/// Normalises the tree at `root` and makes it durable. Nothing may run in it.
pub(crate) fn normalise(root: &Path, gid: u32) -> Result<(), NormaliseError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| NormaliseError::Io { path, source }
    };
    let top = open_root(root).map_err(failed(root))?;
    let group = Gid::from_raw(gid);
    fix_dir(&top, group).map_err(failed(root))?;
    let whole = top.try_clone().map_err(failed(root))?;
    let mut written = 0usize;
    let first = names(&top).map_err(failed(root))?;
    let mut stack: Vec<(OwnedFd, Vec<CString>, PathBuf)> = vec![(top, first, PathBuf::new())];
    while let Some((dir, left, relative)) = stack.last_mut() {
        let Some(name) = left.pop() else {
            if written <= SYNC_EACH_MAX {
                rustix::fs::fsync(&*dir).map_err(|e| failed(relative)(e.into()))?;
            }
            stack.pop();
            continue;
        };
        let path = join(relative, &name);
        let io = |error: rustix::io::Errno| failed(&path)(error.into());
        let stat = rustix::fs::statat(&*dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW).map_err(io)?;
        written += 1;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if stack.len() >= TREE_DEPTH_MAX {
                    return Err(NormaliseError::TooDeep { path });
                }
                let (dir, ..) = stack
                    .last()
                    .ok_or_else(|| failed(&path)(io::Error::other("empty stack")))?;
                let child = open_dir(dir, &name).map_err(failed(&path))?;
                fix_dir(&child, group).map_err(failed(&path))?;
                let inside = names(&child).map_err(failed(&path))?;
                stack.push((child, inside, path));
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&*dir, name.as_c_str(), flags, Mode::empty()).map_err(io)?;
                if stat.st_gid != gid {
                    rustix::fs::fchown(&file, None, Some(group)).map_err(io)?;
                }
                let wanted = file_mode(stat.st_mode);
                if stat.st_mode & 0o7777 != wanted {
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(wanted)).map_err(io)?;
                }
                if written <= SYNC_EACH_MAX {
                    rustix::fs::fsync(&file).map_err(io)?;
                }
            }
            // A link's own mode means nothing; whiteouts, pipes and sockets stay as they are.
            _ => {}
        }
    }
    if written > SYNC_EACH_MAX {
        rustix::fs::syncfs(&whole).map_err(|e| failed(root)(e.into()))?;
    }
    Ok(())
}

fn fix_dir(dir: &OwnedFd, group: Gid) -> io::Result<()> {
    let stat = rustix::fs::fstat(dir)?;
    if stat.st_gid != group.as_raw() {
        rustix::fs::fchown(dir, None, Some(group))?;
    }
    let wanted = dir_mode(stat.st_mode);
    if stat.st_mode & 0o7777 != wanted {
        rustix::fs::fchmod(dir, Mode::from_raw_mode(wanted))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    #[test]
    fn group_may_do_what_the_owner_may() {
        let dir = tempfile::tempdir().unwrap();
        let gid = fs::metadata(dir.path()).unwrap().gid();
        fs::create_dir(dir.path().join("d")).unwrap();
        for (name, mode) in [("secret", 0o600), ("tool", 0o4755), ("none", 0)] {
            let path = dir.path().join("d").join(name);
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        normalise(dir.path(), gid).unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("d/secret"), 0o660);
        assert_eq!(mode("d/tool"), 0o775);
        assert_eq!(mode("d/none"), 0o660);
        assert_eq!(mode("d") & 0o2770, 0o2770);
    }

    #[test]
    fn a_tree_that_is_too_deep_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut fd = open_root(dir.path()).unwrap();
        for _ in 0..=TREE_DEPTH_MAX {
            rustix::fs::mkdirat(&fd, c"d", Mode::RWXU).unwrap();
            fd = open_dir(&fd, c"d").unwrap();
        }
        let gid = fs::metadata(dir.path()).unwrap().gid();
        assert!(matches!(
            normalise(dir.path(), gid),
            Err(NormaliseError::TooDeep { .. })
        ));
    }
}
