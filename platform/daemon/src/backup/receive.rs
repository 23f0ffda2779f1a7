//! Taking a backup that a daemon sends: a tar stream, hashed as it arrives and compared with what its manifest says.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::manifest::{Failure, FileEntry, Header, Manifest, Summary};
use super::{BackupError, FAILURE, HEADER, MANIFEST, Sink};

/// Documents that are read into memory: the manifest has a line of about 150 bytes for each file.
const DOCUMENT_BYTES_MAX: u64 = 1 << 30;

/// Checks what passes against a manifest that comes last.
#[derive(Default)]
pub(super) struct Check {
    seen: BTreeMap<String, FileEntry>,
}

impl Check {
    /// Reads to the end through `use_of`, and notes what came.
    pub(super) fn file<T>(
        &mut self,
        path: &str,
        bytes: u64,
        content: &mut dyn Read,
        use_of: impl FnOnce(&mut dyn Read) -> Result<T, BackupError>,
    ) -> Result<T, BackupError> {
        let mut hashing = Hashing {
            inner: content,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        };
        let made = use_of(&mut hashing)?;
        io::copy(&mut hashing, &mut io::sink()).map_err(BackupError::io(format!("read {path}")))?;
        if hashing.bytes != bytes {
            return Err(BackupError::damaged(path, "it ends too early"));
        }
        let entry = FileEntry {
            path: path.to_owned(),
            bytes: hashing.bytes,
            blake3: hashing.hasher.finalize().to_hex().to_string(),
        };
        self.seen.insert(path.to_owned(), entry);
        Ok(made)
    }

    /// Everything that the manifest lists has come, as it lists it, and nothing else.
    pub(super) fn against(&mut self, manifest: &Manifest) -> Result<(), BackupError> {
        for file in &manifest.files {
            match self.seen.remove(&file.path) {
                None => return Err(BackupError::damaged(&file.path, "it is missing")),
                Some(seen) if seen != *file => {
                    let detail = format!(
                        "it has {} bytes and hash {}, listed are {} and {}",
                        seen.bytes, seen.blake3, file.bytes, file.blake3
                    );
                    return Err(BackupError::damaged(&file.path, detail));
                }
                Some(_) => {}
            }
        }
        match self.seen.pop_first() {
            Some((path, _)) => Err(BackupError::damaged(path, "the manifest does not list it")),
            None => Ok(()),
        }
    }
}

struct Hashing<'a> {
    inner: &'a mut dyn Read,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        self.bytes += read as u64;
        Ok(read)
    }
}

/// A whole document.
pub(super) fn document(content: &mut dyn Read) -> Result<Vec<u8>, BackupError> {
    let mut text = Vec::new();
    content
        .take(DOCUMENT_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(BackupError::io("read the backup"))?;
    Ok(text)
}

pub(super) fn parse_manifest(text: &[u8]) -> Result<Manifest, BackupError> {
    serde_json::from_slice(text).map_err(|error| BackupError::damaged(MANIFEST, error.to_string()))
}

/// Hands each file of a tar stream to `each`.
pub(super) fn entries(
    stream: impl Read,
    mut each: impl FnMut(&str, u64, &mut dyn Read) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let torn = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::Other | io::ErrorKind::InvalidData => {
            BackupError::damaged("the tar file", error.to_string())
        }
        _ => BackupError::io("read the backup")(error),
    };
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries().map_err(torn)? {
        let mut entry = entry.map_err(torn)?;
        let path = entry.path().map_err(torn)?.to_string_lossy().into_owned();
        let bytes = entry.size();
        each(&path, bytes, &mut entry)?;
    }
    Ok(())
}

/// Passes a stream on to `sink`. Nothing counts before the manifest has come and everything is as it says.
pub(crate) fn receive(stream: impl Read, sink: &mut dyn Sink) -> Result<(Header, Summary), BackupError> {
    let mut check = Check::default();
    let mut header = None;
    let mut manifest = None;
    entries(stream, |path, bytes, content| {
        if path == FAILURE {
            let failure: Result<Failure, _> = serde_json::from_slice(&document(content)?);
            let reason = failure.map_or_else(|error| error.to_string(), |failure| failure.reason);
            return Err(BackupError::Remote(reason));
        }
        if path == MANIFEST {
            let text = document(content)?;
            manifest = Some((parse_manifest(&text)?, text));
            return Ok(());
        }
        if path == HEADER {
            let text = check.file(path, bytes, content, document)?;
            header = Some(Header::parse(&text)?);
            return sink
                .file(path, text.len() as u64, &mut text.as_slice())
                .map_err(BackupError::io(format!("write {path}")));
        }
        check.file(path, bytes, content, |content| {
            sink.file(path, bytes, content)
                .map_err(BackupError::io(format!("write {path}")))
        })
    })?;
    let (manifest, text) = manifest.ok_or(BackupError::Incomplete)?;
    check.against(&manifest)?;
    let header = header.ok_or_else(|| BackupError::damaged(HEADER, "it is missing"))?;
    // Last, and only now: its presence says that the backup is whole.
    sink.file(MANIFEST, text.len() as u64, &mut text.as_slice())
        .and_then(|()| sink.finish())
        .map_err(BackupError::io("finish the backup"))?;
    Ok((header, manifest.summary))
}
