//! Which files of output and artifacts belong to the cut.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_engine::processor::load::walk;
use gantry_journal::keys::{self, Kind, Parsed};
use gantry_journal::{ReadError, Store};
use gantry_proto::{PartitionId, TenantId, WorkflowId};

use super::BackupError;

/// A workflow and whose it is.
pub(super) type Owned = (TenantId, WorkflowId);

/// A file of a workflow.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// Path below the root: `<tenant>/<workflow>/<name>`.
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// Workflows that have not ended: the only ones whose output still grows.
pub(super) fn active(store: &dyn Store, partitions: u16) -> Result<BTreeSet<Owned>, ReadError> {
    of_kind(store, partitions, Kind::Active)
}

/// Every workflow that the journal knows.
pub(super) fn all(store: &dyn Store, partitions: u16) -> Result<BTreeSet<Owned>, ReadError> {
    of_kind(store, partitions, Kind::Workflow)
}

fn of_kind(store: &dyn Store, partitions: u16, kind: Kind) -> Result<BTreeSet<Owned>, ReadError> {
    let mut found = BTreeSet::new();
    for partition in (0..partitions).filter_map(PartitionId::new) {
        walk(store, &keys::all_of(kind, partition), |key, _| {
            if let Some(Parsed::Active { tenant, workflow, .. } | Parsed::Workflow { tenant, workflow, .. }) =
                keys::parse(key)
            {
                found.insert((tenant, workflow));
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Files of a workflow under `root`, by name, with their length now. None when there is no directory: no output, or erased meanwhile.
pub(super) fn files(root: &Path, (tenant, workflow): Owned) -> Result<Vec<Found>, BackupError> {
    files_under(root, &format!("{tenant}/{workflow}"))
}

/// Files of uploads that the journal knows, under the root of blobs.
pub(super) fn uploads(store: &dyn Store, partitions: u16, blobs: &Path) -> Result<Vec<Found>, BackupError> {
    let mut owners = Vec::new();
    for partition in (0..partitions).filter_map(PartitionId::new) {
        walk(store, &keys::all_of(Kind::Upload, partition), |key, _| {
            if let Some(Parsed::Upload { tenant, upload, .. }) = keys::parse(key) {
                owners.push(format!("uploads/{tenant}/{upload}"));
            }
            Ok(())
        })?;
    }
    let mut found = Vec::new();
    for owner in owners {
        found.extend(files_under(blobs, &owner)?);
    }
    Ok(found)
}

fn files_under(root: &Path, owner: &str) -> Result<Vec<Found>, BackupError> {
    let dir = root.join(owner);
    let fail = |source: io::Error| BackupError::Io {
        what: format!("list {}", dir.display()),
        source,
    };
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(fail(error)),
        };
        // `#` marks an upload that is not finished.
        if meta.is_file() && !name.contains('#') {
            found.push(Found {
                path: entry.path(),
                name: format!("{owner}/{name}"),
                bytes: meta.len(),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
