//! When and why a run ends: timeout, stop, dead-man deadline and grace, as a function of the monotonic clock. Pure.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use gantry_proto::v1::EndCause;
use std::os::unix::process::ExitStatusExt;

/// After the dead-man deadline, how long the supervisor waits for somebody to take the result before it leaves, and the container with it.
const FAREWELL: Duration = Duration::from_secs(30);

/// Longest span that is taken literally; beyond it, adding to a clock could overflow.
const SPAN_MAX_MS: u64 = 10 * 365 * 24 * 3_600_000;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The polite signal to the process group.
    Terminate,
    /// SIGKILL to everything.
    Kill,
    /// Nobody took the result in time: PID 1 ends.
    Leave,
}

#[derive(Debug)]
struct Ending {
    cause: EndCause,
    kill_at: Instant,
    killed: bool,
}

/// The clocks of one run.
#[derive(Debug)]
pub(crate) struct EndControl {
    timeout: Option<Instant>,
    deadman: Option<Instant>,
    grace: Duration,
    ending: Option<Ending>,
    leave_at: Option<Instant>,
}

impl EndControl {
    /// Clocks of a run that starts `now`.
    pub(crate) fn start(now: Instant, timeout_ms: Option<u64>, grace_ms: u64, deadman_ms: u64) -> Self {
        Self {
            timeout: timeout_ms.map(|ms| now + span(ms)),
            deadman: Some(now + span(deadman_ms)),
            grace: span(grace_ms),
            ending: None,
            leave_at: None,
        }
    }

    /// The node is there and extends the dead-man deadline.
    pub(crate) fn extend(&mut self, now: Instant, deadman_ms: u64) {
        if self.deadman.is_some() {
            self.deadman = Some(now + span(deadman_ms));
        }
    }

    /// Ends the run for `cause`. The first cause stands; a second call can only shorten the grace.
    pub(crate) fn stop(&mut self, now: Instant, cause: EndCause, grace_ms: u64) -> Option<Action> {
        self.begin(now, cause, span(grace_ms))
    }

    fn begin(&mut self, now: Instant, cause: EndCause, grace: Duration) -> Option<Action> {
        let kill_at = now + grace;
        let first = self.ending.is_none();
        let ending = self.ending.get_or_insert(Ending {
            cause,
            kill_at,
            killed: false,
        });
        ending.kill_at = ending.kill_at.min(kill_at);
        if ending.killed {
            None
        } else if ending.kill_at <= now {
            ending.killed = true;
            Some(Action::Kill)
        } else {
            first.then_some(Action::Terminate)
        }
    }

    /// What is due at `now`; call again until it is `None`.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Action> {
        if self.leave_at.is_some_and(|at| at <= now) {
            self.leave_at = None;
            return Some(Action::Leave);
        }
        if self.deadman.is_some_and(|at| at <= now) {
            self.deadman = None;
            self.leave_at = Some(now + self.grace + FAREWELL);
            if let Some(action) = self.begin(now, EndCause::Lost, self.grace) {
                return Some(action);
            }
        }
        if self.timeout.is_some_and(|at| at <= now) {
            self.timeout = None;
            if let Some(action) = self.begin(now, EndCause::Timeout, self.grace) {
                return Some(action);
            }
        }
        let ending = self.ending.as_mut()?;
        if !ending.killed && ending.kill_at <= now {
            ending.killed = true;
            return Some(Action::Kill);
        }
        None
    }

    /// The process has ended by itself or by us: only the farewell is still measured.
    pub(crate) fn process_ended(&mut self) {
        self.timeout = None;
        self.deadman = None;
        if let Some(ending) = &mut self.ending {
            ending.killed = true;
        }
    }

    /// When [`EndControl::due`] is to be asked next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let kill_at = self
            .ending
            .as_ref()
            .filter(|ending| !ending.killed)
            .map(|ending| ending.kill_at);
        [self.timeout, self.deadman, self.leave_at, kill_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Why we ended it, if we did.
    pub(crate) fn cause(&self) -> Option<EndCause> {
        self.ending.as_ref().map(|ending| ending.cause)
    }

    /// The dead-man deadline has passed: PID 1 leaves once the result is taken, and at this moment at the latest.
    pub(crate) fn leave_at(&self) -> Option<Instant> {
        self.leave_at
    }
}

fn span(ms: u64) -> Duration {
    Duration::from_millis(ms.min(SPAN_MAX_MS))
}

