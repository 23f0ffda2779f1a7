//! Search attributes, as people write them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// A search attribute: a text that is one expression keeps the type of its value.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(example = "{{ params.customer }}")]
pub(in crate::spec) enum AttributeSource {
    /// True or false.
    Flag(bool),
    /// A number.
    Number(serde_json::Number),
    /// A text (template).
    Text(String),
    /// A time.
    Time(AttributeTime),
}

impl AttributeSource {
    /// As the definition keeps it.
    pub(in crate::spec) fn value(&self) -> Value {
        match self {
            Self::Flag(flag) => Value::Bool(*flag),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::String(text.clone()),
            Self::Time(AttributeTime { time }) => serde_json::json!({ "time": time }),
        }
    }
}

/// A time that a workflow is found by.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::spec) struct AttributeTime {
    /// A time as RFC 3339 writes it (template): 2030-01-31T08:00:00Z.
    pub(in crate::spec) time: String,
}
