//! A step that runs: frames down, output up, orders in between, until its process has ended and all it printed is durable upstream.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use gantry_fleet_manager::{Ending, Link, LinkEvent};
use gantry_proto::limits::{OUTPUT_BUFFER_BYTES_MAX, OUTPUT_CHUNK_BYTES_MAX};
use gantry_proto::v1::{
    Assignee, CancelStep, EndCause, ExitAck, ExtendDeadline, Fault, NodeFrame, NodeToServer, OutputAck, ProcessExited,
    ProcessOutput, ProcessStatus, ReportFile, ReportKind, StartProcess, StepOutput, StepProgress, StepStarted,
    StopProcess, node_frame, node_to_server, supervisor_frame,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::board::{Orders, SessionHandle};

/// Output of one message upstream.
const BATCH_BYTES_MAX: usize = 4 * OUTPUT_CHUNK_BYTES_MAX;
/// What is kept unacknowledged here before the supervisor is read no further; it bounds itself at half of it.
const WINDOW_BYTES_MAX: usize = 2 * OUTPUT_BUFFER_BYTES_MAX;
/// Messages with output that are unacknowledged. What a step prints meanwhile goes together with the next one, so that a step that prints many short lines
/// does not fill the line that heartbeats travel on, too.
const MESSAGES_MAX: usize = 8;
/// How much later than asked a supervisor may end its process before the container is killed.
const OVERDUE: Duration = Duration::from_secs(20);

/// How long a supervisor may be silent that has reported the exit of its process and owes output, while we wait for nothing but it. A container that stood
/// still for so long is not coming back.
const HANDOVER: Duration = Duration::from_mins(1);

/// How the run of a process ended.
#[derive(Debug)]
pub(super) enum RunEnd {
    /// With an exit of its own; all output is durable.
    Exited(ProcessExited),
    /// The container ended first; what output there is, is durable.
    Gone(Ending),
    /// The supervisor broke its protocol.
    Broken(Fault),
    /// It does not end when told to, or ([`EndCause::Lost`]) does not hand over what its process printed: kill the container.
    Overdue(EndCause),
    /// The lease is gone.
    Dropped,
}

pub(super) struct Pump {
    assignee: Assignee,
    run: u64,
    deadman_ms: u64,
    link: Link,
    connected: bool,
    gone: Option<Ending>,
    broken: Option<Fault>,
    // Down.
    start: StartProcess,
    start_due: bool,
    stop: Option<CancelStep>,
    stop_due: bool,
    ack_due: bool,
    renewals: u64,
    extend_due: bool,
    // Up.
    /// Its time is 0 until the process has started.
    started: StepStarted,
    started_in: u64,
    window: VecDeque<ProcessOutput>,
    window_bytes: usize,
    /// Chunks of the window that the session has.
    sent: usize,
    /// The last sequence of each unacknowledged message that the session has.
    messages: VecDeque<u64>,
    received: u64,
    acked: u64,
    progress: Option<Bytes>,
    epoch: u64,
    // End.
    reports: BTreeMap<i32, ReportFile>,
    exited: Option<ProcessExited>,
    limit: Option<(Instant, EndCause)>,
    /// When the supervisor was last heard, or last had no reason to speak.
    heard: Instant,
}

/// What a pump begins with.
pub(super) struct PumpStart {
    pub(super) assignee: Assignee,
    pub(super) run: u64,
    pub(super) deadman_ms: u64,
    pub(super) timeout: Option<Duration>,
    /// Sent when the supervisor connects and turns out not to have it.
    pub(super) start: StartProcess,
    pub(super) started: StepStarted,
    pub(super) acked: u64,
}

impl Pump {
    pub(super) fn new(link: Link, begin: PumpStart) -> Self {
        let limit = begin
            .timeout
            .map(|timeout| (Instant::now() + timeout + OVERDUE, EndCause::Timeout));
        Self {
            assignee: begin.assignee,
            run: begin.run,
            deadman_ms: begin.deadman_ms,
            link,
            connected: false,
            gone: None,
            broken: None,
            start: begin.start,
            start_due: false,
            stop: None,
            stop_due: false,
            ack_due: false,
            renewals: 0,
            extend_due: false,
            started_in: 0,
            started: begin.started,
            window: VecDeque::new(),
            window_bytes: 0,
            sent: 0,
            messages: VecDeque::new(),
            received: begin.acked,
            acked: begin.acked,
            progress: None,
            epoch: 0,
            reports: BTreeMap::new(),
            exited: None,
            limit,
            heard: Instant::now(),
        }
    }

    /// Output that is known to be durable upstream.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// When the process started, in milliseconds since the epoch.
    pub(super) fn started_at_ms(&self) -> Option<u64> {
        Some(self.started.started_at_ms).filter(|at| *at > 0)
    }

    /// Why the process was told to stop, if it was.
    pub(super) fn stop_cause(&self) -> Option<EndCause> {
        self.stop.as_ref().map(CancelStep::cause)
    }

    pub(super) async fn run(
        &mut self,
        orders: &mut watch::Receiver<Orders>,
        session: &mut watch::Receiver<Option<SessionHandle>>,
    ) -> RunEnd {
        loop {
            if self.obey(&orders.borrow_and_update()) {
                return RunEnd::Dropped;
            }
            let up = session.borrow_and_update().clone();
            self.follow(up.as_ref());
            if let Some(end) = self.ended() {
                return end;
            }
            let up_due = up.is_some() && self.has_up();
            let down_due = self.connected && self.has_down();
            let reading = self.gone.is_none() && self.broken.is_none() && self.window_bytes < WINDOW_BYTES_MAX;
            let owed = reading
                && self
                    .exited
                    .as_ref()
                    .is_some_and(|exit| self.received < exit.last_seq.unwrap_or(0));
            if !owed {
                self.heard = Instant::now();
            }
            let limit = if owed {
                Some((self.heard + HANDOVER, EndCause::Lost))
            } else {
                self.limit
            };
            let frames = self.link.frames.clone();
            tokio::select! {
                event = self.link.events.recv(), if reading => {
                    self.heard = Instant::now();
                    self.event(event);
                }
                permit = reserve(up.as_ref()), if up_due => match permit {
                    Some(permit) => if let Some(message) = self.next_up() { permit.send(message) },
                    // The session is ending; its successor is announced.
                    None => if session.changed().await.is_err() { return RunEnd::Dropped },
                },
                permit = frames.reserve(), if down_due => match permit {
                    Ok(permit) => if let Some(frame) = self.next_down() { permit.send(frame) },
                    Err(_) => self.connected = false,
                },
                changed = orders.changed() => if changed.is_err() { return RunEnd::Dropped },
                changed = session.changed() => if changed.is_err() { return RunEnd::Dropped },
                () = until(limit) => {
                    self.limit = None;
                    self.heard = Instant::now();
                    if let Some((_, cause)) = limit { return RunEnd::Overdue(cause) }
                }
            }
        }
    }

    /// Takes over what the session wants. `true`: the lease is gone.
    fn obey(&mut self, orders: &Orders) -> bool {
        if orders.dropped {
            return true;
        }
        if orders.output_acked > self.acked {
            self.acked = orders.output_acked;
            self.received = self.received.max(self.acked);
            while self.window.front().is_some_and(|chunk| chunk.seq <= self.acked) {
                if let Some(chunk) = self.window.pop_front() {
                    self.window_bytes -= chunk.data.len();
                }
                self.sent = self.sent.saturating_sub(1);
            }
            while self.messages.front().is_some_and(|seq| *seq <= self.acked) {
                self.messages.pop_front();
            }
            self.ack_due = true;
        }
        if orders.renewals > self.renewals {
            self.renewals = orders.renewals;
            self.extend_due = true;
        }
        // Asked again with less patience: the shorter grace holds. The first cause stands.
        let sooner = |cancel: &&CancelStep| self.stop.as_ref().is_none_or(|stop| cancel.grace_ms < stop.grace_ms);
        if self.exited.is_none()
            && let Some(cancel) = orders.cancel.as_ref().filter(sooner)
        {
            let end = Instant::now() + Duration::from_millis(cancel.grace_ms) + OVERDUE;
            let cause = self.stop.as_ref().map_or(cancel.cause, |stop| stop.cause);
            let stop = CancelStep {
                cause,
                ..cancel.clone()
            };
            if self.limit.is_none_or(|(limit, _)| end < limit) {
                self.limit = Some((end, stop.cause()));
            }
            self.stop = Some(stop);
            self.stop_due = true;
        }
        false
    }

    /// A new session has nothing of what was sent to the old one.
    fn follow(&mut self, session: Option<&SessionHandle>) {
        let epoch = session.map_or(0, |session| session.epoch);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.sent = 0;
            self.messages.clear();
        }
    }

    fn ended(&mut self) -> Option<RunEnd> {
        if !self.window.is_empty() {
            return None;
        }
        // An exit whose output died with the supervisor is none: a result says that all of its output is stored.
        if let Some(exit) = &self.exited {
            if self.received >= exit.last_seq.unwrap_or(0) {
                return self.exited.take().map(RunEnd::Exited);
            }
            if self.gone.is_none() && self.broken.is_none() {
                return None;
            }
        }
        if let Some(fault) = self.broken.take() {
            return Some(RunEnd::Broken(fault));
        }
        self.gone.clone().map(RunEnd::Gone)
    }

    fn has_up(&self) -> bool {
        self.started_due() || self.output_due() || self.progress.is_some()
    }

    fn output_due(&self) -> bool {
        self.sent < self.window.len() && self.messages.len() < MESSAGES_MAX
    }

    fn started_due(&self) -> bool {
        self.started_in != self.epoch && self.started_at_ms().is_some()
    }

    fn next_up(&mut self) -> Option<NodeToServer> {
        let kind = if self.started_due() {
            self.started_in = self.epoch;
            node_to_server::Kind::StepStarted(self.started.clone())
        } else if self.output_due() {
            let (mut chunks, mut bytes) = (Vec::new(), 0);
            for chunk in self.window.iter().skip(self.sent) {
                if !chunks.is_empty() && bytes + chunk.data.len() > BATCH_BYTES_MAX {
                    break;
                }
                bytes += chunk.data.len();
                chunks.push(chunk.clone());
            }
            self.sent += chunks.len();
            self.messages.extend(chunks.last().map(|chunk| chunk.seq));
            node_to_server::Kind::StepOutput(StepOutput {
                assignee: self.assignee.clone(),
                chunks,
            })
        } else {
            let content = self.progress.take()?;
            node_to_server::Kind::StepProgress(StepProgress {
                assignee: self.assignee.clone(),
                content,
            })
        };
        Some(NodeToServer { kind: Some(kind) })
    }

    fn has_down(&self) -> bool {
        self.start_due || self.stop_due || self.ack_due || self.extend_due
    }

    /// The most urgent frame that is due.
    fn next_down(&mut self) -> Option<NodeFrame> {
        let run = self.run;
        let kind = if std::mem::take(&mut self.start_due) {
            node_frame::Kind::Start(self.start.clone())
        } else if let (true, Some(stop)) = (std::mem::take(&mut self.stop_due), &self.stop) {
            node_frame::Kind::Stop(StopProcess {
                run,
                grace_ms: stop.grace_ms,
                cause: Some(stop.cause),
            })
        } else if std::mem::take(&mut self.ack_due) {
            node_frame::Kind::OutputAck(OutputAck { run, seq: self.acked })
        } else if std::mem::take(&mut self.extend_due) {
            node_frame::Kind::Extend(ExtendDeadline {
                run,
                deadman_ms: self.deadman_ms,
            })
        } else {
            return None;
        };
        Some(NodeFrame { kind: Some(kind) })
    }

    fn event(&mut self, event: Option<LinkEvent>) {
        match event {
            Some(LinkEvent::Connected(status)) => self.connected(status),
            Some(LinkEvent::Frame(frame)) => self.frame(frame.kind),
            Some(LinkEvent::Disconnected) => self.connected = false,
            Some(LinkEvent::Gone(ending)) => self.gone = Some(ending),
            None => {
                let detail = "the line to the sandbox was closed".to_owned();
                self.gone = Some(Ending {
                    detail,
                    ..Ending::default()
                });
            }
        }
    }

    fn connected(&mut self, status: Option<ProcessStatus>) {
        self.connected = true;
        self.ack_due = self.acked > 0;
        // Nothing is extended by a connection alone: only the server's word that the lease lives pushes the dead-man deadline.
        self.stop_due = self.stop.is_some();
        match status {
            None if self.exited.is_none() => self.start_due = true,
            None => {}
            Some(status) if status.run != self.run => {
                let message = format!("the supervisor runs {} instead of {}", status.run, self.run);
                self.broken = Some(Fault::new(gantry_proto::ErrorCode::SupervisorFault, message));
            }
            Some(status) => {
                self.start_due = false;
                if let Some(at) = status.started_at_ms {
                    self.note_started(at);
                }
                if let Some(exit) = status.exited {
                    self.note_exit(exit);
                }
            }
        }
    }

    fn frame(&mut self, kind: Option<supervisor_frame::Kind>) {
        use supervisor_frame::Kind;
        match kind {
            Some(Kind::Started(started)) if started.run == self.run => self.note_started(started.started_at_ms),
            Some(Kind::Output(chunk)) if chunk.run == self.run => {
                // Repeated after a reconnection.
                if chunk.seq <= self.received {
                    self.ack_due |= chunk.seq <= self.acked;
                    return;
                }
                self.received = chunk.seq;
                self.window_bytes += chunk.data.len();
                self.window.push_back(chunk);
            }
            Some(Kind::Exited(exit)) if exit.run == self.run => self.note_exit(exit),
            Some(Kind::ReportFile(report)) if report.run == self.run => self.note_report(report),
            Some(Kind::Fault(fault)) => self.broken = Some(fault.fault),
            // Of another run, or newer than this version.
            _ => {}
        }
    }

    fn note_started(&mut self, at_ms: u64) {
        if self.started.started_at_ms == 0 {
            self.started.started_at_ms = at_ms;
        }
    }

    fn note_report(&mut self, report: ReportFile) {
        if report.kind() == ReportKind::Progress {
            if report.truncated != Some(true) {
                self.progress = Some(report.content);
            }
        } else {
            self.reports.insert(report.kind, report);
        }
    }

    fn note_exit(&mut self, mut exit: ProcessExited) {
        for report in std::mem::take(&mut exit.reports) {
            self.note_report(report);
        }
        exit.reports = self.reports.values().cloned().collect();
        self.exited = Some(exit);
        // The claim file takes the exit over as soon as the output is through; what the supervisor keeps until then is not in the way.
        self.limit = None;
        self.start_due = false;
        self.stop_due = false;
    }

    /// Tells the supervisor that its exit is in the claim file. It may not arrive: the container is killed next.
    pub(super) fn acknowledge_exit(&self) {
        let kind = node_frame::Kind::ExitAck(ExitAck { run: self.run });
        let _ = self.link.frames.try_send(NodeFrame { kind: Some(kind) });
    }
}

