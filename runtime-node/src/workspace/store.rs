//! Workspaces of a node: built, layered, sealed, dropped, released.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_proto::TaskId;
use gantry_proto::limits::WORKSPACE_LAYERS_MAX;
use gantry_proto::v1::workspace_source::Kind;
use gantry_proto::v1::{InputPlan, Plan, WorkspaceSource};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::WorkspaceError;
use super::git::Mirrors;
use super::inputs;
use super::local::AllowList;
use super::manifest::{Layer, Manifest};
use super::mounts;
use super::strategy::{CopyStrategy, LayerStrategy, OverlayStrategy};
use crate::config::{GitConfig, StrategyChoice};
use crate::id_pool::IdPool;
use crate::tree::{self, Special, TreeCopy};
use crate::uplink::{ByteStream, UplinkError};

/// Which try at which step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AttemptKey {
    /// The task.
    pub task: TaskId,
    /// Position of the step.
    pub step: u32,
    /// Number of the try.
    pub attempt: u32,
}

impl AttemptKey {
    fn dir_name(self) -> String {
        format!("{}-{}", self.step, self.attempt)
    }
}

/// Where inputs come from.
#[async_trait::async_trait]
pub trait FetchInput: Send + Sync {
    /// The bytes of an input, or why there are none now. It is asked again for what may pass.
    async fn fetch(&self, input: &InputPlan) -> Result<ByteStream, UplinkError>;
}

/// Where an attempt's whole tree can be read; it stays until the attempt is sealed or dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View(pub PathBuf);

/// How workspaces are kept.
#[derive(Debug, Clone)]
pub struct WorkspaceOptions {
    /// Directory for trees and mirrors.
    pub root: PathBuf,
    /// Group ids to give out.
    pub gids: RangeInclusive<u32>,
    /// Host directories that may be copied from.
    pub allow_paths: Vec<PathBuf>,
    /// How git sources are fetched.
    pub git: GitConfig,
    /// How trees are layered.
    pub strategy: StrategyChoice,
}

type Guard = Arc<OwnedMutexGuard<()>>;

/// Workspaces of a node. Cancel safe: a dropped call leaves what the next call of the same kind puts right; work that blocks is owned by the tracker.
#[derive(Debug)]
pub struct Workspaces {
    root: PathBuf,
    strategy: Arc<dyn LayerStrategy>,
    mirrors: Mirrors,
    allow: AllowList,
    gids: Arc<IdPool>,
    locks: Mutex<HashMap<TaskId, Arc<tokio::sync::Mutex<()>>>>,
    blocking: TaskTracker,
}

