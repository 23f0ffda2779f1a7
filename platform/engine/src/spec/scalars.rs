//! Values that are written as text: durations, sizes, names, images, globs, paths. Each function says what is wrong and what would be right.

use std::sync::LazyLock;

use gantry_proto::limits::NAME_BYTES_MAX;
use regex::Regex;

use super::source::{Cpu, Duration, Size};

/// Longest image reference, glob, path or git remote.
const TEXT_BYTES_MAX: usize = 1_024;

// Patterns are constants: a failure to compile one would fail every test of this module.
#[allow(clippy::expect_used)]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant pattern compiles")
}

/// Milliseconds of a duration.
pub(super) fn duration_ms(value: &Duration) -> Result<u64, String> {
    match value {
        Duration::Seconds(seconds) => seconds
            .checked_mul(1_000)
            .ok_or_else(|| format!("{seconds} seconds are too long")),
        Duration::Fraction(seconds) => {
            millis(*seconds, 1_000.0).ok_or_else(|| format!("{seconds} seconds is no duration"))
        }
        Duration::Text(text) => duration_text(text.trim()),
    }
}

fn duration_text(text: &str) -> Result<u64, String> {
    static PART: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d{1,15}(?:\.\d{1,6})?)(ms|s|m|h|d)"));
    let wrong = || format!("`{text}` is no duration; write it as 500ms, 30s, 10m, 2h, 1d or 1h30m");
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let parts = PART.captures(rest).ok_or_else(wrong)?;
        let unit = match &parts[2] {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            _ => 86_400_000.0,
        };
        let number: f64 = parts[1].parse().map_err(|_| wrong())?;
        total = millis(number, unit)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = &rest[parts[0].len()..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// `number * unit`, rounded; `None` when negative or past 2^53, where floats stop counting.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // range is checked
fn millis(number: f64, unit: f64) -> Option<u64> {
    let value = (number * unit).round();
    (value.is_finite() && (0.0..=9_007_199_254_740_992.0).contains(&value)).then_some(value as u64)
}

/// Milliseconds since 1970 of a time as RFC 3339 writes it.
///
/// # Errors
/// What would be right.
pub fn time_ms(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "`{}` is no time; write it as RFC 3339 does: 2030-01-31T08:00:00Z",
            shortened(text.trim())
        )
    };
    let time: jiff::Timestamp = text.trim().parse().map_err(|_| wrong())?;
    u64::try_from(time.as_millisecond()).map_err(|_| format!("`{}` lies before 1970", shortened(text.trim())))
}

/// Bytes of a size.
pub(super) fn size_bytes(value: &Size) -> Result<u64, String> {
    static SIZE: LazyLock<Regex> = LazyLock::new(|| pattern(r"^(\d{1,15}(?:\.\d{1,6})?) ?(B|[KMGT]i?B?|[kmgt]i?b?)?$"));
    let text = match value {
        Size::Bytes(bytes) => return Ok(*bytes),
        Size::Text(text) => text.trim(),
    };
    let wrong = || format!("`{text}` is no size; write it as 512KiB, 64MiB, 2GiB or as a number of bytes");
    let parts = SIZE.captures(text).ok_or_else(wrong)?;
    let unit = parts.get(2).map_or("", |unit| unit.as_str()).to_ascii_lowercase();
    // K is 1024 as in `docker run -m`; only the spelt-out KB is 1000.
    let base: f64 = if unit.len() == 2 && unit.ends_with('b') {
        1_000.0
    } else {
        1_024.0
    };
    let power = match unit.bytes().next() {
        Some(b'k') => 1,
        Some(b'm') => 2,
        Some(b'g') => 3,
        Some(b't') => 4,
        _ => 0,
    };
    let number: f64 = parts[1].parse().map_err(|_| wrong())?;
    millis(number, base.powi(power)).ok_or_else(wrong)
}

/// Thousandths of a core.
pub(super) fn cpu_millis(value: &Cpu) -> Result<u64, String> {
    match value {
        Cpu::Cores(cores) => cores
            .checked_mul(1_000)
            .ok_or_else(|| format!("{cores} cores are too many")),
        Cpu::Fraction(cores) => millis(*cores, 1_000.0).ok_or_else(|| format!("{cores} is no number of cores")),
        Cpu::Text(text) => {
            let wrong =
                || format!("`{text}` is no amount of CPU; write cores (2, 0.5) or thousandths of a core (500m)");
            let (number, unit) = text
                .trim()
                .strip_suffix('m')
                .map_or((text.trim(), 1_000.0), |number| (number, 1.0));
            let plain = !number.is_empty()
                && number.len() <= 15
                && number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            plain
                .then(|| number.parse::<f64>().ok())
                .flatten()
                .and_then(|number| millis(number, unit))
                .ok_or_else(wrong)
        }
    }
}

