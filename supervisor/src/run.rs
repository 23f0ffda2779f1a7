//! One run: a started process, its pipes, its output and its end.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gantry_proto::limits::{FRAME_BYTES_MAX, OUTPUT_CHUNK_BYTES_MAX};
use gantry_proto::time::{Clock, SystemClock};
use gantry_proto::v1::{
    EndCause, OutputStream, ProcessExited, ProcessOutput, ProcessStarted, ProcessStatus, ReportFile, StartProcess,
    supervisor_frame::Kind,
};
use tokio::net::unix::pipe::Receiver;

use crate::ending::{self, Action, EndControl};
use crate::output::{OutputBuffer, Pushed};
use crate::process;
use crate::reap::{self, Dead, Usage};
use crate::reports::Reports;
use crate::start_error::StartError;
use std::os::unix::process::ExitStatusExt;

/// How long pipes are read after everything was killed. They end by themselves when their last holder is gone; this bounds one that the kernel
/// cannot kill.
const DRAIN: Duration = Duration::from_secs(10);
/// Between two looks at the progress file.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// What the report files of a run may hold together, so that the exit frame carries them.
const REPORTS_BYTES_MAX: u64 = FRAME_BYTES_MAX as u64 / 2;

/// A run, from its start to the acknowledgement of its end.
#[derive(Debug)]
pub(crate) struct Run {
    request: StartProcess,
    pub(crate) output: OutputBuffer,
    phase: Phase,
    started: Option<ProcessStarted>,
    progress: Option<ReportFile>,
    told: Told,
    /// After the dead-man deadline: when PID 1 leaves although nobody took the result.
    leave_at: Option<Instant>,
}

/// What was said on this connection.
#[derive(Debug, Default)]
struct Told {
    started: bool,
    progress: bool,
    exited: bool,
}

#[derive(Debug)]
enum Phase {
    Live(Box<Live>),
    Exited(Box<ProcessExited>),
}

/// While the process, or something it left, may still write.
#[derive(Debug)]
struct Live {
    pid: i32,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
    clocks: EndControl,
    reports: Reports,
    next_look: Option<Instant>,
    oom_before: Option<u64>,
    usage: Usage,
    /// Exit of the main process, once it was collected.
    ended: Option<Ended>,
    no_children: bool,
}

#[derive(Debug)]
struct Ended {
    status: ExitStatus,
    oom_kills: Option<u64>,
    finished_at_ms: u64,
    give_up_at: Instant,
}

impl Run {
    /// Starts what is asked. A request that cannot be started gives a run that has already ended as invalid.
    pub(crate) fn start(request: StartProcess, oom_before: Option<u64>) -> Self {
        let output = OutputBuffer::new(request.output_limit_bytes);
        let begun = begin(&request, oom_before);
        let (phase, started) = match begun {
            Ok(live) => {
                let pid = u32::try_from(live.pid).unwrap_or(0);
                let started = ProcessStarted {
                    run: request.run,
                    pid,
                    started_at_ms: SystemClock.now_ms(),
                };
                (Phase::Live(Box::new(live)), Some(started))
            }
            Err(error) => (Phase::Exited(Box::new(invalid(&request, &error))), None),
        };
        Self {
            request,
            output,
            phase,
            started,
            progress: None,
            told: Told::default(),
            leave_at: None,
        }
    }

    /// The node's number for this run.
    pub(crate) fn number(&self) -> u64 {
        self.request.run
    }

    /// Whether a request is this run's, word for word.
    pub(crate) fn is_same_request(&self, request: &StartProcess) -> bool {
        self.request == *request
    }

    /// For the hello.
    pub(crate) fn status(&self) -> ProcessStatus {
        ProcessStatus {
            run: self.number(),
            pid: self.started.as_ref().map(|started| started.pid),
            started_at_ms: self.started.as_ref().map(|started| started.started_at_ms),
            next_seq: Some(self.output.next_seq()),
            exited: match &self.phase {
                Phase::Exited(exited) => Some((**exited).clone()),
                Phase::Live(_) => None,
            },
        }
    }

    /// A new connection: everything unacknowledged is said again.
    pub(crate) fn rewind(&mut self) {
        self.output.rewind();
        self.told = Told::default();
    }

    /// The start was asked for again.
    pub(crate) fn repeat_started(&mut self) {
        self.told.started = false;
    }

