//! Templates: minijinja, strict about undefined names, without files, and bounded in time and size whatever a template does.
//!
//! The language is cut down to what texts need: values, filters, `if` and `for`. `set`, `with`, macros and the like are refused, because a template
//! that can assign can double a text with each line; what remains grows no faster than the template itself.

mod analyse;
mod fill;
mod filters;

use std::io;

use gantry_proto::limits::{RENDERED_BYTES_MAX, TEMPLATE_FUEL};
use minijinja::{Environment, ErrorKind, UndefinedBehavior};

pub(super) use analyse::{Analysis, Reference, analyse};
pub use fill::fill;
pub(super) use fill::is_expression;

/// Why a template did not render. The message names what is undefined, and what there is instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct RenderError {
    /// Line in the template, from 1.
    pub line: u32,
    /// Column in the line, from 1; 0 when not known.
    pub column: u32,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Renders a template over a scope.
///
/// # Errors
/// When the template does not parse or uses what is refused, a name is undefined, a filter fails, or the result or the effort passes its limit.
pub fn render(template: &str, scope: &serde_json::Value) -> Result<String, RenderError> {
    if !has_markup(template) {
        return if template.len() > RENDERED_BYTES_MAX {
            Err(too_large())
        } else {
            Ok(template.to_owned())
        };
    }
    let Analysis { references, problems } = analyse(template)?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    let environment = environment();
    let compiled = environment
        .template_from_str(template)
        .map_err(|error| explained(template, &error, &references, scope))?;
    let mut out = Bounded {
        bytes: Vec::new(),
        full: false,
    };
    let outcome = compiled
        .render_captured_to(minijinja::Value::from(minijinja::value::Serde(scope)), &mut out)
        .map(|_| ());
    if out.full {
        return Err(too_large());
    }
    outcome.map_err(|error| explained(template, &error, &references, scope))?;
    // Only whole texts were written.
    String::from_utf8(out.bytes).map_err(|_| RenderError {
        line: 1,
        column: 0,
        message: "the result is not UTF-8".to_owned(),
    })
}

/// Whether a text has anything that minijinja would act on.
pub(super) fn has_markup(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(filters::write);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    environment.set_syntax(syntax());
    for name in ["dict", "debug", "namespace"] {
        environment.remove_global(name);
    }
    filters::install(&mut environment);
    environment
}

/// A trailing newline of a script stays.
fn syntax() -> minijinja::syntax::SyntaxConfig {
    let mut builder = minijinja::syntax::SyntaxConfig::builder();
    builder.keep_trailing_newline(true);
    // The builder can fail only on delimiters, which are the defaults.
    builder.build().unwrap_or_default()
}

fn too_large() -> RenderError {
    RenderError {
        line: 1,
        column: 0,
        message: format!("the result is longer than {RENDERED_BYTES_MAX} bytes"),
    }
}

/// A sentence for an error of the engine.
fn explained(
    template: &str,
    error: &minijinja::Error,
    references: &[Reference],
    scope: &serde_json::Value,
) -> RenderError {
    let line = error.line().and_then(|line| u32::try_from(line).ok()).unwrap_or(1);
    let column = error
        .range()
        .map_or(0, |range| analyse::column_of(template, range.start));
    if error.kind() == ErrorKind::UndefinedError {
        // The first reference on that line that leads nowhere is the one.
        let lost = references
            .iter()
            .filter(|reference| reference.line == line || error.line().is_none());
        for reference in lost {
            if let Some(message) = reference.explain(scope) {
                return RenderError {
                    line: reference.line,
                    column: reference.column,
                    message,
                };
            }
        }
        let expression = error
            .range()
            .and_then(|range| template.get(range))
            .map(|text| format!(": `{text}`"))
            .unwrap_or_default();
        return RenderError {
            line,
            column,
            message: format!("a name is undefined{expression}"),
        };
    }
    let message = match error.kind() {
        ErrorKind::OutOfFuel => format!("the template takes more than {TEMPLATE_FUEL} steps to render"),
        ErrorKind::UnknownFilter => {
            let name = error
                .detail()
                .and_then(|detail| detail.split_whitespace().nth(1))
                .unwrap_or_default()
                .to_owned();
            format!(
                "unknown filter `{name}`{}",
                super::issues::hint(&name, filters::NAMES.iter().copied())
            )
        }
        _ => match (error.detail(), std::error::Error::source(error)) {
            (Some(detail), Some(source)) => format!("{detail}: {source}"),
            (Some(detail), None) => detail.to_owned(),
            (None, _) => error.kind().to_string(),
        },
    };
    RenderError { line, column, message }
}

/// Collects a result up to its limit.
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > RENDERED_BYTES_MAX {
            self.full = true;
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
