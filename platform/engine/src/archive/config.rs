//! How history is kept.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use gantry_journal::ErasureList;
use gantry_journal::archive::ArchiveStore;
use gantry_proto::TenantId;

/// How long a workflow is open to queries from the hot store alone before it is sealed.
const SEAL_AFTER_MS: u64 = 3_600_000;
/// How often the keeper looks, at most and at least.
const INTERVAL_MS: RangeInclusive<u64> = 1_000..=60_000;

/// How long ended workflows are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retention {
    /// For every tenant without an own value; `None`: for ever.
    pub default_ms: Option<u64>,
    /// Per tenant; `None`: for ever.
    pub tenants: BTreeMap<TenantId, Option<u64>>,
}

impl Retention {
    /// For a tenant; `None`: for ever.
    #[must_use]
    pub fn of(&self, tenant: TenantId) -> Option<u64> {
        self.tenants.get(&tenant).copied().unwrap_or(self.default_ms)
    }
}

/// When what is sealed and removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// A workflow that ended so long ago is sealed, and with it what ended since in the same partition.
    pub seal_after_ms: u64,
    /// How often the keeper looks.
    pub interval_ms: u64,
    /// How long ended workflows are kept.
    pub retention: Retention,
}

impl ArchiveConfig {
    /// Seals after `seal_after_ms`, and looks as often as that takes.
    #[must_use]
    pub fn new(seal_after_ms: u64, retention: Retention) -> Self {
        Self {
            seal_after_ms,
            interval_ms: seal_after_ms.clamp(*INTERVAL_MS.start(), *INTERVAL_MS.end()),
            retention,
        }
    }
}

impl Default for ArchiveConfig {
    fn default() -> Self {
        Self::new(SEAL_AFTER_MS, Retention::default())
    }
}

/// What keeping history needs beside the engine's own parts.
#[derive(Debug)]
pub struct ArchiveParts {
    /// Where sealed objects go.
    pub objects: ArchiveStore,
    /// What was erased.
    pub erasures: ErasureList,
    /// When what is sealed and removed.
    pub config: ArchiveConfig,
}