    /// Whether [`Run::next_frame`] would give one.
    pub(crate) fn has_frame(&self) -> bool {
        (self.started.is_some() && !self.told.started)
            || (self.progress.is_some() && !self.told.progress)
            || self.output.has_unsent()
            || (matches!(self.phase, Phase::Exited(_)) && !self.told.exited)
    }

    /// The next thing to say on this connection: started, progress, output in order, and the exit after all of it.
    pub(crate) fn next_frame(&mut self) -> Option<Kind> {
        if let Some(started) = self.started
            && !self.told.started
        {
            self.told.started = true;
            return Some(Kind::Started(started));
        }
        if let Some(progress) = &self.progress
            && !self.told.progress
        {
            self.told.progress = true;
            return Some(Kind::ReportFile(progress.clone()));
        }
        if let Some(chunk) = self.output.next_to_send() {
            return Some(Kind::Output(ProcessOutput {
                run: self.request.run,
                seq: chunk.seq,
                stream: chunk.stream.into(),
                data: Bytes::from(chunk.data),
                at_ms: chunk.at_ms,
            }));
        }
        if let Phase::Exited(exited) = &self.phase
            && !self.told.exited
        {
            self.told.exited = true;
            return Some(Kind::Exited((**exited).clone()));
        }
        None
    }

    /// Resolves when a pipe has something and the buffer has room for it. Cancel-safe: nothing is read here.
    pub(crate) async fn readable(&self) -> OutputStream {
        let Phase::Live(live) = &self.phase else {
            return std::future::pending().await;
        };
        if !self.output.has_room() {
            return std::future::pending().await;
        }
        tokio::select! {
            () = ready(live.stdout.as_ref()) => OutputStream::Stdout,
            () = ready(live.stderr.as_ref()) => OutputStream::Stderr,
        }
    }

    /// Reads one block from a pipe that is readable.
    pub(crate) fn read(&mut self, stream: OutputStream, now: Instant) {
        let Phase::Live(live) = &mut self.phase else { return };
        let pipe = match stream {
            OutputStream::Stdout => &mut live.stdout,
            OutputStream::Stderr => &mut live.stderr,
        };
        let Some(receiver) = pipe else { return };
        let mut block = [0; OUTPUT_CHUNK_BYTES_MAX];
        match receiver.try_read(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => *pipe = None,
            Ok(got) => {
                if self.output.push(stream, &block[..got], SystemClock.now_ms()) == Pushed::LimitReached {
                    // Nothing after the limit is kept, so nothing after it is read.
                    live.stdout = None;
                    live.stderr = None;
                    if live.ended.is_none() {
                        perform(live.clocks.stop(now, EndCause::OutputLimit, 0), live.pid);
                    }
                }
            }
        }
    }

    /// Ends the process for `cause`, politely for `grace_ms`.
    pub(crate) fn stop(&mut self, now: Instant, cause: EndCause, grace_ms: u64) {
        if let Phase::Live(live) = &mut self.phase
            && live.ended.is_none()
        {
            perform(live.clocks.stop(now, cause, grace_ms), live.pid);
        }
    }

    /// The node extends the dead-man deadline.
    pub(crate) fn extend(&mut self, now: Instant, deadman_ms: u64) {
        if let Phase::Live(live) = &mut self.phase {
            live.clocks.extend(now, deadman_ms);
        }
    }

    /// A process was collected.
    pub(crate) fn collected(&mut self, dead: &Dead, now: Instant, oom_now: Option<u64>) {
        let Phase::Live(live) = &mut self.phase else { return };
        live.usage.add(dead.usage);
        if dead.pid != live.pid || live.ended.is_some() {
            return;
        }
        live.clocks.process_ended();
        live.ended = Some(Ended {
            status: dead.status,
            oom_kills: live
                .oom_before
                .zip(oom_now)
                .map(|(before, now)| now.saturating_sub(before)),
            finished_at_ms: SystemClock.now_ms(),
            give_up_at: now + DRAIN,
        });
        // Whatever it left behind holds the pipes and the workspace.
        reap::kill_everything();
    }

    /// Whether any process lives in the sandbox beside the supervisor.
    pub(crate) fn children(&mut self, none: bool) {
        if let Phase::Live(live) = &mut self.phase {
            live.no_children = none;
        }
    }

