//! The event loop of PID 1: one task, one run, one line to the node.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use gantry_proto::v1::{
    EndCause, Fault, NodeFrame, Pong, StartProcess, SupervisorFault, SupervisorFrame, SupervisorHello, node_frame,
    supervisor_frame::Kind,
};
use gantry_proto::{ErrorCode, SUPERVISOR_PROTOCOL};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::link::{self, Dialled, FromNode, LinkError, QUEUE_FRAMES};
use crate::oom::OomCounter;
use crate::reap::{self, Reaped};
use crate::run::{Run, Tick};

/// Answers that wait for room on the line. A node that asks faster than it reads loses the oldest answers.
const ANSWERS_MAX: usize = 64;

/// Why PID 1 ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// The node, or Docker by SIGTERM, asked for it.
    Asked,
    /// The dead-man deadline passed.
    Abandoned,
}

/// What PID 1 knows.
pub(crate) struct Supervisor {
    sock_dir: PathBuf,
    oom: OomCounter,
    run: Option<Run>,
    /// The run whose end was acknowledged last.
    finished_run: Option<u64>,
    answers: VecDeque<Kind>,
    leaving: Option<Leaving>,
}

/// The line: dialling, or a connection with its task.
enum Line {
    Dialling(JoinHandle<Dialled>),
    Connected {
        task: JoinHandle<LinkError>,
        from_node: mpsc::Receiver<FromNode>,
    },
}

/// What the line reports.
enum LineEvent {
    Dialled(Dialled),
    FromNode(FromNode),
    Broken(Option<LinkError>),
}

impl Line {
    /// Cancel-safe: both waits can be dropped and repeated.
    async fn next(&mut self) -> LineEvent {
        match self {
            Self::Dialling(task) => match task.await {
                Ok(dialled) => LineEvent::Dialled(dialled),
                Err(_stopped) => LineEvent::Broken(None),
            },
            Self::Connected { task, from_node } => match from_node.recv().await {
                Some(event) => LineEvent::FromNode(event),
                None => LineEvent::Broken(task.await.ok()),
            },
        }
    }

    fn abort(&self) {
        match self {
            Self::Dialling(task) => task.abort(),
            Self::Connected { task, .. } => task.abort(),
        }
    }
}

impl Supervisor {
    /// A supervisor that will dial `node.sock` in `sock_dir`.
    pub(crate) fn new(sock_dir: PathBuf, oom: OomCounter) -> Self {
        Self {
            sock_dir,
            oom,
            run: None,
            finished_run: None,
            answers: VecDeque::new(),
            leaving: None,
        }
    }

