//! The words that log entries are written with: every field and every enum value that this version knows, read from the definitions themselves.
//!
//! Generated types drop what they do not know without a sound. A journal must not: a record that a newer version wrote means something, and folding the
//! log without it would make another state. So a store remembers which words were ever written to it, and whoever opens it compares.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::OnceLock;

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

static DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
const ROOT: &str = ".gantry.v1.LogEntry";
/// Messages within messages; entries of ours have four levels.
const DEPTH_MAX: usize = 16;

/// A field of a message or a value of an enum, by position in the tables. Cheap to hash; only [`Vocabulary::name`] gives it a meaning outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word(u64);

/// What an entry holds that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownWord {
    /// A field: for `Event`, a kind of record.
    #[error("field {number} of `{message}`")]
    Field {
        /// The message.
        message: String,
        /// The field's number.
        number: u32,
    },
    /// A value of an enum.
    #[error("value {number} of `{of}`")]
    Value {
        /// The enum.
        of: String,
        /// The value.
        number: i32,
    },
    /// The bytes are no message at all.
    #[error("bytes that are no `{message}`")]
    Malformed {
        /// The message.
        message: String,
    },
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Plain,
    Message(usize),
    Enum(usize),
}

#[derive(Debug)]
struct MessageTable {
    name: String,
    fields: HashMap<u32, Shape>,
}

#[derive(Debug)]
struct EnumTable {
    name: String,
    values: HashSet<i32>,
}

/// All words that can stand in a log entry.
#[derive(Debug)]
pub struct Vocabulary {
    messages: Vec<MessageTable>,
    enums: Vec<EnumTable>,
    root: usize,
    by_name: HashMap<String, Word>,
}

const VALUE: u64 = 1 << 63;

fn field_word(message: usize, number: u32) -> Word {
    Word((message as u64) << 32 | u64::from(number))
}

fn value_word(of: usize, number: i32) -> Word {
    Word(VALUE | (of as u64) << 32 | u64::from(number.cast_unsigned()))
}

