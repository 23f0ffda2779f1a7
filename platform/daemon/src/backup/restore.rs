//! From a backup to a data directory that a daemon starts on.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use gantry_engine::inspect;
use gantry_engine::verify;
use gantry_journal::keys::{self, Parsed};
use gantry_journal::{ErasureList, Erasures, FileKeyRing, KeyRing as _, Loader, RocksStore};
use gantry_proto::PartitionId;

use super::manifest::{Header, Manifest, Summary};
use super::receive::{Check, document, entries, parse_manifest};
use super::{BackupError, HEADER, KEYS_PREFIX, MANIFEST, pairs, place};
use crate::data_dir::DataDir;
use crate::data_dir::stamp::PARTS;

/// What is restored, and where to.
#[derive(Debug)]
pub(crate) struct Restore<'a> {
    /// A directory, or a tar file.
    pub(crate) backup: &'a Path,
    /// The tar file with the data keys.
    pub(crate) keys: &'a Path,
    /// The data directory: absent or empty.
    pub(crate) data_dir: &'a Path,
    /// The master key file to copy into it.
    pub(crate) master_key: &'a Path,
    /// What was erased since the backup was made, and the file that says so: the new directory goes on with it.
    pub(crate) erasures: Option<(&'a Path, &'a Erasures)>,
}

/// Restores. The directory does not start before all of it has succeeded: its stamp says that a restore is under way, and when one fails everything that
/// it wrote is removed.
pub(crate) fn restore(what: &Restore<'_>) -> Result<(Header, Summary), BackupError> {
    let made = empty_or_absent(what.data_dir)?;
    let done = fill(what);
    if done.is_err() {
        clear(what.data_dir, made);
    }
    done
}

/// Whether the directory was not there.
fn empty_or_absent(dir: &Path) -> Result<bool, BackupError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(false),
            Some(_) => Err(BackupError::NotEmpty(dir.to_owned())),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(BackupError::io(format!("read {}", dir.display()))(error)),
    }
}

/// What cannot be removed does not start either: the stamp says that the restore has not ended.
fn clear(dir: &Path, whole: bool) {
    if whole {
        let _ = fs::remove_dir_all(dir);
        return;
    }
    // The stamp goes last, so that what is left by a crash in here does not start.
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    entries.sort_by_key(|path| path.ends_with("format.json"));
    for path in entries {
        let _ = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
    }
}

fn fill(what: &Restore<'_>) -> Result<(Header, Summary), BackupError> {
    let header = read_header(what.backup)?;
    let keyring = FileKeyRing::open(what.master_key)
        .map_err(|error| BackupError::damaged("the master key", error.to_string()))?;
    if keyring.id() != header.master_key {
        return Err(BackupError::OtherMasterKey {
            path: what.master_key.to_owned(),
            expected: header.master_key,
            found: keyring.id(),
        });
    }
    let data = DataDir::begin_restore(what.data_dir)?;
    let none = Erasures::default();
    let mut filler = Filler {
        data: &data,
        erasures: what.erasures.map_or(&none, |(_, erasures)| erasures),
        loader: Loader::create(&data.journal())?,
        check: Check::default(),
        manifest: None,
    };
    filler.read(what.backup)?;
    let manifest = filler.manifest.take().ok_or(BackupError::Incomplete)?;
    filler.read_keys(what.keys)?;
    filler.check.against(&manifest)?;
    let Filler { loader, .. } = filler;

    for part in [data.segments(), data.blobs()] {
        fs::create_dir_all(&part).map_err(BackupError::io(format!("create {}", part.display())))?;
    }
    private_copy("the master key", what.master_key, &data.master_key())?;
    match what.erasures {
        Some((list, _)) => private_copy("the list of erasures", list, &data.erasures())?,
        None => drop(ErasureList::open(&data.erasures())?),
    }
    let store = loader.finish(header.partitions)?;
    let found = digest(&store)?;
    if found != manifest.summary.verify_digest {
        return Err(BackupError::Digest {
            expected: manifest.summary.verify_digest,
            found,
        });
    }
    try_a_key(&store, &keyring)?;
    drop(store);
    if !data.directory().is_file() {
        return Err(BackupError::damaged("directory.db", "it is missing"));
    }
    data.note(&PARTS, &header.installation, &header.master_key)?;
    Ok((header, manifest.summary))
}

fn read_header(backup: &Path) -> Result<Header, BackupError> {
    if backup.is_dir() {
        let path = backup.join(HEADER);
        let text = fs::read(&path).map_err(|error| BackupError::damaged(HEADER, error.to_string()))?;
        return Header::parse(&text);
    }
    let mut header = None;
    let file = open(backup)?;
    let first = entries(file, |path, _, content| {
        if path == HEADER {
            header = Some(Header::parse(&document(content)?)?);
        }
        // One entry is enough; the rest is read afterwards.
        Err(BackupError::Incomplete)
    });
    match (header, first) {
        (Some(header), _) => Ok(header),
        (None, Err(error)) if !matches!(error, BackupError::Incomplete) => Err(error),
        (None, _) => Err(BackupError::damaged(HEADER, "it is not the first file of the backup")),
    }
}

