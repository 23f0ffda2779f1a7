//! The fleet on Docker: what the operations share, and who owns what runs.
//!
//! Every operation on one sandbox holds that sandbox's lock, so a claim and a destroy of it never overlap. `held` are the sandboxes that this
//! process gave out or is making: reconciliation leaves them alone even when the caller's list of claims is older than they are.

mod claim;
mod destroy;
mod reconcile;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gantry_proto::{ErrorCode, SandboxId};
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Adoptable, Ending, Fleet, FleetError, FleetHealth, Image, Profile, Reconciled, Sandbox};
use crate::config::{Deadlines, FleetConfig, PullPolicy};
use crate::docker::{Engine, Trouble};
use crate::host::{StateDir, StateError};
use crate::image::Catalog;

/// Longest name of an installation: it stands in labels and filters.
const INSTALLATION_BYTES_MAX: usize = 64;

/// The fleet of one node, on the local Docker.
///
/// Dropping it lets go of the lines and leaves the containers running, as [`DockerFleet::close`] does, which also waits.
#[derive(Debug)]
pub struct DockerFleet {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    engine: Arc<Engine>,
    state: Arc<StateDir>,
    catalog: Catalog,
    labels: LabelSource,
    pull: PullPolicy,
    deadlines: Deadlines,
    starts: Semaphore,
    removals: Semaphore,
    locks: Mutex<HashMap<SandboxId, Arc<tokio::sync::Mutex<()>>>>,
    held: Mutex<HashMap<SandboxId, CancellationToken>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

#[derive(Debug)]
struct LabelSource {
    installation: String,
    node: gantry_proto::NodeId,
}

impl DockerFleet {
    /// Opens the state directory and installs the supervisor. Docker need not be there yet.
    ///
    /// # Errors
    /// `invalid-request` when a name in the configuration cannot be used, `conflict` when another process has the state directory open,
    /// `disk-full` and `internal` when it cannot be made ready.
    pub async fn open(config: FleetConfig) -> Result<Self, FleetError> {
        let FleetConfig {
            docker_socket,
            state_dir,
            installation,
            node,
            supervisor,
            pull,
            starts_at_once,
            removals_at_once,
            deadlines,
        } = config;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if installation.is_empty() || installation.len() > INSTALLATION_BYTES_MAX || !installation.bytes().all(allowed)
        {
            return Err(FleetError {
                code: ErrorCode::InvalidRequest,
                message: format!("installation `{}` cannot be a label", installation.escape_debug()),
                hint: Some(format!("use 1 to {INSTALLATION_BYTES_MAX} of a-z, 0-9, `.`, `_`, `-`")),
            });
        }
        let state = blocking(move || StateDir::open(&state_dir, &supervisor)).await?;
        let engine = Engine::new(docker_socket, installation.clone(), node, deadlines);
        Ok(Self {
            inner: Arc::new(Inner {
                engine: Arc::new(engine),
                state: Arc::new(state),
                catalog: Catalog::new(),
                labels: LabelSource { installation, node },
                pull,
                deadlines,
                starts: Semaphore::new(starts_at_once.max(1)),
                removals: Semaphore::new(removals_at_once.max(1)),
                locks: Mutex::default(),
                held: Mutex::default(),
                tasks: TaskTracker::new(),
                closing: CancellationToken::new(),
            }),
        })
    }

    /// Lets go of every line, waits for what is under way, and leaves the containers running, to be adopted later. Where no sandbox is left, the
    /// shared mount of the state directory goes too.
    ///
    /// # Errors
    /// When that mount cannot be taken away; everything else is done then.
    pub async fn close(&self) -> Result<(), FleetError> {
        self.inner.closing.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        let state = self.inner.state.clone();
        blocking(move || state.release()).await
    }
}

impl Drop for DockerFleet {
    fn drop(&mut self) {
        self.inner.closing.cancel();
    }
}

impl Inner {
    /// Takes a sandbox's lock.
    async fn lock(&self, sandbox: SandboxId) -> SandboxLock<'_> {
        let mutex = self.locks.lock().entry(sandbox).or_default().clone();
        SandboxLock {
            inner: self,
            sandbox,
            guard: Some(mutex.lock_owned().await),
        }
    }

    /// Lets go of a sandbox's line, if there is one.
    fn let_go(&self, sandbox: SandboxId) {
        if let Some(line) = self.held.lock().remove(&sandbox) {
            line.cancel();
        }
    }

    fn trouble(&self, doing: &str) -> impl Fn(Trouble) -> FleetError {
        let doing = doing.to_owned();
        let socket = self.engine.socket().to_owned();
        move |trouble| trouble.while_doing(&doing, &socket)
    }

    async fn health(&self) -> FleetHealth {
        let limit = self.deadlines.health;
        let run = async {
            self.engine.ping().await?;
            tokio::try_join!(self.engine.info(), self.engine.list())
        };
        let answer = tokio::time::timeout(limit, run)
            .await
            .unwrap_or(Err(Trouble::TimedOut(limit)));
        match answer {
            Ok((info, list)) => {
                let fault = shortcoming(&info);
                let containers = list.len() as u64;
                FleetHealth {
                    docker_ok: true,
                    fault: fault.map(Into::into),
                    containers,
                }
            }
            Err(trouble) => {
                let error = trouble.while_doing("asking Docker how it is", self.engine.socket());
                FleetHealth {
                    docker_ok: false,
                    fault: Some(error.into()),
                    containers: 0,
                }
            }
        }
    }
}