impl Workspaces {
    /// Opens the directory. Blocks.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub fn open(options: &WorkspaceOptions, blocking: TaskTracker) -> Result<Self, WorkspaceError> {
        let root = options.root.join("ws");
        fs::create_dir_all(&root).map_err(|error| WorkspaceError::io(&root, error))?;
        let probed = match options.strategy {
            StrategyChoice::Copy => None,
            StrategyChoice::Overlay | StrategyChoice::Auto => Some(OverlayStrategy::probe(&options.root)),
        };
        let strategy: Arc<dyn LayerStrategy> = match (options.strategy, probed) {
            (StrategyChoice::Overlay, Some(Err(error))) => return Err(error),
            (_, Some(Ok(()))) => Arc::new(OverlayStrategy::new(&root)),
            (_, Some(Err(error))) => {
                tracing::warn!(%error, "overlays cannot be mounted here; every step attempt gets a full copy of its workspace");
                Arc::new(CopyStrategy)
            }
            (_, None) => Arc::new(CopyStrategy),
        };
        let gids = Arc::new(IdPool::new(&options.gids));
        let store = Self {
            mirrors: Mirrors::open(options.root.join("mirrors"), &options.git)?,
            allow: AllowList::resolve(&options.allow_paths)?,
            root,
            strategy,
            gids,
            locks: Mutex::default(),
            blocking,
        };
        for task in store.tasks()? {
            match Manifest::load(&store.dir(task)) {
                Ok(Some(manifest)) => store.gids.reserve(manifest.gid),
                // A base that was never finished is built again.
                Ok(None) => {}
                Err(error) => tracing::error!(%error, %task, "workspace is unusable"),
            }
        }
        Ok(store)
    }

    /// How trees are layered here.
    #[must_use]
    pub fn strategy(&self) -> &'static str {
        self.strategy.name()
    }

    fn dir(&self, task: TaskId) -> PathBuf {
        self.root.join(task.to_string())
    }

    fn attempt_dir(&self, key: AttemptKey) -> PathBuf {
        self.dir(key.task).join("attempts").join(key.dir_name())
    }

    /// Tasks that have a workspace here, finished or not. Blocks.
    ///
    /// # Errors
    /// [`WorkspaceError::Io`]
    pub fn tasks(&self) -> Result<Vec<TaskId>, WorkspaceError> {
        let failed = |error: io::Error| WorkspaceError::io(&self.root, error);
        let mut tasks = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            tasks.extend(name.to_str().and_then(|name| name.parse::<TaskId>().ok()));
        }
        Ok(tasks)
    }

    /// Unmounts what an earlier process left mounted, except in the slots named. Blocks.
    ///
    /// # Errors
    /// [`WorkspaceError::Io`]
    pub fn clean_mounts(&self, keep: &[PathBuf]) -> Result<(), WorkspaceError> {
        let table = mounts::table().map_err(|error| WorkspaceError::io(Path::new("/proc/self/mountinfo"), error))?;
        for mount in table.iter().rev() {
            let ours = mounts::belongs_to(mount, &self.root);
            if ours && !keep.iter().any(|slot| mount.point.starts_with(slot)) {
                mounts::unmount(&mount.point).map_err(|error| WorkspaceError::io(&mount.point, error))?;
            }
        }
        Ok(())
    }

    async fn lock(&self, task: TaskId) -> Guard {
        let lock = self.locks.lock().entry(task).or_default().clone();
        Arc::new(lock.lock_owned().await)
    }

    /// Runs what blocks; the task stays locked until it is done, even when the caller goes away.
    async fn block<T: Send + 'static>(
        &self,
        guard: &Guard,
        work: impl FnOnce() -> Result<T, WorkspaceError> + Send + 'static,
    ) -> Result<T, WorkspaceError> {
        let guard = guard.clone();
        let done = self.blocking.spawn_blocking(move || {
            let result = work();
            drop(guard);
            result
        });
        done.await
            .unwrap_or_else(|error| Err(WorkspaceError::io(&self.root, io::Error::other(error))))
    }

    /// Builds the task's base if this is its first step here, and a fresh layer for the attempt. Returns the workspace's group.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub async fn prepare(&self, key: AttemptKey, plan: &Plan, inputs: &dyn FetchInput) -> Result<u32, WorkspaceError> {
        let cancel = CancellationToken::new();
        let _stop_copies = cancel.clone().drop_guard();
        let guard = self.lock(key.task).await;
        let dir = self.dir(key.task);
        let load = dir.clone();
        let known = match self.block(&guard, move || Manifest::load(&load)).await {
            Err(WorkspaceError::Damaged { path, reason }) if key.step == 0 => {
                tracing::error!(path = %path.display(), reason, "workspace manifest is damaged; building the workspace again");
                None
            }
            other => other?,
        };
        let manifest = match known {
            Some(manifest) => manifest,
            None if key.step == 0 => self.build(&guard, key.task, plan, inputs, &cancel).await?,
            None => return Err(WorkspaceError::gone("this node does not have the task's workspace")),
        };
        let gid = manifest.gid;
        let present = manifest.inputs.clone();
        let attempt = self.attempt_dir(key);
        let (strategy, upper) = (self.strategy.clone(), attempt.join("upper"));
        let begin_dir = dir.clone();
        self.block(&guard, move || {
            let below = flatten(&begin_dir, manifest, key.step, strategy.as_ref(), &cancel)?;
            clear_attempt(&attempt)?;
            fs::create_dir_all(&attempt).map_err(|error| WorkspaceError::io(&attempt, error))?;
            strategy.begin(&below, &attempt, gid, &cancel)
        })
        .await?;
        let missing = plan
            .inputs
            .iter()
            .filter(|input| !present.contains(&input_entry(input)));
        self.add_inputs(&guard, &dir, &upper, missing, gid, inputs).await?;
        Ok(gid)
    }

    async fn build(
        &self,
        guard: &Guard,
        task: TaskId,
        plan: &Plan,
        inputs: &dyn FetchInput,
        cancel: &CancellationToken,
    ) -> Result<Manifest, WorkspaceError> {
        let gid = self.gids.take().ok_or(WorkspaceError::NoGid)?;
        let built = self.build_base(guard, task, gid, plan, inputs, cancel).await;
        if built.is_err() {
            self.gids.release(gid);
        }
        built
    }

    async fn build_base(
        &self,
        guard: &Guard,
        task: TaskId,
        gid: u32,
        plan: &Plan,
        inputs: &dyn FetchInput,
        cancel: &CancellationToken,
    ) -> Result<Manifest, WorkspaceError> {
        let dir = self.dir(task);
        let base = dir.join("base.new");
        let (clear, make) = (dir.clone(), base.clone());
        self.block(guard, move || {
            clear_workspace(&clear)?;
            fs::create_dir_all(&make).map_err(|error| WorkspaceError::io(&make, error))
        })
        .await?;
        let mut sources: Vec<&WorkspaceSource> = plan.workspace.sources.iter().collect();
        // The root first: the others are directories in it.
        sources.sort_by_key(|source| !source.name.is_empty());
        for source in sources {
            let into = base.join(source_dir(&source.name)?);
            self.add_source(guard, task, source, into, gid, cancel).await?;
        }
        self.add_inputs(guard, &dir, &base, plan.inputs.iter(), gid, inputs)
            .await?;
        let mut manifest = Manifest::new(task, gid);
        manifest.inputs = plan.inputs.iter().map(input_entry).collect();
        self.block(guard, move || {
            tree::normalise(&base, gid).map_err(WorkspaceError::from_normalise)?;
            let done = dir.join("base");
            fs::rename(&base, &done).map_err(|error| WorkspaceError::io(&done, error))?;
            manifest.save(&dir)?;
            Ok(manifest)
        })
        .await
    }

    async fn add_source(
        &self,
        guard: &Guard,
        task: TaskId,
        source: &WorkspaceSource,
        into: PathBuf,
        gid: u32,
        cancel: &CancellationToken,
    ) -> Result<(), WorkspaceError> {
        fs::create_dir_all(&into).map_err(|error| WorkspaceError::io(&into, error))?;
        match &source.kind {
            None => Err(WorkspaceError::refused(
                "the workspace names a source of a kind that this node does not know",
            )),
            Some(Kind::Git(git)) => self.mirrors.checkout(git, &self.allow, &into).await,
            Some(Kind::LocalPath(path)) => {
                let (allow, path, cancel) = (self.allow.clone(), path.clone(), cancel.clone());
                self.block(guard, move || {
                    let (real, from) = allow.open(&path)?;
                    let to = tree::open_root(&into).map_err(|error| WorkspaceError::io(&into, error))?;
                    TreeCopy {
                        gid,
                        special: Special::Refuse,
                        cancel: &cancel,
                    }
                    .run(from, to)
                    .map_err(|error| WorkspaceError::from_copy(&real, error))
                })
                .await
            }
            Some(Kind::FromTask(other)) if *other == task => Err(WorkspaceError::refused(
                "a task's workspace cannot come from the task itself",
            )),
            Some(Kind::FromTask(other)) => {
                // Tasks form no cycles, so neither do these locks.
                let source_guard = self.lock(*other).await;
                let (other, dir, at, cancel) = (*other, self.dir(*other), self.dir(task).join("from"), cancel.clone());
                self.block(guard, move || {
                    let _source_guard = source_guard;
                    let gone =
                        || WorkspaceError::gone(format!("this node does not have the finished workspace of {other}"));
                    let manifest = Manifest::load(&dir)?
                        .filter(|manifest| manifest.complete)
                        .ok_or_else(gone)?;
                    let last = manifest.layers.iter().map(|layer| layer.step + 1).max().unwrap_or(0);
                    copy_merged(&manifest.below(&dir, last)?, &at, &into, gid, &cancel)
                })
                .await
            }
        }
    }

    async fn add_inputs(
        &self,
        guard: &Guard,
        dir: &Path,
        root: &Path,
        inputs: impl Iterator<Item = &InputPlan>,
        gid: u32,
        source: &dyn FetchInput,
    ) -> Result<(), WorkspaceError> {
        for input in inputs {
            inputs::parts(&input.path)?;
            let fetched = dir.join("incoming");
            inputs::fetch(input, &fetched, source).await?;
            let (root, input) = (root.to_owned(), input.clone());
            self.block(guard, move || inputs::install(&fetched, &root, &input, gid))
                .await?;
        }
        Ok(())
    }

    /// Shows the attempt's tree at `slot/w`. Already shown is fine.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub async fn mount(&self, key: AttemptKey, slot: &Path) -> Result<(), WorkspaceError> {
        let guard = self.lock(key.task).await;
        let (dir, attempt, target) = (self.dir(key.task), self.attempt_dir(key), slot.join("w"));
        let strategy = self.strategy.clone();
        self.block(&guard, move || {
            let failed = |error: io::Error| WorkspaceError::io(&target, error);
            match fs::create_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            if mounts::is_mounted(&target).map_err(failed)? {
                return Ok(());
            }
            strategy.mount(&load(&dir)?.below(&dir, key.step)?, &attempt, &target)
        })
        .await
    }

    /// Takes what is at `slot/w` away; nothing there is fine.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub async fn unmount(&self, key: AttemptKey, slot: &Path) -> Result<(), WorkspaceError> {
        let guard = self.lock(key.task).await;
        let target = slot.join("w");
        self.block(&guard, move || {
            mounts::unmount(&target).map_err(|error| WorkspaceError::io(&target, error))
        })
        .await
    }

    /// The attempt's whole tree, to be read once nothing runs in it and its slot is unmounted.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub async fn view(&self, key: AttemptKey) -> Result<View, WorkspaceError> {
        let guard = self.lock(key.task).await;
        let (dir, attempt, strategy) = (self.dir(key.task), self.attempt_dir(key), self.strategy.clone());
        self.block(&guard, move || {
            let (upper, sealed) = (attempt.join("upper"), dir.join("layers").join(key.dir_name()));
            if !upper.exists() && sealed.exists() {
                // Sealed by an earlier process that died before it noted the result: back to where it was.
                fs::create_dir_all(&attempt).map_err(|error| WorkspaceError::io(&attempt, error))?;
                let mut manifest = load(&dir)?;
                manifest
                    .layers
                    .retain(|layer| layer.step != key.step || layer.attempt != key.attempt);
                manifest.complete = false;
                manifest.save(&dir)?;
                fs::rename(&sealed, &upper).map_err(|error| WorkspaceError::io(&upper, error))?;
            }
            strategy.view(&load(&dir)?.below(&dir, key.step)?, &attempt).map(View)
        })
        .await
    }

    /// The group of a task's workspace.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub async fn gid(&self, task: TaskId) -> Result<u32, WorkspaceError> {
        let guard = self.lock(task).await;
        let dir = self.dir(task);
        self.block(&guard, move || load(&dir).map(|manifest| manifest.gid))
            .await
    }

    /// Makes the attempt's layer part of the workspace. Durable on return; repeating it is fine. `last`: the tree is the task's result.
    ///
    /// # Errors
    /// [`WorkspaceError::BadTree`] is the step's fault.
    pub async fn seal(&self, key: AttemptKey, last: bool) -> Result<(), WorkspaceError> {
        let guard = self.lock(key.task).await;
        let (dir, attempt) = (self.dir(key.task), self.attempt_dir(key));
        let full = self.strategy.full_layers();
        self.block(&guard, move || {
            let mut manifest = load(&dir)?;
            let named = |layer: &Layer| layer.step == key.step && layer.attempt == key.attempt;
            if !manifest.layers.iter().any(named) {
                let (upper, layers) = (attempt.join("upper"), dir.join("layers"));
                let sealed = layers.join(key.dir_name());
                let failed = |error: io::Error| WorkspaceError::io(&sealed, error);
                unmount_view(&attempt)?;
                // Without an upper directory an earlier call came to just before the manifest.
                if upper.exists() {
                    tree::normalise(&upper, manifest.gid).map_err(WorkspaceError::from_normalise)?;
                    fs::create_dir_all(&layers).map_err(failed)?;
                    tree::remove_path(&sealed).map_err(failed)?;
                    fs::rename(&upper, &sealed).map_err(failed)?;
                    crate::atomic::sync_dir(&layers).map_err(failed)?;
                }
                manifest.layers.retain(|layer| layer.step < key.step);
                manifest.layers.push(Layer {
                    step: key.step,
                    attempt: key.attempt,
                    dir: key.dir_name(),
                    full,
                });
                manifest.complete = last;
                manifest.save(&dir)?;
            }
            clear_attempt(&attempt)?;
            sweep_layers(&dir, &manifest)
        })
        .await
    }

    /// Drops the attempt's layer, sealed or not. Repeating it is fine.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub async fn discard(&self, key: AttemptKey) -> Result<(), WorkspaceError> {
        let guard = self.lock(key.task).await;
        let (dir, attempt) = (self.dir(key.task), self.attempt_dir(key));
        self.block(&guard, move || {
            clear_attempt(&attempt)?;
            let Some(mut manifest) = Manifest::load(&dir)? else {
                return Ok(());
            };
            let before = manifest.layers.len();
            manifest
                .layers
                .retain(|layer| layer.step != key.step || layer.attempt != key.attempt);
            if manifest.layers.len() != before {
                manifest.complete = false;
                manifest.save(&dir)?;
            }
            sweep_layers(&dir, &manifest)
        })
        .await
    }

    /// Removes a task's workspace; none is fine.
    ///
    /// # Errors
    /// [`WorkspaceError`]
    pub async fn release(&self, task: TaskId) -> Result<(), WorkspaceError> {
        let guard = self.lock(task).await;
        let (dir, gids) = (self.dir(task), self.gids.clone());
        self.block(&guard, move || {
            let gid = Manifest::load(&dir).ok().flatten().map(|manifest| manifest.gid);
            clear_workspace(&dir)?;
            if let Some(gid) = gid {
                gids.release(gid);
            }
            Ok(())
        })
        .await?;
        // Whoever waits for it holds it and finds nothing; a new one begins anew.
        let mut locks = self.locks.lock();
        if locks.get(&task).is_some_and(|lock| Arc::strong_count(lock) <= 2) {
            locks.remove(&task);
        }
        Ok(())
    }
}

