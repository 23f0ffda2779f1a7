//! The end of a sandbox: killed, removed, nothing left.

use std::time::Duration;

use gantry_proto::{ErrorCode, SandboxId};
use tokio::time::Instant;

use super::{Inner, blocking};
use crate::api::{Ending, FleetError};
use crate::docker::{Owned, Trouble};
use crate::link::{ending, is_live};

/// Pause before a removal is tried again, doubled up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

impl Inner {
    pub(super) async fn destroy(&self, id: SandboxId) -> Result<(), FleetError> {
        let _lock = self.lock(id).await;
        // Let go in any case: when Docker is away, reconciliation may finish what this could not.
        self.let_go(id);
        self.remove_all(id).await
    }

    /// Removes container and directories. The caller has the sandbox's lock.
    pub(super) async fn remove_all(&self, id: SandboxId) -> Result<(), FleetError> {
        self.remove_container(id).await?;
        let state = self.state.clone();
        blocking(move || state.remove_sandbox(id)).await
    }

    pub(super) async fn remove_container(&self, id: SandboxId) -> Result<(), FleetError> {
        let trouble = self.trouble("removing a container");
        // The semaphore is never closed.
        let _turn = self.removals.acquire().await;
        let deadline = Instant::now() + self.deadlines.change;
        let mut pause = RETRY_FIRST;
        loop {
            let Some((owned, _)) = self.engine.inspect(id).await.map_err(&trouble)? else {
                return Ok(());
            };
            match self.engine.remove(&owned).await {
                Ok(()) => return Ok(()),
                // Removal in progress, or a device that is busy for a moment.
                Err(again @ (Trouble::Conflict(_) | Trouble::Failed(_))) => {
                    if Instant::now() + pause > deadline {
                        return Err(trouble(again));
                    }
                }
                Err(other) => return Err(trouble(other)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    pub(super) async fn kill(&self, id: SandboxId) -> Result<Ending, FleetError> {
        let _lock = self.lock(id).await;
        self.kill_container(id).await
    }

    /// Kills and waits until Docker says that it is dead. The caller has the sandbox's lock.
    pub(super) async fn kill_container(&self, id: SandboxId) -> Result<Ending, FleetError> {
        let trouble = self.trouble("killing a container");
        let deadline = Instant::now() + self.deadlines.death;
        loop {
            let Some((owned, seen)) = self.engine.inspect(id).await.map_err(&trouble)? else {
                let detail = "the container no longer exists".to_owned();
                return Ok(Ending {
                    detail,
                    ..Ending::default()
                });
            };
            if !is_live(&seen) {
                return Ok(ending(&seen));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(FleetError {
                    code: ErrorCode::DockerRefused,
                    message: format!(
                        "the container did not die within {} s of SIGKILL",
                        self.deadlines.death.as_secs()
                    ),
                    hint: Some(
                        "a process that waits for a device cannot be killed: look at the node's disk and kernel log"
                            .to_owned(),
                    ),
                });
            }
            self.kill_once(&owned, left).await.map_err(&trouble)?;
        }
    }

    async fn kill_once(&self, owned: &Owned, limit: Duration) -> Result<(), Trouble> {
        match self.engine.kill(owned).await {
            // The daemon tried and failed; it may have died by itself.
            Ok(()) | Err(Trouble::Failed(_)) => {}
            Err(trouble) => return Err(trouble),
        }
        match self.engine.wait_stopped(owned, limit).await {
            Ok(()) | Err(Trouble::NotFound(_) | Trouble::TimedOut(_) | Trouble::Failed(_)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }
}