    /// When [`Run::tick`] is to be called next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let Phase::Live(live) = &self.phase else {
            return self.leave_at;
        };
        let give_up = live.ended.as_ref().map(|ended| ended.give_up_at);
        [live.clocks.next_deadline(), live.next_look, give_up]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due, and completes the run when its process, what it left and its pipes have all ended.
    pub(crate) fn tick(&mut self, now: Instant) -> Tick {
        let Phase::Live(live) = &mut self.phase else {
            return if self.leave_at.is_some_and(|at| at <= now) {
                Tick::Leave
            } else {
                Tick::Stay
            };
        };
        while let Some(action) = live.clocks.due(now) {
            if action == Action::Leave {
                return Tick::Leave;
            }
            perform(Some(action), live.pid);
        }
        if live.next_look.is_some_and(|at| at <= now) {
            live.next_look = live.ended.is_none().then(|| now + PROGRESS_INTERVAL);
            if let Some(progress) = live.reports.poll_progress() {
                self.progress = Some(progress);
                self.told.progress = false;
            }
        }
        let Some(ended) = &mut live.ended else {
            return Tick::Stay;
        };
        let drained = live.stdout.is_none() && live.stderr.is_none();
        if drained && live.no_children {
            self.complete();
        } else if ended.give_up_at <= now {
            if drained || self.output.has_room() {
                self.complete();
            } else {
                // Nobody takes the output: what is in the pipe is kept there, however long it takes.
                ended.give_up_at = now + DRAIN;
            }
        }
        Tick::Stay
    }

    fn complete(&mut self) {
        let Phase::Live(live) = &self.phase else { return };
        let Some(ended) = &live.ended else { return };
        let exited = ProcessExited {
            run: self.request.run,
            cause: ending::classify(ended.status, live.clocks.cause(), ended.oom_kills.unwrap_or(0)).into(),
            exit_code: ended.status.code(),
            signal: ended.status.signal(),
            oom_seen: ended.oom_kills.map(|kills| kills > 0),
            finished_at_ms: ended.finished_at_ms,
            last_seq: Some(self.output.last_seq()),
            user_cpu_us: Some(live.usage.user_cpu_us),
            system_cpu_us: Some(live.usage.system_cpu_us),
            max_rss_bytes: Some(live.usage.max_rss_bytes),
            fault: None,
            reports: live.reports.read_all(),
        };
        self.progress = None;
        self.leave_at = live.clocks.leave_at();
        self.phase = Phase::Exited(Box::new(exited));
    }

    /// Whether the dead-man deadline ended it: PID 1 leaves with the result's acknowledgement.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.leave_at.is_some()
    }

    /// Whether the end was reached, and may be acknowledged.
    pub(crate) fn has_exited(&self) -> bool {
        matches!(self.phase, Phase::Exited(_))
    }
}

/// What a tick asks of the event loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tick {
    Stay,
    /// End PID 1: the dead-man deadline passed and nobody took the result.
    Leave,
}

fn begin(request: &StartProcess, oom_before: Option<u64>) -> Result<Live, StartError> {
    let reports_bytes = request
        .reports
        .iter()
        .fold(0_u64, |sum, file| sum.saturating_add(file.limit_bytes));
    if reports_bytes > REPORTS_BYTES_MAX {
        return Err(StartError::ReportsTooLarge {
            got_bytes: reports_bytes,
            max_bytes: REPORTS_BYTES_MAX,
        });
    }
    let identity = process::identity(request)?;
    let reports = Reports::create(request.run, &request.reports, &identity)?;
    let started = process::spawn(request, &identity)?;
    let now = Instant::now();
    Ok(Live {
        pid: started.pid,
        stdout: Some(started.stdout),
        stderr: Some(started.stderr),
        clocks: EndControl::start(now, request.timeout_ms, request.grace_ms, request.deadman_ms),
        next_look: reports.has_progress().then(|| now + PROGRESS_INTERVAL),
        reports,
        oom_before,
        usage: Usage::default(),
        ended: None,
        no_children: false,
    })
}

fn invalid(request: &StartProcess, error: &StartError) -> ProcessExited {
    ProcessExited {
        run: request.run,
        cause: EndCause::Invalid.into(),
        finished_at_ms: SystemClock.now_ms(),
        last_seq: Some(0),
        fault: Some(error.to_fault()),
        ..Default::default()
    }
}

fn perform(action: Option<Action>, pid: i32) {
    match action {
        Some(Action::Terminate) => reap::terminate_group(pid),
        Some(Action::Kill) => reap::kill_everything(),
        Some(Action::Leave) | None => {}
    }
}

async fn ready(pipe: Option<&Receiver>) {
    match pipe {
        // An error is found again by the read that follows.
        Some(receiver) => drop(receiver.readable().await),
        None => std::future::pending().await,
    }
}
