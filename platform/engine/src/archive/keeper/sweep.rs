//! Objects that count for nothing: retired ones whose readers are gone, and those that a crash left without a row.

use std::collections::BTreeSet;

use gantry_journal::Write;
use gantry_journal::archive::ObjectName;
use gantry_journal::archive::manifest;
use gantry_journal::keys::Kind;

use super::{House, KeepError};

/// A reader that looked before an object was retired has this long to fetch it.
const GRACE_MS: u64 = 600_000;
/// Names that one listing takes: bounds its memory. What is left over is found by a later process.
const LISTED_MAX: usize = 250_000;

impl House<'_> {
    /// Removes what is due; `orphans`: also looks for what has no row, once in the life of a process.
    pub(super) async fn sweep(&mut self, orphans: bool) -> Result<(), KeepError> {
        let mut known = BTreeSet::new();
        for partition in self.engine.all_partitions() {
            for tenant in self.tenants(partition, Kind::Archive).await? {
                let epoch = self.epoch(partition)?;
                let objects = self
                    .blocking(move |store| Ok(manifest::objects(store, partition, tenant)?))
                    .await?;
                for (key, _, row) in objects {
                    let over = row.retired_at_ms.is_some_and(|at_ms| at_ms + GRACE_MS <= self.now_ms);
                    if over {
                        // First the object: without its row nobody would look for it again.
                        self.parts.objects.delete(&row.name).await?;
                        self.write(partition, epoch, vec![Write::Delete(key)]).await?;
                        self.done.swept += 1;
                    } else if orphans {
                        known.insert(row.name);
                    }
                }
            }
        }
        if !orphans {
            return Ok(());
        }
        for text in self.parts.objects.list(LISTED_MAX).await? {
            let Ok(name) = text.parse::<ObjectName>() else { continue };
            // An owner newer than this one may be about to write the row; one of before cannot any more.
            let stale = self.epoch(name.partition).is_ok_and(|ours| name.epoch < ours);
            if stale && !known.contains(&text) {
                self.parts.objects.delete(&text).await?;
                self.done.swept += 1;
            }
        }
        Ok(())
    }
}
