//! The store as a map in memory: the model that the other implementations are compared with, and what the simulation runs on.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use gantry_proto::PartitionId;
use parking_lot::RwLock;

use crate::admission::admit;
use crate::keys::meta;
use crate::store::{Batch, CommitError, Direction, Epoch, Pair, ReadError, Store, Write};

/// What [`MemoryStore::fail_next_commit`] does to a commit. Either way its caller gets [`CommitError::Unknown`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitFault {
    /// Nothing is written.
    BeforeApply,
    /// Everything is written, and yet the caller is told that the outcome is unknown.
    AfterApply,
}

#[derive(Debug, Default)]
struct Inner {
    pairs: BTreeMap<Bytes, Bytes>,
    fault: Option<CommitFault>,
    broken: bool,
}

/// A [`Store`] in memory. What a crash would keep is exactly what was committed: [`Self::reopened`].
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: RwLock<Inner>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store with the durable content of this one, as a new process would find it. The two are independent afterwards.
    #[must_use]
    pub fn reopened(&self) -> Self {
        let pairs = self.inner.read().pairs.clone();
        Self {
            inner: RwLock::new(Inner {
                pairs,
                ..Inner::default()
            }),
        }
    }

    /// Lets the next commit fail. Takings of ownership are not affected.
    pub fn fail_next_commit(&self, fault: CommitFault) {
        self.inner.write().fault = Some(fault);
    }

    /// Lets every write fail from now on, as a store does whose disk has failed. What is stored can be read; only [`Self::reopened`] helps.
    pub fn break_down(&self) {
        self.inner.write().broken = true;
    }

    /// Keys in the store, those of the store itself included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.read().pairs.len()
    }

    /// Whether nothing was ever written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const BROKEN: &str = "injected breakdown";

impl Inner {
    fn check(&self) -> Result<(), CommitError> {
        if self.broken {
            return Err(CommitError::Unknown { reason: BROKEN.into() });
        }
        Ok(())
    }

    fn epoch(&self, partition: PartitionId) -> Epoch {
        let stored = self.pairs.get(&meta::epoch(partition));
        Epoch(
            stored
                .and_then(|value| value.as_ref().try_into().ok())
                .map_or(0, u64::from_be_bytes),
        )
    }

    fn apply(&mut self, batch: &Batch) {
        for write in &batch.writes {
            match write {
                Write::Put(key, value) => drop(self.pairs.insert(key.clone(), value.clone())),
                Write::Delete(key) => drop(self.pairs.remove(key)),
            }
        }
    }
}

impl Store for MemoryStore {
    fn acquire(&self, partition: PartitionId) -> Result<Epoch, CommitError> {
        let mut inner = self.inner.write();
        inner.check()?;
        let next = Epoch(inner.epoch(partition).0 + 1);
        inner
            .pairs
            .insert(meta::epoch(partition), Bytes::copy_from_slice(&next.0.to_be_bytes()));
        Ok(next)
    }

    fn commit(&self, batches: &[Batch]) -> Result<Vec<Result<(), CommitError>>, CommitError> {
        let mut inner = self.inner.write();
        inner.check()?;
        let fault = inner.fault.take();
        let unknown = || CommitError::Unknown {
            reason: "injected fault".into(),
        };
        if fault == Some(CommitFault::BeforeApply) {
            return Err(unknown());
        }
        let verdicts: Vec<_> = batches
            .iter()
            .map(|batch| admit(batch, inner.epoch(batch.partition)))
            .collect();
        for (batch, verdict) in batches.iter().zip(&verdicts) {
            if verdict.is_ok() {
                inner.apply(batch);
            }
        }
        if fault == Some(CommitFault::AfterApply) {
            Err(unknown())
        } else {
            Ok(verdicts)
        }
    }

    fn failure(&self) -> Option<String> {
        self.inner.read().broken.then(|| BROKEN.to_owned())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
        Ok(self.inner.read().pairs.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Pair>, ReadError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let inner = self.inner.read();
        let range = inner
            .pairs
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let pair = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        Ok(match direction {
            Direction::Forward => range.take(limit).map(pair).collect(),
            Direction::Reverse => range.rev().take(limit).map(pair).collect(),
        })
    }
}
