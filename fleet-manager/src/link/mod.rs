//! The line to one supervisor.
//!
//! Two tasks per sandbox, both owned by the fleet's tracker: the *line* accepts the supervisor's connections and carries frames; the *watch*
//! (in [`watch`]) asks Docker whether the container still lives. The line does not depend on Docker: a daemon that restarts does not break it.

mod handshake;
mod line;
#[cfg(test)]
mod tests;
mod watch;

use gantry_proto::SandboxId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api::{Ending, Link};

pub(crate) use self::handshake::HandshakeError;
pub(crate) use self::line::Line;
pub(crate) use self::watch::{ending, is_live, watch};

/// Frames waiting in each direction. A frame is 1 MiB at most; a full queue stops the sender, and in the end the process that prints.
const QUEUE_FRAMES: usize = 16;

/// What a line is opened with.
#[derive(Debug)]
pub(crate) struct LineConfig {
    pub(crate) sandbox: SandboxId,
    /// Pid of the container's PID 1 on the host: the only process that may connect.
    pub(crate) pid: u32,
    pub(crate) nonce: [u8; 32],
}

/// How the first connection went, for [`crate::Fleet::claim`].
pub(crate) type FirstContact = Result<(), ContactError>;

/// Why a supervisor was never connected.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ContactError {
    #[error("the container ended before its supervisor connected: {}", .0.detail)]
    Gone(Ending),
    #[error(transparent)]
    Refused(HandshakeError),
}

/// Both ends of a line's queues, and what the line tells once.
pub(crate) fn channels() -> (Link, line::Ends) {
    let (frames_in, frames_out) = mpsc::channel(QUEUE_FRAMES);
    let (events_in, events_out) = mpsc::channel(QUEUE_FRAMES);
    let link = Link {
        frames: frames_in,
        events: events_out,
    };
    (
        link,
        line::Ends {
            frames: frames_out,
            events: events_in,
        },
    )
}

/// What steers a line from outside.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Ends the line without a word.
    pub(crate) cancel: CancellationToken,
    /// Told when the container has ended.
    pub(crate) gone: oneshot::Receiver<Ending>,
    /// Told how the first connection went.
    pub(crate) first: Option<oneshot::Sender<FirstContact>>,
}
