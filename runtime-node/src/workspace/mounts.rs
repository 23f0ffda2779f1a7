//! Mounting and unmounting.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

/// Mounts on top of each other at one place; more is not ours.
const STACK_MAX: usize = 8;

/// Mount source of the overlays over the workspaces at `root`, by which left-over ones are found wherever they are.
pub(super) fn overlay_source(root: &Path) -> String {
    format!(
        "gantry-ws-{}",
        &blake3::hash(root.as_os_str().as_bytes()).to_hex()[..16]
    )
}

/// Mounts an overlay. `lowers` newest first; `upper` and `work` absent: read-only.
pub(super) fn overlay(
    source: &str,
    lowers: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    target: &Path,
) -> io::Result<()> {
    // Through descriptors: option values stay short for any number of layers, and no character of a path is special.
    let mut held: Vec<OwnedFd> = Vec::with_capacity(lowers.len() + 2);
    let mut by_descriptor = |path: &Path| -> io::Result<String> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
        held.push(fd);
        Ok(name)
    };
    let mut options = String::from("redirect_dir=on,index=off,metacopy=off,lowerdir=");
    for (index, lower) in lowers.iter().enumerate() {
        if index > 0 {
            options.push(':');
        }
        options.push_str(&by_descriptor(lower)?);
    }
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    match upper_work {
        Some((upper, work)) => {
            options.push_str(&format!(
                ",upperdir={},workdir={}",
                by_descriptor(upper)?,
                by_descriptor(work)?
            ));
        }
        None => {
            flags |= MountFlags::RDONLY;
            if let [only] = lowers {
                // Overlay wants two layers or an upper one; a single one is simply bound.
                return bind(only, target);
            }
        }
    }
    let options = CString::new(options)?;
    rustix::mount::mount(source, target, "overlay", flags, options.as_c_str())?;
    Ok(())
}

/// Binds a directory of ours to `target`, without set-user-id and devices.
pub(super) fn bind(source: &Path, target: &Path) -> io::Result<()> {
    rustix::mount::mount_bind(source, target)?;
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    if let Err(error) = rustix::mount::mount_remount(target, flags, c"") {
        unmount(target)?;
        return Err(error.into());
    }
    Ok(())
}

/// Unmounts all that is mounted at `target`; nothing there is fine.
pub(super) fn unmount(target: &Path) -> io::Result<()> {
    for _ in 0..STACK_MAX {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            // Somebody looks into it; it goes when they stop.
            Err(Errno::BUSY) => rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::other("too many mounts on top of each other"))
}

/// Whether something is mounted at `target`.
pub(super) fn is_mounted(target: &Path) -> io::Result<bool> {
    Ok(table()?.iter().any(|mount| mount.point == target))
}

pub(super) struct Mounted {
    pub(super) point: PathBuf,
    /// Path within its file system.
    pub(super) root: PathBuf,
    pub(super) source: String,
}

/// This process's mounts.
pub(super) fn table() -> io::Result<Vec<Mounted>> {
    let text = fs::read("/proc/self/mountinfo")?;
    let mut mounts = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        let Some(separator) = fields.iter().position(|field| *field == b"-") else {
            continue;
        };
        let (Some(root), Some(point)) = (fields.get(3), fields.get(4)) else {
            continue;
        };
        let source = fields
            .get(separator + 2)
            .map_or(String::new(), |s| String::from_utf8_lossy(s).into_owned());
        mounts.push(Mounted {
            point: unescape(point),
            root: unescape(root),
            source,
        });
    }
    Ok(mounts)
}

fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// Whether a mount shows something of the workspaces at `root`.
pub(super) fn belongs_to(mount: &Mounted, root: &Path) -> bool {
    if mount.source == overlay_source(root) || mount.point.starts_with(root) {
        return true;
    }
    // A bind mount names the path within its file system, which may be mounted anywhere: `.../<task>/attempts/...`, of a task of ours.
    let parts: Vec<_> = mount.root.iter().collect();
    parts.windows(2).any(|pair| {
        let task = pair[0]
            .to_str()
            .and_then(|name| name.parse::<gantry_proto::TaskId>().ok());
        task.is_some_and(|task| pair[1] == "attempts" && root.join(task.to_string()).exists())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_mount_table() {
        assert_eq!(unescape(br"/a\040b\134c"), Path::new("/a b\\c"));
        assert_eq!(unescape(br"/plain\"), Path::new("/plain\\"));
        assert!(table().unwrap().iter().any(|mount| mount.point == Path::new("/proc")));
    }
}
