//! The way to the coordinator.

mod grpc;

use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use gantry_proto::ErrorCode;
use gantry_proto::v1::{Artifact, ArtifactHeader, Fault, GetArtifactRequest, NodeToServer, ServerToNode};
use tokio::sync::mpsc;

pub use grpc::{GrpcUplink, GrpcUplinkError};

/// Bytes as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// Both directions of one session. Either side ends it by dropping its halves.
pub type Connection = (mpsc::Sender<NodeToServer>, mpsc::Receiver<ServerToNode>);

/// Why the coordinator could not be asked, or said no.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UplinkError {
    /// It does not answer; asking again later may help.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// It said no.
    #[error("the server refused: {} ({})", .0.message, .0.code)]
    Refused(Fault),
}

impl UplinkError {
    /// The code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Unreachable(_) => None,
            Self::Refused(fault) => fault.code.parse().ok(),
        }
    }

    /// Whether asking again later may help, because the trouble is the server's or the node's and not in what was asked. A code that this version does not
    /// know counts as such: nothing is given up for it.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        !matches!(
            self.code(),
            Some(
                ErrorCode::StaleFence
                    | ErrorCode::NotFound
                    | ErrorCode::TooLarge
                    | ErrorCode::InvalidRequest
                    | ErrorCode::ArtifactRefused
            )
        )
    }
}

/// The way to the coordinator: gRPC, or channels within one process.
#[async_trait::async_trait]
pub trait Uplink: Send + Sync + 'static {
    /// Opens a session. The first message is the caller's [`Register`](gantry_proto::v1::Register).
    async fn connect(&self) -> Result<Connection, UplinkError>;

    /// Stores an artifact; returns when it is durable. Idempotent by assignee, name and content.
    async fn put_artifact(&self, header: ArtifactHeader, data: ByteStream) -> Result<Artifact, UplinkError>;

    /// Reads a stored artifact that an assignment names as input.
    async fn get_artifact(&self, request: GetArtifactRequest) -> Result<ByteStream, UplinkError>;
}
