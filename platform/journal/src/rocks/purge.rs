//! Making deleted bytes go: a deleted value stays in logs and tables until they are rewritten, and a key that was to be destroyed must not.

use rocksdb::{BottommostLevelCompaction, CompactOptions, DB, FlushOptions};

use crate::keys::KeyRange;

/// Past so many ranges one compaction over all of them reads less than many small ones.
const RANGES_MAX: usize = 16;

/// Rewrites every table that can hold a deleted value of `ranges`, and removes the files of before, write-ahead logs included. Blocks for as long as that takes.
pub(super) fn purge(db: &DB, ranges: &[KeyRange]) -> Result<(), rocksdb::Error> {
    let (Some(first), Some(last)) = (
        ranges.iter().map(|range| &range.from).min(),
        ranges.iter().map(|range| &range.to).max(),
    ) else {
        return Ok(());
    };
    let mut flush = FlushOptions::default();
    flush.set_wait(true);
    // The memory table becomes a file without overwritten values, and its write-ahead log is needed no more.
    db.flush_opt(&flush)?;
    let mut options = CompactOptions::default();
    // The last level too: there, and only there, a delete and what it deleted both vanish.
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    options.set_exclusive_manual_compaction(true);
    if ranges.len() > RANGES_MAX {
        db.compact_range_opt(Some(first), Some(last), &options);
    } else {
        for range in ranges {
            db.compact_range_opt(Some(&range.from), Some(&range.to), &options);
        }
    }
    // Files of before are removed by whoever lifts a ban on removing files, before the call returns.
    db.disable_file_deletions()?;
    db.enable_file_deletions()
}
