//! Making a backup of an installation, running or not.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::time::Instant;

use gantry_engine::inspect;
use gantry_engine::verify;
use gantry_journal::keys::Kind;
use gantry_journal::{RocksStore, Snapshot};
use gantry_proto::PartitionId;
use serde::Serialize;

use super::inventory::{self, Found, Owned};
use super::manifest::{Failure, FileEntry, Header, Manifest, Summary};
use super::{BACKUP_FORMAT, BackupError, FAILURE, HEADER, KEYS_PREFIX, MANIFEST, Sink, pairs};

/// What is backed up.
pub(crate) struct Installation<'a> {
    pub(crate) store: &'a RocksStore,
    /// Writes a copy of the directory as it is now.
    pub(crate) copy_directory: &'a dyn Fn(&Path) -> Result<(), String>,
    pub(crate) segments: &'a Path,
    pub(crate) blobs: &'a Path,
    /// Where the copy of the directory is put for a while.
    pub(crate) scratch: &'a Path,
    pub(crate) id: String,
    pub(crate) master_key: String,
    pub(crate) now_ms: u64,
    /// Asked now and then; the backup ends when it says yes.
    pub(crate) stopped: &'a dyn Fn() -> bool,
}

/// What may be left out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Artifacts themselves, and not only their list.
    pub(crate) artifacts: bool,
}

/// Writes a backup to `sink`. Blocks for all of it; commits are held for the moment of the cut alone. When it fails, a file that says why is the last one.
pub(crate) fn pack(from: &Installation<'_>, options: Options, sink: &mut dyn Sink) -> Result<Summary, BackupError> {
    let mut packer = Packer {
        sink,
        files: Vec::new(),
    };
    let made = packer.all(from, options);
    if let Err(error) = &made {
        let failure = Failure {
            reason: error.to_string(),
        };
        // The sink itself may be what failed; whoever reads it then sees that there is no manifest.
        let _ = packer.document(FAILURE, &failure);
    }
    let finished = packer.sink.finish().map_err(BackupError::io("finish the backup"));
    let summary = made?;
    finished.map(|()| summary)
}

struct Packer<'a> {
    sink: &'a mut dyn Sink,
    files: Vec<FileEntry>,
}

/// Hashes what passes.
struct Hashing<'a> {
    inner: &'a mut dyn Read,
    hasher: blake3::Hasher,
}

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// Parts that fill up to a size and go out.
struct Parts {
    prefix: &'static str,
    suffix: &'static str,
    buffer: Vec<u8>,
    number: u32,
}

impl Parts {
    fn new(prefix: &'static str, suffix: &'static str) -> Self {
        Self {
            prefix,
            suffix,
            buffer: Vec::new(),
            number: 0,
        }
    }

    fn flush(&mut self, packer: &mut Packer<'_>) -> Result<(), BackupError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.number += 1;
        let path = format!("{}{:08}.{}", self.prefix, self.number, self.suffix);
        packer.add(&path, self.buffer.len() as u64, &mut self.buffer.as_slice())?;
        self.buffer.clear();
        Ok(())
    }

    fn full(&mut self, packer: &mut Packer<'_>) -> Result<(), BackupError> {
        if self.buffer.len() < pairs::PART_BYTES {
            return Ok(());
        }
        self.flush(packer)
    }
}

