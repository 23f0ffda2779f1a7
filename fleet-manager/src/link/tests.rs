//! The line against a supervisor played by the test: same process, so pid and uid are right where they should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_proto::frame::{decode, encode};
use gantry_proto::v1::{NodeFrame, Ping, Pong, SupervisorFrame, SupervisorHello, node_frame, supervisor_frame};
use gantry_proto::{PartitionId, SUPERVISOR_PROTOCOL, SandboxId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{ContactError, FirstContact, HandshakeError, Line, LineConfig, Steering, channels};
use crate::api::{Ending, Link, LinkEvent};

const NONCE: [u8; 32] = [7; 32];
const PATIENCE: Duration = Duration::from_secs(20);
/// Turns in which everything that can move does: the runtime asks the socket at least every 61.
const TURNS: usize = 1_000;

struct Bench {
    _dir: tempfile::TempDir,
    socket: std::path::PathBuf,
    link: Link,
    gone: Option<oneshot::Sender<Ending>>,
    first: oneshot::Receiver<FirstContact>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

fn bench(pid: u32) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let (link, ends) = channels();
    let (tell, gone) = oneshot::channel();
    let (tell_first, first) = oneshot::channel();
    let cancel = CancellationToken::new();
    let steering = Steering {
        cancel: cancel.clone(),
        gone,
        first: Some(tell_first),
    };
    let sandbox = SandboxId::new(1, PartitionId::new(0).unwrap(), 1);
    let config = LineConfig {
        sandbox,
        pid,
        nonce: NONCE,
    };
    let task = tokio::spawn(Line::new(config, ends).run(listener, steering));
    Bench {
        _dir: dir,
        socket,
        link,
        gone: Some(tell),
        first,
        cancel,
        task,
    }
}

struct Supervisor {
    stream: UnixStream,
    read: BytesMut,
}

impl Supervisor {
    async fn dial(bench: &Bench, protocol: u32, nonce: [u8; 32]) -> Self {
        let mut supervisor = Self {
            stream: UnixStream::connect(&bench.socket).await.unwrap(),
            read: BytesMut::new(),
        };
        let hello = SupervisorHello {
            protocol,
            nonce: Bytes::copy_from_slice(&nonce),
            ..Default::default()
        };
        supervisor.say(supervisor_frame::Kind::Hello(hello)).await.unwrap();
        supervisor
    }

    async fn connected(bench: &Bench) -> Self {
        let mut supervisor = Self::dial(bench, SUPERVISOR_PROTOCOL, NONCE).await;
        let Some(node_frame::Kind::Hello(hello)) = supervisor.hear().await else {
            panic!("no hello")
        };
        assert_eq!(hello.nonce.as_ref(), NONCE, "the node proves itself too");
        supervisor
    }

    async fn say(&mut self, kind: supervisor_frame::Kind) -> std::io::Result<()> {
        let mut out = BytesMut::new();
        encode(&SupervisorFrame { kind: Some(kind) }, &mut out).unwrap();
        self.stream.write_all(&out).await
    }

    /// The next frame, or `None` at the end.
    async fn hear(&mut self) -> Option<node_frame::Kind> {
        loop {
            if let Some(frame) = decode::<NodeFrame>(&mut self.read).unwrap() {
                return frame.kind;
            }
            let count = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read))
                .await
                .unwrap();
            if !count.is_ok_and(|count| count > 0) {
                return None;
            }
        }
    }
}

fn pong(token: u64) -> supervisor_frame::Kind {
    supervisor_frame::Kind::Pong(Pong { token })
}

fn ping(token: u64) -> NodeFrame {
    NodeFrame {
        kind: Some(node_frame::Kind::Ping(Ping { token })),
    }
}

async fn event(link: &mut Link) -> LinkEvent {
    tokio::time::timeout(PATIENCE, link.events.recv())
        .await
        .expect("an event")
        .expect("the line lives")
}

async fn pong_token(link: &mut Link) -> u64 {
    match event(link).await {
        LinkEvent::Frame(SupervisorFrame {
            kind: Some(supervisor_frame::Kind::Pong(pong)),
        }) => pong.token,
        other => panic!("a pong is due, not {other:?}"),
    }
}