/// What keeps this Docker from running sandboxes as they must be, if anything: said here, before every claim fails for it.
fn shortcoming(info: &bollard::models::SystemInfo) -> Option<FleetError> {
    let limits = [
        ("memory", info.memory_limit),
        ("swap", info.swap_limit),
        ("pids", info.pids_limit),
        ("CPU time", info.cpu_cfs_quota),
    ];
    if let Some((what, _)) = limits.into_iter().find(|(_, can)| *can == Some(false)) {
        return Some(FleetError {
            code: ErrorCode::DockerRefused,
            message: format!("Docker cannot limit {what} on this machine"),
            hint: Some(
                "use cgroup v2, or enable the controllers on the kernel's command line (`cgroup_enable=memory swapaccount=1`); \
                 `docker info` lists what is missing"
                    .to_owned(),
            ),
        });
    }
    let options = info.security_options.iter().flatten();
    let remapped = ["name=userns", "name=rootless"];
    if options
        .into_iter()
        .any(|option| remapped.iter().any(|name| option.starts_with(name)))
    {
        return Some(FleetError {
            code: ErrorCode::DockerRefused,
            message: "Docker maps root to another uid, which this version's socket directories do not allow for"
                .to_owned(),
            hint: Some("run the daemon as root and without `userns-remap`".to_owned()),
        });
    }
    None
}

/// A held lock; the last to leave takes the entry away.
struct SandboxLock<'a> {
    inner: &'a Inner,
    sandbox: SandboxId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Drop for SandboxLock<'_> {
    fn drop(&mut self) {
        let mut locks = self.inner.locks.lock();
        self.guard = None;
        // One in the map alone: nobody waits. Taken under the map's lock, where new waiters come from.
        if locks
            .get(&self.sandbox)
            .is_some_and(|mutex| Arc::strong_count(mutex) == 1)
        {
            locks.remove(&self.sandbox);
        }
    }
}

/// Runs blocking work on the state directory off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StateError> + Send + 'static,
) -> Result<T, FleetError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(state_error),
        Err(panic) => Err(internal(format!("work on the state directory was aborted: {panic}"))),
    }
}

fn internal(message: String) -> FleetError {
    FleetError {
        code: ErrorCode::Internal,
        message,
        hint: None,
    }
}

fn state_error(error: StateError) -> FleetError {
    let full = matches!(&error, StateError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull);
    let denied =
        matches!(&error, StateError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied);
    let (code, hint) = match &error {
        StateError::Busy(_) => (
            ErrorCode::Conflict,
            Some("stop the other node process, or give this one a directory of its own"),
        ),
        StateError::Supervisor(_) => (
            ErrorCode::InvalidRequest,
            Some("build the supervisor first (`deploy/up` does)"),
        ),
        StateError::Name(_) => (ErrorCode::InvalidRequest, None),
        _ if full => (ErrorCode::DiskFull, Some("free space on the node's disk")),
        _ if denied => (ErrorCode::Internal, Some("the node needs root, to mount workspaces")),
        _ => (ErrorCode::Internal, None),
    };
    FleetError {
        code,
        message: error.to_string(),
        hint: hint.map(str::to_owned),
    }
}

#[async_trait::async_trait]
impl Fleet for DockerFleet {
    async fn health(&self) -> FleetHealth {
        self.inner.health().await
    }

    async fn image(&self, name: &str) -> Result<Image, FleetError> {
        self.inner.catalog.find(&self.inner.engine, name, self.inner.pull).await
    }

    async fn claim(&self, id: SandboxId, profile: &Profile) -> Result<Sandbox, FleetError> {
        let (inner, profile) = (self.inner.clone(), profile.clone());
        let (done, answer) = oneshot::channel();
        // In a task of its own, so that a dropped call does not leave a container half made: whoever is not there to take it gets it destroyed.
        self.inner.tasks.spawn(async move {
            let claimed = inner.claim(id, profile).await;
            if let Err(Ok(_unwanted)) = done.send(claimed)
                && let Err(error) = inner.destroy(id).await
            {
                tracing::warn!(sandbox = %id, %error, "a sandbox that nobody waited for is left to reconciliation");
            }
        });
        answer
            .await
            .unwrap_or_else(|_| Err(internal("a claim was aborted".to_owned())))
    }

    async fn adopt(&self, adoptable: &Adoptable) -> Result<Result<Sandbox, Ending>, FleetError> {
        self.inner.adopt(adoptable).await
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), FleetError> {
        self.inner.destroy(id).await
    }

    async fn kill(&self, id: SandboxId) -> Result<Ending, FleetError> {
        self.inner.kill(id).await
    }

    async fn reconcile(&self, claimed: &BTreeSet<SandboxId>) -> Result<Reconciled, FleetError> {
        self.inner.reconcile(claimed).await
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::SystemInfo;

    use super::*;

    #[test]
    fn a_docker_that_cannot_keep_the_limits_is_named() {
        let able = SystemInfo {
            memory_limit: Some(true),
            swap_limit: Some(true),
            pids_limit: Some(true),
            cpu_cfs_quota: Some(true),
            security_options: Some(vec!["name=seccomp,profile=default".to_owned()]),
            ..Default::default()
        };
        assert!(shortcoming(&able).is_none());
        let swapping = SystemInfo {
            swap_limit: Some(false),
            ..able.clone()
        };
        assert!(shortcoming(&swapping).unwrap().message.contains("swap"));
        let remapped = SystemInfo {
            security_options: Some(vec!["name=userns".to_owned()]),
            ..able
        };
        assert_eq!(shortcoming(&remapped).unwrap().code, ErrorCode::DockerRefused);
    }
}
