//! The one place that reads the wall clock. Everything else takes a [`Clock`], so that tests and the simulation own time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Source of wall-clock time in milliseconds since the epoch. For records and display; durations are measured on monotonic clocks.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // this is the exception that clippy.toml names
    fn now_ms(&self) -> u64 {
        // Before 1970 reads as 0; past the year 584 million the cast would matter.
        #[allow(clippy::cast_possible_truncation)]
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_millis() as u64)
    }
}
