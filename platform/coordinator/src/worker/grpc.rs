//! The worker protocol over gRPC. A worker proves itself with a node token.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use gantry_directory::Directory;
use gantry_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use gantry_proto::v1::{ServerToWorker, WorkerToServer, worker_to_server};
use gantry_proto::{NodeId, NodeTokenId, limits};
use parking_lot::Mutex;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::Coordinator;
use crate::grpc::{REGISTER_DEADLINE, TOKEN_RECHECK, authenticate, serves};

type Speakers = HashMap<NodeId, (NodeTokenId, u32)>;

/// The gRPC service that workers dial.
pub struct WorkerServer {
    coordinator: Arc<Coordinator>,
    directory: Arc<dyn Directory>,
    /// Which token speaks for each connected worker, over how many streams. An id is made by the process that bears it: while it is connected, only another
    /// bearer of the same token may take it over.
    speakers: Arc<Mutex<Speakers>>,
}

impl WorkerServer {
    /// The service, ready to be added to a tonic server.
    #[must_use]
    pub fn service(coordinator: Arc<Coordinator>, directory: Arc<dyn Directory>) -> WorkerServiceServer<Self> {
        WorkerServiceServer::new(Self {
            coordinator,
            directory,
            speakers: Arc::default(),
        })
        .max_decoding_message_size(limits::FRAME_BYTES_MAX * 4)
        .max_encoding_message_size(limits::FRAME_BYTES_MAX * 4)
    }

    fn claim(&self, worker: NodeId, token: NodeTokenId) -> Result<(), Status> {
        let mut speakers = self.speakers.lock();
        if speakers.len() >= limits::NODES_MAX && !speakers.contains_key(&worker) {
            return Err(Status::resource_exhausted("too many workers are connected"));
        }
        let speaker = speakers.entry(worker).or_insert((token, 0));
        if speaker.0 != token {
            return Err(Status::permission_denied("the worker's id belongs to another token"));
        }
        speaker.1 += 1;
        Ok(())
    }
}

/// A stream of a worker has ended.
fn leave(speakers: &Mutex<Speakers>, worker: NodeId) {
    let mut speakers = speakers.lock();
    if let Some(speaker) = speakers.get_mut(&worker) {
        speaker.1 = speaker.1.saturating_sub(1);
        if speaker.1 == 0 {
            speakers.remove(&worker);
        }
    }
}

#[tonic::async_trait]
impl WorkerService for WorkerServer {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<ServerToWorker, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerToServer>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let identity = authenticate(&self.directory, &request).await?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(REGISTER_DEADLINE, inbound.message())
            .await
            .map_err(|_| Status::deadline_exceeded("a session begins with RegisterWorker"))??
            .ok_or_else(|| Status::cancelled("the stream ended before RegisterWorker"))?;
        let worker = match &first.kind {
            Some(worker_to_server::Kind::Register(register)) => Some(register.worker),
            _ => None,
        };
        let token = identity.token;
        if let Some(worker) = worker {
            self.claim(worker, token)?;
        }
        let (to_session, from_session) = self.coordinator.open_worker_session(serves(&identity));
        let directory = Arc::clone(&self.directory);
        let speakers = Arc::clone(&self.speakers);
        let mut recheck = tokio::time::interval(TOKEN_RECHECK);
        // Owned by the coordinator's tracker; ends with the worker's stream or with the session, whichever is first.
        self.coordinator.sessions.spawn(async move {
            let pump = async {
                if to_session.send(first).await.is_err() {
                    return;
                }
                loop {
                    let message = tokio::select! {
                        () = to_session.closed() => return,
                        message = inbound.message() => message,
                        _ = recheck.tick() => match directory.node_token_lives(token).await {
                            Ok(false) => {
                                tracing::warn!(%token, "session ended: its token was revoked");
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
                        Ok(None) | Err(_) => return,
                    }
                }
            };
            pump.await;
            if let Some(worker) = worker {
                leave(&speakers, worker);
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(from_session).map(Ok))))
    }
}
