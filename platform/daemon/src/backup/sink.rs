//! Where the files of a backup go.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use super::{BackupError, KEYS_PREFIX};

/// Takes files one after the other.
pub(crate) trait Sink {
    /// Takes a file of exactly `bytes` bytes.
    fn file(&mut self, path: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()>;

    /// Makes everything durable.
    fn finish(&mut self) -> io::Result<()>;
}

/// A tar stream.
pub(crate) struct TarSink<W: Write> {
    tar: tar::Builder<W>,
    /// Called at the end, to make a file durable.
    sync: fn(&mut W) -> io::Result<()>,
}

impl<W: Write> TarSink<W> {
    pub(crate) fn new(to: W) -> Self {
        Self {
            tar: tar::Builder::new(to),
            sync: W::flush,
        }
    }
}

impl TarSink<File> {
    /// A new file of mode 0600.
    fn create(path: &Path) -> Result<Self, BackupError> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
            _ => BackupError::io(format!("create {}", path.display()))(error),
        })?;
        let mut sink = Self::new(file);
        sink.sync = |file| file.sync_all();
        Ok(sink)
    }
}

impl<W: Write> Sink for TarSink<W> {
    fn file(&mut self, path: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_entry_type(tar::EntryType::Regular);
        let mut counted = content.take(bytes);
        self.tar.append_data(&mut header, path, &mut counted)?;
        // The header has promised more than came.
        if counted.limit() > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.tar.finish()?;
        (self.sync)(self.tar.get_mut())
    }
}

/// Files in a directory.
struct DirSink {
    root: PathBuf,
}

impl DirSink {
    fn create(root: &Path) -> Result<Self, BackupError> {
        match DirBuilder::new().mode(0o700).create(root) {
            Ok(()) => Ok(Self { root: root.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(BackupError::Exists(root.to_owned())),
            Err(error) => Err(BackupError::io(format!("create {}", root.display()))(error)),
        }
    }
}

impl Sink for DirSink {
    fn file(&mut self, path: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        place(&self.root, path, bytes, content)
    }

    fn finish(&mut self) -> io::Result<()> {
        File::open(&self.root)?.sync_all()
    }
}

/// Writes a file of a backup beneath `root`, synced. Paths that lead out of it are refused: a backup may come from anywhere.
pub(crate) fn place(root: &Path, path: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
    let inside = !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
    if !inside {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("`{path}` leads out of the backup"),
        ));
    }
    let target = root.join(path);
    if let Some(parent) = target.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&target)?;
    if io::copy(&mut content.take(bytes), &mut file)? < bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.sync_all()
}

/// Data keys to a file of their own, everything else to a directory or, when its name ends in `.tar`, a tar file.
pub(crate) struct Split {
    main: Box<dyn Sink + Send>,
    keys: TarSink<File>,
    made: [PathBuf; 2],
}

impl Split {
    /// Where the keys go when nothing else is said: beside the backup.
    pub(crate) fn keys_beside(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".keys");
        name.into()
    }

    pub(crate) fn create(path: &Path, keys: &Path) -> Result<Self, BackupError> {
        let tar = path.extension().is_some_and(|extension| extension == "tar");
        let main: Box<dyn Sink + Send> = if tar {
            Box::new(TarSink::create(path)?)
        } else {
            Box::new(DirSink::create(path)?)
        };
        let keys_file = TarSink::create(keys).inspect_err(|_| remove(path))?;
        Ok(Self {
            main,
            keys: keys_file,
            made: [path.to_owned(), keys.to_owned()],
        })
    }

    /// Removes what was made: half a backup is none.
    pub(crate) fn abandon(self) {
        self.made.iter().for_each(|path| remove(path));
    }
}

/// What cannot be removed is no backup either: it has no manifest.
fn remove(path: &Path) {
    let _ = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
}

impl Sink for Split {
    fn file(&mut self, path: &str, bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        if path.starts_with(KEYS_PREFIX) {
            self.keys.file(path, bytes, content)
        } else {
            self.main.file(path, bytes, content)
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.keys.finish()?;
        self.main.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        for path in ["../out", "/tmp/gantry-out", "a/../../out", ""] {
            assert!(place(&root, path, 1, &mut [1u8].as_slice()).is_err(), "{path}");
        }
        assert!(place(&root, "a/b", 2, &mut [1u8].as_slice()).is_err(), "cut short");
        place(&root, "a/c", 1, &mut [1u8].as_slice()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
