//! How an attempt gets a tree of its own over the tree as of its step's start.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::error::WorkspaceError;
use super::mounts;
use crate::tree::{self, Special, TreeCopy};

/// How an attempt gets a tree of its own. All calls block; all are idempotent.
pub trait LayerStrategy: Send + Sync + std::fmt::Debug + 'static {
    /// In words, for the log.
    fn name(&self) -> &'static str;

    /// Whether a sealed layer holds the whole tree, so that nothing beneath it is needed.
    fn full_layers(&self) -> bool;

    /// Makes `attempt/upper` a fresh place to work in. `below`: the tree as of the step's start, newest first.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    fn begin(
        &self,
        below: &[PathBuf],
        attempt: &Path,
        gid: u32,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError>;

    /// Shows the attempt's tree at `target`, writable.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    fn mount(&self, below: &[PathBuf], attempt: &Path, target: &Path) -> Result<(), WorkspaceError>;

    /// Where the attempt's whole tree can be read now that nothing runs in it.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    fn view(&self, below: &[PathBuf], attempt: &Path) -> Result<PathBuf, WorkspaceError>;
}

fn fresh_upper(attempt: &Path, gid: u32) -> Result<PathBuf, WorkspaceError> {
    let upper = attempt.join("upper");
    let failed = |error: io::Error| WorkspaceError::io(&upper, error);
    fs::create_dir(&upper).map_err(failed)?;
    std::os::unix::fs::chown(&upper, None, Some(gid)).map_err(failed)?;
    fs::set_permissions(&upper, fs::Permissions::from_mode(tree::dir_mode(0o755))).map_err(failed)?;
    Ok(upper)
}

/// Mount source of the probe.
const PROBE: &str = "gantry-probe";

/// Layers of overlayfs.
#[derive(Debug, Clone)]
pub struct OverlayStrategy {
    source: String,
}

impl OverlayStrategy {
    /// Overlays over the workspaces at `root`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            source: mounts::overlay_source(root),
        }
    }

    /// Tries in `dir` whether overlays work there the way they are used: written through, a layer on a layer, a directory renamed, read back.
    ///
    /// # Errors
    /// What the system said, in words.
    pub fn probe(dir: &Path) -> Result<(), WorkspaceError> {
        let place = dir.join("overlay-probe");
        let failed = |error: io::Error| WorkspaceError::io(&place, error);
        let target = place.join("target");
        let clean = || {
            mounts::unmount(&target)
                .and_then(|()| tree::remove_path(&place))
                .map_err(failed)
        };
        clean()?;
        for name in ["base/d", "one", "two", "work", "target"] {
            fs::create_dir_all(place.join(name)).map_err(failed)?;
        }
        fs::write(place.join("base/d/file"), "x").map_err(failed)?;
        let tried = (|| {
            let (one, two, work) = (place.join("one"), place.join("two"), place.join("work"));
            mounts::overlay(PROBE, &[place.join("base")], Some((&one, &work)), &target)?;
            fs::rename(target.join("d"), target.join("renamed"))?;
            mounts::unmount(&target)?;
            tree::remove_contents(&work)?;
            mounts::overlay(PROBE, &[one, place.join("base")], Some((&two, &work)), &target)?;
            fs::read(target.join("renamed/file"))?;
            fs::remove_file(target.join("renamed/file"))
        })();
        clean()?;
        tried.map_err(failed)
    }
}

impl LayerStrategy for OverlayStrategy {
    fn name(&self) -> &'static str {
        "overlay"
    }

    fn full_layers(&self) -> bool {
        false
    }

    fn begin(&self, _: &[PathBuf], attempt: &Path, gid: u32, _: &CancellationToken) -> Result<(), WorkspaceError> {
        fresh_upper(attempt, gid)?;
        let work = attempt.join("work");
        fs::create_dir(&work).map_err(|error| WorkspaceError::io(&work, error))
    }

    fn mount(&self, below: &[PathBuf], attempt: &Path, target: &Path) -> Result<(), WorkspaceError> {
        mounts::overlay(
            &self.source,
            below,
            Some((&attempt.join("upper"), &attempt.join("work"))),
            target,
        )
        .map_err(|error| WorkspaceError::io(target, error))
    }

    fn view(&self, below: &[PathBuf], attempt: &Path) -> Result<PathBuf, WorkspaceError> {
        let view = attempt.join("view");
        let failed = |error: io::Error| WorkspaceError::io(&view, error);
        fs::create_dir_all(&view).map_err(failed)?;
        if !mounts::is_mounted(&view).map_err(failed)? {
            let mut all = vec![attempt.join("upper")];
            all.extend_from_slice(below);
            mounts::overlay(&self.source, &all, None, &view).map_err(failed)?;
        }
        Ok(view)
    }
}

/// A full copy per attempt, for where overlays cannot be mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyStrategy;

impl LayerStrategy for CopyStrategy {
    fn name(&self) -> &'static str {
        "copy"
    }

    fn full_layers(&self) -> bool {
        true
    }

    fn begin(
        &self,
        below: &[PathBuf],
        attempt: &Path,
        gid: u32,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        let upper = fresh_upper(attempt, gid)?;
        let Some(newest) = below.first() else { return Ok(()) };
        let from = tree::open_root(newest).map_err(|error| WorkspaceError::io(newest, error))?;
        let to = tree::open_root(&upper).map_err(|error| WorkspaceError::io(&upper, error))?;
        TreeCopy {
            gid,
            special: Special::Skip,
            cancel,
        }
        .run(from, to)
        .map_err(|error| WorkspaceError::from_copy(newest, error))
    }

    fn mount(&self, _: &[PathBuf], attempt: &Path, target: &Path) -> Result<(), WorkspaceError> {
        mounts::bind(&attempt.join("upper"), target).map_err(|error| WorkspaceError::io(target, error))
    }

    fn view(&self, _: &[PathBuf], attempt: &Path) -> Result<PathBuf, WorkspaceError> {
        Ok(attempt.join("upper"))
    }
}