#[tokio::test]
async fn a_stranger_a_wrong_nonce_and_an_old_version_are_refused() {
    let stranger = bench(1);
    let mut supervisor = Supervisor::dial(&stranger, SUPERVISOR_PROTOCOL, NONCE).await;
    assert!(
        supervisor.hear().await.is_none(),
        "another pid than the container's PID 1"
    );

    let bench_nonce = bench(std::process::id());
    let mut supervisor = Supervisor::dial(&bench_nonce, SUPERVISOR_PROTOCOL, [8; 32]).await;
    assert!(supervisor.hear().await.is_none());
    let first = bench_nonce.first.await.unwrap();
    assert!(
        matches!(first, Err(ContactError::Refused(HandshakeError::Nonce))),
        "{first:?}"
    );

    let bench_version = bench(std::process::id());
    let mut supervisor = Supervisor::dial(&bench_version, SUPERVISOR_PROTOCOL + 2, NONCE).await;
    assert!(supervisor.hear().await.is_none());
    let first = bench_version.first.await.unwrap();
    assert!(
        matches!(first, Err(ContactError::Refused(HandshakeError::Version { .. }))),
        "{first:?}"
    );
}

#[tokio::test]
async fn the_newest_connection_wins_and_a_stranger_does_not_disturb_it() {
    let mut bench = bench(std::process::id());
    let mut old = Supervisor::connected(&bench).await;
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Connected(None)));
    let mut liar = Supervisor::dial(&bench, SUPERVISOR_PROTOCOL, [0; 32]).await;
    assert!(liar.hear().await.is_none());
    old.say(pong(1)).await.unwrap();
    assert_eq!(
        pong_token(&mut bench.link).await,
        1,
        "before its hello a connection replaces nothing"
    );

    let mut new = Supervisor::connected(&bench).await;
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Disconnected));
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Connected(None)));
    assert!(old.hear().await.is_none());
    new.say(pong(2)).await.unwrap();
    assert_eq!(pong_token(&mut bench.link).await, 2);
}

#[tokio::test]
async fn frames_wait_for_a_connection() {
    let mut bench = bench(std::process::id());
    bench.link.frames.send(ping(1)).await.unwrap();
    let mut supervisor = Supervisor::connected(&bench).await;
    assert!(matches!(
        supervisor.hear().await,
        Some(node_frame::Kind::Ping(Ping { token: 1 }))
    ));
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Connected(None)));
    drop(supervisor);
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Disconnected));
    bench.link.frames.send(ping(2)).await.unwrap();
    let mut supervisor = Supervisor::connected(&bench).await;
    assert!(matches!(
        supervisor.hear().await,
        Some(node_frame::Kind::Ping(Ping { token: 2 }))
    ));
}

#[tokio::test]
async fn a_node_that_does_not_read_stops_the_supervisor_and_loses_nothing() {
    let mut bench = bench(std::process::id());
    let mut supervisor = Supervisor::connected(&bench).await;
    let said = Arc::new(AtomicU64::new(0));
    let counter = said.clone();
    let writer = tokio::spawn(async move {
        for token in 0..200_000 {
            supervisor.say(pong(token)).await.unwrap();
            counter.fetch_add(1, Ordering::Relaxed);
        }
        supervisor
    });
    // Both ends of the socket and everything in between run on this one thread: when all have had their turn many times over, and the socket was asked
    // just as often, and still nothing moves, nothing can.
    let mut last = u64::MAX;
    while last != said.load(Ordering::Relaxed) {
        last = said.load(Ordering::Relaxed);
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }
    // Queue, line and socket hold far less.
    assert!(last < 200_000, "{last} frames were taken though nobody read them");
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Connected(None)));
    for token in 0..200_000 {
        assert_eq!(pong_token(&mut bench.link).await, token);
    }
    drop(writer.await.unwrap());
}

#[tokio::test]
async fn gone_comes_after_everything_that_was_said() {
    let mut bench = bench(std::process::id());
    let mut supervisor = Supervisor::connected(&bench).await;
    for token in 0..100 {
        supervisor.say(pong(token)).await.unwrap();
    }
    // Docker tells before the line has read.
    let ending = Ending {
        exit_code: Some(1),
        ..Ending::default()
    };
    bench.gone.take().unwrap().send(ending.clone()).unwrap();
    drop(supervisor);
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Connected(None)));
    for token in 0..100 {
        assert_eq!(pong_token(&mut bench.link).await, token);
    }
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Disconnected));
    assert!(matches!(event(&mut bench.link).await, LinkEvent::Gone(told) if told == ending));
    assert!(bench.link.events.recv().await.is_none());
    bench.task.await.unwrap();
}

#[tokio::test]
async fn a_line_ends_when_cancelled_or_when_nobody_listens() {
    let cancelled = bench(std::process::id());
    // Full of events that nobody takes.
    let supervisor = Supervisor::connected(&cancelled).await;
    cancelled.cancel.cancel();
    tokio::time::timeout(PATIENCE, cancelled.task).await.unwrap().unwrap();
    drop(supervisor);

    let dropped = bench(std::process::id());
    let mut supervisor = Supervisor::connected(&dropped).await;
    drop(dropped.link);
    assert!(supervisor.hear().await.is_none());
    tokio::time::timeout(PATIENCE, dropped.task).await.unwrap().unwrap();
}
