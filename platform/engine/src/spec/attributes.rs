//! Search attributes: what a definition says that its workflows are found by, filled in when one is submitted, and what the submitter adds.

use gantry_proto::limits::{ATTRIBUTE_NAME_BYTES_MAX, ATTRIBUTE_TEXT_BYTES_MAX, ATTRIBUTES_MAX};
use gantry_proto::v1::SearchAttribute;
use gantry_proto::v1::search_attribute::Value as Typed;
use serde_json::{Map, Value, json};

use super::definition::Definition;
use super::scalars::{identifier, time_ms};
use super::template::fill;
use crate::api::Issue;

/// Whether a name can be that of a search attribute.
///
/// # Errors
/// What would be right.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    identifier(name)?;
    if name.len() > ATTRIBUTE_NAME_BYTES_MAX {
        return Err(format!(
            "the name of a search attribute has at most {ATTRIBUTE_NAME_BYTES_MAX} bytes"
        ));
    }
    Ok(())
}

/// A value as JSON has it, with its type: a text, a number, true or false, or a time as `{"time": "2030-01-31T08:00:00Z"}`.
pub(super) fn typed(value: &Value) -> Result<Typed, String> {
    match value {
        Value::String(text) if text.len() > ATTRIBUTE_TEXT_BYTES_MAX => Err(format!(
            "a search attribute has at most {ATTRIBUTE_TEXT_BYTES_MAX} bytes, and this one has {}",
            text.len()
        )),
        Value::String(text) if text.chars().any(char::is_control) => {
            Err("a search attribute has no control characters".to_owned())
        }
        Value::String(text) => Ok(Typed::Text(text.clone())),
        Value::Bool(flag) => Ok(Typed::Flag(*flag)),
        Value::Number(number) => number
            .as_f64()
            .map(Typed::Number)
            .ok_or_else(|| "the number is too large".to_owned()),
        Value::Object(fields) if fields.len() == 1 => match fields.get("time") {
            Some(Value::String(text)) => Ok(Typed::TimeMs(time_ms(text)?)),
            _ => Err(WRONG.to_owned()),
        },
        _ => Err(WRONG.to_owned()),
    }
}

const WRONG: &str =
    "a search attribute is a text, a number, true, false or a time as {\"time\": \"2030-01-31T08:00:00Z\"}";

/// The search attributes of a workflow to be: those of its definition with the parameters filled in, and `given`, which wins. By name.
///
/// # Errors
/// Every attribute that is wrong.
pub fn attributes(
    definition: &Definition,
    parameters: &Map<String, Value>,
    given: &Map<String, Value>,
) -> Result<Vec<SearchAttribute>, Vec<Issue>> {
    let (mut found, mut issues) = (std::collections::BTreeMap::new(), Vec::new());
    let scope = json!({ "params": parameters });
    let own = definition
        .attributes
        .iter()
        .filter(|(name, _)| !given.contains_key(*name))
        .map(|(name, template)| (name, fill(template, &scope).map_err(|error| error.message)));
    let given = given
        .iter()
        .map(|(name, value)| (name, check_name(name).map(|()| value.clone())));
    for (name, value) in own.chain(given) {
        match value.and_then(|value| typed(&value)) {
            Ok(value) => {
                found.insert(name.clone(), value);
            }
            Err(message) => issues.push(Issue {
                message: format!("search attribute `{name}`: {message}"),
                path: Some(format!("/attributes/{name}")),
                line: None,
                column: None,
            }),
        }
    }
    if found.len() > ATTRIBUTES_MAX {
        issues.push(Issue {
            message: format!(
                "{} search attributes are too many; at most {ATTRIBUTES_MAX} are allowed",
                found.len()
            ),
            path: Some("/attributes".to_owned()),
            line: None,
            column: None,
        });
    }
    if !issues.is_empty() {
        return Err(issues);
    }
    let attributes = found.into_iter().map(|(name, value)| SearchAttribute {
        name,
        value: Some(value),
    });
    Ok(attributes.collect())
}

/// A search attribute as JSON: times as [`attributes`] takes them.
#[must_use]
pub fn attribute_json(attribute: &SearchAttribute) -> Value {
    match &attribute.value {
        Some(Typed::Text(text)) => json!(text),
        // A whole number is shown as one.
        #[allow(clippy::cast_possible_truncation)] // the range was just asked for
        Some(Typed::Number(number)) if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 => {
            json!(*number as i64)
        }
        Some(Typed::Number(number)) => json!(number),
        Some(Typed::Flag(flag)) => json!(flag),
        Some(Typed::TimeMs(ms)) => {
            let time = i64::try_from(*ms).ok();
            let time = time.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            json!({ "time": time.map(|time| time.to_string()) })
        }
        None => Value::Null,
    }
}