/// Why a process ended. `ours`: the cause for which we ended it. `oom_kills`: processes that the memory cgroup killed meanwhile.
pub(crate) fn classify(status: ExitStatus, ours: Option<EndCause>, oom_kills: u64) -> EndCause {
    match (ours, status.signal()) {
        (Some(cause), _) => cause,
        (None, Some(libc::SIGKILL)) if oom_kills > 0 => EndCause::Oom,
        (None, Some(_)) => EndCause::Signalled,
        (None, None) => EndCause::Exited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn timeout_is_polite_first_and_kills_after_grace() {
        let start = Instant::now();
        let mut clocks = EndControl::start(start, Some(100), 50, 10_000);
        assert_eq!(clocks.due(at(start, 99)), None);
        assert_eq!(clocks.next_deadline(), Some(at(start, 100)));
        assert_eq!(clocks.due(at(start, 100)), Some(Action::Terminate));
        assert_eq!(clocks.due(at(start, 100)), None);
        assert_eq!(clocks.next_deadline(), Some(at(start, 150)));
        assert_eq!(clocks.due(at(start, 150)), Some(Action::Kill));
        assert_eq!(clocks.due(at(start, 151)), None);
        assert_eq!(clocks.cause(), Some(EndCause::Timeout));
    }

    #[test]
    fn first_cause_stands_and_grace_only_shrinks() {
        let start = Instant::now();
        let mut clocks = EndControl::start(start, Some(100), 1_000, 10_000);
        assert_eq!(
            clocks.stop(at(start, 10), EndCause::Cancelled, 500),
            Some(Action::Terminate)
        );
        assert_eq!(clocks.stop(at(start, 20), EndCause::Cancelled, 5_000), None);
        assert_eq!(clocks.due(at(start, 100)), None, "the timeout has nothing to add");
        assert_eq!(clocks.next_deadline(), Some(at(start, 510)));
        assert_eq!(
            clocks.stop(at(start, 110), EndCause::OutputLimit, 0),
            Some(Action::Kill)
        );
        assert_eq!(clocks.due(at(start, 600)), None);
        assert_eq!(clocks.cause(), Some(EndCause::Cancelled));
    }

    #[test]
    fn no_grace_kills_at_once() {
        let start = Instant::now();
        let mut clocks = EndControl::start(start, Some(5), 0, 10_000);
        assert_eq!(clocks.due(at(start, 5)), Some(Action::Kill));
        assert_eq!(clocks.due(at(start, 5)), None);
    }

    #[test]
    fn dead_man_ends_the_work_and_leaves_when_nobody_comes() {
        let start = Instant::now();
        let mut clocks = EndControl::start(start, None, 50, 1_000);
        clocks.extend(at(start, 900), 1_000);
        assert_eq!(clocks.due(at(start, 1_800)), None);
        assert_eq!(clocks.due(at(start, 1_900)), Some(Action::Terminate));
        assert_eq!(clocks.leave_at(), Some(at(start, 1_950) + FAREWELL));
        assert_eq!(clocks.cause(), Some(EndCause::Lost));
        clocks.extend(at(start, 1_901), 1_000_000);
        assert_eq!(clocks.due(at(start, 1_950)), Some(Action::Kill), "too late to extend");
        clocks.process_ended();
        assert_eq!(clocks.due(at(start, 1_950) + FAREWELL), Some(Action::Leave));
    }

    #[test]
    fn dead_man_during_a_stop_does_not_change_its_cause() {
        let start = Instant::now();
        let mut clocks = EndControl::start(start, None, 50, 1_000);
        assert_eq!(
            clocks.stop(at(start, 990), EndCause::Cancelled, 100),
            Some(Action::Terminate)
        );
        assert_eq!(clocks.due(at(start, 1_000)), None);
        assert_eq!(clocks.next_deadline(), Some(at(start, 1_050)));
        assert_eq!(clocks.cause(), Some(EndCause::Cancelled));
    }

    #[test]
    fn absurd_spans_do_not_overflow_the_clock() {
        let clocks = EndControl::start(Instant::now(), Some(u64::MAX), u64::MAX, u64::MAX);
        assert!(clocks.next_deadline().is_some());
    }

    #[test]
    fn an_ended_process_has_no_clocks_left() {
        let start = Instant::now();
        let mut clocks = EndControl::start(start, Some(1), 1, 1);
        clocks.process_ended();
        assert_eq!(clocks.next_deadline(), None);
        assert_eq!(clocks.due(at(start, 1_000)), None);
    }

    #[test]
    fn causes_are_told_apart() {
        let exited = ExitStatus::from_raw(3 << 8);
        let killed = ExitStatus::from_raw(libc::SIGKILL);
        let segv = ExitStatus::from_raw(libc::SIGSEGV);
        assert_eq!(classify(exited, None, 0), EndCause::Exited);
        assert_eq!(
            classify(exited, None, 1),
            EndCause::Exited,
            "a child of it was killed for memory, not the process itself"
        );
        assert_eq!(classify(killed, None, 1), EndCause::Oom);
        assert_eq!(classify(killed, None, 0), EndCause::Signalled);
        assert_eq!(classify(segv, None, 1), EndCause::Signalled);
        assert_eq!(classify(killed, Some(EndCause::Timeout), 1), EndCause::Timeout);
        assert_eq!(classify(exited, Some(EndCause::Cancelled), 0), EndCause::Cancelled);
    }
}
