//! The node: what it owns, how it starts and stops.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_fleet_manager::{Fleet, FleetError};
use gantry_proto::time::{Clock, SystemClock};
use gantry_proto::v1::{Assignment, Fault, NodeHealth};
use gantry_proto::{ErrorCode, PartitionId, SandboxId, TaskId};
use rustix::fs::FlockOperation;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::board::{Board, Entrance, NotTaken, Orders};
use crate::claims::{Claim, ClaimError, ClaimStore, Phase};
use crate::config::NodeConfig;
use crate::id_pool::IdPool;
use crate::retry::Backoff;
use crate::uplink::Uplink;
use crate::workspace::{WorkspaceError, WorkspaceOptions, Workspaces};
use crate::{identity, session, step};

/// Why a node could not start. Docker or the server being away is no reason: both are waited for.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error("state directory {path}: {source}")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Another process uses the state directory.
    #[error("state directory {path} is in use by another node")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// Claim files cannot be read.
    #[error(transparent)]
    Claims(#[from] ClaimError),
    /// Workspaces cannot be kept.
    #[error(transparent)]
    Workspaces(#[from] WorkspaceError),
}

/// What every task of the node works with.
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    pub(crate) fleet: Arc<dyn Fleet>,
    pub(crate) uplink: Arc<dyn Uplink>,
    pub(crate) workspaces: Arc<Workspaces>,
    pub(crate) claims: ClaimStore,
    pub(crate) uids: IdPool,
    pub(crate) board: Board,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Shared {
    pub(crate) fn new_sandbox_id(&self) -> SandboxId {
        let now = self.clock.now_ms();
        // Without the system's randomness nothing of this process could go on; the time alone still tells ids of one node apart.
        SandboxId::new(now, PartitionId::default(), identity::entropy().unwrap_or(now))
    }

    /// Takes up a new assignment.
    pub(crate) fn take(self: &Arc<Self>, assignment: Assignment) -> Result<(), NotTaken> {
        let sandbox = self.new_sandbox_id();
        let uid = self.uids.take().ok_or(NotTaken::Full)?;
        let orders = self
            .board
            .add(assignment.assignee.clone(), sandbox, Entrance::New)
            .inspect_err(|_| {
                self.uids.release(uid);
            })?;
        let claim = Claim {
            assignment,
            sandbox,
            uid,
            place: None,
            image: None,
            phase: Phase::Claimed,
            output_acked: 0,
            prepare_ms: 0,
            started_at_ms: None,
        };
        self.drive(claim, orders);
        Ok(())
    }

    fn drive(self: &Arc<Self>, claim: Claim, orders: watch::Receiver<Orders>) {
        let shared = self.clone();
        self.tasks.spawn(async move {
            let stop = shared.stop.clone();
            tokio::select! {
                () = step::drive(shared, claim, orders) => {}
                // What was in between is found in the claim file by the next start, as after a crash.
                () = stop.cancelled() => {}
            }
        });
    }

    /// Removes a workspace that is needed no more, in the background.
    pub(crate) fn release_workspace(self: &Arc<Self>, task: TaskId) {
        let shared = self.clone();
        self.tasks.spawn(async move {
            let released = tokio::select! {
                released = shared.workspaces.release(task) => released,
                () = shared.stop.cancelled() => return,
            };
            if let Err(error) = released {
                // It is named again at the next registration.
                tracing::warn!(%error, %task, "workspace could not be removed");
            }
        });
    }

    /// Looks at Docker and the disk.
    async fn look(&self) {
        let fleet = self.fleet.health().await;
        let disk = rustix::fs::statvfs(&self.config.state_dir).map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let mut fault = fleet.fault;
        if let (None, Ok(free)) = (&fault, disk)
            && free < self.config.disk_reserve_bytes
        {
            fault = Some(
                Fault::new(
                    ErrorCode::DiskFull,
                    format!("only {} MiB are free in the node's state directory", free >> 20),
                )
                .with_hint("free some space; the node takes work again by itself"),
            );
        }
        if fault.is_none() && !fleet.docker_ok {
            fault = Some(Fault::new(ErrorCode::DockerUnavailable, "Docker does not answer"));
        }
        self.board.set_health(NodeHealth {
            docker_ok: fleet.docker_ok,
            fault,
            disk_free_bytes: disk.ok(),
            running: None,
            containers: Some(fleet.containers),
        });
    }
}

/// When containers are looked for again after the start: one that an earlier process had asked for may appear only after that process was killed.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// Looks after the node's fitness for work: removes what nobody claims, at the start and again and again, and watches Docker and the disk.
async fn keep(shared: Arc<Shared>) {
    let mut backoff = Backoff::patient();
    let mut again = Instant::now();
    loop {
        shared.look().await;
        let ready = shared.board.is_ready();
        if !ready || (Instant::now() >= again && shared.board.health().docker_ok) {
            let interval = shared.config.reconcile_interval;
            again = Instant::now() + if ready { interval } else { interval.min(SECOND_LOOK) };
            if let Err(error) = reconcile(&shared).await {
                tracing::warn!(%error, ready, "sandboxes cannot be reconciled");
                if !ready {
                    // No work is taken before.
                    shared.board.note_fault(error.into());
                    tokio::time::sleep(backoff.pause()).await;
                    continue;
                }
            } else if !ready {
                shared.board.set_ready();
                continue;
            }
        }
        tokio::time::sleep(shared.config.health_interval).await;
    }
}

/// Removes sandboxes that no claim of this node names.
async fn reconcile(shared: &Shared) -> Result<(), FleetError> {
    let claimed: BTreeSet<SandboxId> = shared
        .board
        .held()
        .into_iter()
        .filter_map(|held| held.sandbox)
        .collect();
    let done = shared.fleet.reconcile(&claimed).await?;
    if !shared.board.is_ready() || !done.removed.is_empty() {
        tracing::info!(
            kept = done.kept.len(),
            removed = done.removed.len(),
            missing = done.missing.len(),
            "sandboxes reconciled"
        );
    }
    Ok(())
}

/// A running node. Dropping it stops its tasks as [`Node::shutdown`] does, without waiting for them.
pub struct Node {
    shared: Arc<Shared>,
    /// Held as long as the node lives: one node per state directory.
    _lock: StateLock,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node")
            .field("node", &self.shared.config.node)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Opens the state directory, takes up what an earlier process held, and begins to dial. Neither Docker nor the server need to answer.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(config: NodeConfig, fleet: Arc<dyn Fleet>, uplink: Arc<dyn Uplink>) -> Result<Self, StartError> {
        Self::start_with_clock(config, fleet, uplink, Arc::new(SystemClock)).await
    }

    /// [`Node::start`] with another clock.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start_with_clock(
        mut config: NodeConfig,
        fleet: Arc<dyn Fleet>,
        uplink: Arc<dyn Uplink>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let tasks = TaskTracker::new();
        let opened = {
            let (config, tasks) = (config.clone(), tasks.clone());
            tokio::task::spawn_blocking(move || open(&config, tasks)).await
        };
        let state_dir = config.state_dir.clone();
        let opened = opened.map_err(|error| StartError::StateDir {
            path: state_dir,
            source: std::io::Error::other(error),
        })??;
        config.state_dir = opened.state_dir;
        let shared = Arc::new(Shared {
            board: Board::new(config.slots),
            uids: IdPool::new(&config.uids),
            config,
            fleet,
            uplink,
            workspaces: Arc::new(opened.workspaces),
            claims: opened.claims,
            tasks,
            stop: CancellationToken::new(),
            clock,
        });
        // All are on the board before any runs, so that reconciliation and registration see all of them.
        let mut adopted = Vec::with_capacity(opened.held.len());
        for claim in opened.held {
            shared.uids.reserve(claim.uid);
            let entrance = Entrance::Kept {
                state: claim.held_state(),
                occupies: claim.occupies_slot(),
            };
            if let Ok(orders) = shared.board.add(claim.assignee().clone(), claim.sandbox, entrance) {
                adopted.push((claim, orders));
            }
        }
        for (claim, orders) in adopted {
            shared.drive(claim, orders);
        }
        let keeper = shared.clone();
        shared.tasks.spawn(async move {
            let stop = keeper.stop.clone();
            tokio::select! {
                () = keep(keeper) => {}
                () = stop.cancelled() => {}
            }
        });
        let dialler = shared.clone();
        shared.tasks.spawn(async move {
            // So that the first registration says how the node is. A Docker that does not even refuse is not waited for.
            let first_look = tokio::time::timeout(dialler.config.connect_timeout, dialler.look());
            tokio::select! {
                _ = first_look => {}
                () = dialler.stop.cancelled() => {}
            }
            session::run(dialler).await;
        });
        Ok(Self {
            shared,
            _lock: opened.lock,
        })
    }

    /// Takes no more work, and returns when nothing is held any more. Cancel safe; the node goes on draining.
    pub async fn drain(&self) {
        self.shared.board.set_draining(true);
        loop {
            let left = self.shared.board.left.notified();
            tokio::pin!(left);
            // Registered before the look, so that no departure in between is missed.
            left.as_mut().enable();
            if self.shared.board.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Stops all tasks and returns when they have ended. Sandboxes go on running; the next start adopts them.
    pub async fn shutdown(self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// How the node is.
    #[must_use]
    pub fn health(&self) -> NodeHealth {
        self.shared.board.health()
    }

    /// How workspaces are layered here: `overlay` or `copy`.
    #[must_use]
    pub fn workspace_strategy(&self) -> &'static str {
        self.shared.workspaces.strategy()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
    }
}

/// The lock of a state directory.
struct StateLock(File);

impl Drop for StateLock {
    fn drop(&mut self) {
        // Not left to closing: a child between fork and exec holds a copy of the descriptor for a moment.
        let _ = rustix::fs::flock(&self.0, FlockOperation::Unlock);
    }
}

struct Opened {
    state_dir: PathBuf,
    lock: StateLock,
    claims: ClaimStore,
    held: Vec<Claim>,
    workspaces: Workspaces,
}

fn open(config: &NodeConfig, tasks: TaskTracker) -> Result<Opened, StartError> {
    let failed = |source: std::io::Error| StartError::StateDir {
        path: config.state_dir.clone(),
        source,
    };
    fs::create_dir_all(&config.state_dir).map_err(failed)?;
    // Mounts are named by their real paths.
    let state_dir = fs::canonicalize(&config.state_dir).map_err(failed)?;
    if state_dir.to_str().is_none() {
        return Err(failed(std::io::Error::other("its path is not valid UTF-8")));
    }
    let lock = File::create(state_dir.join("node.lock")).map_err(failed)?;
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
        rustix::io::Errno::WOULDBLOCK => StartError::Locked {
            path: state_dir.clone(),
        },
        other => failed(other.into()),
    })?;
    let claims = ClaimStore::open(state_dir.join("claims"))?;
    let (held, damaged) = claims.load()?;
    for error in &damaged {
        tracing::error!(%error, "claim file put aside; its sandbox counts as unclaimed");
    }
    let options = WorkspaceOptions {
        root: state_dir.clone(),
        gids: config.gids.clone(),
        allow_paths: config.allow_paths.clone(),
        git: config.git.clone(),
        strategy: config.strategy,
    };
    let workspaces = Workspaces::open(&options, tasks)?;
    let slots: Vec<PathBuf> = held
        .iter()
        .filter_map(|claim| Some(claim.place.as_ref()?.slot.clone()))
        .collect();
    workspaces.clean_mounts(&slots)?;
    Ok(Opened {
        state_dir,
        lock: StateLock(lock),
        claims,
        held,
        workspaces,
    })
}
