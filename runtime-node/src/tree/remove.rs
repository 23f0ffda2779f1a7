//! Removal that neither depth nor modes nor links can stop.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, RenameFlags};
use rustix::io::Errno;

use super::{DIR_FLAGS, names, open_root};

/// Removes a file or tree; one that is not there is fine. `path` is ours, everything beneath it may be hostile.
pub(crate) fn remove_path(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a path with a parent is needed",
        ));
    };
    let parent = match rustix::fs::openat(CWD, parent, DIR_FLAGS, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let name = c_name(name)?;
    if unlink(&parent, &name)? {
        return Ok(());
    }
    remove_contents(path)?;
    if unlink(&parent, &name)? {
        Ok(())
    } else {
        Err(Errno::NOTEMPTY.into())
    }
}

/// Empties a directory.
///
/// A subdirectory that is not empty is moved up to the root of the tree and taken from there, so that depth needs neither descriptors nor stack, and an
/// interrupted removal is simply begun again.
pub(crate) fn remove_contents(path: &Path) -> io::Result<()> {
    let root = open_root(path)?;
    let mut waiting: VecDeque<CString> = VecDeque::new();
    for name in names(&root)? {
        if !unlink(&root, &name)? {
            waiting.push_back(name);
        }
    }
    let mut counter = 0u64;
    while let Some(name) = waiting.pop_front() {
        let dir = open_for_removal(&root, &name)?;
        for child in names(&dir)? {
            if !unlink(&dir, &child)? {
                waiting.push_back(move_up(&root, &dir, &child, &mut counter)?);
            }
        }
        drop(dir);
        if !unlink(&root, &name)? {
            return Err(Errno::NOTEMPTY.into());
        }
    }
    Ok(())
}

fn move_up(root: &OwnedFd, dir: &OwnedFd, child: &CString, counter: &mut u64) -> io::Result<CString> {
    loop {
        *counter += 1;
        let name = CString::new(format!(".gantry-removed-{counter}"))?;
        match rustix::fs::renameat_with(dir, child.as_c_str(), root, name.as_c_str(), RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(name),
            Err(Errno::EXIST) => {}
            Err(Errno::ACCESS) => {
                // Not root, and the directory to move is not writable.
                rustix::fs::chmodat(dir, child.as_c_str(), Mode::RWXU, AtFlags::empty())?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn open_for_removal(root: &OwnedFd, name: &CString) -> io::Result<OwnedFd> {
    match rustix::fs::openat(root, name.as_c_str(), DIR_FLAGS, Mode::empty()) {
        Ok(dir) => {
            // Only the owner needs it; root may already write.
            let _ = rustix::fs::fchmod(&dir, Mode::RWXU);
            Ok(dir)
        }
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(root, name.as_c_str(), Mode::RWXU, AtFlags::empty())?;
            Ok(rustix::fs::openat(root, name.as_c_str(), DIR_FLAGS, Mode::empty())?)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes a name that is no directory, or an empty one. `false`: a directory with content.
fn unlink(parent: impl AsFd, name: &CString) -> io::Result<bool> {
    let parent: BorrowedFd<'_> = parent.as_fd();
    match rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::unlinkat(parent, name.as_c_str(), AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn c_name(name: &OsStr) -> io::Result<CString> {
    Ok(CString::new(name.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn deep_trees_weird_modes_and_links_go_without_touching_what_they_point_to() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        // Deeper than PATH_MAX allows in one path.
        let mut fd = open_root(&root).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&fd, c"a-directory", Mode::RWXU).unwrap();
            rustix::fs::symlinkat(outside.as_path(), &fd, c"link").unwrap();
            fd = super::super::open_dir(&fd, c"a-directory").unwrap();
        }
        fs::create_dir(root.join("locked")).unwrap();
        fs::write(root.join("locked/file"), "x").unwrap();
        fs::write(root.join(".gantry-removed-1"), "in the way").unwrap();
        fs::set_permissions(root.join("locked"), fs::Permissions::from_mode(0o0)).unwrap();
        symlink(&outside, root.join("dirlink")).unwrap();
        remove_path(&root).unwrap();
        assert!(!root.exists());
        assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "x");
        remove_path(&root).unwrap();
        symlink(&outside, &root).unwrap();
        remove_path(&root).unwrap();
        assert!(outside.join("kept").exists());
    }
}