impl Vocabulary {
    /// That of this version.
    ///
    /// # Panics
    /// When the descriptors that the build put into the binary are not what the build makes.
    #[must_use]
    #[allow(
        clippy::expect_used,
        reason = "written by this crate's build script, and every test of this module reads them"
    )]
    pub fn known() -> &'static Self {
        static KNOWN: OnceLock<Vocabulary> = OnceLock::new();
        KNOWN.get_or_init(|| Self::of(descriptors()).expect("descriptors hold the log entry"))
    }

    fn of(set: &FileDescriptorSet) -> Option<Self> {
        let mut messages: Vec<(String, &DescriptorProto)> = Vec::new();
        let mut enums: Vec<(String, &EnumDescriptorProto)> = Vec::new();
        for file in &set.file {
            let package = format!(".{}", file.package());
            for message in &file.message_type {
                messages.push((format!("{package}.{}", message.name()), message));
            }
            for each in &file.enum_type {
                enums.push((format!("{package}.{}", each.name()), each));
            }
        }
        let message_at: HashMap<&str, usize> = messages
            .iter()
            .zip(0..)
            .map(|((name, _), at)| (name.as_str(), at))
            .collect();
        let enum_at: HashMap<&str, usize> = enums
            .iter()
            .zip(0..)
            .map(|((name, _), at)| (name.as_str(), at))
            .collect();
        let root = *message_at.get(ROOT)?;
        let tables = messages.iter().map(|(name, message)| {
            let fields = message.field.iter().map(|field| {
                let shape = match field.r#type() {
                    Type::Message => message_at
                        .get(field.type_name())
                        .map_or(Shape::Plain, |at| Shape::Message(*at)),
                    Type::Enum => enum_at
                        .get(field.type_name())
                        .map_or(Shape::Plain, |at| Shape::Enum(*at)),
                    _ => Shape::Plain,
                };
                (field.number().cast_unsigned(), shape)
            });
            MessageTable {
                name: short(name),
                fields: fields.collect(),
            }
        });
        let messages: Vec<MessageTable> = tables.collect();
        let enums: Vec<EnumTable> = enums
            .iter()
            .map(|(name, each)| EnumTable {
                name: short(name),
                values: each
                    .value
                    .iter()
                    .map(prost_types::EnumValueDescriptorProto::number)
                    .collect(),
            })
            .collect();
        let mut known = Self {
            messages,
            enums,
            root,
            by_name: HashMap::new(),
        };
        known.by_name = known.all().into_iter().map(|word| (known.name(word), word)).collect();
        Some(known)
    }

    fn all(&self) -> Vec<Word> {
        let fields = (0..)
            .zip(&self.messages)
            .flat_map(|(at, table)| table.fields.keys().map(move |number| field_word(at, *number)));
        let values = (0..)
            .zip(&self.enums)
            .flat_map(|(at, table)| table.values.iter().map(move |number| value_word(at, *number)));
        fields.chain(values).collect()
    }

    /// The stored form: `Event.11`, `WaitKind=2`.
    #[must_use]
    pub fn name(&self, word: Word) -> String {
        let at = usize::try_from((word.0 & !VALUE) >> 32).unwrap_or(usize::MAX);
        #[allow(clippy::cast_possible_truncation, reason = "the lower half is the number")]
        let number = word.0 as u32;
        if word.0 & VALUE == 0 {
            format!(
                "{}.{number}",
                self.messages.get(at).map_or("", |table| table.name.as_str())
            )
        } else {
            format!(
                "{}={}",
                self.enums.get(at).map_or("", |table| table.name.as_str()),
                number.cast_signed()
            )
        }
    }

    /// The word of a stored form; `None` when this version does not know it.
    #[must_use]
    pub fn word(&self, name: &str) -> Option<Word> {
        self.by_name.get(name).copied()
    }

    /// Adds the words of an encoded log entry to `seen`; whether any was new. Costs a walk over the clear side; sealed bytes are skipped.
    ///
    /// # Errors
    /// What this version does not know, or bytes that are no log entry.
    pub fn read(&self, entry: &[u8], seen: &mut Words) -> Result<bool, UnknownWord> {
        let before = seen.0.len();
        self.walk(entry, self.root, 0, &mut seen.0)?;
        Ok(seen.0.len() > before)
    }

    fn walk(&self, mut bytes: &[u8], at: usize, depth: usize, seen: &mut HashSet<Word>) -> Result<(), UnknownWord> {
        let table = &self.messages[at];
        let malformed = || UnknownWord::Malformed {
            message: table.name.clone(),
        };
        if depth > DEPTH_MAX {
            return Err(malformed());
        }
        while !bytes.is_empty() {
            let key = varint(&mut bytes).ok_or_else(malformed)?;
            let number = u32::try_from(key >> 3).map_err(|_| malformed())?;
            let Some(shape) = table.fields.get(&number) else {
                return Err(UnknownWord::Field {
                    message: table.name.clone(),
                    number,
                });
            };
            seen.insert(field_word(at, number));
            match key & 7 {
                0 => {
                    let value = varint(&mut bytes).ok_or_else(malformed)?;
                    if let Shape::Enum(of) = *shape {
                        self.value(of, value, seen)?;
                    }
                }
                1 => bytes = bytes.get(8..).ok_or_else(malformed)?,
                2 => {
                    let length = varint(&mut bytes)
                        .and_then(|length| usize::try_from(length).ok())
                        .ok_or_else(malformed)?;
                    let (mut inner, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
                    bytes = rest;
                    match *shape {
                        Shape::Plain => {}
                        Shape::Message(of) => self.walk(inner, of, depth + 1, seen)?,
                        Shape::Enum(of) => {
                            while !inner.is_empty() {
                                let value = varint(&mut inner).ok_or_else(malformed)?;
                                self.value(of, value, seen)?;
                            }
                        }
                    }
                }
                5 => bytes = bytes.get(4..).ok_or_else(malformed)?,
                _ => return Err(malformed()),
            }
        }
        Ok(())
    }

    fn value(&self, of: usize, value: u64, seen: &mut HashSet<Word>) -> Result<(), UnknownWord> {
        // Negative values are sign-extended to 64 bits on the wire; enums have 32.
        #[allow(clippy::cast_possible_truncation)]
        let number = (value as u32).cast_signed();
        let table = &self.enums[of];
        if !table.values.contains(&number) {
            return Err(UnknownWord::Value {
                of: table.name.clone(),
                number,
            });
        }
        seen.insert(value_word(of, number));
        Ok(())
    }
}

/// The definitions of every message and enum.
///
/// # Panics
/// When the descriptors that the build put into the binary are not what the build makes.
#[must_use]
#[allow(
    clippy::expect_used,
    reason = "written by this crate's build script, and every test of this module reads them"
)]
pub fn descriptors() -> &'static FileDescriptorSet {
    static SET: OnceLock<FileDescriptorSet> = OnceLock::new();
    SET.get_or_init(|| FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors of this build"))
}

fn short(name: &str) -> String {
    name.rsplit('.').next().unwrap_or(name).to_owned()
}

/// Takes a base-128 number off the front; `None` when there is no whole one.
pub fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Words that were met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words(HashSet<Word>);

