//! `gantry workflow trace`: where the time of a workflow went.

use anyhow::Result;
use owo_colors::{OwoColorize as _, Stream};
use serde::Deserialize;
use serde_json::Value;

use super::output;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans {
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Debug, Deserialize)]
struct ScopeSpans {
    spans: Vec<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Span {
    trace_id: String,
    span_id: String,
    parent_span_id: Option<String>,
    name: String,
    start_time_unix_nano: String,
    end_time_unix_nano: Option<String>,
    status: Status,
}

#[derive(Debug, Deserialize)]
struct Status {
    message: Option<String>,
}

impl Span {
    fn start_ms(&self) -> u64 {
        milliseconds(&self.start_time_unix_nano)
    }

    fn took_ms(&self) -> Option<u64> {
        let end = self.end_time_unix_nano.as_deref()?;
        Some(milliseconds(end).saturating_sub(self.start_ms()))
    }
}

fn milliseconds(nanos: &str) -> u64 {
    nanos
        .parse::<u128>()
        .ok()
        .and_then(|nanos| u64::try_from(nanos / 1_000_000).ok())
        .unwrap_or(0)
}

/// Prints a trace as an indented list: begin (from the workflow's), length, name.
pub(super) fn print(document: Value) -> Result<()> {
    let document: Document = serde_json::from_value(document)?;
    let spans: Vec<&Span> = document
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .flat_map(|scope| &scope.spans)
        .collect();
    let Some(first) = spans.first() else {
        return Ok(());
    };
    output::line(&format!("trace {}", first.trace_id))?;
    let mut depths: Vec<usize> = Vec::with_capacity(spans.len());
    for (index, span) in spans.iter().enumerate() {
        // Parents come first.
        let parent = spans[..index]
            .iter()
            .position(|other| Some(&other.span_id) == span.parent_span_id.as_ref());
        let depth = parent.map_or(0, |parent| depths[parent] + 1);
        depths.push(depth);
        let at = format!("+{} ms", span.start_ms().saturating_sub(first.start_ms()));
        let took = span.took_ms().map_or_else(|| "...".to_owned(), |ms| format!("{ms} ms"));
        let failed = span.status.message.as_deref().unwrap_or_default();
        let failed = failed.if_supports_color(Stream::Stdout, |text| text.red()).to_string();
        let indent = "  ".repeat(depth);
        output::line(format!("{at:>12} {took:>12}  {indent}{}  {failed}", span.name).trim_end())?;
    }
    Ok(())
}
