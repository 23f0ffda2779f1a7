//! Typed ids.
//!
//! An id is 16 bytes of `UUIDv7`. The 12 `rand_a` bits (after the version nibble) carry the partition that owns the entity, so that any process can route
//! by id alone. Printed with a prefix (`wf_0192...`), parsed only with it: a task id cannot be passed where a workflow id is meant.

use std::fmt;
use std::str::FromStr;

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType};
use uuid::Uuid;

/// Index of a partition, `0..4096`. The number of partitions is fixed per data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PartitionId(u16);

impl PartitionId {
    /// One more than the greatest partition index: 12 bits.
    pub const LIMIT: u16 = 1 << 12;

    /// A partition index, or `None` past [`Self::LIMIT`].
    #[must_use]
    pub const fn new(index: u16) -> Option<Self> {
        if index < Self::LIMIT { Some(Self(index)) } else { None }
    }

    /// The index as a number.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }

    /// Owner partition of a stateful key: a hash of tenant, kind and key, the same in every process and version.
    ///
    /// # Panics
    /// When `count` is 0 or above [`Self::LIMIT`]: the count is checked when a data directory is opened.
    #[must_use]
    pub fn of(tenant: TenantId, kind: &str, key: &[u8], count: u16) -> Self {
        assert!(
            count > 0 && count <= Self::LIMIT,
            "partition count {count} is out of range"
        );
        let mut hasher = blake3::Hasher::new();
        hasher.update(tenant.as_bytes());
        hasher.update(&(kind.len() as u64).to_be_bytes());
        hasher.update(kind.as_bytes());
        hasher.update(key);
        let mut head = [0u8; 8];
        head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        // The remainder is below `count`, which fits.
        #[allow(clippy::cast_possible_truncation)]
        Self((u64::from_be_bytes(head) % u64::from(count)) as u16)
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The prefix is missing or belongs to another kind of id.
    #[error("expected an id that starts with `{expected}_`, got `{got}`")]
    Prefix {
        /// The prefix of the wanted kind.
        expected: &'static str,
        /// What was given, shortened.
        got: String,
    },
    /// The part after the prefix is not 32 hexadecimal digits.
    #[error("`{got}` is not an id: after `{expected}_` there must be 32 hexadecimal digits")]
    Digits {
        /// The prefix of the wanted kind.
        expected: &'static str,
        /// What was given, shortened.
        got: String,
    },
}

fn shortened(text: &str) -> String {
    text.chars().take(48).collect()
}

const VERSION_7: u8 = 0x70;
const VARIANT: u8 = 0x80;

fn compose(time_ms: u64, partition: PartitionId, tail: [u8; 8]) -> Uuid {
    let mut bytes = [0u8; 16];
    bytes[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
    let [high, low] = partition.0.to_be_bytes();
    bytes[6] = VERSION_7 | (high & 0x0f);
    bytes[7] = low;
    bytes[8..].copy_from_slice(&tail);
    bytes[8] = VARIANT | (bytes[8] & 0x3f);
    Uuid::from_bytes(bytes)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// What the printed form starts with, before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id. `entropy` is 62 bits of randomness; the caller supplies it, so that the engine stays pure.
            #[must_use]
            pub fn new(time_ms: u64, partition: PartitionId, entropy: u64) -> Self {
                Self(compose(time_ms, partition, entropy.to_be_bytes()))
            }

            /// An id that follows from others: time bits from the event that spawned it, the rest from a hash of `parts`.
            #[must_use]
            pub fn derive(time_ms: u64, partition: PartitionId, parts: &[&[u8]]) -> Self {
                let mut hasher = blake3::Hasher::new();
                hasher.update($prefix.as_bytes());
                for part in parts {
                    hasher.update(&(part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
                let mut tail = [0u8; 8];
                tail.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
                Self(compose(time_ms, partition, tail))
            }

            /// The nil id; what a record that lacks the field decodes to. Never assigned.
            #[must_use]
            pub const fn nil() -> Self {
                Self(Uuid::nil())
            }

            /// Whether this is the nil id.
            #[must_use]
            pub fn is_nil(self) -> bool {
                self.0.is_nil()
            }

            /// The partition that owns the entity.
            #[must_use]
            pub fn partition(self) -> PartitionId {
                let bytes = self.0.as_bytes();
                PartitionId(u16::from_be_bytes([bytes[6] & 0x0f, bytes[7]]))
            }

            /// Milliseconds since the epoch at which the id was made.
            #[must_use]
            pub fn time_ms(self) -> u64 {
                let mut time = [0u8; 8];
                time[2..].copy_from_slice(&self.0.as_bytes()[..6]);
                u64::from_be_bytes(time)
            }

            /// The 16 bytes, in the order in which keys sort.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From 16 bytes, as stored in a key.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::nil()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let digits = text
                    .strip_prefix(concat!($prefix, "_"))
                    .ok_or_else(|| ParseIdError::Prefix { expected: $prefix, got: shortened(text) })?;
                let well_formed = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                let uuid = well_formed.then(|| Uuid::try_parse(digits).ok()).flatten();
                uuid.map(Self).ok_or_else(|| ParseIdError::Digits { expected: $prefix, got: shortened(text) })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        // On the wire an id is a message with one field of 16 bytes, so that generated structs hold the typed id.
        impl prost::Message for $name {
            fn encode_raw(&self, buf: &mut impl BufMut) {
                prost::encoding::bytes::encode(1, &self.0.as_bytes().to_vec(), buf);
            }

            fn merge_field(
                &mut self,
                tag: u32,
                wire_type: WireType,
                buf: &mut impl Buf,
                ctx: DecodeContext,
            ) -> Result<(), DecodeError> {
                if tag != 1 {
                    return prost::encoding::skip_field(wire_type, tag, buf, ctx);
                }
                let mut value = Vec::new();
                prost::encoding::bytes::merge(wire_type, &mut value, buf, ctx)?;
                // A wrong length reads as the nil id, which names nothing and is refused wherever an id is looked up.
                self.0 = Uuid::from_slice(&value).unwrap_or_default();
                Ok(())
            }

            fn encoded_len(&self) -> usize {
                18
            }

            fn clear(&mut self) {
                *self = Self::nil();
            }
        }
    )*};
}

ids! {
    /// A tenant: the wall that every key, record, artifact and query belongs to.
    TenantId = "ten";
    /// One durable execution of a definition.
    WorkflowId = "wf";
    /// A unit of work with one holder at a time.
    TaskId = "task";
    /// A container host's `gantry node`.
    NodeId = "node";
    /// One container with its supervisor.
    SandboxId = "sbx";
    /// A named, hashed output in object storage.
    ArtifactId = "art";
    /// A file that a client stored for workflows to come.
    UploadId = "upl";
    /// One command for every workflow that a filter fits.
    BulkId = "bulk";
    /// Who did something: an API key (`key_`), or the system itself.
    PrincipalId = "key";
    /// A token that lets nodes join.
    NodeTokenId = "ntok";
    /// A time table that starts workflows.
    ScheduleId = "sched";
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn partition(index: u16) -> PartitionId {
        PartitionId::new(index).unwrap()
    }

    #[test]
    fn id_carries_time_and_partition() {
        let id = WorkflowId::new(1_700_000_000_123, partition(0xabc), u64::MAX);
        assert_eq!(id.partition(), partition(0xabc));
        assert_eq!(id.time_ms(), 1_700_000_000_123);
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn ids_sort_by_time() {
        let early = WorkflowId::new(1, partition(4095), u64::MAX);
        let late = WorkflowId::new(2, partition(0), 0);
        assert!(early < late);
        assert!(early.as_bytes() < late.as_bytes());
    }

    #[test]
    fn printed_form_round_trips_and_refuses_other_kinds() {
        let id = TaskId::new(5, partition(1), 7);
        assert_eq!(id.to_string().parse::<TaskId>(), Ok(id));
        assert!(matches!(
            id.to_string().parse::<WorkflowId>(),
            Err(ParseIdError::Prefix { .. })
        ));
        assert!(matches!("task_12".parse::<TaskId>(), Err(ParseIdError::Digits { .. })));
        assert!(matches!(
            "task_0192+0000000000000000000000000000".parse::<TaskId>(),
            Err(ParseIdError::Digits { .. })
        ));
        assert!(
            id.to_string().to_uppercase().parse::<TaskId>().is_err(),
            "one printed form only"
        );
    }

    #[test]
    fn wire_form_round_trips() {
        let id = NodeId::new(9, partition(3), 11);
        let bytes = id.encode_to_vec();
        assert_eq!(bytes.len(), id.encoded_len());
        assert_eq!(NodeId::decode(bytes.as_slice()), Ok(id));
    }

    #[test]
    fn derived_ids_depend_on_every_part_and_its_border() {
        let p = partition(2);
        let base = TaskId::derive(1, p, &[b"ab", b"c"]);
        assert_eq!(base, TaskId::derive(1, p, &[b"ab", b"c"]));
        assert_ne!(base, TaskId::derive(1, p, &[b"a", b"bc"]));
    }

    #[test]
    fn partition_of_a_key_is_stable() {
        // Fixed for ever: data directories depend on it.
        let tenant = TenantId::from_bytes([7; 16]);
        let first = PartitionId::of(tenant, "idempotency", b"k", 8);
        assert_eq!(first, PartitionId::of(tenant, "idempotency", b"k", 8));
        assert_eq!(PartitionId::of(TenantId::nil(), "", b"", 4096).index(), 1660);
    }
}
