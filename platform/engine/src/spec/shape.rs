//! Checks a document's shape against the JSON Schema of the source form: which fields exist and what kind of value each takes. The schema is the only
//! list of fields there is, so check, published schema and types cannot drift apart.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::document::{Kind, Node};
use super::issues::{at, hint};
use super::source::WorkflowSource;
use crate::api::Issue;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = schemars::generate::SchemaSettings::draft2020_12();
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<WorkflowSource>()
        .to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("$id".to_owned(), Value::from("/api/v1/schemas/workflow"));
    }
    schema
});

/// JSON Schema (2020-12) of the source form. It cannot express everything: unknown needs, cycles, templates, limits and globs are checked by
/// [`super::compile`] alone.
#[must_use]
pub fn schema() -> Value {
    SCHEMA.clone()
}

/// Every place where the document's shape is wrong.
pub(super) fn check(root: &Node) -> Vec<Issue> {
    let mut walk = Walk {
        issues: Vec::new(),
        path: Vec::new(),
    };
    walk.node(&SCHEMA, root);
    walk.issues
}

struct Walk {
    issues: Vec<Issue>,
    path: Vec<String>,
}

impl Walk {
    fn complain(&mut self, message: String, node: &Node) {
        self.issues.push(at(message, &self.path, node.mark));
    }

    fn node(&mut self, schema: &Value, node: &Node) {
        let branches = branches(schema);
        let fitting: Vec<&Map<String, Value>> = branches
            .iter()
            .copied()
            .filter(|branch| accepts(branch, &node.kind))
            .collect();
        let Some(branch) = fitting.first() else {
            let mut expected: Vec<&str> = branches
                .iter()
                .flat_map(|branch| types(branch))
                .filter(|name| *name != "nothing")
                .collect();
            expected.dedup();
            let mut seen: Vec<&str> = Vec::new();
            expected.retain(|name| {
                !seen.contains(name) && {
                    seen.push(name);
                    true
                }
            });
            let message = match node.kind {
                Kind::Int(value) if value < 0 && expected.contains(&"a whole number") => {
                    format!("{} cannot be negative", self.subject())
                }
                _ => format!(
                    "{} is {}; it takes {}",
                    self.subject(),
                    node.type_name(),
                    expected.join(" or ")
                ),
            };
            let quotes = matches!(node.kind, Kind::Float(_)) && expected.contains(&"a text");
            return self.complain(
                if quotes {
                    format!("{message}: put it in quotes")
                } else {
                    message
                },
                node,
            );
        };
        match &node.kind {
            Kind::Map(entries) => self.map(branch, node, entries),
            Kind::List(items) => {
                if let Some(item_schema) = branch.get("items") {
                    for (index, item) in items.iter().enumerate() {
                        self.path.push(index.to_string());
                        self.node(item_schema, item);
                        self.path.pop();
                    }
                }
            }
            Kind::Text(text) => self.text(&fitting, node, text),
            _ => {}
        }
    }

    fn map(&mut self, schema: &Map<String, Value>, node: &Node, entries: &[super::document::Entry]) {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let additional = schema.get("additionalProperties");
        for entry in entries {
            self.path.push(entry.key.clone());
            match (properties.get(&entry.key), additional) {
                (Some(property), _) => self.node(property, &entry.value),
                (None, Some(Value::Bool(false))) => {
                    let mut message = format!(
                        "unknown field `{}`{}",
                        entry.key,
                        hint(&entry.key, properties.keys().map(String::as_str))
                    );
                    if !message.contains("did you mean") {
                        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
                        message = format!("{message}; known here: {}", names.join(", "));
                    }
                    self.issues.push(at(message, &self.path, entry.key_mark));
                }
                (None, Some(other)) if other.is_object() => self.node(other, &entry.value),
                (None, _) => {}
            }
            self.path.pop();
        }
        for name in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if !entries.iter().any(|entry| entry.key == name) {
                let message = format!("{} lacks the field `{name}`", self.subject());
                self.complain(message, node);
            }
        }
    }

    fn text(&mut self, branches: &[&Map<String, Value>], node: &Node, text: &str) {
        let mut allowed: Vec<&str> = Vec::new();
        for branch in branches {
            let words = words(branch);
            if words.is_empty() {
                return;
            }
            allowed.extend(words);
        }
        if !allowed.contains(&text) {
            let message = format!(
                "{} cannot be `{text}`; it is one of {}{}",
                self.subject(),
                allowed.join(", "),
                hint(text, allowed.iter().copied())
            );
            self.complain(message, node);
        }
    }

    /// The thing at hand, for the start of a sentence.
    fn subject(&self) -> String {
        match self.path.last() {
            None => "the definition".to_owned(),
            Some(last) if last.bytes().all(|byte| byte.is_ascii_digit()) => {
                match self.path.len().checked_sub(2).map(|index| &self.path[index]) {
                    Some(parent) => format!(
                        "item {} of `{parent}`",
                        last.parse::<usize>().map_or(0, |index| index.saturating_add(1))
                    ),
                    None => format!("item {last}"),
                }
            }
            Some(last) => format!("`{last}`"),
        }
    }
}

/// The alternatives of a schema, references followed. `true` and an empty schema accept anything.
fn branches(schema: &Value) -> Vec<&Map<String, Value>> {
    static ANYTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    let Some(object) = schema.as_object() else {
        return vec![&ANYTHING];
    };
    if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
        // References are within our own schema: `#/$defs/Name`.
        return reference
            .strip_prefix('#')
            .and_then(|pointer| SCHEMA.pointer(pointer))
            .map(branches)
            .unwrap_or_default();
    }
    for keyword in ["anyOf", "oneOf"] {
        if let Some(list) = object.get(keyword).and_then(Value::as_array) {
            return list.iter().flat_map(branches).collect();
        }
    }
    vec![object]
}

/// JSON types of a branch as words of a sentence.
fn types(schema: &Map<String, Value>) -> Vec<&'static str> {
    let word = |name: &str| match name {
        "object" => "a map",
        "array" => "a list",
        "string" => "a text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        _ => "nothing",
    };
    match schema.get("type") {
        Some(Value::String(name)) => vec![word(name)],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(word).collect(),
        _ if schema.contains_key("const") || schema.contains_key("enum") => vec!["a text"],
        _ => Vec::new(),
    }
}

fn accepts(schema: &Map<String, Value>, kind: &Kind) -> bool {
    let types = types(schema);
    let non_negative = schema
        .get("minimum")
        .and_then(Value::as_f64)
        .is_some_and(|minimum| minimum >= 0.0);
    types.is_empty()
        || match kind {
            Kind::Null => types.contains(&"nothing"),
            Kind::Bool(_) => types.contains(&"true or false"),
            Kind::Int(value) => {
                (types.contains(&"a whole number") || types.contains(&"a number")) && !(non_negative && *value < 0)
            }
            Kind::BigInt(_) => types.contains(&"a whole number") || types.contains(&"a number"),
            Kind::Float(_) => types.contains(&"a number"),
            Kind::Text(_) => types.contains(&"a text"),
            Kind::List(_) => types.contains(&"a list"),
            Kind::Map(_) => types.contains(&"a map"),
        }
}

/// The only texts that a branch takes; empty: any.
fn words(schema: &Map<String, Value>) -> Vec<&str> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(Value::String(word)), _) => vec![word],
        (_, Some(Value::Array(words))) => words.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
