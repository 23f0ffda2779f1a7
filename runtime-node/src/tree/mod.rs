//! Directory trees that hostile code has written: walked, copied, normalised and removed through file descriptors, beneath their root, without ever
//! following a link.

mod copy;
mod normalise;
mod remove;

pub(crate) use copy::{CopyError, Special, TreeCopy};
pub(crate) use normalise::{NormaliseError, dir_mode, file_mode, normalise};
pub(crate) use remove::{remove_contents, remove_path};

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Dir, Mode, OFlags, ResolveFlags};

/// Flags to open a directory of a tree.
pub(crate) const DIR_FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How a path in a tree is resolved: beneath the root, no links of any kind, no other mount.
pub(crate) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// Opens a directory that is the root of a tree. The path itself is ours and may hold links; its last part may not.
pub(crate) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, DIR_FLAGS, Mode::empty())?)
}

/// Opens a subdirectory by name.
pub(crate) fn open_dir(parent: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, DIR_FLAGS, Mode::empty())?)
}

/// Names in a directory, without `.` and `..`.
pub(crate) fn names(dir: impl AsFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// `relative/name`.
pub(crate) fn join(relative: &Path, name: &CStr) -> PathBuf {
    relative.join(OsStr::from_bytes(name.to_bytes()))
}
