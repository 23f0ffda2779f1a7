//! The rule by which every store lets a batch in.

use crate::keys;
use crate::store::{Batch, CommitError, Epoch, Write};

/// Whether `batch` may be written while `owner` owns its partition (epoch 0: nobody does).
///
/// A key outside the batch's partition is a fault of the caller. Nothing is written, and the answer is `Unknown` so that the caller recovers.
pub(crate) fn admit(batch: &Batch, owner: Epoch) -> Result<(), CommitError> {
    if batch.epoch != owner || owner.0 == 0 {
        return Err(CommitError::Fenced {
            partition: batch.partition,
            ours: batch.epoch,
        });
    }
    let foreign = batch
        .writes
        .iter()
        .map(key_of)
        .find(|key| !keys::belongs_to(key, batch.partition));
    foreign.map_or(Ok(()), |key| {
        let reason = format!(
            "refused: key {} is not of partition {}",
            hex::encode(key),
            batch.partition
        );
        Err(CommitError::Unknown { reason })
    })
}

fn key_of(write: &Write) -> &[u8] {
    match write {
        Write::Put(key, _) | Write::Delete(key) => key,
    }
}

/// Bytes of keys and values that a batch holds.
pub(crate) fn batch_bytes(batch: &Batch) -> u64 {
    let write_bytes = |write: &Write| match write {
        Write::Put(key, value) => key.len() + value.len(),
        Write::Delete(key) => key.len(),
    };
    batch.writes.iter().map(|write| write_bytes(write) as u64).sum()
}
