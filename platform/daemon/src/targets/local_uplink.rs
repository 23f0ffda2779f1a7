//! The node's line to a coordinator in the same process: the same messages, through channels.

use std::sync::Arc;

use async_trait::async_trait;
use gantry_coordinator::Coordinator;
use gantry_engine::Engine;
use gantry_engine::api::{NodePort as _, Refusal, Serves};
use gantry_proto::v1::{Artifact, ArtifactHeader, Fault, GetArtifactRequest};
use gantry_runtime_node::{ByteStream, Connection, Uplink, UplinkError};

/// A node's line to the engine beside it. It serves every tenant: it is the installation's own.
pub(crate) struct LocalUplink {
    coordinator: Arc<Coordinator>,
    engine: Arc<Engine>,
}

impl LocalUplink {
    pub(crate) fn new(coordinator: Arc<Coordinator>, engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self { coordinator, engine })
    }
}

fn refused(refusal: Refusal) -> UplinkError {
    UplinkError::Refused(Fault {
        code: refusal.code.as_str().to_owned(),
        message: refusal.message,
        hint: refusal.hint,
    })
}

#[async_trait]
impl Uplink for LocalUplink {
    async fn connect(&self) -> Result<Connection, UplinkError> {
        Ok(self.coordinator.open_session(Serves::All))
    }

    async fn put_artifact(&self, header: ArtifactHeader, data: ByteStream) -> Result<Artifact, UplinkError> {
        let ArtifactHeader {
            assignee,
            name,
            content_type,
            node,
        } = header;
        self.engine
            .put_artifact(node, assignee, name, content_type, data)
            .await
            .map_err(refused)
    }

    async fn get_artifact(&self, request: GetArtifactRequest) -> Result<ByteStream, UplinkError> {
        let GetArtifactRequest {
            assignee,
            artifact,
            node,
        } = request;
        self.engine
            .get_artifact(node, assignee, artifact)
            .await
            .map_err(refused)
    }
}