fn load(dir: &Path) -> Result<Manifest, WorkspaceError> {
    Manifest::load(dir)?.ok_or_else(|| WorkspaceError::io(dir, io::Error::from(io::ErrorKind::NotFound)))
}

fn input_entry(input: &InputPlan) -> (String, String) {
    (input.path.clone(), hex::encode(&input.sha256))
}

fn source_dir(name: &str) -> Result<&str, WorkspaceError> {
    let plain = !name.contains(['/', '\0']) && name != "." && name != ".." && name.len() <= 128;
    if plain {
        Ok(name)
    } else {
        Err(WorkspaceError::refused(format!(
            "`{name}` is not the name of a directory"
        )))
    }
}

fn unmount_view(attempt: &Path) -> Result<(), WorkspaceError> {
    let view = attempt.join("view");
    mounts::unmount(&view).map_err(|error| WorkspaceError::io(&view, error))
}

fn clear_attempt(attempt: &Path) -> Result<(), WorkspaceError> {
    unmount_view(attempt)?;
    tree::remove_path(attempt).map_err(|error| WorkspaceError::io(attempt, error))
}

/// Removes a workspace directory; its manifest first, so that what is left is never taken for a workspace.
fn clear_workspace(dir: &Path) -> Result<(), WorkspaceError> {
    let failed = |error: io::Error| WorkspaceError::io(dir, error);
    if !dir.exists() {
        return Ok(());
    }
    crate::atomic::remove(&dir.join("manifest.json")).map_err(failed)?;
    mounts::unmount(&dir.join("from")).map_err(failed)?;
    let attempts = dir.join("attempts");
    if attempts.exists() {
        for entry in fs::read_dir(&attempts).map_err(failed)? {
            unmount_view(&entry.map_err(failed)?.path())?;
        }
    }
    tree::remove_path(dir).map_err(failed)
}

