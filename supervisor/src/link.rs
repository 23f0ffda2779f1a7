//! The line to the node: dialling, the two hellos, frames both ways.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_proto::frame::{self, FrameError};
use gantry_proto::v1::{
    Fault, NodeFrame, NodeHello, SupervisorFault, SupervisorFrame, SupervisorHello, node_frame, supervisor_frame,
};
use gantry_proto::{ErrorCode, SUPERVISOR_PROTOCOL};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Length of the container's nonce.
pub(crate) const NONCE_BYTES: usize = 32;
/// First wait after a failed dial; doubled up to [`BACKOFF_MAX`], so that a restarted node has its sandboxes back within a second.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A node that accepts and then says nothing is not the node.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Frames in flight to either side of a connection.
pub(crate) const QUEUE_FRAMES: usize = 16;

/// Why a connection was refused or ended. The supervisor dials again after each.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the peer lives inside the sandbox (pid {0})")]
    PeerInside(i32),
    #[error("the nonce file does not hold {NONCE_BYTES} bytes")]
    NonceFile,
    #[error("the peer does not know the nonce")]
    WrongNonce,
    #[error("the node speaks protocol {0}, this supervisor up to {SUPERVISOR_PROTOCOL}")]
    Protocol(u32),
    #[error("the node did not greet first")]
    NoHello,
    #[error("the node did not answer in time")]
    Silent,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the node hung up")]
    HungUp,
}

/// A connection whose peer is outside the sandbox, before the hellos.
#[derive(Debug)]
pub(crate) struct Dialled {
    stream: UnixStream,
    nonce: [u8; NONCE_BYTES],
}

impl Dialled {
    /// The nonce that goes into our hello.
    pub(crate) fn nonce(&self) -> Bytes {
        Bytes::copy_from_slice(&self.nonce)
    }
}

/// What the connection tells the event loop.
#[derive(Debug)]
pub(crate) enum FromNode {
    /// Both hellos were right: frames may be sent.
    Up,
    Frame(Box<NodeFrame>),
}

