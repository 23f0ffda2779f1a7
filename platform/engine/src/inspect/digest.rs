//! One number for all state of a partition, and for all of an installation: what a backup notes and a restore must reach.

use gantry_journal::keys::Kind;
use gantry_journal::{Direction, ReadError, Store, prefix_end};
use gantry_proto::PartitionId;

use crate::verify::Report;

/// Pairs that one scan takes.
const PAGE_PAIRS: usize = 512;

/// Digest of every row and index of a partition: of all keys but the log, which has its chain; the data keys, which an erasure may take away without
/// changing what happened; and the archive's manifest, which says where copies are, and is made anew where there are none.
///
/// # Errors
/// When the store cannot be read.
pub fn state_digest(store: &dyn Store, partition: PartitionId) -> Result<[u8; 32], ReadError> {
    let mut hasher = blake3::Hasher::new();
    // Kinds that later versions add are state as well: all of them, known or not.
    for kind in (Kind::Log as u8 + 1)..=u8::MAX {
        if [Kind::DataKey, Kind::Archive, Kind::Sealed]
            .map(|each| each as u8)
            .contains(&kind)
        {
            continue;
        }
        let mut prefix = vec![kind];
        prefix.extend_from_slice(&partition.index().to_be_bytes());
        let to = prefix_end(&prefix);
        let mut from = prefix;
        loop {
            let page = store.scan(&from, &to, Direction::Forward, PAGE_PAIRS)?;
            for (key, value) in &page {
                for part in [key, value] {
                    hasher.update(&(part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
            }
            match page.last().filter(|_| page.len() == PAGE_PAIRS) {
                Some((last, _)) => {
                    from = last.to_vec();
                    from.push(0);
                }
                None => break,
            }
        }
    }
    Ok(*hasher.finalize().as_bytes())
}

/// The digest of all partitions together: the verify digest of an installation.
#[must_use]
pub fn installation_digest(reports: &[(PartitionId, Report)]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (partition, report) in reports {
        hasher.update(&partition.index().to_be_bytes());
        hasher.update(&report.digest);
    }
    *hasher.finalize().as_bytes()
}
