//! Copying files of one workflow for another one that is to be: they become its own, under its key, before it is submitted.

use std::collections::BTreeMap;

use gantry_proto::v1::Artifact;
use gantry_proto::{ArtifactId, ErrorCode, PartitionId, TenantId, WorkflowId, limits};

use super::{Hold, entropy};
use crate::api::Refusal;
use crate::engine::Engine;
use crate::engine::content::blob_refusal;

/// Files that were copied for a workflow to be.
pub(crate) struct Copied {
    /// The id that it is to be submitted under.
    pub(crate) workflow: WorkflowId,
    /// New ids by old ones.
    pub(crate) ids: BTreeMap<ArtifactId, ArtifactId>,
    /// Until it is journaled.
    pub(crate) hold: Hold,
}

impl Engine {
    /// Copies artifacts of `from` for a workflow of `partition`. Dropping the future leaves what a sweep removes.
    pub(in crate::engine) async fn copy_artifacts(
        &self,
        tenant: TenantId,
        from: WorkflowId,
        partition: PartitionId,
        artifacts: &[Artifact],
    ) -> Result<Copied, Refusal> {
        let bytes = artifacts.iter().map(|artifact| artifact.size_bytes).sum::<u64>();
        if bytes > limits::CARRIED_ARTIFACTS_BYTES_MAX {
            let message = format!(
                "the artifacts to be carried over have {bytes} bytes; the limit is {}",
                limits::CARRIED_ARTIFACTS_BYTES_MAX
            );
            return Err(Refusal::new(ErrorCode::TooLarge, message)
                .with_hint("Begin from an earlier task, which stores them again."));
        }
        let workflow = WorkflowId::new(self.parts.clock.now_ms(), partition, entropy()?);
        let hold = self.hold(tenant, workflow.into())?;
        self.blobs.stage(tenant, workflow).await.map_err(blob_refusal)?;
        let mut ids = BTreeMap::new();
        for artifact in artifacts {
            let id = ArtifactId::derive(
                workflow.time_ms(),
                workflow.partition(),
                &[b"carried", workflow.as_bytes(), artifact.id.as_bytes()],
            );
            let content = self.open_artifact(tenant, from, artifact.id, None).await?;
            let copied = self
                .blobs
                .put_stream(tenant, workflow, id, hold.key(), content, artifact.size_bytes)
                .await
                .map_err(blob_refusal)?;
            if copied.sha256[..] != artifact.sha256[..] {
                let message = format!(
                    "artifact `{}` is not what was stored; nothing was submitted",
                    artifact.name
                );
                return Err(Refusal::new(ErrorCode::StorageUnavailable, message));
            }
            ids.insert(artifact.id, id);
        }
        Ok(Copied { workflow, ids, hold })
    }
}