/// Removes layers that the manifest does not name.
fn sweep_layers(dir: &Path, manifest: &Manifest) -> Result<(), WorkspaceError> {
    let layers = dir.join("layers");
    let failed = |error: io::Error| WorkspaceError::io(&layers, error);
    let entries = match fs::read_dir(&layers) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if !manifest.layers.iter().any(|layer| name == layer.dir.as_str()) {
            tree::remove_path(&entry.path()).map_err(failed)?;
        }
    }
    Ok(())
}

/// Copies the tree that `below` stacks up to into `into`. `at` is a place of ours to mount it at.
fn copy_merged(
    below: &[PathBuf],
    at: &Path,
    into: &Path,
    gid: u32,
    cancel: &CancellationToken,
) -> Result<(), WorkspaceError> {
    let failed = |error: io::Error| WorkspaceError::io(at, error);
    let to = tree::open_root(into).map_err(|error| WorkspaceError::io(into, error))?;
    let copy = |from: &Path| {
        let root = tree::open_root(from).map_err(|error| WorkspaceError::io(from, error))?;
        let copied = TreeCopy {
            gid,
            special: Special::Skip,
            cancel,
        }
        .run(root, to);
        copied.map_err(|error| WorkspaceError::from_copy(from, error))
    };
    if let [only] = below {
        return copy(only);
    }
    fs::create_dir_all(at).map_err(failed)?;
    mounts::unmount(at).map_err(failed)?;
    mounts::overlay("gantry-copy", below, None, at).map_err(failed)?;
    let copied = copy(at);
    mounts::unmount(at).map_err(failed)?;
    fs::remove_dir(at).map_err(failed)?;
    copied
}

