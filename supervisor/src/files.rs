//! Small files written and read for a step, without following any link. Call with the step's file rights.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};

/// What a bounded read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Whole(Vec<u8>),
    TooLong,
}

/// Identifies a state of a file well enough to see that it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    inode: u64,
    size: i64,
    modified: (i64, i64),
}

/// Creates a file with `content`; a file of that name is replaced, missing directories are made (0700).
pub(crate) fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (parent, name) = open_parent(path, true)?;
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o600))?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest)?;
        rest = &rest[written..];
    }
    // Not by openat: the umask would have its say.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
    Ok(())
}

/// Reads a regular file of at most `limit_bytes`. Links anywhere in the path are refused, as is everything that is not a regular file.
pub(crate) fn read_bounded(path: &Path, limit_bytes: usize) -> io::Result<(Content, Stamp)> {
    let (file, stamp) = open_regular(path)?;
    let mut content = Vec::new();
    let mut block = [0_u8; 16 << 10];
    loop {
        let got = rustix::io::read(&file, &mut block)?;
        if got == 0 {
            return Ok((Content::Whole(content), stamp));
        }
        if content.len() + got > limit_bytes {
            return Ok((Content::TooLong, stamp));
        }
        content.extend_from_slice(&block[..got]);
    }
}

/// The state of a regular file, without reading it.
pub(crate) fn stamp(path: &Path) -> io::Result<Stamp> {
    let (_, stamp) = open_regular(path)?;
    Ok(stamp)
}

fn open_regular(path: &Path) -> io::Result<(OwnedFd, Stamp)> {
    let (parent, name) = open_parent(path, false)?;
    // NONBLOCK: opening a fifo must not wait for its writer. Whether it is a regular file is asked of the open file, so nobody can swap it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    #[allow(clippy::unnecessary_cast, clippy::cast_possible_wrap)] // the types differ between architectures
    let modified = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    Ok((
        file,
        Stamp {
            inode: stat.st_ino,
            size: stat.st_size,
            modified,
        },
    ))
}

/// Opens the directory that holds `path`, one component after the other, following no link.
fn open_parent(path: &Path, create: bool) -> io::Result<(OwnedFd, &OsStr)> {
    let refused = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
    let name = path.file_name().ok_or_else(|| refused("the path names no file"))?;
    let mut components = path.parent().unwrap_or(Path::new("")).components();
    if components.next() != Some(Component::RootDir) {
        return Err(refused("the path is not absolute"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = rustix::fs::open("/", flags, Mode::empty())?;
    for component in components {
        let Component::Normal(step) = component else {
            return Err(refused("the path has `..` in it"));
        };
        if create {
            match rustix::fs::mkdirat(&directory, step, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                // On a read-only or foreign directory the existing child is still good enough; opening it decides.
                Err(rustix::io::Errno::ROFS | rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {}
                Err(error) => return Err(error.into()),
            }
        }
        directory = rustix::fs::openat(&directory, step, flags, Mode::empty())?;
    }
    Ok((directory, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn creates_with_directories_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        create(&path, b"hello", 0o640).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(read_bounded(&path, 5).unwrap().0, Content::Whole(b"hello".to_vec()));
        assert_eq!(read_bounded(&path, 4).unwrap().0, Content::TooLong);
        create(&path, b"", 0o600).unwrap();
        assert_eq!(read_bounded(&path, 0).unwrap().0, Content::Whole(Vec::new()));
    }

    #[test]
    fn links_are_not_followed_at_any_place() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", dir.path().join("link")).unwrap();
        assert!(read_bounded(&dir.path().join("link"), 1 << 20).is_err());
        symlink("/etc", dir.path().join("etc")).unwrap();
        assert!(read_bounded(&dir.path().join("etc/passwd"), 1 << 20).is_err());
        assert!(create(&dir.path().join("etc/gantry-test"), b"x", 0o600).is_err());
        assert!(read_bounded(&dir.path().join("../etc/passwd"), 1 << 20).is_err());
        assert!(read_bounded(Path::new("etc/passwd"), 1 << 20).is_err());
        // A link where a file is to be created is replaced, and its target left alone.
        let target = dir.path().join("target");
        std::fs::write(&target, "kept").unwrap();
        symlink(&target, dir.path().join("new")).unwrap();
        create(&dir.path().join("new"), b"fresh", 0o600).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }

    #[test]
    fn only_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        assert!(read_bounded(&fifo, 100).is_err());
        assert!(read_bounded(dir.path(), 100).is_err());
        assert!(read_bounded(Path::new("/dev/zero"), 100).is_err());
    }

    #[test]
    fn stamp_changes_with_content_and_replacement() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        create(&path, b"1", 0o600).unwrap();
        let first = stamp(&path).unwrap();
        assert_eq!(first, stamp(&path).unwrap());
        std::fs::write(&path, "22").unwrap();
        assert_ne!(first, stamp(&path).unwrap());
    }
}
