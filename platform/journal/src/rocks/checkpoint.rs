//! Positions up to which the chain of each partition needs no check at open.
//!
//! The chain must be checked over what may still stand only in write-ahead logs. `RocksDB` is told to keep at most [`super::open::WAL_BYTES_MAX`] of
//! them; a log entry behind which far more was written is in a table file, under its checksum. So a position becomes the checkpoint once
//! [`LAG_BYTES`] were written after it, and what is checked at open is bounded however long the process ran.

use std::collections::VecDeque;

use gantry_proto::PartitionId;
use gantry_proto::v1::LogEntry;
use prost::Message as _;

use super::open::WAL_BYTES_MAX;
use crate::admission::batch_bytes;
use crate::chain::LogPosition;
use crate::keys::{self, Parsed};
use crate::store::{Batch, Write};

/// Written after a position before it is a checkpoint: twice what the logs may hold, since one switch of logs can be under way.
const LAG_BYTES: u64 = 2 * WAL_BYTES_MAX;
/// Progress of a partition between two candidates.
const SPACING_BYTES: u64 = WAL_BYTES_MAX / 8;

struct Candidate {
    at_bytes: u64,
    partition: PartitionId,
    position: LogPosition,
}

/// Candidates on their way to be checkpoints.
pub(super) struct Checkpoints {
    written_bytes: u64,
    /// Bytes at the last candidate, by partition index.
    last: Vec<u64>,
    /// At most `LAG_BYTES / SPACING_BYTES` per partition, in order of `at_bytes`.
    waiting: VecDeque<Candidate>,
}

impl Checkpoints {
    pub(super) fn new(partitions: u16) -> Self {
        Self {
            written_bytes: 0,
            last: vec![0; usize::from(partitions)],
            waiting: VecDeque::new(),
        }
    }

    /// Counts a batch that is about to be written.
    pub(super) fn note(&mut self, batch: &Batch) {
        self.written_bytes += batch_bytes(batch);
        let Some(last) = self.last.get_mut(usize::from(batch.partition.index())) else {
            return;
        };
        if self.written_bytes - *last < SPACING_BYTES {
            return;
        }
        let newest = batch.writes.iter().rev().find_map(|write| match write {
            Write::Put(key, value) if matches!(keys::parse(key), Some(Parsed::Log { .. })) => Some(value),
            _ => None,
        });
        let position = newest
            .and_then(|value| LogEntry::decode(value.clone()).ok())
            .and_then(|entry| LogPosition::after(&entry));
        if let Some(position) = position {
            *last = self.written_bytes;
            self.waiting.push_back(Candidate {
                at_bytes: self.written_bytes,
                partition: batch.partition,
                position,
            });
        }
    }

    /// Takes those that have become checkpoints.
    pub(super) fn due(&mut self) -> Vec<(PartitionId, LogPosition)> {
        let mut due = Vec::new();
        while let Some(candidate) = self
            .waiting
            .pop_front_if(|first| first.at_bytes + LAG_BYTES <= self.written_bytes)
        {
            due.push((candidate.partition, candidate.position));
        }
        due
    }
}

/// Value of [`crate::keys::meta::verified`].
pub(super) fn encode(position: &LogPosition) -> [u8; 24] {
    let mut value = [0u8; 24];
    value[..8].copy_from_slice(&position.next_seq.to_be_bytes());
    value[8..].copy_from_slice(&position.chain);
    value
}

pub(super) fn decode(value: &[u8]) -> Option<LogPosition> {
    let (seq, chain) = value.split_first_chunk::<8>()?;
    Some(LogPosition {
        next_seq: u64::from_be_bytes(*seq),
        chain: chain.try_into().ok()?,
    })
}
