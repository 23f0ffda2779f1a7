//! The way to a coordinator in another process.

use std::io;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use gantry_proto::ErrorCode;
use gantry_proto::limits::SESSION_QUEUE_MAX;
use gantry_proto::v1::node_service_client::NodeServiceClient;
use gantry_proto::v1::{Artifact, ArtifactChunk, ArtifactHeader, Fault, GetArtifactRequest, IdentifyRequest};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::{ByteStream, Connection, Uplink, UplinkError};

/// Metadata key under which the server names its error code.
const CODE_KEY: &str = "gantry-error-code";
/// Longest silence of a byte stream before it is given up.
const STREAM_IDLE: Duration = Duration::from_secs(60);
/// Longest time that storing one artifact may take after its last byte was sent, the transfer included: 4 GiB at 1 MiB/s and a margin.
const PUT_TIMEOUT: Duration = Duration::from_secs(2 * 3600);
/// Chunks of an upload that wait for the connection.
const UPLOAD_QUEUE: usize = 4;
/// An assignment holds a whole plan.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A `NodeService` client with a node token.
#[derive(Debug)]
pub struct GrpcUplink {
    channel: Channel,
    authorization: MetadataValue<Ascii>,
    connect_timeout: Duration,
}

/// Why a gRPC uplink cannot be made. Whether the server answers shows when it is used.
#[derive(Debug, thiserror::Error)]
pub enum GrpcUplinkError {
    /// Not an `http://host:port` URL.
    #[error("`{url}` is not a URL of a server: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The token holds characters that no header may hold.
    #[error("the node token is malformed")]
    Token,
}

impl GrpcUplink {
    /// An uplink to `url` (`http://host:port`). Nothing is dialled yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`GrpcUplinkError`]
    pub fn new(url: &str, token: &SecretString, connect_timeout: Duration) -> Result<Self, GrpcUplinkError> {
        let bad = |reason: String| GrpcUplinkError::Url {
            url: url.to_owned(),
            reason,
        };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| bad(error.to_string()))?;
        if endpoint.uri().scheme_str() != Some("http") {
            return Err(bad(
                "this build speaks plain http:// only; put TLS in front of both ends".to_owned(),
            ));
        }
        let channel = endpoint
            .connect_timeout(connect_timeout)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .connect_lazy();
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", token.expose_secret())
            .parse()
            .map_err(|_| GrpcUplinkError::Token)?;
        authorization.set_sensitive(true);
        Ok(Self {
            channel,
            authorization,
            connect_timeout,
        })
    }

    /// Asks the server whose it is: the id of its installation.
    ///
    /// # Errors
    /// When it cannot be reached, refuses the token, or is too old to say.
    pub async fn identify(&self) -> Result<String, UplinkError> {
        let mut client = self.client();
        let asked = tokio::time::timeout(self.connect_timeout, client.identify(self.request(IdentifyRequest {})));
        match asked.await.map_err(silent)? {
            Ok(reply) => Ok(reply.into_inner().installation),
            Err(status) if status.code() == Code::Unimplemented => {
                let fault = Fault::new(
                    ErrorCode::ProtocolMismatch,
                    "the server does not say which installation it is",
                );
                Err(UplinkError::Refused(
                    fault.with_hint("upgrade the server, or give --installation"),
                ))
            }
            Err(status) => Err(refused(&status)),
        }
    }

    fn client(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        request
    }
}

fn refused(status: &Status) -> UplinkError {
    let named = status
        .metadata()
        .get(CODE_KEY)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse().ok());
    let code = match (named, status.code()) {
        (Some(code), _) => code,
        (
            None,
            Code::Unavailable
            | Code::Unknown
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal,
        ) => {
            return UplinkError::Unreachable(status.message().to_owned());
        }
        (None, Code::Unauthenticated) => ErrorCode::Unauthenticated,
        (None, Code::PermissionDenied) => ErrorCode::Forbidden,
        (None, Code::NotFound) => ErrorCode::NotFound,
        (None, Code::FailedPrecondition) => ErrorCode::StaleFence,
        (None, Code::ResourceExhausted) => ErrorCode::Overloaded,
        (None, Code::OutOfRange) => ErrorCode::TooLarge,
        (None, _) => ErrorCode::InvalidRequest,
    };
    UplinkError::Refused(Fault::new(code, status.message()))
}

fn silent<T>(_: T) -> UplinkError {
    UplinkError::Unreachable("no answer in time".to_owned())
}

