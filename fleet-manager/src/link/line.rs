//! Carries frames between one supervisor and the node, over as many connections as it takes.
//!
//! One task, one loop, no locks. It reads the socket only when the node has taken what was read before, so a node that does not read stops the
//! supervisor. A frame that was taken from the queue is kept until it is wholly written, and begun again on the next connection.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use gantry_proto::SandboxId;
use gantry_proto::frame::{decode, encode};
use gantry_proto::v1::{NodeFrame, SupervisorFrame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::handshake::{Greeted, greet};
use super::{ContactError, FirstContact, LineConfig, Steering};
use crate::api::{Ending, LinkEvent};

/// Connections in their hello at once; only PID 1 gets so far, and it needs one.
const GREETINGS_MAX: usize = 4;
/// Room for one read: a chunk of output and its envelope.
const READ_BYTES: usize = 64 << 10;

/// The line's ends of the queues.
#[derive(Debug)]
pub(crate) struct Ends {
    pub(crate) frames: mpsc::Receiver<NodeFrame>,
    pub(crate) events: mpsc::Sender<LinkEvent>,
}

struct Connection {
    reader: OwnedReadHalf,
    /// `None` after a failed write: what the supervisor has still said is read first.
    writer: Option<OwnedWriteHalf>,
    read: BytesMut,
}

/// One line. See the module's words.
pub(crate) struct Line {
    config: std::sync::Arc<LineConfig>,
    ends: Ends,
    first: Option<oneshot::Sender<FirstContact>>,
    connection: Option<Connection>,
    /// Events that the node has not taken; short, since nothing is read while it holds any.
    pending: VecDeque<LinkEvent>,
    /// The frame being written, whole, and how much of it is out.
    frame: Bytes,
    written: usize,
    /// The node dropped its sender.
    frames_done: bool,
    ending: Ended,
}

/// How far the container's end has come.
enum Ended {
    No,
    /// It has ended; what it said is still being read.
    Draining(Ending),
    /// [`LinkEvent::Gone`] is the last event to deliver.
    Told,
}

enum Event {
    Cancelled,
    Gone(Ending),
    Dialled(std::io::Result<UnixStream>),
    Greeted(Box<Greeted>),
    GreetingFailed,
    Room,
    NobodyListens,
    Read(std::io::Result<usize>),
    Frame(Option<NodeFrame>),
    Wrote(std::io::Result<usize>),
}

impl Line {
    pub(crate) fn new(config: LineConfig, ends: Ends) -> Self {
        Self {
            config: std::sync::Arc::new(config),
            ends,
            first: None,
            connection: None,
            pending: VecDeque::new(),
            frame: Bytes::new(),
            written: 0,
            frames_done: false,
            ending: Ended::No,
        }
    }

    /// Runs until cancelled, until the node has dropped the link, or until everything up to [`LinkEvent::Gone`] is delivered.
    pub(crate) async fn run(mut self, listener: UnixListener, steering: Steering) {
        let Steering {
            cancel,
            mut gone,
            first,
        } = steering;
        self.first = first;
        let mut greetings = JoinSet::new();
        loop {
            self.decode_one();
            if self.pending.is_empty() && self.connection.is_none() && self.finish_if_ended() {
                break;
            }
            let writing = self.written < self.frame.len();
            let (reader, writer) = match &mut self.connection {
                Some(connection) => (
                    Some((&mut connection.reader, &mut connection.read)),
                    connection.writer.as_mut(),
                ),
                None => (None, None),
            };
            let can_write = writer.is_some();
            let lives = matches!(self.ending, Ended::No);
            let can_read = reader.is_some() && self.pending.is_empty();
            let event = tokio::select! {
                biased;
                () = cancel.cancelled() => Event::Cancelled,
                ending = &mut gone, if lives => match ending {
                    Ok(ending) => Event::Gone(ending),
                    // The watch was cancelled, and so shall we be.
                    Err(_) => Event::Cancelled,
                },
                Some(done) = greetings.join_next(), if !greetings.is_empty() => match done {
                    Ok(Ok(greeted)) => Event::Greeted(Box::new(greeted)),
                    Ok(Err(error)) => {
                        refuse(self.config.sandbox, error, &mut self.first);
                        Event::GreetingFailed
                    }
                    Err(_) => Event::GreetingFailed,
                },
                dialled = listener.accept(), if lives && greetings.len() < GREETINGS_MAX => {
                    Event::Dialled(dialled.map(|(stream, _)| stream))
                }
                permit = self.ends.events.reserve(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.pending.pop_front() {
                            permit.send(event);
                        }
                        Event::Room
                    }
                    Err(_) => Event::NobodyListens,
                },
                () = self.ends.events.closed() => Event::NobodyListens,
                read = read_some(reader), if can_read => Event::Read(read),
                wrote = write_some(writer, &self.frame[self.written..]), if can_write && writing => {
                    Event::Wrote(wrote)
                }
                frame = self.ends.frames.recv(), if can_write && !writing && !self.frames_done => Event::Frame(frame),
            };
            match event {
                Event::Cancelled | Event::NobodyListens => break,
                Event::Gone(ending) => {
                    if let Some(first) = self.first.take() {
                        // Nobody waits for it any more: then nobody minds.
                        let _ = first.send(Err(ContactError::Gone(ending.clone())));
                    }
                    greetings.abort_all();
                    self.ending = Ended::Draining(ending);
                }
                Event::Dialled(Ok(stream)) => {
                    let config = self.config.clone();
                    greetings.spawn(async move { greet(stream, &config).await });
                }
                Event::Dialled(Err(error)) => {
                    tracing::warn!(sandbox = %self.config.sandbox, %error, "a supervisor's connection could not be accepted");
                    // Out of descriptors, most likely: let others close some.
                    tokio::task::yield_now().await;
                }
                Event::Greeted(greeted) => self.connect(*greeted),
                Event::GreetingFailed | Event::Room => {}
                Event::Read(Ok(count)) if count > 0 => {}
                Event::Read(_) => self.disconnect(),
                Event::Wrote(Ok(count)) if count > 0 => {
                    self.written += count;
                    // Out, wholly: it is not begun again.
                    if self.written >= self.frame.len() {
                        self.frame = Bytes::new();
                        self.written = 0;
                    }
                }
                Event::Wrote(_) => self.stop_writing(),
                Event::Frame(Some(frame)) => self.take(&frame),
                Event::Frame(None) => self.frames_done = true,
            }
        }
        greetings.shutdown().await;
    }

    /// Moves one frame from the bytes that were read to the events.
    fn decode_one(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if !self.pending.is_empty() {
            return;
        }
        match decode::<SupervisorFrame>(&mut connection.read) {
            Ok(Some(frame)) => self.pending.push_back(LinkEvent::Frame(frame)),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(sandbox = %self.config.sandbox, %error, "a supervisor's connection is dropped");
                self.disconnect();
            }
        }
    }

    /// Takes a new connection; the newest wins.
    fn connect(&mut self, greeted: Greeted) {
        self.disconnect();
        let (reader, writer) = greeted.stream.into_split();
        self.connection = Some(Connection {
            reader,
            writer: Some(writer),
            read: greeted.read,
        });
        self.pending.push_back(LinkEvent::Connected(greeted.process));
        if let Some(first) = self.first.take() {
            let _ = first.send(Ok(()));
        }
    }

    fn disconnect(&mut self) {
        if self.connection.take().is_some() {
            self.pending.push_back(LinkEvent::Disconnected);
            self.written = 0;
        }
    }

    /// Gives up writing; the half-written frame is begun again on the next connection.
    fn stop_writing(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.writer = None;
        }
        self.written = 0;
    }

    fn take(&mut self, frame: &NodeFrame) {
        let mut out = BytesMut::new();
        match encode(frame, &mut out) {
            Ok(()) => {
                self.frame = out.freeze();
                self.written = 0;
            }
            Err(error) => {
                tracing::error!(sandbox = %self.config.sandbox, %error, "a frame for a supervisor is dropped")
            }
        }
    }

    /// When the container has ended and all it said is delivered, says so, as the last word. True when that is delivered too.
    fn finish_if_ended(&mut self) -> bool {
        match std::mem::replace(&mut self.ending, Ended::Told) {
            Ended::No => {
                self.ending = Ended::No;
                false
            }
            Ended::Draining(ending) => {
                self.pending.push_back(LinkEvent::Gone(ending));
                false
            }
            Ended::Told => true,
        }
    }
}

fn refuse(sandbox: SandboxId, error: super::HandshakeError, first: &mut Option<oneshot::Sender<FirstContact>>) {
    use super::HandshakeError as E;
    tracing::warn!(%sandbox, %error, "a connection to a sandbox's socket was refused");
    // A supervisor that cannot be talked to will not change its mind; a broken connection is dialled again.
    if matches!(error, E::Version { .. } | E::Nonce)
        && let Some(first) = first.take()
    {
        let _ = first.send(Err(ContactError::Refused(error)));
    }
}

/// Reads into the buffer. Cancel safe.
async fn read_some(reader: Option<(&mut OwnedReadHalf, &mut BytesMut)>) -> std::io::Result<usize> {
    match reader {
        Some((reader, buffer)) => {
            buffer.reserve(READ_BYTES);
            reader.read_buf(buffer).await
        }
        None => std::future::pending().await,
    }
}

/// Writes some bytes. Cancel safe: nothing is written unless it says so.
async fn write_some(writer: Option<&mut OwnedWriteHalf>, bytes: &[u8]) -> std::io::Result<usize> {
    match writer {
        Some(writer) if bytes.has_remaining() => writer.write(bytes).await,
        _ => std::future::pending().await,
    }
}
