//! Output and artifacts: bytes that pass by the partition processors, under a live fence.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use gantry_journal::blobs::BlobError;
use gantry_journal::{Chunk, ContentOwner, DataKey, SealError, SegmentError, StreamKey};
use gantry_proto::v1::{Artifact, Assignee, ProcessOutput};
use gantry_proto::{ArtifactId, ErrorCode, NodeId, TenantId, WorkflowId, limits};

use super::{Engine, unreadable};
use crate::api::{Refusal, Verdict};
use crate::core::plan::artifacts;
use crate::processor::Writing;
use crate::processor::load::{Records, open_body, workflow_rows};
use crate::processor::storage::ContentError;

/// The stream of an attempt.
pub(super) fn stream_of(assignee: &Assignee) -> StreamKey {
    StreamKey {
        tenant: assignee.tenant,
        workflow: assignee.workflow,
        task: assignee.task,
        step: assignee.step,
        attempt: assignee.attempt,
    }
}

fn undecided() -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        "the partition is being recovered, or the end of the attempt is being written; try again",
    )
}

pub(crate) fn erased() -> Refusal {
    Refusal::new(ErrorCode::ContentErased, "what users wrote in this workflow was erased")
}

pub(super) fn segment_refusal(error: SegmentError) -> Refusal {
    match error {
        SegmentError::Gap { expected, got } => Refusal::new(
            ErrorCode::Conflict,
            format!("output from {expected} on is missing; {got} came"),
        )
        .with_hint(format!("Send again from {expected} on.")),
        SegmentError::Finished { .. } => Refusal::new(ErrorCode::Conflict, error.to_string()),
        SegmentError::ChunkTooLarge { .. } => Refusal::new(ErrorCode::TooLarge, error.to_string()),
        SegmentError::Seal(SealError::Erased) | SegmentError::Destroyed => erased(),
        other => Refusal::new(
            ErrorCode::StorageUnavailable,
            format!("the output cannot be stored or read: {other}"),
        ),
    }
}

pub(super) fn blob_refusal(error: BlobError) -> Refusal {
    match error {
        BlobError::TooLarge { limit_bytes } => Refusal::new(
            ErrorCode::TooLarge,
            format!("the file is larger than {limit_bytes} bytes"),
        ),
        BlobError::NotFound => Refusal::new(ErrorCode::NotFound, "the artifact is not there"),
        other => Refusal::new(
            ErrorCode::StorageUnavailable,
            format!("the artifact cannot be stored or read: {other}"),
        ),
    }
}

impl Engine {
    /// Whether exactly this attempt is live at this node.
    pub(super) fn check_live(&self, node: NodeId, assignee: &Assignee) -> Result<Verdict, Refusal> {
        let partition = self.partition(assignee.workflow.partition())?;
        partition.shared.live.check(node, assignee).ok_or_else(undecided)
    }

    fn segment_failure(&self, error: SegmentError) -> Refusal {
        if matches!(error, SegmentError::Unsynced { .. }) {
            self.parts.fatal.set(format!("output cannot be made durable: {error}"));
        }
        segment_refusal(error)
    }

    pub(super) async fn data_key(&self, tenant: TenantId, owner: impl Into<ContentOwner>) -> Result<DataKey, Refusal> {
        let owner = owner.into().key_id();
        self.blocking(move |storage| {
            storage
                .key(tenant, owner)
                .map(|key| (*key).clone())
                .map_err(|error| match error {
                    ContentError::Seal(SealError::Erased) => erased(),
                    other => unreadable(other),
                })
        })
        .await
    }

    pub(super) async fn store_output(
        &self,
        node: NodeId,
        assignee: Assignee,
        chunks: Vec<ProcessOutput>,
    ) -> Result<(Verdict, u64), Refusal> {
        let partition = self.partition(assignee.workflow.partition())?;
        let writing = partition.shared.live.writing(node, &assignee).ok_or_else(undecided)?;
        if matches!(writing, Writing::Stale) {
            return Ok((Verdict::Stale, 0));
        }
        let stream = stream_of(&assignee);
        let key = self.data_key(assignee.tenant, assignee.workflow).await?;
        let chunks = chunks
            .into_iter()
            .map(|chunk| Chunk {
                seq: chunk.seq,
                stream: chunk.stream(),
                at_ms: chunk.at_ms,
                data: chunk.data,
            })
            .collect();
        self.segments
            .append(&stream, &key, chunks)
            .await
            .map_err(|error| self.segment_failure(error))?;
        let durable = self
            .segments
            .durable(&stream)
            .await
            .map_err(|error| self.segment_failure(error))?;
        drop(writing);
        self.parts.observer.workflow_changed(assignee.tenant, assignee.workflow);
        Ok((Verdict::Accepted, durable))
    }

