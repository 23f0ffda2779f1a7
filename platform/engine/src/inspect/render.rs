//! Any record as JSON, from the definitions of the messages: nothing to add when a kind is added, and nothing left out.

use std::collections::HashMap;
use std::sync::OnceLock;

use gantry_proto::vocabulary;
use gantry_proto::{
    ArtifactId, BulkId, NodeId, PrincipalId, SandboxId, ScheduleId, TaskId, TenantId, UploadId, WorkflowId,
};
use prost_types::field_descriptor_proto::{Label, Type};
use serde_json::{Map, Value, json};

struct Field {
    name: String,
    repeated: bool,
    kind: Type,
    of: String,
}

struct Tables {
    messages: HashMap<String, HashMap<u32, Field>>,
    enums: HashMap<String, HashMap<i32, String>>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let mut tables = Tables {
            messages: HashMap::new(),
            enums: HashMap::new(),
        };
        for file in &vocabulary::descriptors().file {
            for message in &file.message_type {
                let fields = message.field.iter().map(|field| {
                    let field_of = Field {
                        name: field.name().to_owned(),
                        repeated: field.label() == Label::Repeated,
                        kind: field.r#type(),
                        of: short(field.type_name()).to_owned(),
                    };
                    (field.number().cast_unsigned(), field_of)
                });
                tables.messages.insert(message.name().to_owned(), fields.collect());
            }
            for each in &file.enum_type {
                let prefix = format!("{}_", upper(each.name()));
                let values = each.value.iter().map(|value| {
                    let name = value.name().strip_prefix(&prefix).unwrap_or(value.name());
                    (value.number(), name.to_ascii_lowercase())
                });
                tables.enums.insert(each.name().to_owned(), values.collect());
            }
        }
        tables
    })
}

fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// `WaitKind` as its values are prefixed: `WAIT_KIND`.
fn upper(name: &str) -> String {
    let mut upper = String::new();
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            upper.push('_');
        }
        upper.push(c.to_ascii_uppercase());
    }
    upper
}

/// An encoded `Event` as the name of its kind and its fields. `None` when it has no kind, or is not what this version writes.
pub(super) fn event(bytes: &[u8]) -> Option<(String, Value)> {
    match message("Event", bytes)? {
        Value::Object(fields) => fields.into_iter().next(),
        _ => None,
    }
}

/// An encoded message as JSON; ids are printed, bytes are hexadecimal, enum values are words. `None` when the bytes are no such message.
pub(super) fn message(name: &str, mut bytes: &[u8]) -> Option<Value> {
    if let Some(id) = id(name, bytes) {
        return Some(json!(id));
    }
    let fields = tables().messages.get(name)?;
    let mut object = Map::new();
    while !bytes.is_empty() {
        let key = vocabulary::varint(&mut bytes)?;
        let field = fields.get(&u32::try_from(key >> 3).ok()?)?;
        let value = match key & 7 {
            0 => number(field, vocabulary::varint(&mut bytes)?),
            1 => {
                let (head, rest) = bytes.split_first_chunk::<8>()?;
                bytes = rest;
                match field.kind {
                    Type::Double => json!(f64::from_le_bytes(*head)),
                    _ => json!(u64::from_le_bytes(*head)),
                }
            }
            2 => {
                let length = usize::try_from(vocabulary::varint(&mut bytes)?).ok()?;
                let (inner, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                match field.kind {
                    Type::Message => message(&field.of, inner)?,
                    Type::String => json!(std::str::from_utf8(inner).ok()?),
                    _ => json!(hex::encode(inner)),
                }
            }
            5 => {
                let (head, rest) = bytes.split_first_chunk::<4>()?;
                bytes = rest;
                json!(u32::from_le_bytes(*head))
            }
            _ => return None,
        };
        if field.repeated {
            match object.entry(field.name.clone()).or_insert_with(|| json!([])) {
                Value::Array(items) => items.push(value),
                other => *other = value,
            }
        } else {
            object.insert(field.name.clone(), value);
        }
    }
    Some(Value::Object(object))
}

fn number(field: &Field, value: u64) -> Value {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "enums and int32 are sign-extended on the wire"
    )]
    let small = (value as u32).cast_signed();
    match field.kind {
        Type::Bool => json!(value != 0),
        Type::Enum => {
            let word = tables().enums.get(&field.of).and_then(|values| values.get(&small));
            word.map_or_else(|| json!(small), |word| json!(word))
        }
        Type::Int32 => json!(small),
        Type::Int64 => json!(value.cast_signed()),
        Type::Sint32 | Type::Sint64 => json!((value >> 1).cast_signed() ^ -(value & 1).cast_signed()),
        _ => json!(value),
    }
}

