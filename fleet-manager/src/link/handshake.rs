//! Who may speak on a line: PID 1 of the container, root, with the container's nonce, in a version that both speak.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_proto::SUPERVISOR_PROTOCOL;
use gantry_proto::frame::{FrameError, decode, encode};
use gantry_proto::v1::{NodeFrame, NodeHello, ProcessStatus, SupervisorFrame, node_frame, supervisor_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::LineConfig;

/// From connect to the end of hello: two small messages between processes of one machine.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// Why a connection was refused.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("process {pid} (uid {uid}) connected, and only PID 1 of the container, {wanted}, may")]
    Peer { pid: i32, uid: u32, wanted: u32 },
    #[error("the supervisor does not know the container's nonce")]
    Nonce,
    #[error(
        "the supervisor speaks version {theirs} of the protocol, and the node {SUPERVISOR_PROTOCOL} and the one before"
    )]
    Version { theirs: u32 },
    #[error("the supervisor's first frame was no hello")]
    NotHello,
    #[error("the supervisor's hello is broken: {0}")]
    Frame(#[from] FrameError),
    #[error("the connection broke during hello: {0}")]
    Io(String),
    #[error("no hello within {} s", HANDSHAKE_LIMIT.as_secs())]
    Slow,
}

impl From<std::io::Error> for HandshakeError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// A connection past its hello.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) stream: UnixStream,
    /// Bytes that came behind the hello.
    pub(super) read: BytesMut,
    /// What the supervisor holds.
    pub(super) process: Option<ProcessStatus>,
}

pub(super) async fn greet(stream: UnixStream, config: &LineConfig) -> Result<Greeted, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_LIMIT, exchange(stream, config))
        .await
        .unwrap_or(Err(HandshakeError::Slow))
}

async fn exchange(mut stream: UnixStream, config: &LineConfig) -> Result<Greeted, HandshakeError> {
    let peer = stream.peer_cred()?;
    // The kernel fills these in at connect; a pid outside our namespace reads as 0.
    let pid = peer.pid().unwrap_or(0);
    if peer.uid() != 0 || u32::try_from(pid) != Ok(config.pid) {
        return Err(HandshakeError::Peer {
            pid,
            uid: peer.uid(),
            wanted: config.pid,
        });
    }
    let mut read = BytesMut::new();
    let hello = loop {
        if let Some(frame) = decode::<SupervisorFrame>(&mut read)? {
            break frame;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(HandshakeError::Io("closed by the supervisor".to_owned()));
        }
    };
    let Some(supervisor_frame::Kind::Hello(hello)) = hello.kind else {
        return Err(HandshakeError::NotHello);
    };
    // Equality of these hashes takes the same time wherever they differ.
    let ours = blake3::Hash::from_bytes(config.nonce);
    if !<[u8; 32]>::try_from(hello.nonce.as_ref()).is_ok_and(|theirs| blake3::Hash::from_bytes(theirs) == ours) {
        return Err(HandshakeError::Nonce);
    }
    let agreed = agree(hello.protocol).ok_or(HandshakeError::Version { theirs: hello.protocol })?;
    let answer = NodeHello {
        protocol: agreed,
        nonce: Bytes::copy_from_slice(&config.nonce),
    };
    let mut out = BytesMut::new();
    encode(
        &NodeFrame {
            kind: Some(node_frame::Kind::Hello(answer)),
        },
        &mut out,
    )?;
    stream.write_all(&out).await?;
    Ok(Greeted {
        stream,
        read,
        process: hello.process,
    })
}

/// The newest version that both speak: each speaks its newest and the one before.
fn agree(theirs: u32) -> Option<u32> {
    let agreed = theirs.min(SUPERVISOR_PROTOCOL);
    let oldest_of = |newest: u32| newest.saturating_sub(1).max(1);
    (agreed >= oldest_of(SUPERVISOR_PROTOCOL) && agreed >= oldest_of(theirs)).then_some(agreed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_overlap_by_one() {
        assert_eq!(agree(SUPERVISOR_PROTOCOL), Some(SUPERVISOR_PROTOCOL));
        assert_eq!(agree(SUPERVISOR_PROTOCOL + 1), Some(SUPERVISOR_PROTOCOL));
        assert_eq!(agree(SUPERVISOR_PROTOCOL + 2), None);
        assert_eq!(agree(0), None);
    }
}