    /// All output up to `last_seq` is durable, so that nothing is missing behind an end.
    pub(super) async fn require_output(&self, assignee: &Assignee, last_seq: u64) -> Result<(), Refusal> {
        if last_seq == 0 {
            return Ok(());
        }
        let durable = self
            .segments
            .durable(&stream_of(assignee))
            .await
            .map_err(|error| self.segment_failure(error))?;
        if durable < last_seq {
            let message = format!("the result says that output goes to {last_seq}, but only {durable} is stored");
            let hint = format!("Send the output after {durable} again, then the result.");
            return Err(Refusal::new(ErrorCode::Conflict, message).with_hint(hint));
        }
        Ok(())
    }

    pub(super) async fn store_artifact(
        &self,
        node: NodeId,
        assignee: Assignee,
        name: String,
        content_type: Option<String>,
        data: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<Artifact, Refusal> {
        let stale = || Refusal::new(ErrorCode::StaleFence, "the lease has passed to another holder");
        if self.check_live(node, &assignee)? == Verdict::Stale {
            return Err(stale());
        }
        let relative = !name.starts_with('/')
            && !name
                .split('/')
                .any(|part| part.is_empty() || part == "." || part == "..");
        if !relative || name.contains('\0') {
            return Err(Refusal::new(
                ErrorCode::ArtifactRefused,
                "an artifact is named by a path below the workspace",
            ));
        }
        // The same attempt and name give the same id: sending it again replaces it by the same bytes.
        let id = ArtifactId::derive(
            assignee.workflow.time_ms(),
            assignee.workflow.partition(),
            &[
                assignee.task.as_bytes(),
                &assignee.step.to_be_bytes(),
                &assignee.attempt.to_be_bytes(),
                name.as_bytes(),
            ],
        );
        let key = self.data_key(assignee.tenant, assignee.workflow).await?;
        let stored = self
            .blobs
            .put_stream(
                assignee.tenant,
                assignee.workflow,
                id,
                &key,
                data,
                limits::ARTIFACT_BYTES_MAX,
            )
            .await
            .map_err(blob_refusal)?;
        // The lease may have passed on meanwhile: then nobody will name what was stored.
        if self.check_live(node, &assignee)? == Verdict::Stale {
            return Err(stale());
        }
        Ok(Artifact {
            id,
            name,
            size_bytes: stored.size_bytes,
            sha256: Bytes::copy_from_slice(&stored.sha256),
            content_type,
        })
    }

    /// Finds a journaled artifact of a workflow.
    pub(super) async fn find_artifact(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        artifact: ArtifactId,
    ) -> Result<Artifact, Refusal> {
        self.blocking(move |storage| {
            let rows = workflow_rows(storage.store().as_ref(), tenant, workflow).map_err(unreadable)?;
            let mut found = rows.ok_or_else(super::not_found)?;
            open_body(&mut found, &mut Records::new(storage, workflow.partition())).map_err(unreadable)?;
            if found.body.is_none() {
                return Err(erased());
            }
            let taken = found.body.iter().flat_map(|body| body.uploads.values());
            let all: BTreeMap<ArtifactId, &Artifact> = found
                .tasks
                .iter()
                .flat_map(artifacts)
                .chain(taken)
                .map(|each| (each.id, each))
                .collect();
            all.get(&artifact)
                .map(|found| (*found).clone())
                .ok_or_else(super::not_found)
        })
        .await
    }

    pub(super) async fn open_artifact(
        &self,
        tenant: TenantId,
        workflow: WorkflowId,
        artifact: ArtifactId,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Refusal> {
        let key = self.data_key(tenant, workflow).await?;
        let stream = self
            .blobs
            .get_stream(tenant, workflow, artifact, &key, range)
            .await
            .map_err(blob_refusal)?;
        Ok(stream.map(|part| part.map_err(std::io::Error::other)).boxed())
    }
}
