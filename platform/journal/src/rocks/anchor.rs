//! How far each partition's log is known to have come, kept outside of the database: in a small file that is replaced whole.
//!
//! `RocksDB` cannot tell a database whose newest files were lost together with what names them from one that never had them. The anchor can: a log that
//! ends before it, or has another chain there, is damaged. It is written at open and after every [`SPACING_BYTES`]; what is newer stands in the write-ahead
//! log alone, and is the one thing that a damaged disk can take without being told on.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use gantry_proto::PartitionId;

use super::checkpoint;
use crate::chain::LogPosition;
use crate::durable_fs;

const FILE: &str = "gantry.anchor";
const MAGIC: &[u8; 8] = b"GANTANC1";
/// Written between two anchors.
pub(super) const SPACING_BYTES: u64 = 512 << 10;
/// Partition and position.
const LINE_BYTES: usize = 2 + 24;
const HASH_BYTES: usize = 32;

/// Counts towards the next anchor.
#[derive(Debug, Default)]
pub(super) struct Anchor {
    since_bytes: u64,
}

impl Anchor {
    /// Counts what was written; whether an anchor is due.
    pub(super) fn note(&mut self, bytes: u64) -> bool {
        self.since_bytes += bytes;
        if self.since_bytes < SPACING_BYTES {
            return false;
        }
        self.since_bytes = 0;
        true
    }
}

/// What the file says; `None` when there is none.
///
/// # Errors
/// When it is there and is not one.
pub(super) fn read(dir: &Path) -> Result<Option<Vec<(PartitionId, LogPosition)>>, String> {
    let content = match fs::read(dir.join(FILE)) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    parse(&content)
        .map(Some)
        .ok_or_else(|| format!("{FILE} is not what was written"))
}

fn parse(content: &[u8]) -> Option<Vec<(PartitionId, LogPosition)>> {
    let (body, hash) = content.split_last_chunk::<HASH_BYTES>()?;
    if blake3::hash(body).as_bytes() != hash {
        return None;
    }
    let lines = body.strip_prefix(MAGIC.as_slice())?;
    let (lines, rest) = lines.as_chunks::<LINE_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let line = |line: &[u8; LINE_BYTES]| {
        let (partition, position) = line.split_first_chunk::<2>()?;
        Some((
            PartitionId::new(u16::from_be_bytes(*partition))?,
            checkpoint::decode(position)?,
        ))
    };
    lines.iter().map(line).collect()
}

/// Replaces the file, durably.
pub(super) fn write(dir: &Path, positions: &[(PartitionId, LogPosition)]) -> io::Result<()> {
    let mut body = MAGIC.to_vec();
    for (partition, position) in positions {
        body.extend_from_slice(&partition.index().to_be_bytes());
        body.extend_from_slice(&checkpoint::encode(position));
    }
    let hash = blake3::hash(&body);
    body.extend_from_slice(hash.as_bytes());
    let partial = dir.join("gantry.anchor.part");
    let mut file = File::create(&partial)?;
    file.write_all(&body)?;
    file.sync_all()?;
    fs::rename(&partial, dir.join(FILE))?;
    durable_fs::sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Ok(None));
        let position = LogPosition {
            next_seq: 77,
            chain: [9; 16],
        };
        let positions = vec![
            (PartitionId::new(0).unwrap(), LogPosition::START),
            (PartitionId::new(5).unwrap(), position),
        ];
        write(dir.path(), &positions).unwrap();
        assert_eq!(read(dir.path()), Ok(Some(positions)));
        let content = fs::read(dir.path().join(FILE)).unwrap();
        for at in 0..content.len() {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            fs::write(dir.path().join(FILE), &damaged).unwrap();
            assert!(read(dir.path()).is_err(), "byte {at}");
            fs::write(dir.path().join(FILE), &content[..at]).unwrap();
            assert!(read(dir.path()).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn an_anchor_is_due_after_its_spacing() {
        let mut anchor = Anchor::default();
        assert!(!anchor.note(SPACING_BYTES - 1));
        assert!(anchor.note(1));
        assert!(!anchor.note(1));
    }
}
