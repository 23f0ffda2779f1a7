//! Mounts of the host: the shared mount that carries slots into containers, and what is left beneath a slot.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

/// One line of the mount table.
struct Mount {
    point: PathBuf,
    shared: bool,
}

fn table() -> io::Result<Vec<Mount>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// `id parent major:minor root POINT options [shared:N ...] - type source options`; the kernel writes blanks and backslashes as octal escapes.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    let optional = fields.skip(1).take_while(|field| *field != b"-");
    let shared = optional.into_iter().any(|field| field.starts_with(b"shared:"));
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        shared,
    })
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        out.push(octal.unwrap_or(first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    out
}

/// Makes `dir` a mount of its own in a fresh peer group, so that what is mounted beneath it later appears in containers that have it as a slave.
/// Idempotent.
pub(crate) fn make_shared(dir: &Path) -> io::Result<()> {
    let found = table()?.into_iter().rev().find(|mount| mount.point == dir);
    match found {
        Some(mount) if mount.shared => return Ok(()),
        Some(_) => {}
        None => mount_bind(dir, dir)?,
    }
    // Private first: the bind is a peer of the mount it was made from where that is shared, and everything beneath would be mounted twice.
    mount_change(dir, MountPropagationFlags::PRIVATE)?;
    mount_change(dir, MountPropagationFlags::SHARED)?;
    Ok(())
}

/// Undoes [`make_shared`] where nothing uses it any more; a mount in use stays.
pub(crate) fn release(dir: &Path) -> io::Result<()> {
    if !table()?.iter().any(|mount| mount.point == dir) {
        return Ok(());
    }
    match unmount(dir, UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Mount points strictly beneath `dir`, newest first. One point occurs as often as it is mounted on.
pub(crate) fn mounts_beneath(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let points = table()?.into_iter().rev().map(|mount| mount.point);
    Ok(points.filter(|point| point != dir && point.starts_with(dir)).collect())
}

/// Unmounts everything beneath `dir`. What is busy is detached: its last user takes it away.
pub(crate) fn unmount_beneath(dir: &Path) -> io::Result<()> {
    for point in mounts_beneath(dir)? {
        match unmount(&point, UnmountFlags::NOFOLLOW) {
            // Gone with the mount it was on.
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(rustix::io::Errno::BUSY) => unmount(&point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_mount_table_are_read() {
        let shared =
            parse(b"42 27 254:0 /x /var/lib/a\\040b\\134c rw,relatime shared:1 master:2 - ext4 /dev/vda rw").unwrap();
        assert_eq!(shared.point, Path::new("/var/lib/a b\\c"));
        assert!(shared.shared);
        let private = parse(b"42 27 254:0 / /mnt rw,relatime - ext4 shared:9 rw").unwrap();
        assert!(!private.shared, "a source named like a tag is no tag");
        assert!(parse(b"").is_none());
    }

    #[test]
    fn a_directory_becomes_a_shared_mount_once_and_is_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("slots");
        std::fs::create_dir_all(root.join("x/w")).unwrap();
        make_shared(&root).unwrap();
        make_shared(&root).unwrap();
        assert_eq!(table().unwrap().iter().filter(|mount| mount.point == root).count(), 1);
        mount_bind(root.join("x"), root.join("x/w")).unwrap();
        assert_eq!(
            mounts_beneath(&root.join("x")).unwrap(),
            [root.join("x/w")],
            "mounted once, not once per peer"
        );
        unmount_beneath(&root.join("x")).unwrap();
        assert!(mounts_beneath(&root).unwrap().is_empty());
        release(&root).unwrap();
        assert!(!table().unwrap().iter().any(|mount| mount.point == root));
    }
}
