//! The node protocol over gRPC. A node proves itself with a node token, on every call.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use gantry_directory::{Directory, ManageError, NodeIdentity};
use gantry_engine::api::{NodePort, Refusal, Serves};
use gantry_proto::v1::node_service_server::{NodeService, NodeServiceServer};
use gantry_proto::v1::{
    ArtifactChunk, GetArtifactRequest, IdentifyReply, IdentifyRequest, NodeToServer, PutArtifactReply, ServerToNode,
};
use gantry_proto::v1::{node_to_server, server_to_node};
use gantry_proto::{ErrorCode, NodeId, NodeTokenId, TenantId, limits};
use parking_lot::Mutex;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Coordinator;

/// Bytes of one message that carries artifact data.
const ARTIFACT_CHUNK_BYTES: usize = 256 << 10;

/// How long a stream may take to say who it is.
pub(crate) const REGISTER_DEADLINE: Duration = Duration::from_secs(10);

/// How long a session may outlive the revocation of its token.
pub(crate) const TOKEN_RECHECK: Duration = Duration::from_secs(10);

/// The gRPC service that nodes dial.
pub struct NodeServer {
    coordinator: Arc<Coordinator>,
    directory: Arc<dyn Directory>,
    /// Which token each node that had a session in this process joined with: artifacts travel beside the session, under the same token.
    speakers: Mutex<HashMap<NodeId, NodeTokenId>>,
}

impl NodeServer {
    /// The service, ready to be added to a tonic server.
    #[must_use]
    pub fn service(coordinator: Arc<Coordinator>, directory: Arc<dyn Directory>) -> NodeServiceServer<Self> {
        NodeServiceServer::new(Self {
            coordinator,
            directory,
            speakers: Mutex::default(),
        })
        .max_decoding_message_size(limits::FRAME_BYTES_MAX * 4)
        .max_encoding_message_size(limits::FRAME_BYTES_MAX * 4)
    }

    async fn authenticate<T>(&self, request: &Request<T>) -> Result<NodeIdentity, Status> {
        authenticate(&self.directory, request).await
    }

    fn port(&self) -> Result<&Arc<dyn NodePort>, Status> {
        self.coordinator
            .port()
            .ok_or_else(|| Status::unavailable("the engine is starting"))
    }
}

/// Who calls, by the token in the call's metadata.
pub(crate) async fn authenticate<T>(
    directory: &Arc<dyn Directory>,
    request: &Request<T>,
) -> Result<NodeIdentity, Status> {
    let token = request
        .metadata()
        .get("authorization")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .ok_or_else(|| Status::unauthenticated("a node token is needed: `gantry node token create NAME` makes one"))?;
    directory.authenticate_node(token).await.map_err(|error| {
        tracing::warn!(%error, "node token refused");
        Status::unauthenticated("the node token is not valid: it is unknown, revoked or expired")
    })
}

pub(crate) fn serves(identity: &NodeIdentity) -> Serves {
    match identity.serves {
        gantry_directory::Serves::All => Serves::All,
        gantry_directory::Serves::Tenant(tenant) => Serves::Tenant(tenant),
    }
}