/// Ids are messages of one field of 16 bytes.
fn id(name: &str, bytes: &[u8]) -> Option<String> {
    let raw: [u8; 16] = bytes.strip_prefix(&[0x0a, 16])?.try_into().ok()?;
    Some(match name {
        "TenantId" => TenantId::from_bytes(raw).to_string(),
        "WorkflowId" => WorkflowId::from_bytes(raw).to_string(),
        "TaskId" => TaskId::from_bytes(raw).to_string(),
        "NodeId" => NodeId::from_bytes(raw).to_string(),
        "SandboxId" => SandboxId::from_bytes(raw).to_string(),
        "ArtifactId" => ArtifactId::from_bytes(raw).to_string(),
        "BulkId" => BulkId::from_bytes(raw).to_string(),
        "ScheduleId" => ScheduleId::from_bytes(raw).to_string(),
        "UploadId" => UploadId::from_bytes(raw).to_string(),
        "PrincipalId" => PrincipalId::from_bytes(raw).to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gantry_proto::v1::event::Kind;
    use gantry_proto::v1::{Event, Label, StepEnded, TaskSeed, WorkflowSubmitted};
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_field_is_there_in_words() {
        let task = TaskId::from_bytes([3; 16]);
        let submitted = WorkflowSubmitted {
            name: "n".into(),
            definition_digest: Bytes::from_static(&[0xab; 2]),
            submitted_by: PrincipalId::from_bytes([1; 16]),
            tasks: vec![TaskSeed {
                handles: None,
                task,
                name: "t".into(),
                steps: 2,
                component: None,
            }],
            labels: vec![Label {
                key: "k".into(),
                value: "v".into(),
            }],
            ..WorkflowSubmitted::default()
        };
        let kind = Some(Kind::WorkflowSubmitted(submitted));
        let (name, value) = event(&Event { kind }.encode_to_vec()).unwrap();
        assert_eq!(name, "workflow_submitted");
        assert_eq!(value["definition_digest"], "abab");
        assert_eq!(value["submitted_by"], PrincipalId::from_bytes([1; 16]).to_string());
        assert_eq!(
            value["tasks"],
            json!([{"task": task.to_string(), "name": "t", "steps": 2}])
        );
        assert_eq!(value["labels"], json!([{"key": "k", "value": "v"}]));

        let ended = StepEnded {
            task,
            end: gantry_proto::v1::StepEnd::Lost.into(),
            cause: gantry_proto::v1::EndCause::OutputLimit.into(),
            exit_code: Some(-3),
            oom_seen: Some(true),
            ..StepEnded::default()
        };
        let kind = Some(Kind::StepEnded(ended));
        let (_, value) = event(&Event { kind }.encode_to_vec()).unwrap();
        assert_eq!(
            (&value["end"], &value["cause"], &value["exit_code"], &value["oom_seen"]),
            (&json!("lost"), &json!("output_limit"), &json!(-3), &json!(true))
        );
    }

    #[test]
    fn senseless_bytes_are_none() {
        assert!(event(&[]).is_none());
        assert!(message("Event", &[0xff; 9]).is_none());
        assert!(message("NoSuchMessage", &[]).is_none());
    }
}