async fn reserve(session: Option<&SessionHandle>) -> Option<mpsc::Permit<'_, NodeToServer>> {
    session?.up.reserve().await.ok()
}

async fn until(limit: Option<(Instant, EndCause)>) {
    match limit {
        Some((at, _)) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::v1::SupervisorFrame;

    /// A pump between a supervisor and a server, both played by the test.
    struct Ends {
        events: mpsc::Sender<LinkEvent>,
        frames: mpsc::Receiver<NodeFrame>,
        up: mpsc::Receiver<NodeToServer>,
        orders: watch::Sender<Orders>,
        running: tokio::task::JoinHandle<RunEnd>,
    }

    fn begin() -> Ends {
        let (events, link_events) = mpsc::channel(16);
        let (link_frames, frames) = mpsc::channel(16);
        let (sender, up) = mpsc::channel(16);
        let (orders, mut orders_seen) = watch::channel(Orders::default());
        let mut pump = Pump::new(
            Link {
                frames: link_frames,
                events: link_events,
            },
            PumpStart {
                assignee: Assignee::default(),
                run: 1,
                deadman_ms: 60_000,
                timeout: None,
                start: StartProcess::default(),
                started: StepStarted::default(),
                acked: 0,
            },
        );
        let running = tokio::spawn(async move {
            let (_keep, mut session) = watch::channel(Some(SessionHandle::new(1, sender)));
            pump.run(&mut orders_seen, &mut session).await
        });
        Ends {
            events,
            frames,
            up,
            orders,
            running,
        }
    }

    fn status(exited: Option<ProcessExited>) -> LinkEvent {
        LinkEvent::Connected(Some(ProcessStatus {
            run: 1,
            started_at_ms: Some(5),
            exited,
            ..ProcessStatus::default()
        }))
    }

    fn output(seq: u64) -> LinkEvent {
        let chunk = ProcessOutput {
            run: 1,
            seq,
            data: "x".into(),
            ..ProcessOutput::default()
        };
        LinkEvent::Frame(SupervisorFrame {
            kind: Some(supervisor_frame::Kind::Output(chunk)),
        })
    }

    fn exit(last_seq: u64) -> ProcessExited {
        ProcessExited {
            run: 1,
            exit_code: Some(0),
            last_seq: Some(last_seq),
            ..ProcessExited::default()
        }
    }

    impl Ends {
        async fn output_sent(&mut self) -> u64 {
            loop {
                if let Some(node_to_server::Kind::StepOutput(sent)) = self.up.recv().await.unwrap().kind {
                    return sent.chunks.last().unwrap().seq;
                }
            }
        }

        fn cancel(&self, grace_ms: u64) {
            let cancel = CancelStep {
                assignee: Assignee::default(),
                grace_ms,
                cause: EndCause::Cancelled.into(),
            };
            self.orders.send_modify(|orders| orders.cancel = Some(cancel));
        }

        async fn frame(&mut self) -> node_frame::Kind {
            self.frames.recv().await.unwrap().kind.unwrap()
        }
    }

    #[tokio::test]
    async fn an_exit_whose_output_died_with_the_supervisor_is_a_loss() {
        for (received, whole) in [(1, false), (2, true)] {
            let mut ends = begin();
            ends.events.send(status(Some(exit(2)))).await.unwrap();
            for seq in 1..=received {
                ends.events.send(output(seq)).await.unwrap();
            }
            ends.events.send(LinkEvent::Gone(Ending::default())).await.unwrap();
            while ends.output_sent().await < received {}
            ends.orders.send_modify(|orders| orders.output_acked = received);
            match ends.running.await.unwrap() {
                RunEnd::Exited(exit) => assert!(whole, "{exit:?}"),
                RunEnd::Gone(_) => assert!(!whole),
                other => panic!("{other:?}"),
            }
        }
    }

    fn progress() -> LinkEvent {
        let mut report = ReportFile {
            run: 1,
            content: "marker".into(),
            ..ReportFile::default()
        };
        report.set_kind(ReportKind::Progress);
        LinkEvent::Frame(SupervisorFrame {
            kind: Some(supervisor_frame::Kind::ReportFile(report)),
        })
    }

    #[tokio::test]
    async fn short_lines_wait_for_an_acknowledgement_and_then_go_together() {
        let mut ends = begin();
        ends.events.send(status(None)).await.unwrap();
        for seq in 1..=8 {
            ends.events.send(output(seq)).await.unwrap();
            assert_eq!(ends.output_sent().await, seq);
        }
        for seq in 9..=100 {
            ends.events.send(output(seq)).await.unwrap();
        }
        // Everything is received in order; the marker goes up although output waits.
        ends.events.send(progress()).await.unwrap();
        let marker = ends.up.recv().await.unwrap().kind.unwrap();
        assert!(matches!(marker, node_to_server::Kind::StepProgress(_)), "{marker:?}");
        ends.orders.send_modify(|orders| orders.output_acked = 1);
        assert_eq!(ends.output_sent().await, 100, "in one message");
        ends.running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_supervisor_that_falls_silent_with_output_in_its_hands_is_given_up() {
        let mut ends = begin();
        ends.events.send(status(Some(exit(4)))).await.unwrap();
        let begun = Instant::now();
        for seq in 1..=3 {
            // Slow is not silent.
            tokio::time::sleep(HANDOVER - Duration::from_secs(1)).await;
            ends.events.send(output(seq)).await.unwrap();
            assert_eq!(ends.output_sent().await, seq);
            ends.orders.send_modify(|orders| orders.output_acked = seq);
        }
        match ends.running.await.unwrap() {
            RunEnd::Overdue(cause) => assert_eq!(cause, EndCause::Lost),
            other => panic!("{other:?}"),
        }
        assert!(begun.elapsed() >= 4 * HANDOVER - Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_takes_nothing_is_waited_for() {
        let ends = begin();
        ends.events.send(status(Some(exit(1)))).await.unwrap();
        ends.events.send(output(1)).await.unwrap();
        // All is here and nothing is acknowledged: the supervisor owes nothing.
        tokio::time::sleep(10 * HANDOVER).await;
        assert!(!ends.running.is_finished());
        ends.orders.send_modify(|orders| orders.output_acked = 1);
        assert!(matches!(ends.running.await.unwrap(), RunEnd::Exited(_)));
    }

    #[tokio::test]
    async fn a_second_cancel_can_only_shorten_the_grace() {
        let mut ends = begin();
        ends.events.send(status(None)).await.unwrap();
        for (grace_ms, asked) in [(60_000, Some(60_000)), (90_000, None), (10, Some(10))] {
            ends.cancel(grace_ms);
            let Some(asked) = asked else { continue };
            match ends.frame().await {
                node_frame::Kind::Stop(stop) => assert_eq!(stop.grace_ms, asked),
                other => panic!("{other:?}"),
            }
        }
        ends.running.abort();
    }

    #[tokio::test]
    async fn only_a_renewal_extends_the_dead_man_deadline() {
        let mut ends = begin();
        ends.events.send(status(None)).await.unwrap();
        // Acknowledgements are the markers: an extension that was due at a connection would come in between.
        ends.orders.send_modify(|orders| orders.output_acked = 1);
        assert!(matches!(ends.frame().await, node_frame::Kind::OutputAck(_)));
        ends.events.send(LinkEvent::Disconnected).await.unwrap();
        ends.events.send(status(None)).await.unwrap();
        assert!(matches!(ends.frame().await, node_frame::Kind::OutputAck(_)));
        ends.orders.send_modify(|orders| orders.output_acked = 2);
        assert!(matches!(ends.frame().await, node_frame::Kind::OutputAck(_)));
        ends.orders.send_modify(|orders| orders.renewals = 1);
        assert!(matches!(ends.frame().await, node_frame::Kind::Extend(_)));
        ends.running.abort();
    }
}
