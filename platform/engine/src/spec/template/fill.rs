//! Values with templates in them. A text that is one expression becomes what the expression gives, whatever its type; other texts are rendered.

use gantry_proto::limits::RENDERED_BYTES_MAX;
use minijinja::machinery::ast::Stmt;
use minijinja::machinery::parse;
use serde_json::Value;

use super::{Analysis, RenderError, analyse, environment, explained, has_markup, render, syntax, too_large};

/// Fills in every template of a value.
///
/// # Errors
/// As [`render`]; also when an expression gives nothing.
pub fn fill(value: &Value, scope: &Value) -> Result<Value, RenderError> {
    Ok(match value {
        Value::String(text) => match expression(text) {
            Some(expression) => evaluate(text, expression, scope)?,
            None => Value::String(render(text, scope)?),
        },
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, scope)).collect::<Result<_, _>>()?),
        Value::Object(fields) => {
            let filled = fields
                .iter()
                .map(|(name, field)| Ok((name.clone(), fill(field, scope)?)));
            Value::Object(filled.collect::<Result<_, RenderError>>()?)
        }
        other => other.clone(),
    })
}

/// Whether a text is one expression and nothing else.
pub(in crate::spec) fn is_expression(text: &str) -> bool {
    expression(text).is_some()
}

/// The inside of a text that is one `{{ ... }}`.
fn expression(text: &str) -> Option<&str> {
    let trimmed = text.trim();
    let inside = trimmed.strip_prefix("{{")?.strip_suffix("}}")?;
    // Depth is checked before anything is parsed.
    analyse(trimmed).ok()?;
    let Ok(Stmt::Template(root)) = parse(trimmed, "template", syntax()) else {
        return None;
    };
    let single = matches!(root.children.as_slice(), [Stmt::EmitExpr(_)]);
    single
        .then(|| inside.strip_prefix('-').unwrap_or(inside))
        .map(|inside| inside.strip_suffix('-').unwrap_or(inside))
}

fn evaluate(text: &str, expression: &str, scope: &Value) -> Result<Value, RenderError> {
    debug_assert!(has_markup(text));
    let Analysis { references, problems } = analyse(text)?;
    if let Some(problem) = problems.into_iter().next() {
        return Err(problem);
    }
    let environment = environment();
    let wrong = |error: &minijinja::Error| explained(text, error, &references, scope);
    let compiled = environment
        .compile_expression(expression)
        .map_err(|error| wrong(&error))?;
    let value = compiled
        .eval(minijinja::Value::from(minijinja::value::Serde(scope)))
        .map_err(|error| wrong(&error))?;
    if value.is_undefined() {
        return Err(wrong(&minijinja::ErrorKind::UndefinedError.into()));
    }
    let json = serde_json::to_value(&value).map_err(|error| RenderError {
        line: 1,
        column: 0,
        message: format!("the expression gives no value: {error}"),
    })?;
    // What it gives is made of what is in the scope, so it is in memory already; it must be small enough to keep.
    if json.to_string().len() > RENDERED_BYTES_MAX {
        return Err(too_large());
    }
    Ok(json)
}
