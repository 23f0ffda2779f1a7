//! Printing: numbers, times and sizes as people read them, and writes to stdout that end quietly when the reader has gone.

use std::io::Write as _;

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use owo_colors::{OwoColorize as _, Stream};

/// Prints a line of data. A closed pipe (`gantry workflow ls | head`) is no error.
pub(crate) fn line(text: &str) -> Result<()> {
    raw(format!("{text}\n").as_bytes())
}

/// Prints bytes as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// Prints a document.
pub(crate) fn json(value: &serde_json::Value) -> Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

/// `1.2 s`, `3 min 05 s`, `2 h 01 min`.
pub(crate) fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{seconds}.{} s", ms % 1_000 / 100),
        60..3_600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// Local time to the second.
pub(crate) fn time(ms: u64) -> String {
    let Some(timestamp) = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
    else {
        return "-".to_owned();
    };
    timestamp
        .to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S")
        .to_string()
}

/// `512 B`, `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    // Exact for every size that a disk of today holds.
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// A state in the colour that it has everywhere.
pub(crate) fn state(state: &str, stream: Stream) -> String {
    match state {
        "completed" | "online" => state.if_supports_color(stream, |text| text.green()).to_string(),
        "failed" | "offline" | "degraded" => state.if_supports_color(stream, |text| text.red()).to_string(),
        "cancelled" | "draining" | "lost" => state.if_supports_color(stream, |text| text.yellow()).to_string(),
        "active" | "in_progress" | "running" | "busy" => {
            state.if_supports_color(stream, |text| text.cyan()).to_string()
        }
        _ => state.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(duration(0), "0.0 s");
        assert_eq!(duration(1_290), "1.2 s");
        assert_eq!(duration(185_000), "3 min 05 s");
        assert_eq!(duration(7_265_000), "2 h 01 min");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "16777216.0 TiB");
    }
}
