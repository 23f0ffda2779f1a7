//! The filters of templates. Each charges the size of what it takes against a budget of the render, since fuel counts instructions and not the work in
//! one; and none returns more than a result may have.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_proto::limits::RENDERED_BYTES_MAX;
use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, Value, filters};

/// Bytes and items that the filters of one render may go through: 32 times the largest result.
const WORK_MAX: u64 = 32 * RENDERED_BYTES_MAX as u64;

/// Every filter that a template may use.
pub(super) const NAMES: &[&str] = &[
    "abs",
    "batch",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "shell_quote",
    "slice",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];

/// Those of minijinja that are left out: they make markup, or grow what they take without bound.
const REMOVED: &[&str] = &[
    "attr", "chain", "e", "escape", "format", "groupby", "indent", "pprint", "safe", "zip",
];

pub(super) fn install(environment: &mut Environment<'static>) {
    for name in REMOVED {
        environment.remove_filter(name);
    }
    let work = Arc::new(AtomicU64::new(0));
    let inner = [
        ("abs", Value::from_function(filters::abs)),
        ("batch", Value::from_function(filters::batch)),
        ("bool", Value::from_function(filters::bool)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("count", Value::from_function(filters::length)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("first", Value::from_function(filters::first)),
        ("float", Value::from_function(filters::float)),
        ("int", Value::from_function(filters::int)),
        ("items", Value::from_function(filters::items)),
        ("join", Value::from_function(join)),
        ("last", Value::from_function(filters::last)),
        ("length", Value::from_function(filters::length)),
        ("lines", Value::from_function(filters::lines)),
        ("list", Value::from_function(filters::list)),
        ("lower", Value::from_function(filters::lower)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("replace", Value::from_function(replace)),
        ("reverse", Value::from_function(filters::reverse)),
        ("round", Value::from_function(filters::round)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("shell_quote", Value::from_function(shell_quote)),
        ("slice", Value::from_function(filters::slice)),
        ("sort", Value::from_function(filters::sort)),
        ("split", Value::from_function(filters::split)),
        ("string", Value::from_function(string)),
        ("sum", Value::from_function(filters::sum)),
        ("title", Value::from_function(filters::title)),
        ("tojson", Value::from_function(tojson)),
        ("trim", Value::from_function(filters::trim)),
        ("unique", Value::from_function(filters::unique)),
        ("upper", Value::from_function(filters::upper)),
    ];
    for (name, filter) in inner {
        let work = work.clone();
        environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<Value>| {
            charge(&work, args.first())?;
            filter.call(state, &args)
        });
    }
}

fn charge(work: &AtomicU64, value: Option<&Value>) -> Result<(), Error> {
    let Some(value) = value else { return Ok(()) };
    let size = value.as_str().map_or_else(|| value.len().unwrap_or(1), str::len) as u64;
    let before = work.fetch_add(size, Ordering::Relaxed);
    if before.saturating_add(size) > WORK_MAX {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "the template's filters go through too much text",
        ));
    }
    Ok(())
}

fn too_long(filter: &str) -> Error {
    Error::new(
        ErrorKind::InvalidOperation,
        format!("`{filter}` makes more than {RENDERED_BYTES_MAX} bytes"),
    )
}

/// Writes a value: texts and numbers as they are, all else as JSON. (minijinja would write Python: `True`, `None`, `['x']`.)
pub(super) fn write(out: &mut Output<'_>, _state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let failed =
        |error: std::fmt::Error| Error::new(ErrorKind::WriteFailure, "the result is too long").with_source(error);
    match value.as_str() {
        Some(text) => out.write_str(text).map_err(failed),
        None => out.write_str(&text("value", value)?).map_err(failed),
    }
}

/// Text of a value, bounded.
fn text(filter: &str, value: &Value) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    if value.kind() == ValueKind::Number {
        return Ok(value.to_string());
    }
    json(filter, value, false)
}

/// One word of a POSIX shell, whatever the value holds. Lists become several words.
fn shell_quote(value: Value) -> Result<String, Error> {
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable) {
        let mut words: Vec<String> = Vec::new();
        let mut length = 0;
        for item in value.try_iter()? {
            let word = quoted(&item)?;
            length += word.len() + 1;
            if length > RENDERED_BYTES_MAX {
                return Err(too_long("shell_quote"));
            }
            words.push(word);
        }
        return Ok(words.join(" "));
    }
    quoted(&value)
}

fn quoted(value: &Value) -> Result<String, Error> {
    let text = text("shell_quote", value)?;
    if text.contains('\0') {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "a NUL character cannot be passed to a shell",
        ));
    }
    let plain = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&byte));
    let word = if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    };
    if word.len() > RENDERED_BYTES_MAX {
        Err(too_long("shell_quote"))
    } else {
        Ok(word)
    }
}

/// JSON, compact, or indented by two when asked. Unlike minijinja's it escapes nothing for HTML: it goes into scripts and files.
fn tojson(value: Value, indent: Option<bool>) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    json("tojson", &value, indent.unwrap_or(false))
}

/// As `{{ value }}` writes it.
fn string(value: Value) -> Result<String, Error> {
    text("string", &value)
}

fn json(filter: &str, value: &Value, pretty: bool) -> Result<String, Error> {
    let mut out = LimitedBytes(Vec::new());
    let written = if pretty {
        serde_json::to_writer_pretty(&mut out, value)
    } else {
        serde_json::to_writer(&mut out, value)
    };
    match written {
        Ok(()) => String::from_utf8(out.0).map_err(|_| Error::new(ErrorKind::BadSerialization, "JSON is not UTF-8")),
        Err(error) if error.is_io() => Err(too_long(filter)),
        Err(error) => Err(Error::new(ErrorKind::BadSerialization, error.to_string())),
    }
}

fn join(value: Value, separator: Option<String>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    let mut out = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            out.push_str(&separator);
        }
        out.push_str(&text("join", &item)?);
        if out.len() > RENDERED_BYTES_MAX {
            return Err(too_long("join"));
        }
    }
    Ok(out)
}

fn replace(value: Value, from: String, to: String) -> Result<String, Error> {
    let text = text("replace", &value)?;
    let count = text.matches(from.as_str()).count();
    let grown = text.len().saturating_add(count.saturating_mul(to.len()));
    if grown > RENDERED_BYTES_MAX + count.saturating_mul(from.len()) {
        return Err(too_long("replace"));
    }
    Ok(text.replace(from.as_str(), &to))
}

struct LimitedBytes(Vec<u8>);

impl std::io::Write for LimitedBytes {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + data.len() > RENDERED_BYTES_MAX {
            return Err(std::io::Error::other("too long"));
        }
        self.0.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