fn open(path: &Path) -> Result<BufReader<File>, BackupError> {
    let file = File::open(path).map_err(BackupError::io(format!("open {}", path.display())))?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

struct Filler<'a> {
    data: &'a DataDir,
    erasures: &'a Erasures,
    loader: Loader,
    check: Check,
    manifest: Option<Manifest>,
}

impl Filler<'_> {
    fn read(&mut self, backup: &Path) -> Result<(), BackupError> {
        if !backup.is_dir() {
            return entries(open(backup)?, |path, bytes, content| self.take(path, bytes, content));
        }
        let text = match fs::read(backup.join(MANIFEST)) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(BackupError::Incomplete),
            Err(error) => return Err(BackupError::io(format!("read {MANIFEST}"))(error)),
        };
        let manifest = parse_manifest(&text)?;
        for file in manifest.files.iter().filter(|file| !file.path.starts_with(KEYS_PREFIX)) {
            let mut content = match File::open(backup.join(&file.path)) {
                Ok(content) => BufReader::new(content),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    return Err(BackupError::damaged(&file.path, "it is missing"));
                }
                Err(error) => return Err(BackupError::io(format!("read {}", file.path))(error)),
            };
            self.take(&file.path, file.bytes, &mut content)?;
        }
        self.manifest = Some(manifest);
        Ok(())
    }

    fn read_keys(&mut self, keys: &Path) -> Result<(), BackupError> {
        entries(open(keys)?, |path, bytes, content| {
            if path.starts_with(KEYS_PREFIX) {
                self.take(path, bytes, content)
            } else {
                Err(BackupError::damaged(path, "it does not belong into a file of keys"))
            }
        })
    }

    fn take(&mut self, path: &str, bytes: u64, content: &mut dyn Read) -> Result<(), BackupError> {
        if path == MANIFEST {
            self.manifest = Some(parse_manifest(&document(content)?)?);
            return Ok(());
        }
        let (data, erasures, loader) = (self.data, self.erasures, &mut self.loader);
        self.check.file(path, bytes, content, |content| {
            let torn = |error: std::io::Error| match error.kind() {
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::InvalidData => {
                    BackupError::damaged(path, error.to_string())
                }
                _ => BackupError::io(format!("restore {path}"))(error),
            };
            let Some((part, rest)) = path.split_once('/') else {
                return match path {
                    HEADER => Ok(()),
                    "directory.db" => place(data.root(), path, bytes, content).map_err(torn),
                    _ => Err(BackupError::damaged(path, "no backup of this format has such a file")),
                };
            };
            match part {
                "journal" | "keys" => {
                    while let Some((key, value)) = pairs::next(content).map_err(torn)? {
                        let left_out = match keys::parse(&key) {
                            Some(Parsed::DataKey { tenant, workflow, .. }) => erasures.covers(tenant, workflow),
                            // Sealed objects are in no backup: what they held is in the journal, and is sealed anew.
                            Some(Parsed::Archive { .. } | Parsed::Sealed { .. }) => true,
                            _ => false,
                        };
                        if !left_out {
                            loader.put(&key, &value)?;
                        }
                    }
                    Ok(())
                }
                // What was erased since never touches the disk again.
                "segments" | "blobs" if erasures.covers_path(rest) => Ok(()),
                "segments" | "blobs" => place(data.root(), path, bytes, content).map_err(torn),
                // The list of artifacts is for people and for those who keep them elsewhere.
                "artifacts" => Ok(()),
                _ => Err(BackupError::damaged(path, "no backup of this format has such a file")),
            }
        })
    }
}

fn private_copy(what: &str, from: &Path, to: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let copy = || -> std::io::Result<()> {
        let mut target = File::options().write(true).create_new(true).mode(0o600).open(to)?;
        std::io::copy(&mut File::open(from)?, &mut target)?;
        target.sync_all()
    };
    copy().map_err(BackupError::io(format!("copy {what}")))
}

fn digest(store: &RocksStore) -> Result<String, BackupError> {
    let mut reports = Vec::new();
    for partition in (0..store.partitions()).filter_map(PartitionId::new) {
        reports.push((partition, verify::verify(store, partition)?));
    }
    Ok(hex::encode(inspect::installation_digest(&reports)))
}

/// The master key's id fits; that it opens what it wrapped is worth one try.
fn try_a_key(store: &RocksStore, keyring: &FileKeyRing) -> Result<(), BackupError> {
    let mut tried: BTreeSet<PartitionId> = BTreeSet::new();
    let (snapshot, ()) = store.cut(|_| ());
    snapshot.for_each(|key, value| {
        if let Some(Parsed::DataKey {
            partition,
            tenant,
            workflow,
        }) = keys::parse(key)
            && tried.insert(partition)
        {
            let wrapped = gantry_journal::WrappedKey(bytes::Bytes::copy_from_slice(value));
            keyring
                .unwrap(tenant, workflow, &wrapped)
                .map_err(|error| BackupError::damaged(format!("the data key of {workflow}"), error.to_string()))?;
        }
        Ok(())
    })
}
