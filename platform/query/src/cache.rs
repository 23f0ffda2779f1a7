//! Sealed objects on local disk, by tenant, and the directory that a query sees.
//!
//! A query gets hard links to the cached files, so that what is evicted meanwhile stays until it ends. Objects never change under a name; those that the
//! archive no longer names for a tenant (replaced, expired, erased) are removed at its next query.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_journal::archive::{ArchiveStore, SealedObject, Snapshot};
use gantry_proto::TenantId;
use gantry_proto::time::{Clock as _, SystemClock};

use crate::api::QueryError;

/// A query's process runs as nobody: the files are readable for all, and the directories above them only for their owner.
const FILE_MODE: u32 = 0o644;
const OPEN_DIRECTORY_MODE: u32 = 0o755;
const CLOSED_DIRECTORY_MODE: u32 = 0o700;

/// The name, within a query's directory, of the one with its files.
const FILES: &str = "files";

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    max_bytes: u64,
    next: AtomicU64,
}

/// What a query sees; removed when dropped.
#[derive(Debug)]
pub(crate) struct RunDirectory(PathBuf);

impl RunDirectory {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "the directory of a query cannot be removed");
        }
    }
}

fn directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    // Whatever the umask says.
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn failing(what: &'static str) -> impl Fn(io::Error) -> QueryError {
    move |error| QueryError::Internal(format!("{what}: {error}"))
}

impl Cache {
    /// Opens it, and removes what queries of a crashed process left. Blocks.
    pub(crate) fn open(root: &Path, max_bytes: u64) -> io::Result<Self> {
        directory(root, CLOSED_DIRECTORY_MODE)?;
        let runs = root.join("runs");
        match fs::remove_dir_all(&runs) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => directory(&runs, CLOSED_DIRECTORY_MODE)?,
        }
        directory(&root.join("objects"), CLOSED_DIRECTORY_MODE)?;
        Ok(Self {
            root: root.to_owned(),
            max_bytes,
            next: AtomicU64::new(0),
        })
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    fn of_tenant(&self, tenant: TenantId) -> PathBuf {
        self.root.join("objects").join(tenant.to_string())
    }

    /// A directory for one query. Blocks.
    pub(crate) fn new_run(&self) -> Result<RunDirectory, QueryError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let run = RunDirectory(self.root.join("runs").join(number.to_string()));
        for path in [run.path(), &run.path().join(FILES)] {
            directory(path, OPEN_DIRECTORY_MODE).map_err(failing("make a query's directory"))?;
        }
        Ok(run)
    }

    /// Puts an object into a query's directory, fetched if it is not here. Gives its name there, and the bytes that were fetched.
    pub(crate) async fn provide(
        &self,
        store: &ArchiveStore,
        tenant: TenantId,
        object: &SealedObject,
        run: &RunDirectory,
    ) -> Result<(String, u64), QueryError> {
        let name = file_name(&object.name);
        let cached = self.of_tenant(tenant).join(&name);
        let target = run.path().join(FILES).join(&name);
        if blocking({
            let (cached, target, size) = (cached.clone(), target.clone(), object.size_bytes);
            move || use_cached(&cached, &target, size)
        })
        .await?
        {
            return Ok((name, 0));
        }
        let bytes = store.get(&object.name, &object.digest).await?;
        let fetched = bytes.len() as u64;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        blocking(move || {
            let keep = || {
                let directory_of = cached.parent().unwrap_or(&cached);
                directory(directory_of, CLOSED_DIRECTORY_MODE)?;
                // Under a name of its own until it is whole; not synced: a file of the wrong length is fetched again.
                let part = cached.with_extension(format!("part{number}"));
                fs::write(&part, &bytes)?;
                fs::set_permissions(&part, Permissions::from_mode(FILE_MODE))?;
                fs::hard_link(&part, &target)?;
                fs::rename(&part, &cached)
            };
            keep().map_err(failing("keep an object"))
        })
        .await?;
        Ok((name, fetched))
    }

    /// Removes what the snapshot no longer names of its tenant, then what was used longest ago until everything fits. Blocks.
    pub(crate) fn tidy(&self, snapshot: &Snapshot) -> io::Result<()> {
        let valid: HashSet<String> = snapshot.objects.iter().map(|object| file_name(&object.name)).collect();
        for (path, _, _) in files(&self.of_tenant(snapshot.tenant))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Parts are another query's, which is about to name them.
            if name.ends_with(".parquet") && !valid.contains(name.as_ref()) {
                remove(&path)?;
            }
        }
        let mut all = Vec::new();
        for tenant in fs::read_dir(self.root.join("objects"))? {
            all.extend(files(&tenant?.path())?);
        }
        let mut total: u64 = all.iter().map(|(_, size, _)| size).sum();
        all.sort_by_key(|(_, _, used)| *used);
        for (path, size, _) in all {
            if total <= self.max_bytes {
                break;
            }
            remove(&path)?;
            total -= size;
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
) -> Result<T, QueryError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| QueryError::Internal(error.to_string()))?
}

/// Links a cached file that is whole, and marks it as used.
fn use_cached(cached: &Path, target: &Path, size: u64) -> Result<bool, QueryError> {
    let whole = fs::metadata(cached).is_ok_and(|found| found.len() == size);
    if !whole {
        return Ok(false);
    }
    match fs::hard_link(cached, target) {
        Ok(()) => {
            // Best effort: it only decides what is evicted first.
            let _ = File::options()
                .append(true)
                .open(cached)
                .and_then(|file| file.set_modified(UNIX_EPOCH + Duration::from_millis(SystemClock.now_ms())));
            Ok(true)
        }
        // Evicted in between.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failing("link an object")(error)),
    }
}

/// An object's name as one of a file: without tenant, which is the directory's.
fn file_name(object: &str) -> String {
    object.splitn(3, '/').last().unwrap_or(object).replace('/', "_")
}

fn files(path: &Path) -> io::Result<Vec<(PathBuf, u64, SystemTime)>> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        // Gone in between: another query tidied up.
        if let Ok(metadata) = entry.metadata() {
            found.push((entry.path(), metadata.len(), metadata.modified()?));
        }
    }
    Ok(found)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
