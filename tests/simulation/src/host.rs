//! What the shipped code runs on here: seeded randomness, a commit loop as a task, a wall clock that jumps, keys that cost nothing.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gantry_journal::committer::{CommitLoop, Pace};
use gantry_journal::host::Host;
use gantry_journal::{DataKey, KeyRing, SealError, WrappedKey};
use gantry_proto::time::Clock;
use gantry_proto::{TenantId, WorkflowId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::disk::Disk;

/// Replaces the machine on the thread of a run.
pub(crate) struct SimHost {
    dice: Dice,
    pace: RefCell<Option<Arc<DiskPace>>>,
}

impl SimHost {
    pub(crate) fn new(dice: Dice) -> Rc<Self> {
        Rc::new(Self {
            dice,
            pace: RefCell::new(None),
        })
    }

    /// Committers that start from now on go at this pace.
    pub(crate) fn set_pace(&self, pace: Arc<DiskPace>) {
        *self.pace.borrow_mut() = Some(pace);
    }
}

impl Host for SimHost {
    fn entropy(&self) -> u64 {
        self.dice.next()
    }

    fn drive(&self, commits: CommitLoop) {
        let pace = self.pace.borrow().clone();
        if let Some(pace) = pace {
            // Ends with its committer, or with the runtime of the run.
            drop(tokio::spawn(commits.run(pace)));
        }
    }
}

/// How long syncs take, and the crashes around them.
pub(crate) struct DiskPace {
    pub(crate) dice: Dice,
    pub(crate) disk: Arc<Disk>,
    /// The process is dead: nothing waits any more.
    pub(crate) killed: CancellationToken,
    pub(crate) process: u64,
    /// Takes the number of a process that is to die where it stands.
    pub(crate) die: tokio::sync::mpsc::Sender<u64>,
}

impl DiskPace {
    async fn stay(&self, crash_permille: u64) {
        if self.killed.is_cancelled() {
            return;
        }
        if self.dice.chance(crash_permille) && self.die.try_send(self.process).is_ok() {
            self.killed.cancelled().await;
            return;
        }
        let ms = match self.dice.below(100) {
            0..=59 => return,
            60..=94 => self.dice.between(1, 6),
            95..=98 => self.dice.between(10, 300),
            _ => self.dice.between(300, self.disk.climate().sync_ms_max),
        };
        tokio::select! {
            biased;
            () = self.killed.cancelled() => {}
            () = tokio::time::sleep(Duration::from_millis(ms)) => {}
        }
    }
}

#[async_trait::async_trait]
impl Pace for DiskPace {
    async fn before_sync(&self) {
        self.stay(self.disk.climate().crash_before_sync).await;
    }

    async fn after_sync(&self) {
        self.stay(self.disk.climate().crash_after_sync).await;
    }
}

/// The wall clock: goes with virtual time, and jumps when the run says so.
#[derive(Debug)]
pub(crate) struct WallClock {
    started: Instant,
    skew_ms: AtomicI64,
}

const EPOCH_MS: u64 = 1_700_000_000_000;

impl WallClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            skew_ms: AtomicI64::new(0),
        })
    }

    pub(crate) fn jump(&self, by_ms: i64) {
        self.skew_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Somebody sets a clock right that is behind: what waits for a time would wait as long again.
    pub(crate) fn set_right(&self) {
        self.skew_ms.fetch_max(0, Ordering::Relaxed);
    }

    /// Virtual time since the start of the run.
    pub(crate) fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn instant(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms)
    }
}

impl Clock for WallClock {
    fn now_ms(&self) -> u64 {
        (EPOCH_MS + self.monotonic_ms()).saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }
}

/// Data keys that follow from the workflow: the sealing is the shipped one, only nothing is kept secret here.
#[derive(Debug)]
pub(crate) struct OpenKeys;

fn key_of(workflow: WorkflowId) -> DataKey {
    let mut bytes = [7u8; 32];
    bytes[..16].copy_from_slice(workflow.as_bytes());
    DataKey::from_bytes(&bytes)
}

impl KeyRing for OpenKeys {
    fn generate(&self, _: TenantId, workflow: WorkflowId) -> Result<(DataKey, WrappedKey), SealError> {
        Ok((
            key_of(workflow),
            WrappedKey(Bytes::copy_from_slice(workflow.as_bytes())),
        ))
    }

    fn unwrap(&self, _: TenantId, workflow: WorkflowId, wrapped: &WrappedKey) -> Result<DataKey, SealError> {
        if wrapped.0[..] == workflow.as_bytes()[..] {
            Ok(key_of(workflow))
        } else {
            Err(SealError::Unwrap)
        }
    }
}
