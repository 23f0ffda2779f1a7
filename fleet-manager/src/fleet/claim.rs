//! From a profile to a connected supervisor, in the stages that pools will keep containers in: created, started, connected.

use std::os::unix::net::UnixListener as BlockingListener;

use bollard::models::ContainerInspectResponse;
use gantry_proto::{ErrorCode, SandboxId};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{Inner, blocking, internal};
use crate::api::{Adoptable, Ending, FleetError, Link, Profile, Sandbox};
use crate::docker::{Labels, Owned, Trouble};
use crate::host::{NONCE_BYTES, StateError, listen};
use crate::image::refused;
use crate::link::{ContactError, FirstContact, Line, LineConfig, Steering, channels, ending, is_live, watch};
use crate::profile::{HardenedProfile, Place, check_running, compare};

/// Must be directories of the image's own, not links: the runtime writes beneath them as root.
const KERNEL_DIRS: [&str; 3] = ["/dev", "/proc", "/sys"];
/// Of Go's file modes.
const MODE_DIR: u32 = 1 << 31;

/// Compared with what was asked, and never started.
struct Created {
    owned: Owned,
    nonce: [u8; NONCE_BYTES],
    listener: BlockingListener,
}

/// Running; its supervisor has not been heard of.
struct Started {
    created: Created,
    pid: u32,
}

impl Inner {
    pub(super) async fn claim(
        self: &std::sync::Arc<Self>,
        id: SandboxId,
        profile: Profile,
    ) -> Result<Sandbox, FleetError> {
        if self.closing.is_cancelled() {
            return Err(closing());
        }
        let _lock = self.lock(id).await;
        // Held from now on: reconciliation must not take away what is being made. An earlier line to the same sandbox ends.
        let cancel = self.closing.child_token();
        if let Some(earlier) = self.held.lock().insert(id, cancel.clone()) {
            earlier.cancel();
        }
        match self.connected_sandbox(id, profile, &cancel).await {
            Ok(sandbox) => Ok(sandbox),
            Err(error) => {
                self.let_go(id);
                if let Err(left) = self.remove_all(id).await {
                    tracing::warn!(sandbox = %id, error = %left, "a failed sandbox is left to reconciliation");
                }
                Err(error)
            }
        }
    }

    async fn connected_sandbox(
        &self,
        id: SandboxId,
        profile: Profile,
        cancel: &CancellationToken,
    ) -> Result<Sandbox, FleetError> {
        let image = self.catalog.by_id(&self.engine, &profile.image).await?;
        let profile = HardenedProfile::new(image, profile)?;
        let started = {
            // The semaphore is never closed.
            let _turn = self.starts.acquire().await;
            let created = self.created(id, &profile).await?;
            self.started(created).await?
        };
        self.connected(id, started, cancel).await
    }

    async fn created(&self, id: SandboxId, profile: &HardenedProfile) -> Result<Created, FleetError> {
        let state = self.state.clone();
        let (nonce, listener) = blocking(move || {
            let nonce = state.make_sandbox(id)?;
            let dir = state.socket_dir(id);
            let listener = listen(&dir).map_err(|source| StateError::Io { path: dir, source })?;
            Ok((nonce, listener))
        })
        .await?;
        let place = Place {
            labels: Labels {
                installation: self.labels.installation.clone(),
                node: self.labels.node,
                sandbox: id,
                profile: profile.digest(),
                generation: self.state.generation(),
            },
            slot: self.state.slot(id),
            socket_dir: self.state.socket_dir(id),
            supervisor: self.state.supervisor().to_owned(),
            hosts_file: self.state.hosts_file(),
            resolv_file: self.state.resolv_file(),
        };
        let container = profile.container(&place);
        let trouble = self.trouble("creating a container");
        match self.engine.create(&container).await {
            Err(Trouble::Conflict(_)) => {
                // An earlier try at this sandbox; it is ours by its labels or left alone.
                self.remove_container(id).await?;
                self.engine.create(&container).await.map_err(&trouble)?;
            }
            other => other.map_err(&trouble)?,
        }
        let (owned, seen) = self
            .engine
            .inspect(id)
            .await
            .map_err(&trouble)?
            .ok_or_else(|| vanished("created"))?;
        compare(container.body(), &seen).map_err(|difference| FleetError {
            code: ErrorCode::DockerRefused,
            message: format!("{difference}; the container was not started"),
            hint: Some("look for a daemon default or an authorization plugin that rewrites containers, or an engine too old for the field".to_owned()),
        })?;
        self.check_root(&owned, profile).await?;
        Ok(Created { owned, nonce, listener })
    }

    /// Checks once per image, on its first container, that the kernel's directories are no links.
    async fn check_root(&self, owned: &Owned, profile: &HardenedProfile) -> Result<(), FleetError> {
        let image = &profile.image().id;
        if self.catalog.root_seen(image) {
            return Ok(());
        }
        let trouble = self.trouble("looking at the image's root");
        for dir in KERNEL_DIRS {
            let stat = self.engine.stat_unstarted(owned, dir).await.map_err(&trouble)?;
            if stat.is_some_and(|stat| stat.file_mode & MODE_DIR == 0) {
                let hint = "build the image with plain directories /dev, /proc and /sys, or without them";
                return Err(refused(&image.0, &format!("{dir} is not a directory in it"), hint));
            }
        }
        self.catalog.remember_root(image);
        Ok(())
    }

