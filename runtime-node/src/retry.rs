//! Pauses between tries: doubling, bounded, jittered.

use std::time::Duration;

/// Doubles from `first` up to `longest`; each pause is cut by up to half at random, so that many nodes do not come back at once.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            next: first,
        }
    }

    /// For calls to Docker and the coordinator in the middle of a step.
    pub(crate) fn patient() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(10))
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let full = self.next;
        self.next = (self.next * 2).min(self.longest);
        // Without randomness the pause is the full one.
        let share = getrandom::u32().map_or(1.0, |n| 0.5 + f64::from(n) / f64::from(u32::MAX) / 2.0);
        full.mul_f64(share)
    }

    /// No pause is longer than this from now on.
    pub(crate) fn cap(&mut self, longest: Duration) {
        self.longest = self.longest.min(longest).max(self.first);
        self.next = self.next.min(self.longest);
    }

    /// The last try was good.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Refusals of one call after which infrastructure counts as lost: a quarter of an hour with [`Backoff::patient`].
const REFUSALS_MAX: u32 = 100;
/// Answers that are not what was asked for, after which asking again is given up.
const WRONG_MAX: u32 = 3;

/// How long one exchange with the server is tried. While the server is not there it is waited for, as long as the lease lives; a server that is there and
/// cannot do it is asked a bounded number of times.
#[derive(Debug)]
pub(crate) struct Patience {
    backoff: Backoff,
    refused: u32,
    wrong: u32,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self {
            backoff: Backoff::patient(),
            refused: 0,
            wrong: 0,
        }
    }

    /// It answered that it cannot now, or broke off. `false`: it has done so too often.
    pub(crate) fn refused(&mut self) -> bool {
        self.refused += 1;
        self.refused < REFUSALS_MAX
    }

    /// What came is not what was asked for. `false`: that happened too often.
    pub(crate) fn wrong(&mut self) -> bool {
        self.wrong += 1;
        self.wrong < WRONG_MAX
    }

    /// Waits before the next try.
    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.backoff.pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_bound_and_start_over() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for full in [100, 200, 350, 350] {
            let pause = backoff.pause();
            assert!(
                pause >= Duration::from_millis(full / 2) && pause <= Duration::from_millis(full),
                "{pause:?} of {full}"
            );
        }
        backoff.cap(Duration::from_millis(200));
        assert!(backoff.pause() <= Duration::from_millis(200));
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