impl Packer<'_> {
    fn all(&mut self, from: &Installation<'_>, options: Options) -> Result<Summary, BackupError> {
        let scratch = tempdir(from.scratch)?;
        let directory = scratch.path.join("directory.db");
        let began = Instant::now();
        let mut held_ms = 0;
        let (snapshot, grown) = from.store.cut(|view| {
            let held = Instant::now();
            let grown = growing(from, view, &directory);
            held_ms = u64::try_from(held.elapsed().as_millis()).unwrap_or(u64::MAX);
            grown
        });
        let (active, growing) = grown?;
        tracing::debug!(held_ms, waited = ?began.elapsed(), "the cut is made");
        let header = Header {
            format: BACKUP_FORMAT,
            gantry: env!("CARGO_PKG_VERSION").to_owned(),
            created_at_ms: from.now_ms,
            installation: from.id.clone(),
            partitions: snapshot.partitions(),
            master_key: from.master_key.clone(),
            artifacts: options.artifacts,
        };
        self.document(HEADER, &header)?;
        let mut summary = verified(&snapshot, from.stopped)?;
        summary.held_ms = held_ms;

        let bytes = length(&directory)?;
        self.copy("directory.db", &directory, bytes)?;
        self.journal(&snapshot)?;
        for file in &growing {
            self.copy(&format!("segments/{}", file.name), &file.path, file.bytes)?;
        }
        let all = inventory::all(&snapshot, snapshot.partitions())?;
        // Those that had ended by the cut change no more.
        for workflow in all.iter().filter(|workflow| !active.contains(workflow)) {
            self.unless_stopped(from)?;
            for file in inventory::files(from.segments, *workflow)? {
                self.copy(&format!("segments/{}", file.name), &file.path, file.bytes)?;
            }
        }
        let mut list = Parts::new("artifacts/", "jsonl");
        for workflow in all {
            self.unless_stopped(from)?;
            let files = inventory::files(from.blobs, workflow)?;
            summary.artifacts += self.blobs(&files, options, &mut list)?;
        }
        let uploads = inventory::uploads(&snapshot, snapshot.partitions(), from.blobs)?;
        self.blobs(&uploads, options, &mut list)?;
        list.flush(self)?;
        let manifest = Manifest {
            summary: summary.clone(),
            files: std::mem::take(&mut self.files),
        };
        self.document(MANIFEST, &manifest)?;
        Ok(summary)
    }

    /// Lists objects, and copies them where that is wanted; how many.
    fn blobs(&mut self, files: &[Found], options: Options, list: &mut Parts) -> Result<u64, BackupError> {
        for file in files {
            let line = serde_json::json!({"object": file.name, "sealed_bytes": file.bytes});
            list.buffer.extend_from_slice(line.to_string().as_bytes());
            list.buffer.push(b'\n');
            list.full(self)?;
            if options.artifacts {
                self.copy(&format!("blobs/{}", file.name), &file.path, file.bytes)?;
            }
        }
        Ok(files.len() as u64)
    }

    fn unless_stopped(&self, from: &Installation<'_>) -> Result<(), BackupError> {
        if (from.stopped)() {
            Err(BackupError::Stopped)
        } else {
            Ok(())
        }
    }

    /// Every pair of the journal; wrapped data keys apart from the rest.
    fn journal(&mut self, snapshot: &Snapshot<'_>) -> Result<(), BackupError> {
        let mut rest = Parts::new("journal/", "pairs");
        let mut keys = Parts::new(KEYS_PREFIX, "pairs");
        snapshot.for_each(|key, value| {
            let parts = if key.first() == Some(&(Kind::DataKey as u8)) {
                &mut keys
            } else {
                &mut rest
            };
            pairs::append(&mut parts.buffer, key, value).map_err(BackupError::io("pack the journal"))?;
            parts.full(self)
        })?;
        rest.flush(self)?;
        // One file of keys at least: an installation without workflows has none, and its backup is whole all the same.
        if keys.number == 0 && keys.buffer.is_empty() {
            return self.add("keys/00000001.pairs", 0, &mut io::empty());
        }
        keys.flush(self)
    }

    fn document(&mut self, path: &str, document: &impl Serialize) -> Result<(), BackupError> {
        let text = serde_json::to_vec_pretty(document).map_err(|error| BackupError::io(path)(error.into()))?;
        self.add(path, text.len() as u64, &mut text.as_slice())
    }

    /// The first `bytes` bytes of a file. One that is gone belonged to something that was erased meanwhile, and is left out.
    fn copy(&mut self, path: &str, file: &Path, bytes: u64) -> Result<(), BackupError> {
        match File::open(file) {
            Ok(mut content) => self.add(path, bytes, &mut content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(BackupError::io(format!("read {}", file.display()))(error)),
        }
    }

    fn add(&mut self, path: &str, bytes: u64, content: &mut dyn Read) -> Result<(), BackupError> {
        let mut limited = content.take(bytes);
        let mut hashing = Hashing {
            inner: &mut limited,
            hasher: blake3::Hasher::new(),
        };
        self.sink
            .file(path, bytes, &mut hashing)
            .map_err(BackupError::io(format!("write {path}")))?;
        self.files.push(FileEntry {
            path: path.to_owned(),
            bytes,
            blake3: hashing.hasher.finalize().to_hex().to_string(),
        });
        Ok(())
    }
}

type Growing = (std::collections::BTreeSet<Owned>, Vec<Found>);

/// What must be seen while nothing is committed: the directory, and how far the output of unfinished workflows is.
fn growing(from: &Installation<'_>, view: &Snapshot<'_>, directory: &Path) -> Result<Growing, BackupError> {
    (from.copy_directory)(directory).map_err(BackupError::Directory)?;
    let active = inventory::active(view, view.partitions())?;
    let mut files = Vec::new();
    for workflow in &active {
        files.extend(inventory::files(from.segments, *workflow)?);
    }
    Ok((active, files))
}

/// Folds the whole log: what is backed up is known to be sound.
pub(super) fn verified(snapshot: &Snapshot<'_>, stopped: &dyn Fn() -> bool) -> Result<Summary, BackupError> {
    let mut reports = Vec::new();
    for partition in (0..snapshot.partitions()).filter_map(PartitionId::new) {
        if stopped() {
            return Err(BackupError::Stopped);
        }
        reports.push((partition, verify::verify(snapshot, partition)?));
    }
    Ok(Summary {
        verify_digest: hex::encode(inspect::installation_digest(&reports)),
        records: reports.iter().map(|(_, report)| report.records).sum(),
        workflows: reports.iter().map(|(_, report)| report.workflows).sum(),
        artifacts: 0,
        held_ms: 0,
    })
}

fn length(file: &Path) -> Result<u64, BackupError> {
    let meta = fs::metadata(file).map_err(BackupError::io(format!("read {}", file.display())))?;
    Ok(meta.len())
}

/// A directory that is removed when this is dropped.
struct Scratch {
    path: std::path::PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left is removed when the next backup begins.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn tempdir(within: &Path) -> Result<Scratch, BackupError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let path = within.join("backup.tmp");
    // Left by a process that was killed: there is one backup at a time.
    let _ = fs::remove_dir_all(&path);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .map_err(BackupError::io(format!("create {}", path.display())))?;
    Ok(Scratch { path })
}