/// A name of a workflow, task, step, capability or label. `dots` allows `.` too.
pub(crate) fn name(text: &str, dots: bool) -> Result<(), String> {
    if text.is_empty() {
        return Err("a name is empty".to_owned());
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(format!(
            "a name of {} bytes is too long; at most {NAME_BYTES_MAX} are allowed",
            text.len()
        ));
    }
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' || (dots && byte == b'.'));
    if first && rest {
        return Ok(());
    }
    let marks = if dots { "`.`, `_` and `-`" } else { "`_` and `-`" };
    Err(format!(
        "`{text}` is no name; a name is made of letters, digits, {marks}, and begins with a letter or digit"
    ))
}

/// A name that templates and environments can use.
pub(super) fn identifier(text: &str) -> Result<(), String> {
    static IDENTIFIER: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[A-Za-z_][A-Za-z0-9_]*$"));
    if IDENTIFIER.is_match(text) && text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no name here; it is made of letters, digits and `_`, does not begin with a digit, and has at most {NAME_BYTES_MAX} bytes"
    ))
}

/// The name of an environment variable that a step may set.
pub(crate) fn env_name(text: &str) -> Result<(), String> {
    identifier(text)?;
    if text.starts_with("GANTRY_") || text == "TRACEPARENT" {
        return Err(format!("`{text}` is set by Gantry itself; choose another name"));
    }
    Ok(())
}

/// An image reference without template.
pub(super) fn image(text: &str) -> Result<(), String> {
    static IMAGE: LazyLock<Regex> = LazyLock::new(|| {
        pattern(concat!(
            r"^(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,5})?/)?",
            r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*",
            r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$|^sha256:[0-9a-f]{64}$"
        ))
    });
    if text.len() <= TEXT_BYTES_MAX && IMAGE.is_match(text) {
        return Ok(());
    }
    Err(format!(
        "`{}` is no image; write name, name:tag, registry/name:tag or name@sha256:<64 hexadecimal digits>",
        shortened(text)
    ))
}

/// A relative path without `..`: where inputs go.
pub(super) fn relative_path(text: &str) -> Result<(), String> {
    bounded(text, "path")?;
    if text.starts_with('/') {
        return Err(format!("`{text}` is absolute; paths are relative to the workspace"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(format!("`{text}` leaves the workspace; `..` is not allowed"));
    }
    Ok(())
}

/// A working directory without template.
pub(super) fn workdir(text: &str) -> Result<(), String> {
    bounded(text, "directory")?;
    if text.split('/').any(|part| part == "..") {
        return Err(format!(
            "`{text}` has `..`, which is not allowed in a working directory"
        ));
    }
    Ok(())
}

/// A glob under the workspace.
pub(super) fn glob(text: &str) -> Result<(), String> {
    bounded(text, "glob")?;
    if text.starts_with('/') {
        return Err(format!(
            "the glob `{text}` is absolute; globs are relative to the workspace"
        ));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(format!(
            "the glob `{text}` has `..`; artifacts come from the workspace only"
        ));
    }
    globset::GlobBuilder::new(text)
        .literal_separator(true)
        .build()
        .map(|_| ())
        .map_err(|error| format!("the glob `{text}` is not valid: {}", error.kind()))
}

/// A directory name for one of several trees.
pub(super) fn mount(text: &str) -> Result<(), String> {
    name(text, true).map_err(|_| {
        format!(
            "`{}` is no directory name; use letters, digits, `.`, `_` and `-`",
            shortened(text)
        )
    })
}

/// A git remote without template. What a node may reach is decided by its allow-list; this refuses what no node may.
pub(super) fn git_remote(text: &str) -> Result<(), String> {
    bounded(text, "git remote")?;
    if text.starts_with('-') || text.chars().any(char::is_whitespace) {
        return Err(format!("`{}` is no git remote", shortened(text)));
    }
    if let Some((helper, _)) = text.split_once("::") {
        return Err(format!(
            "the git remote begins with `{helper}::`; remote helpers run commands and are refused"
        ));
    }
    match text.split_once("://") {
        Some(("https" | "http" | "ssh" | "git", rest)) if !rest.is_empty() => Ok(()),
        Some((scheme, _)) => Err(format!(
            "git over `{scheme}://` is refused; use https, ssh, git, or an allow-listed local path"
        )),
        None => Ok(()),
    }
}

/// A branch, tag or commit without template.
pub(super) fn git_ref(text: &str) -> Result<(), String> {
    bounded(text, "ref")?;
    let wrong = text.starts_with('-')
        || text.starts_with('/')
        || text.ends_with('/')
        || text.ends_with(".lock")
        || text.contains("..")
        || text.contains("@{")
        || text.contains("//")
        || text
            .chars()
            .any(|c| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c));
    if wrong {
        Err(format!("`{}` is no branch, tag or commit", shortened(text)))
    } else {
        Ok(())
    }
}

fn bounded(text: &str, what: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("the {what} is empty"));
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!(
            "the {what} has {} bytes; at most {TEXT_BYTES_MAX} are allowed",
            text.len()
        ));
    }
    if text.contains('\0') {
        return Err(format!("the {what} holds a NUL character"));
    }
    Ok(())
}

/// A text for a sentence.
fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 {
        text.to_owned()
    } else {
        format!("{}...", text.chars().take(77).collect::<String>())
    }
}
