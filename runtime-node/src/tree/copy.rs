//! Copies of trees: links stay links, holes stay holes, nothing else than files, directories and links is taken.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use gantry_proto::limits::{CAPTURE_ENTRIES_MAX, TREE_DEPTH_MAX};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps};
use rustix::io::Errno;
use tokio_util::sync::CancellationToken;

use super::{dir_mode, file_mode, join, names, open_dir};

/// What to do with pipes, sockets and devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    /// Refuse the whole copy.
    Refuse,
    /// Leave them out: a step may leave a socket behind, and a copy of one is of no use.
    Skip,
}

/// Why a tree was not copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is a {kind}, not a file, directory or link")]
    Special { path: PathBuf, kind: &'static str },
    #[error("{path} is deeper than {TREE_DEPTH_MAX} directories")]
    TooDeep { path: PathBuf },
    #[error("it has more than {CAPTURE_ENTRIES_MAX} entries")]
    TooMany,
    #[error("the copy was given up")]
    Cancelled,
}

/// One copy.
#[derive(Debug)]
pub(crate) struct TreeCopy<'a> {
    /// Group of everything that is made.
    pub(crate) gid: u32,
    /// Pipes, sockets, devices.
    pub(crate) special: Special,
    /// Gives up between two entries.
    pub(crate) cancel: &'a CancellationToken,
}

struct Level {
    from: OwnedFd,
    to: OwnedFd,
    left: Vec<CString>,
    relative: PathBuf,
}

impl TreeCopy<'_> {
    /// Copies what is in `from` into `to`, both directories; `to` is ours and empty.
    pub(crate) fn run(&self, from: OwnedFd, to: OwnedFd) -> Result<(), CopyError> {
        let left = names(&from).map_err(|source| CopyError::Io {
            path: PathBuf::from("."),
            source,
        })?;
        let mut stack = vec![Level {
            from,
            to,
            left,
            relative: PathBuf::new(),
        }];
        let mut entries = 0usize;
        loop {
            let depth = stack.len();
            let Some(level) = stack.last_mut() else { return Ok(()) };
            let Some(name) = level.left.pop() else {
                stack.pop();
                continue;
            };
            entries += 1;
            if entries > CAPTURE_ENTRIES_MAX {
                return Err(CopyError::TooMany);
            }
            if self.cancel.is_cancelled() {
                return Err(CopyError::Cancelled);
            }
            let path = join(&level.relative, &name);
            if let Some(child) = self.entry(level, &name, &path, depth)? {
                stack.push(child);
            }
        }
    }

    fn entry(&self, level: &Level, name: &CString, path: &Path, depth: usize) -> Result<Option<Level>, CopyError> {
        let failed = |source: io::Error| CopyError::Io {
            path: path.to_owned(),
            source,
        };
        let errno = |error: Errno| failed(error.into());
        let name = name.as_c_str();
        let stat = rustix::fs::statat(&level.from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
        let group = Gid::from_raw(self.gid);
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if depth >= TREE_DEPTH_MAX {
                    return Err(CopyError::TooDeep { path: path.to_owned() });
                }
                match rustix::fs::mkdirat(&level.to, name, Mode::RWXU) {
                    // Several sources may share a directory that was made for one of them.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(errno(error)),
                }
                let from = open_dir(&level.from, name).map_err(failed)?;
                let to = open_dir(&level.to, name).map_err(failed)?;
                rustix::fs::fchown(&to, None, Some(group)).map_err(errno)?;
                rustix::fs::fchmod(&to, Mode::from_raw_mode(dir_mode(stat.st_mode))).map_err(errno)?;
                let left = names(&from).map_err(failed)?;
                return Ok(Some(Level {
                    from,
                    to,
                    left,
                    relative: path.to_owned(),
                }));
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let from = rustix::fs::openat(&level.from, name, flags, Mode::empty()).map_err(errno)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let to = rustix::fs::openat(&level.to, name, flags, Mode::RUSR | Mode::WUSR).map_err(errno)?;
                copy_file(&File::from(from), &File::from(to.try_clone().map_err(failed)?)).map_err(failed)?;
                rustix::fs::fchown(&to, None, Some(group)).map_err(errno)?;
                rustix::fs::fchmod(&to, Mode::from_raw_mode(file_mode(stat.st_mode))).map_err(errno)?;
                // Build tools compare times.
                #[allow(clippy::cast_possible_wrap, clippy::unnecessary_cast)]
                let modified = Timespec {
                    tv_sec: stat.st_mtime as i64,
                    tv_nsec: stat.st_mtime_nsec as i64,
                };
                let times = Timestamps {
                    last_access: modified,
                    last_modification: modified,
                };
                rustix::fs::futimens(&to, &times).map_err(errno)?;
                return Ok(None);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&level.from, name, Vec::new()).map_err(errno)?;
                rustix::fs::symlinkat(target.as_c_str(), &level.to, name).map_err(errno)?;
                rustix::fs::chownat(&level.to, name, None, Some(group), AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
                return Ok(None);
            }
            FileType::Fifo => "named pipe",
            FileType::Socket => "socket",
            FileType::CharacterDevice | FileType::BlockDevice => "device",
            _ => "thing of an unknown kind",
        };
        match self.special {
            Special::Refuse => Err(CopyError::Special {
                path: path.to_owned(),
                kind,
            }),
            Special::Skip => Ok(None),
        }
    }
}