/// The tree as of the start of `step`; more layers than the bound become one.
fn flatten(
    dir: &Path,
    mut manifest: Manifest,
    step: u32,
    strategy: &dyn LayerStrategy,
    cancel: &CancellationToken,
) -> Result<Vec<PathBuf>, WorkspaceError> {
    let below = manifest.below(dir, step)?;
    let most = if strategy.full_layers() {
        1
    } else {
        WORKSPACE_LAYERS_MAX
    };
    let Some(newest) = step.checked_sub(1).filter(|_| below.len() > most) else {
        return Ok(below);
    };
    let name = format!("flat-{newest}");
    let (making, done) = (
        dir.join("layers").join(format!("{name}.new")),
        dir.join("layers").join(&name),
    );
    let failed = |error: io::Error| WorkspaceError::io(&done, error);
    for path in [&making, &done] {
        tree::remove_path(path).map_err(failed)?;
    }
    fs::create_dir_all(&making).map_err(failed)?;
    copy_merged(&below, &dir.join("from"), &making, manifest.gid, cancel)?;
    tree::normalise(&making, manifest.gid).map_err(WorkspaceError::from_normalise)?;
    fs::rename(&making, &done).map_err(failed)?;
    let attempt = manifest
        .layers
        .iter()
        .find(|layer| layer.step == newest)
        .map_or(1, |layer| layer.attempt);
    manifest.layers.retain(|layer| layer.step > newest);
    manifest.layers.push(Layer {
        step: newest,
        attempt,
        dir: name,
        full: true,
    });
    manifest.save(dir)?;
    sweep_layers(dir, &manifest)?;
    manifest.below(dir, step)
}