impl Words {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The stored form: one word per line, in order.
    #[must_use]
    pub fn to_text(&self) -> String {
        let known = Vocabulary::known();
        let names: BTreeSet<String> = self.0.iter().map(|word| known.name(*word)).collect();
        names.into_iter().collect::<Vec<_>>().join("\n")
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// The first word that this version does not know.
    pub fn from_text(text: &str) -> Result<Self, UnknownName> {
        let known = Vocabulary::known();
        let words = text
            .lines()
            .map(|name| known.word(name).ok_or_else(|| UnknownName(name.to_owned())));
        words.collect::<Result<_, _>>().map(Self)
    }
}

/// A stored word that this version does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownName(pub String);

impl fmt::Display for UnknownName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once(['.', '=']) {
            Some(("Event", number)) => write!(f, "records of kind {number}"),
            _ => write!(f, "`{}`", self.0),
        }
    }
}

impl std::error::Error for UnknownName {}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::*;
    use crate::ids::{TaskId, TenantId};
    use crate::v1::event::Kind;
    use crate::v1::{Event, LogEntry, Record, TaskWaiting, WaitKind};

    fn entry(event: Event) -> LogEntry {
        LogEntry {
            format: 1,
            first_seq: 1,
            at_ms: 1,
            tenant: TenantId::from_bytes([1; 16]),
            chain: Bytes::from_static(&[0; 16]),
            records: vec![Record {
                event,
                workflow: None,
                payload: Some(Bytes::from_static(&[0xff; 40])),
            }],
        }
    }

    fn waiting() -> LogEntry {
        let waiting = TaskWaiting {
            task: TaskId::from_bytes([2; 16]),
            kind: WaitKind::NodeRefused.into(),
            until_ms: Some(1),
        };
        entry(Event {
            kind: Some(Kind::TaskWaiting(waiting)),
        })
    }

    /// An entry whose one event is these bytes.
    fn with_event(event: &[u8]) -> Vec<u8> {
        let mut record = Vec::new();
        encode_key(1, WireType::LengthDelimited, &mut record);
        encode_varint(event.len() as u64, &mut record);
        record.extend_from_slice(event);
        let mut bytes = LogEntry {
            records: Vec::new(),
            ..waiting()
        }
        .encode_to_vec();
        encode_key(6, WireType::LengthDelimited, &mut bytes);
        encode_varint(record.len() as u64, &mut bytes);
        bytes.extend_from_slice(&record);
        bytes
    }

    #[test]
    fn what_is_written_is_known_and_survives_its_stored_form() {
        let known = Vocabulary::known();
        let mut seen = Words::new();
        assert_eq!(known.read(&waiting().encode_to_vec(), &mut seen), Ok(true));
        assert_eq!(known.read(&waiting().encode_to_vec(), &mut seen), Ok(false));
        let text = seen.to_text();
        for word in ["Event.12", "WaitKind=1", "TaskWaiting.3", "Record.3"] {
            assert!(text.lines().any(|line| line == word), "{word} in {text}");
        }
        assert_eq!(Words::from_text(&text).unwrap(), seen);
        assert_eq!(Words::from_text("").unwrap(), Words::new());
    }

    #[test]
    fn an_unknown_kind_field_or_value_is_named() {
        let known = Vocabulary::known();
        let mut seen = Words::new();
        let mut event = Vec::new();
        encode_key(9_999, WireType::LengthDelimited, &mut event);
        encode_varint(0, &mut event);
        let error = known.read(&with_event(&event), &mut seen).unwrap_err();
        assert_eq!(
            error,
            UnknownWord::Field {
                message: "Event".into(),
                number: 9_999
            }
        );

        let mut odd = waiting();
        let Some(Kind::TaskWaiting(event)) = &mut odd.records[0].event.kind else {
            unreachable!()
        };
        event.kind = 77;
        let error = known.read(&odd.encode_to_vec(), &mut seen).unwrap_err();
        assert_eq!(
            error,
            UnknownWord::Value {
                of: "WaitKind".into(),
                number: 77
            }
        );

        let mut longer = waiting().encode_to_vec();
        encode_key(900, WireType::Varint, &mut longer);
        encode_varint(5, &mut longer);
        let error = known.read(&longer, &mut seen).unwrap_err();
        assert_eq!(error.to_string(), "field 900 of `LogEntry`");

        let error = Words::from_text("Event.12\nEvent.9999").unwrap_err();
        assert_eq!(error.to_string(), "records of kind 9999");
    }

    #[test]
    fn cut_and_senseless_bytes_are_refused() {
        let known = Vocabulary::known();
        let whole = waiting().encode_to_vec();
        // A cut between two fields of the entry is a shorter entry: the chain finds that, not the vocabulary.
        let cut = whole.len() - 1;
        assert!(matches!(
            known.read(&whole[..cut], &mut Words::new()),
            Err(UnknownWord::Malformed { .. })
        ));
        assert!(known.read(&[0xff; 12], &mut Words::new()).is_err());
    }
}
