//! A source text as a tree in which every node knows its line and column. Nothing here knows what a workflow is.

use std::fmt;

use gantry_proto::limits::DEFINITION_BYTES_MAX;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::{Location, Spanned};

use super::issues::{Mark, at};
use crate::api::Issue;

/// Nested maps and lists. A definition needs 10; the parser recurses.
const DEPTH_MAX: usize = 32;
/// Maps, lists and scalars, those that aliases repeat included.
const NODES_MAX: usize = 200_000;
/// Anchors and the uses of them: enough to share steps between all tasks.
const ALIASES_MAX: usize = 2_000;
/// Text in all, aliases included: an alias inside an alias cannot grow a small text into a huge one.
const SCALAR_BYTES_MAX: usize = 4 * DEFINITION_BYTES_MAX;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    /// Past `i64::MAX`.
    BigInt(u64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the source; the parser refused repeated keys.
    Map(Vec<Entry>),
}

/// One entry of a map.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_mark: Mark,
    pub(super) value: Node,
}

impl Node {
    /// Where the node at a path of keys and indexes stands; the deepest node on the way when the path leaves the tree.
    pub(super) fn mark_of(&self, path: &[String]) -> Mark {
        let mut node = self;
        let mut mark = self.mark;
        for segment in path {
            let next = match &node.kind {
                Kind::Map(entries) => entries
                    .iter()
                    .find(|entry| entry.key == *segment)
                    .map(|entry| (&entry.value, entry.key_mark)),
                Kind::List(items) => segment
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index))
                    .map(|item| (item, item.mark)),
                _ => None,
            };
            let Some((value, fallback)) = next else { break };
            node = value;
            mark = if value.mark.is_known() { value.mark } else { fallback };
        }
        mark
    }

    /// The node at a path of keys and indexes.
    pub(super) fn at(&self, path: &[String]) -> Option<&Self> {
        path.iter().try_fold(self, |node, segment| match &node.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == *segment)
                .map(|entry| &entry.value),
            Kind::List(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        })
    }

    /// Where the key at the end of a path stands; the value's place when it is not in a map.
    pub(super) fn key_mark_of(&self, path: &[String]) -> Mark {
        let Some((last, parents)) = path.split_last() else {
            return self.mark;
        };
        let mut node = self;
        for segment in parents {
            let next = match &node.kind {
                Kind::Map(entries) => entries
                    .iter()
                    .find(|entry| entry.key == *segment)
                    .map(|entry| &entry.value),
                Kind::List(items) => segment.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            };
            let Some(value) = next else { return self.mark_of(path) };
            node = value;
        }
        match &node.kind {
            Kind::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == *last)
                .map_or(node.mark, |entry| entry.key_mark),
            _ => self.mark_of(path),
        }
    }

    /// What the node is, for a sentence.
    pub(super) fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Int(_) | Kind::BigInt(_) => "a whole number",
            Kind::Float(_) => "a number",
            Kind::Text(_) => "a text",
            Kind::List(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The same without places.
    pub(super) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(value) => Value::from(*value),
            Kind::BigInt(value) => Value::from(*value),
            Kind::Float(value) => serde_json::Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Kind::Text(value) => Value::String(value.clone()),
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// Parses YAML or JSON under limits.
///
/// # Errors
/// One issue, with its place where there is one: too large, not text, not YAML, too deep, repeated keys, more than one document, nothing in it.
pub(super) fn parse(source: &[u8]) -> Result<Node, Issue> {
    if source.len() > DEFINITION_BYTES_MAX {
        let message = format!(
            "the definition is {} bytes long; at most {DEFINITION_BYTES_MAX} are allowed",
            source.len()
        );
        return Err(at(message, &[], Mark::UNKNOWN));
    }
    let text = match std::str::from_utf8(source) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let mark = Mark::of_offset(source, error.valid_up_to());
            return Err(at("the definition is not UTF-8 text".to_owned(), &[], mark));
        }
    };
    if let Some((offset, character)) = text
        .char_indices()
        .find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}'))
    {
        let message = format!(
            "the definition holds the control character U+{:04X}; it has to be text",
            u32::from(character)
        );
        return Err(at(message, &[], Mark::of_offset(text.as_bytes(), offset)));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: 3 * NODES_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_documents: 1,
            max_total_scalar_bytes: SCALAR_BYTES_MAX,
            max_recorded_anchor_events: NODES_MAX,
            max_recorded_anchor_bytes: SCALAR_BYTES_MAX,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: NODES_MAX,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    let root: Option<Node> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let mark = error.location().map_or(Mark::UNKNOWN, mark);
        at(sentence(&error), &[], mark)
    })?;
    match root {
        Some(node) if !matches!(node.kind, Kind::Null) => Ok(node),
        _ => Err(at("the definition is empty".to_owned(), &[], Mark::UNKNOWN)),
    }
}

/// A sentence for what the parser refused.
fn sentence(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach;
    let mut original = error.without_snippet();
    // Met while an alias was filled in.
    while let Error::AliasError { error, .. } = original {
        original = error.without_snippet();
    }
    match original {
        Error::DuplicateMappingKey { key: Some(key), .. } => return format!("the field `{key}` is given twice"),
        Error::DuplicateMappingKey { key: None, .. } => return "a field is given twice".to_owned(),
        Error::MultipleDocuments { .. }
        | Error::Budget {
            breach: BudgetBreach::Documents { .. },
            ..
        } => {
            return "the text holds more than one document; a definition is one".to_owned();
        }
        Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => return format!("maps and lists are nested more than {DEPTH_MAX} deep"),
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            return format!(
                "the definition is too large once its aliases are filled in: at most {NODES_MAX} values and {SCALAR_BYTES_MAX} bytes of text"
            );
        }
        _ => {}
    }
    let text = original.to_string();
    let first = text.lines().next().unwrap_or("the definition cannot be parsed").trim();
    if first.contains("recursion limit") {
        return format!("maps and lists are nested more than {DEPTH_MAX} deep");
    }
    let cut = first
        .rfind(" at line ")
        .filter(|_| error.location().is_some())
        .map_or(first, |end| &first[..end]);
    format!("not valid YAML: {}", cut.trim_start_matches("error: "))
}

fn mark(location: Location) -> Mark {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Mark {
        line: number(location.line()),
        column: number(location.column()),
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self {
            mark: mark(spanned.referenced),
            kind: spanned.value,
        })
    }
}

/// A key, which may be written as a number or boolean.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, a list or a scalar")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Int(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Kind, E> {
        Ok(i64::try_from(value).map_or(Kind::BigInt(value), Kind::Int))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Kind, E> {
        if value.is_finite() {
            Ok(Kind::Float(value))
        } else {
            Err(E::custom("a number has to be finite"))
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Text(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Node>()? {
            items.push(item);
        }
        Ok(Kind::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<Key>>()? {
            let value = map.next_value::<Node>()?;
            entries.push(Entry {
                key_mark: mark(key.referenced),
                key: key.value.0,
                value,
            });
        }
        Ok(Kind::Map(entries))
    }
}