/// Copies content: shared blocks where the file system can, else range by range so that holes stay holes.
fn copy_file(from: &File, to: &File) -> io::Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut at = 0u64;
    while at < length {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // No support for holes: everything is data.
            Err(Errno::INVAL) => at,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(start))
            .unwrap_or(length)
            .min(length);
        copy_range(from, to, start, end)?;
        at = end.max(start + 1);
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let (mut read, mut write) = (start, start);
    while read < end {
        let length = usize::try_from((end - read).min(1 << 30)).unwrap_or(1 << 30);
        match rustix::fs::copy_file_range(from.as_fd(), Some(&mut read), to.as_fd(), Some(&mut write), length) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut buffer = vec![0u8; 128 << 10];
    while read < end {
        let want = usize::try_from((end - read).min(buffer.len() as u64)).unwrap_or(buffer.len());
        let got = from.read_at(&mut buffer[..want], read)?;
        if got == 0 {
            return Ok(());
        }
        to.write_all_at(&buffer[..got], read)?;
        read += got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::open_root;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    fn copy(from: &Path, to: &Path, special: Special) -> Result<(), CopyError> {
        let gid = fs::metadata(to).unwrap().gid();
        let cancel = CancellationToken::new();
        TreeCopy {
            gid,
            special,
            cancel: &cancel,
        }
        .run(open_root(from).unwrap(), open_root(to).unwrap())
    }

    #[test]
    fn links_stay_links_and_holes_stay_holes() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(from.path().join("a/b")).unwrap();
        fs::write(from.path().join("a/b/file"), "content").unwrap();
        symlink("/etc", from.path().join("a/etc")).unwrap();
        let sparse = File::create(from.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        use std::os::unix::fs::FileExt as _;
        sparse.write_all_at(b"end", (1 << 30) - 3).unwrap();
        copy(from.path(), to.path(), Special::Refuse).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("a/b/file")).unwrap(), "content");
        assert_eq!(fs::read_link(to.path().join("a/etc")).unwrap(), Path::new("/etc"));
        let copied = fs::metadata(to.path().join("sparse")).unwrap();
        assert_eq!(copied.len(), 1 << 30);
        assert!(copied.blocks() < 10_000, "{} blocks", copied.blocks());
        let mut tail = [0u8; 3];
        File::open(to.path().join("sparse"))
            .unwrap()
            .read_exact_at(&mut tail, (1 << 30) - 3)
            .unwrap();
        assert_eq!(&tail, b"end");
    }

    #[test]
    fn sockets_are_refused_or_left_out() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let _socket = std::os::unix::net::UnixListener::bind(from.path().join("s")).unwrap();
        assert!(matches!(
            copy(from.path(), to.path(), Special::Refuse),
            Err(CopyError::Special { kind: "socket", .. })
        ));
        copy(from.path(), to.path(), Special::Skip).unwrap();
        assert!(!to.path().join("s").exists());
    }
}