    async fn started(&self, created: Created) -> Result<Started, FleetError> {
        let trouble = self.trouble("starting a container");
        self.engine.start(&created.owned).await.map_err(&trouble)?;
        let inspected = self.engine.inspect(created.owned.sandbox()).await.map_err(&trouble)?;
        let (_, seen) = inspected.ok_or_else(|| vanished("started"))?;
        let pid = live_pid(&seen).map_err(|ending| never_connected(&ContactError::Gone(ending)))?;
        match check_running(pid) {
            Ok(()) => Ok(Started { created, pid }),
            Err(Some(difference)) => Err(FleetError {
                code: ErrorCode::DockerRefused,
                message: format!("the container runs, but not as it was asked: {difference}"),
                hint: Some("check the engine's runtime (`docker info`); `runc` is the one that is tested".to_owned()),
            }),
            // It died in between, which the watch tells better.
            Err(None) => Ok(Started { created, pid }),
        }
    }

    async fn connected(
        &self,
        id: SandboxId,
        started: Started,
        cancel: &CancellationToken,
    ) -> Result<Sandbox, FleetError> {
        let Started {
            created: Created { owned, nonce, listener },
            pid,
        } = started;
        let (tell, first) = oneshot::channel();
        let container = owned.id().to_owned();
        let link = self.open_line(
            owned,
            LineConfig {
                sandbox: id,
                pid,
                nonce,
            },
            listener,
            cancel,
            Some(tell),
        )?;
        let limit = self.deadlines.hello;
        match tokio::time::timeout(limit, first).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => return Err(never_connected(&error)),
            Ok(Err(_)) => return Err(closing()),
            Err(_) => {
                let ending = self.kill_container(id).await.ok();
                let detail = ending
                    .map(|ending| format!("; killed: {}", ending.detail))
                    .unwrap_or_default();
                return Err(FleetError {
                    code: ErrorCode::SupervisorFault,
                    message: format!("the supervisor did not connect within {} s{detail}", limit.as_secs()),
                    hint: Some("look at the machine's load; a supervisor connects within a second".to_owned()),
                });
            }
        }
        Ok(Sandbox {
            id,
            container,
            slot: self.state.slot(id),
            nonce,
            link,
        })
    }

    /// Starts the two tasks of a line.
    fn open_line(
        &self,
        owned: Owned,
        config: LineConfig,
        listener: BlockingListener,
        cancel: &CancellationToken,
        first: Option<oneshot::Sender<FirstContact>>,
    ) -> Result<Link, FleetError> {
        let listener = UnixListener::from_std(listener)
            .map_err(|error| internal(format!("a sandbox's socket cannot be listened on: {error}")))?;
        let (link, ends) = channels();
        let (tell, gone) = oneshot::channel();
        self.tasks
            .spawn(watch(self.engine.clone(), owned, cancel.clone(), tell));
        let steering = Steering {
            cancel: cancel.clone(),
            gone,
            first,
        };
        self.tasks.spawn(Line::new(config, ends).run(listener, steering));
        Ok(link)
    }

    pub(super) async fn adopt(&self, adoptable: &Adoptable) -> Result<Result<Sandbox, Ending>, FleetError> {
        if self.closing.is_cancelled() {
            return Err(closing());
        }
        let id = adoptable.id;
        let _lock = self.lock(id).await;
        let trouble = self.trouble("looking for a sandbox from before the restart");
        let seen = self.engine.inspect(id).await.map_err(trouble)?;
        let Some((owned, seen)) = seen.filter(|(owned, _)| owned.id() == adoptable.container) else {
            let detail = "the container no longer exists".to_owned();
            return Ok(Err(Ending {
                detail,
                ..Ending::default()
            }));
        };
        let pid = match live_pid(&seen) {
            Ok(pid) => pid,
            Err(ending) => return Ok(Err(ending)),
        };
        let dir = self.state.socket_dir(id);
        let listener = blocking(move || listen(&dir).map_err(|source| StateError::Io { path: dir, source })).await?;
        let cancel = self.closing.child_token();
        let config = LineConfig {
            sandbox: id,
            pid,
            nonce: adoptable.nonce,
        };
        let container = owned.id().to_owned();
        let link = self.open_line(owned, config, listener, &cancel, None)?;
        if let Some(earlier) = self.held.lock().insert(id, cancel) {
            earlier.cancel();
        }
        Ok(Ok(Sandbox {
            id,
            container,
            slot: self.state.slot(id),
            nonce: adoptable.nonce,
            link,
        }))
    }
}

fn live_pid(seen: &ContainerInspectResponse) -> Result<u32, Ending> {
    let pid = seen
        .state
        .as_ref()
        .and_then(|state| state.pid)
        .and_then(|pid| u32::try_from(pid).ok());
    pid.filter(|pid| *pid > 0 && is_live(seen)).ok_or_else(|| ending(seen))
}

fn vanished(stage: &str) -> FleetError {
    FleetError {
        code: ErrorCode::DockerRefused,
        message: format!("a container was removed by somebody else right after it was {stage}"),
        hint: None,
    }
}

fn never_connected(error: &ContactError) -> FleetError {
    let code = match error {
        ContactError::Refused(crate::link::HandshakeError::Version { .. }) => ErrorCode::ProtocolMismatch,
        _ => ErrorCode::SupervisorFault,
    };
    FleetError {
        code,
        message: error.to_string(),
        hint: None,
    }
}

fn closing() -> FleetError {
    FleetError {
        code: ErrorCode::Conflict,
        message: "the fleet is closing".to_owned(),
        hint: None,
    }
}
