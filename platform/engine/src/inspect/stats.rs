//! What a journal consists of.

use std::collections::BTreeMap;

use gantry_journal::keys::Kind;
use gantry_journal::{LogReader, ReadError, Store};
use gantry_proto::PartitionId;
use prost::Message as _;

use super::render;
use crate::processor::load::walk;

/// How many, and how large.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Bytes of keys and values, as the engine wrote them; on disk they are compressed.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }
}

/// Counts of one or more partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Log entries with their keys.
    pub entries: Tally,
    /// Records by kind, payloads included.
    pub records: BTreeMap<String, Tally>,
    /// Sealed payloads of records.
    pub payloads: Tally,
    /// Rows and indexes by kind of key.
    pub rows: BTreeMap<String, Tally>,
    /// Time of the oldest record.
    pub first_at_ms: Option<u64>,
    /// Time of the newest record.
    pub last_at_ms: Option<u64>,
}

/// Names of the key kinds; what a later version adds has its number.
fn kind_name(kind: u8) -> String {
    let known = [
        (Kind::DataKey, "data_key"),
        (Kind::Workflow, "workflow"),
        (Kind::Task, "task"),
        (Kind::Active, "active"),
        (Kind::Timeline, "timeline"),
        (Kind::Idempotency, "idempotency"),
        (Kind::Node, "node"),
        (Kind::Schedule, "schedule"),
        (Kind::Activation, "activation"),
        (Kind::Archive, "archive"),
        (Kind::Sealed, "sealed"),
        (Kind::Ended, "ended"),
        (Kind::Hold, "hold"),
        (Kind::Erased, "erased"),
        (Kind::Destroy, "destroy"),
        (Kind::Closed, "closed"),
        (Kind::Bulk, "bulk"),
    ];
    let found = known.iter().find(|(each, _)| *each as u8 == kind);
    found.map_or_else(|| format!("kind_{kind:02x}"), |(_, name)| (*name).to_owned())
}

/// Adds what a partition holds to `stats`. Reads all of it.
///
/// # Errors
/// When it cannot be read, or the chain does not hold.
pub fn stats(store: &dyn Store, partition: PartitionId, stats: &mut Stats) -> Result<(), ReadError> {
    for entry in LogReader::from_start(store, partition) {
        let entry = entry?;
        stats.entries.add(entry.encoded_len() + LOG_KEY_BYTES);
        stats.first_at_ms = Some(stats.first_at_ms.map_or(entry.at_ms, |first| first.min(entry.at_ms)));
        stats.last_at_ms = stats.last_at_ms.max(Some(entry.at_ms));
        for record in &entry.records {
            let kind = render::event(&record.event.encode_to_vec()).map_or_else(|| "none".to_owned(), |(name, _)| name);
            stats.records.entry(kind).or_default().add(record.encoded_len());
            if let Some(payload) = &record.payload {
                stats.payloads.add(payload.len());
            }
        }
    }
    for kind in (Kind::Log as u8 + 1)..=u8::MAX {
        let mut tally = Tally::default();
        let mut prefix = vec![kind];
        prefix.extend_from_slice(&partition.index().to_be_bytes());
        let range = gantry_journal::keys::KeyRange {
            to: gantry_journal::prefix_end(&prefix).into(),
            from: prefix.into(),
        };
        walk(store, &range, |key, value| {
            tally.add(key.len() + value.len());
            Ok(())
        })?;
        if tally.count > 0 {
            let sum = stats.rows.entry(kind_name(kind)).or_default();
            sum.count += tally.count;
            sum.bytes += tally.bytes;
        }
    }
    Ok(())
}

/// Kind, partition, sequence, tenant.
const LOG_KEY_BYTES: usize = 1 + 2 + 8 + 16;