/// Dials until somebody outside the sandbox answers. `failures` in a row before this call set the first wait.
pub(crate) async fn dial(sock_dir: PathBuf, failures: u32) -> Dialled {
    let mut failures = failures;
    let mut said = String::new();
    loop {
        if failures > 0 {
            tokio::time::sleep(backoff(failures)).await;
        }
        match try_dial(&sock_dir).await {
            Ok(dialled) => return dialled,
            Err(error) => {
                failures = failures.saturating_add(1);
                let text = error.to_string();
                if text != said {
                    eprintln!("gantry-supervisor: {text}");
                    said = text;
                }
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN.saturating_mul(1 << (failures - 1).min(10)).min(BACKOFF_MAX)
}

async fn try_dial(sock_dir: &Path) -> Result<Dialled, LinkError> {
    let nonce = std::fs::read(sock_dir.join("nonce"))?
        .try_into()
        .map_err(|_| LinkError::NonceFile)?;
    let stream = UnixStream::connect(sock_dir.join("node.sock")).await?;
    // The kernel translates the peer's pid into our namespace, and 0 means that it has none here. A step that got hold of the path
    // could listen there itself, but not from outside.
    match stream.peer_cred()?.pid() {
        Some(0) => Ok(Dialled { stream, nonce }),
        other => Err(LinkError::PeerInside(other.unwrap_or(-1))),
    }
}

/// Runs one connection until it breaks: hellos first, then frames between the node and the two queues.
pub(crate) async fn converse(
    dialled: Dialled,
    hello: SupervisorHello,
    to_loop: mpsc::Sender<FromNode>,
    from_loop: mpsc::Receiver<SupervisorFrame>,
) -> LinkError {
    let nonce = dialled.nonce;
    let (read, write) = dialled.stream.into_split();
    let mut reader = FrameReader {
        read,
        buffer: BytesMut::new(),
    };
    let mut writer = FrameWriter {
        write,
        buffer: BytesMut::new(),
    };
    match tokio::time::timeout(HELLO_TIMEOUT, greet(&mut reader, &mut writer, hello, &nonce)).await {
        Err(_elapsed) => return LinkError::Silent,
        Ok(Err(error)) => return error,
        Ok(Ok(())) => {}
    }
    if to_loop.send(FromNode::Up).await.is_err() {
        return LinkError::HungUp;
    }
    // Each half runs to its end inside this one select, so no half-written frame is ever abandoned while the other goes on.
    tokio::select! {
        error = receive(reader, to_loop) => error,
        error = send(writer, from_loop) => error,
    }
}

async fn greet(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    hello: SupervisorHello,
    nonce: &[u8; NONCE_BYTES],
) -> Result<(), LinkError> {
    writer
        .write(&SupervisorFrame {
            kind: Some(supervisor_frame::Kind::Hello(hello)),
        })
        .await?;
    let Some(node_frame::Kind::Hello(NodeHello {
        protocol,
        nonce: theirs,
    })) = reader.read().await?.kind
    else {
        return Err(LinkError::NoHello);
    };
    if !same(&theirs, nonce) {
        return Err(LinkError::WrongNonce);
    }
    if protocol == 0 || protocol > SUPERVISOR_PROTOCOL {
        let error = LinkError::Protocol(protocol);
        let fault = Fault::new(ErrorCode::ProtocolMismatch, error.to_string());
        let frame = SupervisorFrame {
            kind: Some(supervisor_frame::Kind::Fault(SupervisorFault { fault })),
        };
        writer.write(&frame).await?;
        return Err(error);
    }
    Ok(())
}

/// Compares without telling by its time where the difference is.
fn same(theirs: &[u8], ours: &[u8; NONCE_BYTES]) -> bool {
    theirs.len() == ours.len()
        && theirs
            .iter()
            .zip(ours)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

async fn receive(mut reader: FrameReader, to_loop: mpsc::Sender<FromNode>) -> LinkError {
    loop {
        match reader.read().await {
            Ok(frame) => {
                if to_loop.send(FromNode::Frame(Box::new(frame))).await.is_err() {
                    return LinkError::HungUp;
                }
            }
            Err(error) => return error,
        }
    }
}

async fn send(mut writer: FrameWriter, mut from_loop: mpsc::Receiver<SupervisorFrame>) -> LinkError {
    while let Some(frame) = from_loop.recv().await {
        if let Err(error) = writer.write(&frame).await {
            return error;
        }
    }
    LinkError::HungUp
}

struct FrameReader {
    read: OwnedReadHalf,
    buffer: BytesMut,
}

impl FrameReader {
    async fn read(&mut self) -> Result<NodeFrame, LinkError> {
        loop {
            if let Some(frame) = frame::decode(&mut self.buffer)? {
                return Ok(frame);
            }
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Err(LinkError::HungUp);
            }
        }
    }
}

struct FrameWriter {
    write: OwnedWriteHalf,
    buffer: BytesMut,
}

impl FrameWriter {
    async fn write(&mut self, message: &SupervisorFrame) -> Result<(), LinkError> {
        self.buffer.clear();
        frame::encode(message, &mut self.buffer)?;
        self.write.write_all(&self.buffer).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_grows_and_is_bounded() {
        assert_eq!(backoff(1), BACKOFF_MIN);
        assert_eq!(backoff(2), BACKOFF_MIN * 2);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn nonces_are_compared_whole() {
        let ours = [7; NONCE_BYTES];
        assert!(same(&ours, &ours));
        assert!(!same(&ours[..31], &ours));
        assert!(!same(&[], &ours));
        let mut other = ours;
        other[31] = 8;
        assert!(!same(&other, &ours));
    }

    #[tokio::test]
    async fn a_peer_inside_the_namespace_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("nonce"), [1; NONCE_BYTES]).unwrap();
        let _listener = tokio::net::UnixListener::bind(dir.path().join("node.sock")).unwrap();
        assert!(matches!(try_dial(dir.path()).await, Err(LinkError::PeerInside(pid)) if pid > 0));
        std::fs::write(dir.path().join("nonce"), [1; 31]).unwrap();
        assert!(matches!(try_dial(dir.path()).await, Err(LinkError::NonceFile)));
    }
}
