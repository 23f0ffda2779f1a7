//! The model disk: a `MemoryStore` whose syncs can be lost, torn, wedged, or refused for want of space. What a process reads and writes goes through a
//! [`Handle`] of its own, which dies with it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use gantry_journal::{Batch, CommitError, Direction, Epoch, MemoryStore, Pair, ReadError, Store};
use gantry_proto::PartitionId;
use parking_lot::Mutex;

use crate::climate::Climate;
use crate::dice::Dice;
use crate::host::WallClock;

/// A batch that has become durable.
#[derive(Debug)]
pub(crate) struct Durable {
    /// When, on the monotonic clock.
    pub(crate) at_ms: u64,
    /// Which process wrote it.
    pub(crate) process: u64,
    pub(crate) batch: Batch,
    /// Batches of the same sync.
    pub(crate) together: usize,
}

pub(crate) struct Disk {
    store: MemoryStore,
    dice: Dice,
    clock: Arc<WallClock>,
    climate: Mutex<Climate>,
    full: AtomicBool,
    news: Mutex<VecDeque<Durable>>,
}

impl Disk {
    pub(crate) fn new(dice: Dice, clock: Arc<WallClock>, climate: Climate) -> Arc<Self> {
        Arc::new(Self {
            store: MemoryStore::new(),
            dice,
            clock,
            climate: Mutex::new(climate),
            full: AtomicBool::new(false),
            news: Mutex::default(),
        })
    }

    /// What is durable, for whoever checks it.
    pub(crate) fn durable(&self) -> &MemoryStore {
        &self.store
    }

    /// The next batch that became durable and was not looked at.
    pub(crate) fn news(&self) -> Option<Durable> {
        self.news.lock().pop_front()
    }

    pub(crate) fn climate(&self) -> Climate {
        *self.climate.lock()
    }

    pub(crate) fn set_climate(&self, climate: Climate) {
        *self.climate.lock() = climate;
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn open(self: &Arc<Self>, process: u64) -> Arc<Handle> {
        Arc::new(Handle {
            disk: Arc::clone(self),
            process,
            alive: AtomicBool::new(true),
            wedged: Mutex::new(None),
        })
    }

    fn write(&self, process: u64, batches: &[Batch]) -> Result<Vec<Result<(), CommitError>>, CommitError> {
        let verdicts = self.store.commit(batches)?;
        let at_ms = self.clock.monotonic_ms();
        let mut news = self.news.lock();
        for (batch, verdict) in batches.iter().zip(&verdicts) {
            if verdict.is_ok() {
                news.push_back(Durable {
                    at_ms,
                    process,
                    batch: batch.clone(),
                    together: batches.len(),
                });
            }
        }
        Ok(verdicts)
    }
}

/// The disk as one process has it open.
pub(crate) struct Handle {
    disk: Arc<Disk>,
    process: u64,
    alive: AtomicBool,
    wedged: Mutex<Option<String>>,
}

const KILLED: &str = "the process is dead";

impl Handle {
    /// The process dies: from now on it neither reads nor writes.
    pub(crate) fn kill(&self) {
        self.alive.store(false, Ordering::Relaxed);
    }

    fn writable(&self) -> Result<(), CommitError> {
        let unknown = |reason: &str| Err(CommitError::Unknown { reason: reason.into() });
        if !self.alive.load(Ordering::Relaxed) {
            return unknown(KILLED);
        }
        if let Some(reason) = &*self.wedged.lock() {
            return unknown(reason);
        }
        if self.disk.full.load(Ordering::Relaxed) {
            *self.wedged.lock() = Some("no space left on device".into());
            return unknown("no space left on device");
        }
        Ok(())
    }

    fn readable(&self) -> Result<(), ReadError> {
        if self.alive.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(ReadError::Io(KILLED.into()))
        }
    }
}

impl Store for Handle {
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, CommitError> {
        self.writable()?;
        self.disk.store.acquire(partition)
    }

    fn commit(&self, batches: &[Batch]) -> Result<Vec<Result<(), CommitError>>, CommitError> {
        self.writable()?;
        let climate = *self.disk.climate.lock();
        if !self.disk.dice.chance(climate.unknown) {
            return self.disk.write(self.process, batches);
        }
        // Each batch is whole or absent: of a torn one the store's own log keeps nothing. Of a group any front part may be durable.
        let kept = self.disk.dice.index(batches.len() + 1);
        if kept > 0 {
            let _ = self.disk.write(self.process, &batches[..kept])?;
        }
        if self.disk.dice.chance(climate.wedged) {
            *self.wedged.lock() = Some("the device reported an error".into());
        }
        Err(CommitError::Unknown {
            reason: format!("injected: {kept} of {} batches are durable", batches.len()),
        })
    }

    fn failure(&self) -> Option<String> {
        self.wedged.lock().clone()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        self.readable()?;
        self.disk.store.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Pair>, ReadError> {
        self.readable()?;
        self.disk.store.scan(from, to, direction, limit)
    }
}