#[async_trait::async_trait]
impl Uplink for GrpcUplink {
    async fn connect(&self) -> Result<Connection, UplinkError> {
        let (up, outgoing) = mpsc::channel(SESSION_QUEUE_MAX);
        let (incoming, down) = mpsc::channel(SESSION_QUEUE_MAX);
        let mut client = self.client();
        let request = self.request(ReceiverStream::new(outgoing));
        // The server answers the call itself only after the first message, which the caller sends once it has the channels: dial first, so that an
        // unreachable server is an error here, then let the call run.
        let mut ready = self.channel.clone();
        tokio::time::timeout(
            self.connect_timeout,
            futures_util::future::poll_fn(|cx| tower_ready(&mut ready, cx)),
        )
        .await
        .map_err(silent)?
        .map_err(|error| UplinkError::Unreachable(error.to_string()))?;
        let timeout = self.connect_timeout;
        // Owned by its channels: it ends when the caller drops either half, or the connection breaks.
        tokio::spawn(async move {
            let opened = tokio::select! {
                opened = tokio::time::timeout(timeout, client.session(request)) => opened,
                () = incoming.closed() => return,
            };
            let mut stream = match opened {
                Ok(Ok(response)) => response.into_inner(),
                Ok(Err(status)) => {
                    match refused(&status) {
                        UplinkError::Refused(fault) => {
                            // The caller may have gone.
                            let _ = incoming.send(refusal(fault)).await;
                        }
                        UplinkError::Unreachable(reason) => tracing::debug!(reason, "session was not opened"),
                    }
                    return;
                }
                Err(_) => return,
            };
            loop {
                let message = tokio::select! {
                    message = stream.message() => message,
                    () = incoming.closed() => return,
                };
                match message {
                    Ok(Some(message)) => {
                        if incoming.send(message).await.is_err() {
                            return;
                        }
                    }
                    Ok(None) => return,
                    Err(status) => {
                        tracing::debug!(%status, "session with the server ended");
                        return;
                    }
                }
            }
        });
        Ok((up, down))
    }

    async fn put_artifact(&self, header: ArtifactHeader, data: ByteStream) -> Result<Artifact, UplinkError> {
        let (chunks, outgoing) = mpsc::channel(UPLOAD_QUEUE);
        let mut client = self.client();
        let request = self.request(ReceiverStream::new(outgoing));
        let call = tokio::time::timeout(PUT_TIMEOUT, client.put_artifact(request));
        tokio::select! {
            (error, _still_open) = feed(chunks, header, data) => {
                // Dropping the call resets the stream: the server sees a broken upload, not a short one.
                Err(UplinkError::Unreachable(format!("the artifact could not be read: {error}")))
            }
            answer = call => Ok(answer.map_err(silent)?.map_err(|status| refused(&status))?.into_inner().artifact),
        }
    }

    async fn get_artifact(&self, request: GetArtifactRequest) -> Result<ByteStream, UplinkError> {
        let mut client = self.client();
        let call = client.get_artifact(self.request(request));
        let answer = tokio::time::timeout(STREAM_IDLE, call)
            .await
            .map_err(silent)?
            .map_err(|status| refused(&status))?;
        let chunks = stream::unfold(Some(answer.into_inner()), |stream| async move {
            let mut stream = stream?;
            match tokio::time::timeout(STREAM_IDLE, stream.message()).await {
                Ok(Ok(Some(chunk))) => Some((Ok(chunk.data.unwrap_or_default()), Some(stream))),
                Ok(Ok(None)) => None,
                Ok(Err(status)) => Some((Err(io::Error::other(status.to_string())), None)),
                Err(_) => Some((Err(io::Error::from(io::ErrorKind::TimedOut)), None)),
            }
        });
        Ok(Box::pin(chunks))
    }
}

fn tower_ready(
    channel: &mut Channel,
    cx: &mut std::task::Context<'_>,
) -> std::task::Poll<Result<(), tonic::transport::Error>> {
    tonic::client::GrpcService::<tonic::body::Body>::poll_ready(channel, cx)
}

fn refusal(fault: Fault) -> gantry_proto::v1::ServerToNode {
    use gantry_proto::v1::{Refused, ServerToNode, server_to_node::Kind};
    ServerToNode {
        kind: Some(Kind::Refused(Refused { fault })),
    }
}

/// Sends header and data. Returns only when reading fails, with the queue still open, lest the upload look complete; after the last chunk it closes the queue and waits to be dropped.
async fn feed(
    chunks: mpsc::Sender<ArtifactChunk>,
    header: ArtifactHeader,
    mut data: ByteStream,
) -> (io::Error, mpsc::Sender<ArtifactChunk>) {
    let mut next = ArtifactChunk {
        header: Some(header),
        data: None,
    };
    // A closed queue means that the call has its answer.
    while chunks.send(next).await.is_ok() {
        match data.next().await {
            Some(Ok(data)) => {
                next = ArtifactChunk {
                    header: None,
                    data: Some(data),
                }
            }
            Some(Err(error)) => return (error, chunks),
            None => break,
        }
    }
    drop(chunks);
    std::future::pending().await
}
