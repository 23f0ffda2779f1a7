//! What is there, held against what is claimed. Labels find containers; the caller's claims decide.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt};
use gantry_proto::SandboxId;

use super::{Inner, blocking};
use crate::api::{FleetError, Reconciled};

/// Removals under way at once; the removal semaphore bounds what reaches Docker.
const REMOVALS_MAX: usize = 8;

impl Inner {
    pub(super) async fn reconcile(&self, claimed: &BTreeSet<SandboxId>) -> Result<Reconciled, FleetError> {
        let listed = self.engine.list().await.map_err(self.trouble("listing containers"))?;
        let mut live = BTreeSet::new();
        let mut left = BTreeSet::new();
        for container in listed {
            let sandbox = container.owned.sandbox();
            if !claimed.contains(&sandbox) {
                left.insert(sandbox);
            } else if container.live {
                live.insert(sandbox);
            }
        }
        let state = self.state.clone();
        let with_dirs = blocking(move || state.sandboxes()).await?;
        let containers = left.clone();
        left.extend(with_dirs.into_iter().filter(|sandbox| !claimed.contains(sandbox)));

        let outcomes: Vec<(SandboxId, Result<bool, FleetError>)> = stream::iter(left)
            .map(|sandbox| async move { (sandbox, self.remove_left_over(sandbox).await) })
            .buffer_unordered(REMOVALS_MAX)
            .collect()
            .await;
        let mut removed = Vec::new();
        let mut failed = None;
        for (sandbox, outcome) in outcomes {
            match outcome {
                Ok(true) if containers.contains(&sandbox) => removed.push(sandbox.to_string()),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%sandbox, %error, "a left-over sandbox could not be removed");
                    failed.get_or_insert(error);
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        removed.sort_unstable();
        let missing = claimed
            .iter()
            .copied()
            .filter(|sandbox| !live.contains(sandbox))
            .collect();
        Ok(Reconciled {
            kept: live.into_iter().collect(),
            removed,
            missing,
        })
    }

    /// Removes a sandbox that no claim names. False: it was claimed from this process after the caller made its list.
    async fn remove_left_over(&self, sandbox: SandboxId) -> Result<bool, FleetError> {
        let _lock = self.lock(sandbox).await;
        if self.held.lock().contains_key(&sandbox) {
            return Ok(false);
        }
        self.remove_all(sandbox).await?;
        Ok(true)
    }
}