impl NodeServer {
    /// A token speaks for the node that it joined with, and for no other.
    async fn join(&self, identity: &NodeIdentity, node: NodeId) -> Result<(), Status> {
        match self.directory.bind_node(Some(identity.token), node).await {
            Ok(()) => {
                self.speakers.lock().insert(node, identity.token);
                Ok(())
            }
            Err(error @ ManageError::Forbidden(_)) => {
                tracing::warn!(%node, token = %identity.token, %error, "registration refused");
                Err(status(&Refusal::new(ErrorCode::Forbidden, error.to_string())))
            }
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }

    fn speaks_for(&self, identity: &NodeIdentity, node: NodeId) -> Result<(), Status> {
        match self.speakers.lock().get(&node) {
            Some(token) if *token == identity.token => Ok(()),
            Some(_) => Err(Status::not_found("no such assignment")),
            None => Err(Status::unavailable("the node has no session yet")),
        }
    }
}

/// A node token of one tenant reaches nothing of another, whatever the node says.
fn covers(identity: &NodeIdentity, tenant: TenantId) -> Result<(), Status> {
    match serves(identity) {
        Serves::Tenant(own) if own != tenant => Err(Status::not_found("no such assignment")),
        _ => Ok(()),
    }
}

/// Metadata key under which a refusal's code travels: gRPC's own codes are too few.
const CODE_KEY: &str = "gantry-error-code";

fn status(refusal: &Refusal) -> Status {
    let text = refusal.message.clone();
    let mut status = match refusal.code {
        ErrorCode::NotFound => Status::not_found(text),
        ErrorCode::Forbidden => Status::permission_denied(text),
        ErrorCode::StaleFence => Status::failed_precondition(text),
        ErrorCode::TooLarge => Status::out_of_range(text),
        ErrorCode::Overloaded => Status::resource_exhausted(text),
        ErrorCode::StorageUnavailable => Status::unavailable(text),
        ErrorCode::InvalidRequest | ErrorCode::ArtifactRefused => Status::invalid_argument(text),
        _ => Status::internal(text),
    };
    // Codes are lower-case words with hyphens: always valid metadata.
    if let Ok(code) = refusal.code.as_str().parse() {
        status.metadata_mut().insert(CODE_KEY, code);
    }
    status
}

#[tonic::async_trait]
impl NodeService for NodeServer {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ServerToNode, Status>> + Send>>;
    type GetArtifactStream = Pin<Box<dyn Stream<Item = Result<ArtifactChunk, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<NodeToServer>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = self.authenticate(&request).await?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(REGISTER_DEADLINE, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("a session begins with Register"))??
            .ok_or_else(|| Status::cancelled("the stream ended before Register"))?;
        if let Some(node_to_server::Kind::Register(register)) = &first.kind {
            self.join(&identity, register.node).await?;
        }
        let (to_session, from_session) = self.coordinator.open_session(serves(&identity));
        let directory = Arc::clone(&self.directory);
        let token = identity.token;
        let mut recheck = tokio::time::interval(TOKEN_RECHECK);
        // Owned by the coordinator's tracker; ends with the stream of the node or with the session, whichever is first.
        self.coordinator.sessions.spawn(async move {
            if to_session.send(first).await.is_err() {
                return;
            }
            loop {
                let message = tokio::select! {
                    () = to_session.closed() => return,
                    message = inbound.message() => message,
                    _ = recheck.tick() => match directory.node_token_lives(token).await {
                        Ok(false) => {
                            tracing::warn!(%token, "session ended: its node token was revoked");
                            return;
                        }
                        // An unreadable directory is no revocation.
                        Ok(true) | Err(_) => continue,
                    },
                };
                match message {
                    Ok(Some(message)) => {
                        if to_session.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(%error, "stream of a node broke");
                        return;
                    }
                }
            }
        });
        let installation = self.directory.installation().to_string();
        let answers = ReceiverStream::new(from_session).map(move |mut message| {
            if let Some(server_to_node::Kind::Registered(registered)) = &mut message.kind {
                registered.installation = Some(installation.clone());
            }
            Ok(message)
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn identify(&self, request: Request<IdentifyRequest>) -> Result<Response<IdentifyReply>, Status> {
        self.authenticate(&request).await?;
        Ok(Response::new(IdentifyReply {
            installation: self.directory.installation().to_string(),
        }))
    }

    async fn put_artifact(
        &self,
        request: Request<Streaming<ArtifactChunk>>,
    ) -> Result<Response<PutArtifactReply>, Status> {
        let identity = self.authenticate(&request).await?;
        let port = Arc::clone(self.port()?);
        let mut inbound = request.into_inner();
        let first = inbound
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the stream is empty"))?;
        let header = first
            .header
            .ok_or_else(|| Status::invalid_argument("the first message must carry a header"))?;
        covers(&identity, header.assignee.tenant)?;
        self.speaks_for(&identity, header.node)?;
        let head = futures_util::stream::iter(first.data.map(Ok));
        let rest = inbound
            .map_err(std::io::Error::other)
            .map_ok(|chunk| chunk.data.unwrap_or_default());
        let artifact = port
            .put_artifact(
                header.node,
                header.assignee,
                header.name,
                header.content_type,
                head.chain(rest).boxed(),
            )
            .await
            .map_err(|refusal| status(&refusal))?;
        Ok(Response::new(PutArtifactReply { artifact }))
    }

    async fn get_artifact(
        &self,
        request: Request<GetArtifactRequest>,
    ) -> Result<Response<Self::GetArtifactStream>, Status> {
        let identity = self.authenticate(&request).await?;
        let port = self.port()?;
        let GetArtifactRequest {
            assignee,
            artifact,
            node,
        } = request.into_inner();
        covers(&identity, assignee.tenant)?;
        self.speaks_for(&identity, node)?;
        let stream = port
            .get_artifact(node, assignee, artifact)
            .await
            .map_err(|refusal| status(&refusal))?;
        let chunks = stream
            .map_err(|error| Status::internal(error.to_string()))
            .map_ok(|data| {
                futures_util::stream::iter(split(data).map(|data| {
                    Ok(ArtifactChunk {
                        header: None,
                        data: Some(data),
                    })
                }))
            })
            .try_flatten();
        Ok(Response::new(Box::pin(chunks)))
    }
}

/// Cuts one buffer into messages of bounded size.
fn split(mut data: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        let length = data.len().min(ARTIFACT_CHUNK_BYTES);
        Some(data.split_to(length))
    })
}
