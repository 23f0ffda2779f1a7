//! Spans in OTLP's JSON form: ids in hexadecimal, times in nanoseconds as texts, numbers of 64 bits as texts.

use gantry_engine::api::{Span, SpanStatus, Trace};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// A trace: OTLP's `TracesData`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TraceAnswer {
    /// One resource: Gantry.
    resource_spans: Vec<ResourceSpans>,
}

/// Spans of one resource.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResourceSpans {
    /// The resource.
    #[schema(value_type = Object)]
    resource: Value,
    /// One scope.
    scope_spans: Vec<ScopeSpans>,
}

/// Spans of one scope.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ScopeSpans {
    /// Name and version.
    #[schema(value_type = Object)]
    scope: Value,
    /// Parents before children.
    spans: Vec<SpanBody>,
}

/// A span.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpanBody {
    /// 32 hexadecimal digits.
    trace_id: String,
    /// 16 hexadecimal digits.
    span_id: String,
    /// The span around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    /// Name of workflow, task or step; `queued`, `prepare` and `run` below them.
    name: String,
    /// 1: internal.
    kind: u8,
    /// Begin.
    start_time_unix_nano: String,
    /// End; absent while it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    end_time_unix_nano: Option<String>,
    /// `gantry.kind` and what is known of it.
    #[schema(value_type = Vec<Object>)]
    attributes: Vec<Value>,
    /// `code` 0 unset, 1 ok, 2 error with the error code as `message`.
    #[schema(value_type = Object)]
    status: Value,
}

const NANOS_PER_MS: u128 = 1_000_000;

/// OTLP's kind of a span that is no call between services.
const INTERNAL: u8 = 1;

fn nanos(ms: u64) -> String {
    (u128::from(ms) * NANOS_PER_MS).to_string()
}

fn attribute(name: &str, value: &Value) -> Value {
    let value = match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(number) if number.is_f64() => json!({ "doubleValue": number }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
        Value::String(text) => json!({ "stringValue": text }),
        other => json!({ "stringValue": other.to_string() }),
    };
    json!({ "key": name, "value": value })
}

fn body(trace_id: &str, span: Span) -> SpanBody {
    let kind = json!(span.kind.as_str());
    let mut attributes = vec![attribute("gantry.kind", &kind)];
    attributes.extend(span.attributes.iter().map(|(name, value)| attribute(name, value)));
    SpanBody {
        trace_id: trace_id.to_owned(),
        span_id: span.id,
        parent_span_id: span.parent,
        name: span.name,
        kind: INTERNAL,
        start_time_unix_nano: nanos(span.start_ms),
        end_time_unix_nano: span.end_ms.map(nanos),
        attributes,
        status: match span.status {
            SpanStatus::Unset => json!({ "code": 0 }),
            SpanStatus::Ok => json!({ "code": 1 }),
            SpanStatus::Error(code) => json!({ "code": 2, "message": code }),
        },
    }
}

impl TraceAnswer {
    /// In OTLP's form.
    pub(crate) fn of(trace: Trace, version: &str) -> Self {
        let id = trace.trace_id;
        let service = json!("gantry");
        Self {
            resource_spans: vec![ResourceSpans {
                resource: json!({ "attributes": [attribute("service.name", &service)] }),
                scope_spans: vec![ScopeSpans {
                    scope: json!({ "name": "gantry", "version": version }),
                    spans: trace.spans.into_iter().map(|span| body(&id, span)).collect(),
                }],
            }],
        }
    }
}