    /// Runs until PID 1 is to end. Everything in the sandbox is dead afterwards.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub(crate) async fn run(mut self) -> io::Result<Leaving> {
        let mut child_signal = signal(SignalKind::child())?;
        let mut stop_signal = signal(SignalKind::terminate())?;
        let mut failures = 0_u32;
        let mut line = Line::Dialling(tokio::spawn(link::dial(self.sock_dir.clone(), failures)));
        let mut to_node: Option<mpsc::Sender<SupervisorFrame>> = None;
        let mut up = false;
        loop {
            let now = Instant::now();
            if self.run.as_mut().is_some_and(|run| run.tick(now) == Tick::Leave) {
                self.leaving.get_or_insert(Leaving::Abandoned);
            }
            if let Some(leaving) = self.leaving {
                line.abort();
                reap::kill_everything();
                return Ok(leaving);
            }
            let deadline = self.run.as_ref().and_then(Run::next_deadline);
            let has_frame = up && self.has_frame();
            tokio::select! {
                _ = child_signal.recv() => self.collect(),
                _ = stop_signal.recv() => self.leaving = Some(Leaving::Asked),
                event = line.next() => match event {
                    LineEvent::Dialled(dialled) => {
                        let (frames, from_loop) = mpsc::channel(QUEUE_FRAMES);
                        let (to_loop, from_node) = mpsc::channel(QUEUE_FRAMES);
                        let hello = self.hello(&dialled);
                        let task = tokio::spawn(link::converse(dialled, hello, to_loop, from_loop));
                        line = Line::Connected { task, from_node };
                        to_node = Some(frames);
                    }
                    LineEvent::FromNode(FromNode::Up) => {
                        up = true;
                        failures = 0;
                        self.connected();
                    }
                    LineEvent::FromNode(FromNode::Frame(frame)) => self.handle(*frame),
                    LineEvent::Broken(error) => {
                        if let Some(error) = error {
                            eprintln!("gantry-supervisor: {error}");
                        }
                        up = false;
                        to_node = None;
                        failures = failures.saturating_add(1);
                        line = Line::Dialling(tokio::spawn(link::dial(self.sock_dir.clone(), failures)));
                    }
                },
                () = room(to_node.as_ref()), if has_frame => {
                    if let Some(sender) = &to_node && let Some(kind) = self.next_frame() {
                        // There is room, and nobody else sends; a connection that has ended meanwhile is rewound at the next one.
                        let _ended = sender.try_send(SupervisorFrame { kind: Some(kind) });
                    }
                }
                stream = readable(self.run.as_ref()) => {
                    if let Some(run) = &mut self.run {
                        run.read(stream, Instant::now());
                    }
                }
                () = until(deadline) => {}
            }
        }
    }

    fn hello(&self, dialled: &Dialled) -> SupervisorHello {
        SupervisorHello {
            protocol: SUPERVISOR_PROTOCOL,
            nonce: dialled.nonce(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            process: self.run.as_ref().map(Run::status),
            sees_oom_counter: Some(self.oom.read().is_some()),
        }
    }

    fn connected(&mut self) {
        self.answers.clear();
        if let Some(run) = &mut self.run {
            run.rewind();
        }
    }

    fn has_frame(&self) -> bool {
        !self.answers.is_empty() || self.run.as_ref().is_some_and(Run::has_frame)
    }

    fn next_frame(&mut self) -> Option<Kind> {
        self.answers.pop_front().or_else(|| self.run.as_mut()?.next_frame())
    }

    fn answer(&mut self, kind: Kind) {
        if self.answers.len() == ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back(kind);
    }

    fn handle(&mut self, frame: NodeFrame) {
        let now = Instant::now();
        match frame.kind {
            Some(node_frame::Kind::Start(request)) => self.start(request),
            Some(node_frame::Kind::Stop(stop)) => {
                let cause = stop.cause.map_or(EndCause::Cancelled, |_| stop.cause());
                if let Some(run) = self.current(stop.run) {
                    run.stop(now, cause, stop.grace_ms);
                }
            }
            Some(node_frame::Kind::OutputAck(ack)) => {
                if let Some(run) = self.current(ack.run) {
                    run.output.acknowledge(ack.seq);
                }
            }
            Some(node_frame::Kind::ExitAck(ack)) => self.forget(ack.run),
            Some(node_frame::Kind::Extend(extend)) => {
                if let Some(run) = self.current(extend.run) {
                    run.extend(now, extend.deadman_ms);
                }
            }
            Some(node_frame::Kind::Ping(ping)) => self.answer(Kind::Pong(Pong { token: ping.token })),
            Some(node_frame::Kind::Shutdown(_)) => self.leaving = Some(Leaving::Asked),
            // A second hello changes nothing; what is not known comes from a newer node that knows we do not know it.
            Some(node_frame::Kind::Hello(_)) | None => {}
        }
    }

    fn current(&mut self, run: u64) -> Option<&mut Run> {
        self.run.as_mut().filter(|current| current.number() == run)
    }

    fn start(&mut self, request: StartProcess) {
        match &mut self.run {
            Some(run) if run.is_same_request(&request) => run.repeat_started(),
            Some(run) => {
                let (held, asked) = (run.number(), request.run);
                self.refuse(format!(
                    "run {asked} cannot start: run {held} is held and its end is not acknowledged"
                ));
            }
            None if self.finished_run == Some(request.run) => {
                self.refuse(format!("run {} has ended, and its end was acknowledged", request.run));
            }
            None => {
                self.run = Some(Run::start(request, self.oom.read()));
                // It may be dead already, and its signal may have come before there was a run to tell.
                self.collect();
            }
        }
    }

    fn refuse(&mut self, message: String) {
        let fault = Fault::new(ErrorCode::SupervisorFault, message);
        self.answer(Kind::Fault(SupervisorFault { fault }));
    }

    fn forget(&mut self, run: u64) {
        let Some(current) = self
            .run
            .take_if(|current| current.number() == run && current.has_exited())
        else {
            return;
        };
        self.finished_run = Some(run);
        if current.is_abandoned() {
            self.leaving = Some(Leaving::Abandoned);
        }
    }

    /// Collects every child that has ended.
    fn collect(&mut self) {
        let now = Instant::now();
        let none = loop {
            match reap::reap_one() {
                Reaped::Dead(dead) => {
                    if let Some(run) = &mut self.run {
                        run.collected(&dead, now, self.oom.read());
                    }
                }
                Reaped::NoneReady => break false,
                Reaped::NoChildren => break true,
            }
        };
        if let Some(run) = &mut self.run {
            run.children(none);
        }
    }
}

/// Resolves when a frame can be queued.
async fn room(to_node: Option<&mpsc::Sender<SupervisorFrame>>) {
    let has_room = match to_node {
        Some(sender) => sender.reserve().await.is_ok(),
        None => false,
    };
    if !has_room {
        // The connection has ended; the line reports it.
        std::future::pending().await
    }
}

async fn readable(run: Option<&Run>) -> gantry_proto::v1::OutputStream {
    match run {
        Some(run) => run.readable().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
