//! The owner's view of the time: the wall clock, except that a jump back neither stops it nor makes waits long.
//!
//! Due times are computed from it and compared with it. After the wall clock went back, this one goes on at half the speed of the monotonic clock until the
//! wall clock has caught up: what waits, waits at most twice as long as it was asked to, and the error wears off.

use std::time::Duration;

use tokio::time::Instant;

/// A clock that never goes back and never stands still.
#[derive(Debug)]
pub(super) struct Pace {
    at: Instant,
    now_ms: u64,
}

impl Pace {
    /// Begins at the time of the newest record, or now if that is later: who takes over after a jump back goes on as the owner before.
    pub(super) fn new(newest_ms: u64, wall_ms: u64, now: Instant) -> Self {
        Self {
            at: now,
            now_ms: newest_ms.max(wall_ms),
        }
    }

    /// The time now.
    pub(super) fn now_ms(&mut self, wall_ms: u64, now: Instant) -> u64 {
        let elapsed_ms = u64::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let slow_ms = elapsed_ms / 2;
        if wall_ms >= self.now_ms.saturating_add(slow_ms) {
            self.now_ms = wall_ms;
            self.at = now;
        } else {
            self.now_ms = self.now_ms.saturating_add(slow_ms);
            // The odd millisecond counts the next time.
            self.at += Duration::from_millis(slow_ms * 2);
        }
        self.now_ms
    }

    /// When it will be `due_ms`, if the wall clock does not jump again.
    pub(super) fn reaches(&self, due_ms: u64, wall_ms: u64, now: Instant) -> Instant {
        let left_ms = due_ms.saturating_sub(self.now_ms);
        let pace = if wall_ms < self.now_ms { 2 } else { 1 };
        now + Duration::from_millis(left_ms.saturating_mul(pace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn it_is_the_wall_clock_while_that_goes_forward() {
        let start = Instant::now();
        let mut pace = Pace::new(0, 1_000, start);
        assert_eq!(pace.now_ms(1_010, after(start, 10)), 1_010);
        assert_eq!(pace.now_ms(1_019, after(start, 20)), 1_019, "a clock that is slewed");
        assert_eq!(pace.now_ms(9_000, after(start, 30)), 9_000, "a jump forward");
    }

    #[test]
    fn after_a_jump_back_it_goes_on_at_half_speed_until_the_wall_clock_has_caught_up() {
        let start = Instant::now();
        let mut pace = Pace::new(0, 100_000, start);
        let mut shown = Vec::new();
        for step in 1..=400u64 {
            // The wall clock went back by 1 s and runs on; it is looked at at odd times.
            let ms = step * 7;
            let now = pace.now_ms(99_000 + ms, after(start, ms));
            assert!(now >= 100_000 + ms / 2 - 1, "slower than half at {ms} ms: {now}");
            shown.push(now);
        }
        assert!(shown.is_sorted(), "never back");
        assert_eq!(shown.last(), Some(&(99_000 + 2_800)), "caught up");
    }

    #[test]
    fn a_successor_goes_on_from_the_newest_record() {
        let start = Instant::now();
        let mut pace = Pace::new(3_600_000, 1_000, start);
        assert_eq!(pace.now_ms(3_000, after(start, 2_000)), 3_601_000);
        assert_eq!(pace.reaches(3_601_500, 3_000, after(start, 2_000)), after(start, 3_000));
    }
}
