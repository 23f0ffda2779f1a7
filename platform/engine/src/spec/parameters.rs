//! Parameters: their schema, and the check of what a submitter gives.

use gantry_proto::limits::PARAMETERS_BYTES_MAX;
use indexmap::IndexMap;
use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use super::definition::Definition;
use super::issues::{Mark, at, hint, tidy};
use crate::api::Issue;

/// Issues of one set of parameters.
const ISSUES_MAX: usize = 50;

/// A validator that follows no reference out of the schema, and whose patterns take linear time.
fn validator(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| error.to_string())
}

/// What is wrong with the schema of one parameter: places below it and sentences.
pub(super) fn check_schema(schema: &Value) -> Vec<(Vec<String>, String)> {
    let Some(fields) = schema.as_object() else {
        return vec![(
            Vec::new(),
            "a parameter is described by a map, such as {type: string}".to_owned(),
        )];
    };
    if let Some(place) = reference_in(schema) {
        return vec![(place, "`$ref` is not supported in parameters".to_owned())];
    }
    const TYPES: [&str; 7] = ["string", "integer", "number", "boolean", "array", "object", "null"];
    if let Some(name) = fields
        .get("type")
        .and_then(Value::as_str)
        .filter(|name| !TYPES.contains(name))
    {
        let message = format!(
            "`{}` is no type; it is one of {}{}",
            shortened(name),
            TYPES.join(", "),
            hint(name, TYPES)
        );
        return vec![(vec!["type".to_owned()], message)];
    }
    if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
        let place = error
            .instance_path()
            .to_string()
            .split('/')
            .skip(1)
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect();
        return vec![(place, format!("not a valid JSON Schema: {error}"))];
    }
    let validator = match validator(schema) {
        Ok(validator) => validator,
        Err(message) => return vec![(Vec::new(), format!("not a valid JSON Schema: {message}"))],
    };
    match fields
        .get("default")
        .map(|default| (default, validator.validate(default)))
    {
        Some((_, Err(error))) => vec![(
            vec!["default".to_owned()],
            format!("the default does not match the schema: {error}"),
        )],
        _ => Vec::new(),
    }
}

/// The place of a `$ref`, which could lead anywhere.
fn reference_in(schema: &Value) -> Option<Vec<String>> {
    let children: Box<dyn Iterator<Item = (String, &Value)>> = match schema {
        Value::Object(map) => {
            if let Some(key) = ["$ref", "$dynamicRef"].into_iter().find(|key| map.contains_key(*key)) {
                return Some(vec![key.to_owned()]);
            }
            // Values are data there, whatever they look like.
            Box::new(
                map.iter()
                    .filter(|(key, _)| !["default", "const", "enum", "examples"].contains(&key.as_str()))
                    .map(|(key, value)| (key.clone(), value)),
            )
        }
        Value::Array(items) => Box::new(
            items
                .iter()
                .enumerate()
                .map(|(index, value)| (index.to_string(), value)),
        ),
        _ => return None,
    };
    children.into_iter().find_map(|(key, value)| {
        reference_in(value).map(|mut place| {
            place.insert(0, key);
            place
        })
    })
}

/// The schema of all parameters together.
pub(super) fn object_schema(parameters: &IndexMap<String, Value>) -> Value {
    let required: Vec<&String> = parameters
        .iter()
        .filter(|(_, schema)| schema.get("default").is_none())
        .map(|(name, _)| name)
        .collect();
    let properties: Map<String, Value> = parameters
        .iter()
        .map(|(name, schema)| (name.clone(), schema.clone()))
        .collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// Fills in defaults and checks parameters against a definition. Callers with nothing but text (a command line) are met half-way: a text for a parameter
/// that takes no text is read as JSON if that fits, and a whole number or boolean for one that takes only text becomes that text.
///
/// # Errors
/// Every parameter that is unknown, missing, too large or does not match its schema.
pub fn check_parameters(definition: &Definition, given: Map<String, Value>) -> Result<Map<String, Value>, Vec<Issue>> {
    let empty = Map::new();
    let properties = definition
        .parameters
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    let mut issues: Vec<Issue> = Vec::new();
    let mut complain = |name: &str, message: String| issues.push(at(message, &[name.to_owned()], Mark::UNKNOWN));
    for name in given.keys().filter(|name| !properties.contains_key(*name)) {
        let close = hint(name, properties.keys().map(String::as_str));
        complain(name, format!("unknown parameter `{}`{close}", shortened(name)));
    }
    let mut values = Map::new();
    for (name, schema) in properties {
        match (given.get(name), schema.get("default")) {
            (Some(value), _) => {
                values.insert(name.clone(), read(schema, value));
            }
            (None, Some(default)) => {
                values.insert(name.clone(), default.clone());
            }
            (None, None) => {
                let description = schema
                    .get("description")
                    .and_then(Value::as_str)
                    .map(|text| format!(" ({text})"))
                    .unwrap_or_default();
                complain(name, format!("the parameter `{name}`{description} is required"));
            }
        }
    }
    let bytes = serde_json::to_vec(&given).map_or(usize::MAX, |json| json.len());
    if bytes > PARAMETERS_BYTES_MAX {
        let message = format!("the parameters have {bytes} bytes; at most {PARAMETERS_BYTES_MAX} are allowed");
        return Err(vec![at(message, &[], Mark::UNKNOWN)]);
    }
    for (name, value) in &values {
        match validator(&properties[name]) {
            Err(message) => complain(name, format!("the schema of `{name}` is not valid: {message}")),
            Ok(validator) => {
                for error in validator.iter_errors(value).take(ISSUES_MAX) {
                    let place = error.instance_path().to_string();
                    complain(name, format!("`{name}`{place}: {}", sentence(&error)));
                }
            }
        }
    }
    if issues.is_empty() {
        Ok(values)
    } else {
        Err(tidy(issues))
    }
}

/// A value as its schema wants it.
fn read(schema: &Value, value: &Value) -> Value {
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => return value.clone(),
    };
    let text = match value {
        Value::String(text) => text,
        // A branch named 2024, a password of digits. Other numbers have lost how they were written.
        Value::Number(number) if types == ["string"] && !number.is_f64() => return Value::String(number.to_string()),
        Value::Bool(flag) if types == ["string"] => return Value::String(flag.to_string()),
        _ => return value.clone(),
    };
    if types.contains(&"string") {
        return value.clone();
    }
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let fits = |parsed: &Value| match parsed {
        Value::Bool(_) => types.contains(&"boolean"),
        Value::Number(number) => types.contains(&"number") || (types.contains(&"integer") && !number.is_f64()),
        Value::Null => types.contains(&"null"),
        Value::Array(_) => types.contains(&"array"),
        Value::Object(_) => types.contains(&"object"),
        Value::String(_) => false,
    };
    parsed.filter(fits).unwrap_or_else(|| value.clone())
}

/// A validator's message, with the value cut short.
fn sentence(error: &jsonschema::ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::Enum { options } => {
            let listed = options
                .as_array()
                .into_iter()
                .flatten()
                .map(Value::to_string)
                .collect::<Vec<_>>()
                .join(", ");
            format!(
                "{} is not one of {}",
                shortened(&error.instance().to_string()),
                shortened(&listed)
            )
        }
        _ => error.masked_with(shortened(&error.instance().to_string())).to_string(),
    }
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 200 {
        text.to_owned()
    } else {
        format!("{}...", text.chars().take(197).collect::<String>())
    }
}
