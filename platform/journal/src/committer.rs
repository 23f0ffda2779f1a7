//! Group commit: one thread through which the batches of all partitions go, so that a sync carries everything that came while the one before ran.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

use crate::admission::batch_bytes;
use crate::store::{Batch, CommitError, Store};

/// Batches that wait for the sync that runs. Each partition has one in flight, so this is rarely reached; past it, [`Committer::commit`] waits.
const QUEUE_MAX: usize = 1_024;
/// Bytes after which one sync takes no further batch: bounds its time and memory. A single larger batch goes alone.
const SYNC_BYTES_MAX: u64 = 16 << 20;

type Waiter = oneshot::Sender<Result<(), CommitError>>;

/// What one sync carries, and who waits for it.
type Group = (Vec<Batch>, Vec<Waiter>);

struct Request {
    batch: Batch,
    done: Waiter,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Request>,
    closed: bool,
    /// Why no batch is taken any more.
    poisoned: Option<String>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Something waits, or the queue was closed.
    changed: Condvar,
    /// The same for the loop of a simulation, which is a task.
    #[cfg(feature = "simulation")]
    arrived: tokio::sync::Notify,
    /// Free places of the queue; closed with it.
    places: Semaphore,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    batches: AtomicU64,
    syncs: AtomicU64,
    bytes: AtomicU64,
}

/// What a [`Committer`] has done since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CommitterCounters {
    /// Batches that were made durable.
    pub batches: u64,
    /// Commits of the store, each with one sync.
    pub syncs: u64,
    /// Bytes of keys and values in those batches.
    pub bytes: u64,
}

/// Hands batches to the store, many with one sync. Shared by all partition processors of a process.
///
/// When a commit's outcome is unknown, every batch in it gets [`CommitError::Unknown`], and so does every batch that waits or comes later: the
/// committer stays poisoned, since what followed could have been decided on state that is not there. Owners discard their memory, reopen the store,
/// and start a new committer. A fenced batch is refused alone.
pub struct Committer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer")
            .field("counters", &self.counters())
            .finish_non_exhaustive()
    }
}

impl Committer {
    /// Starts the thread.
    ///
    /// # Panics
    /// When the system gives no thread: nothing can run then.
    #[must_use]
    #[allow(clippy::expect_used)] // at start-up, before anything was promised
    pub fn start(store: Arc<dyn Store>) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            #[cfg(feature = "simulation")]
            arrived: tokio::sync::Notify::new(),
            places: Semaphore::new(QUEUE_MAX),
            counts: Counts::default(),
        });
        let worker = Arc::clone(&shared);
        #[cfg(feature = "simulation")]
        if let Some(host) = crate::host::simulated() {
            host.drive(CommitLoop { shared: worker, store });
            return Self {
                shared,
                thread: Mutex::new(None),
            };
        }
        let thread = std::thread::Builder::new()
            .name("gantry-commit".into())
            .spawn(move || worker.run(store.as_ref()))
            .expect("the system can start a thread");
        Self {
            shared,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Makes a batch durable together with whatever else waits. When it returns `Ok`, the batch is durable and readable.
    ///
    /// Batches that one caller submits one after the other are committed in that order. A future that is dropped while it waits for a place in the
    /// queue has written nothing; after that its batch is written all the same, and the caller does not learn its outcome.
    ///
    /// # Errors
    /// [`CommitError`]; after `Unknown` the owner must recover.
    pub async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let place = self.shared.places.acquire().await.map_err(|_| CommitError::Closed)?;
        let (done, verdict) = oneshot::channel();
        {
            let mut queue = self.shared.queue.lock();
            if let Some(reason) = &queue.poisoned {
                return Err(CommitError::Unknown { reason: reason.clone() });
            }
            if queue.closed {
                return Err(CommitError::Closed);
            }
            queue.waiting.push_back(Request { batch, done });
            // The thread gives it back when it takes the request.
            place.forget();
            self.shared.wake();
        }
        // Only a thread that panicked inside the store drops a request without an answer.
        verdict.await.unwrap_or_else(|_| {
            Err(CommitError::Unknown {
                reason: "the commit thread ended unexpectedly".into(),
            })
        })
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> CommitterCounters {
        let counts = &self.shared.counts;
        CommitterCounters {
            batches: counts.batches.load(Ordering::Relaxed),
            syncs: counts.syncs.load(Ordering::Relaxed),
            bytes: counts.bytes.load(Ordering::Relaxed),
        }
    }

    /// Takes no further batch, lets those that wait finish, and joins the thread; blocks for at most the syncs that are left. Later commits get
    /// [`CommitError::Closed`]. Dropping the committer does the same.
    pub fn close(&self) {
        self.shared.queue.lock().closed = true;
        self.shared.places.close();
        self.shared.wake();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the commit thread panicked");
        }
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.close();
    }
}

/// Poisons the queue when the thread unwinds out of the store, so that nobody waits for ever.
struct PoisonOnUnwind<'a>(&'a Shared);

impl Drop for PoisonOnUnwind<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.poison("the commit thread panicked");
        }
    }
}

impl Shared {
    fn run(&self, store: &dyn Store) {
        let _guard = PoisonOnUnwind(self);
        while let Some(group) = self.take() {
            let outcome = store.commit(&group.0);
            if !self.answer(outcome, group) {
                return;
            }
        }
    }

    /// Tells everybody who waits for a sync how it went; false when nothing may follow it.
    fn answer(&self, outcome: Result<Vec<Result<(), CommitError>>, CommitError>, (batches, waiters): Group) -> bool {
        match outcome {
            Ok(verdicts) => {
                self.counts.syncs.fetch_add(1, Ordering::Relaxed);
                for ((verdict, waiter), batch) in verdicts.into_iter().zip(waiters).zip(&batches) {
                    if verdict.is_ok() {
                        self.counts.batches.fetch_add(1, Ordering::Relaxed);
                        self.counts.bytes.fetch_add(batch_bytes(batch), Ordering::Relaxed);
                    }
                    // A caller that went away does not want to know.
                    drop(waiter.send(verdict));
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, "commit failed; the journal takes no further batch until it is reopened");
                let reason = match error {
                    CommitError::Unknown { reason } => reason,
                    other => other.to_string(),
                };
                // First the queue: whoever learns of the failure must not get another batch in.
                self.poison(&reason);
                for waiter in waiters {
                    drop(waiter.send(Err(CommitError::Unknown { reason: reason.clone() })));
                }
                false
            }
        }
    }

    fn wake(&self) {
        self.changed.notify_one();
        #[cfg(feature = "simulation")]
        self.arrived.notify_one();
    }

    /// Waits for batches and takes what one sync may carry; `None` when the queue is closed and empty.
    fn take(&self) -> Option<Group> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return None;
            }
            self.changed.wait(&mut queue);
        }
        Some(self.group(&mut queue))
    }

    /// What one sync may carry of what waits.
    fn group(&self, queue: &mut Queue) -> Group {
        let (mut batches, mut waiters, mut bytes) = (Vec::new(), Vec::new(), 0u64);
        while let Some(next) = queue.waiting.front() {
            bytes += batch_bytes(&next.batch);
            if bytes > SYNC_BYTES_MAX && !batches.is_empty() {
                break;
            }
            if let Some(request) = queue.waiting.pop_front() {
                batches.push(request.batch);
                waiters.push(request.done);
            }
        }
        self.places.add_permits(batches.len());
        (batches, waiters)
    }

    fn poison(&self, reason: &str) {
        let waiting = {
            let mut queue = self.queue.lock();
            queue.poisoned = Some(reason.to_owned());
            std::mem::take(&mut queue.waiting)
        };
        self.places.add_permits(waiting.len());
        for request in waiting {
            drop(request.done.send(Err(CommitError::Unknown {
                reason: reason.to_owned(),
            })));
        }
    }
}

/// Time that a simulated disk takes around a sync.
#[cfg(feature = "simulation")]
#[async_trait::async_trait]
pub trait Pace: Send + Sync + 'static {
    /// The batches are decided and nothing of them is durable.
    async fn before_sync(&self);
    /// They are durable, or their outcome is unknown, and nobody was told.
    async fn after_sync(&self);
}

/// The loop of a committer, for a simulation to run as a task where production has a thread. What it takes, how it answers and when it stops is the same.
#[cfg(feature = "simulation")]
pub struct CommitLoop {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
}

#[cfg(feature = "simulation")]
impl fmt::Debug for CommitLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitLoop").finish_non_exhaustive()
    }
}

#[cfg(feature = "simulation")]
impl CommitLoop {
    /// Runs until the committer is closed or an outcome is unknown.
    pub async fn run(self, pace: Arc<dyn Pace>) {
        loop {
            let group = {
                let mut queue = self.shared.queue.lock();
                let closed = queue.closed;
                match queue.waiting.is_empty() {
                    true if closed => return,
                    true => None,
                    false => Some(self.shared.group(&mut queue)),
                }
            };
            let Some(group) = group else {
                self.shared.arrived.notified().await;
                continue;
            };
            pace.before_sync().await;
            let outcome = self.store.commit(&group.0);
            pace.after_sync().await;
            if !self.shared.answer(outcome, group) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gantry_proto::{PartitionId, TenantId, WorkflowId};

    use super::*;
    use crate::keys;
    use crate::memory::{CommitFault, MemoryStore};
    use crate::store::{Direction, Epoch, Pair, ReadError, Write};

    /// A memory store whose commits wait until the test opens the gate.
    #[derive(Default)]
    struct Gated {
        store: MemoryStore,
        open: Mutex<bool>,
        changed: Condvar,
        entered: Mutex<usize>,
    }

    impl Gated {
        fn wait_entered(&self, count: usize) {
            let mut entered = self.entered.lock();
            while *entered < count {
                self.changed.wait(&mut entered);
            }
        }

        fn open(&self) {
            *self.open.lock() = true;
            self.changed.notify_all();
        }
    }

    impl Store for Gated {
        fn acquire(&self, partition: PartitionId) -> Result<Epoch, CommitError> {
            self.store.acquire(partition)
        }

        fn commit(&self, batches: &[Batch]) -> Result<Vec<Result<(), CommitError>>, CommitError> {
            *self.entered.lock() += 1;
            self.changed.notify_all();
            let mut open = self.open.lock();
            while !*open {
                self.changed.wait(&mut open);
            }
            drop(open);
            self.store.commit(batches)
        }

        fn failure(&self) -> Option<String> {
            self.store.failure()
        }

        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ReadError> {
            self.store.get(key)
        }

        fn scan(&self, from: &[u8], to: &[u8], direction: Direction, limit: usize) -> Result<Vec<Pair>, ReadError> {
            self.store.scan(from, to, direction, limit)
        }
    }

    fn partition() -> PartitionId {
        PartitionId::new(0).unwrap()
    }

    fn key(n: u64) -> Bytes {
        keys::workflow(
            partition(),
            TenantId::from_bytes([1; 16]),
            WorkflowId::new(n, partition(), n),
        )
    }

    fn batch(epoch: Epoch, n: u64) -> Batch {
        Batch {
            partition: partition(),
            epoch,
            writes: vec![Write::Put(key(n), Bytes::from_static(b"v"))],
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_shares_the_next_sync() {
        let store = Arc::new(Gated::default());
        let epoch = store.acquire(partition()).unwrap();
        let committer = Arc::new(Committer::start(store.clone()));
        let first = tokio::spawn({
            let committer = Arc::clone(&committer);
            async move { committer.commit(batch(epoch, 0)).await }
        });
        tokio::task::spawn_blocking({
            let store = Arc::clone(&store);
            move || store.wait_entered(1)
        })
        .await
        .unwrap();
        // The first sync runs. These are polled into the queue one after the other, then the gate opens.
        let mut later: Vec<_> = (1..=100).map(|n| Box::pin(committer.commit(batch(epoch, n)))).collect();
        for commit in &mut later {
            assert!(futures_util::poll!(commit).is_pending());
        }
        store.open();
        first.await.unwrap().unwrap();
        for commit in later {
            commit.await.unwrap();
        }
        let counters = committer.counters();
        assert_eq!((counters.batches, counters.syncs), (101, 2));
        assert_eq!(counters.bytes, 101 * (35 + 1));
        assert!(store.get(&key(100)).unwrap().is_some());
    }

    #[tokio::test]
    async fn a_fenced_batch_is_refused_alone() {
        let store = Arc::new(MemoryStore::new());
        let old = store.acquire(partition()).unwrap();
        let new = store.acquire(partition()).unwrap();
        let committer = Committer::start(store.clone());
        let (stale, fresh) = tokio::join!(committer.commit(batch(old, 1)), committer.commit(batch(new, 2)));
        assert!(matches!(stale, Err(CommitError::Fenced { .. })));
        fresh.unwrap();
        assert_eq!(
            (store.get(&key(1)).unwrap(), store.get(&key(2)).unwrap().is_some()),
            (None, true)
        );
    }

    #[tokio::test]
    async fn an_unknown_outcome_poisons_for_good() {
        for fault in [CommitFault::BeforeApply, CommitFault::AfterApply] {
            let store = Arc::new(MemoryStore::new());
            let epoch = store.acquire(partition()).unwrap();
            let committer = Committer::start(store.clone());
            committer.commit(batch(epoch, 1)).await.unwrap();
            store.fail_next_commit(fault);
            for n in 2..5 {
                let outcome = committer.commit(batch(epoch, n)).await;
                assert!(matches!(outcome, Err(CommitError::Unknown { .. })), "{outcome:?}");
            }
            assert_eq!(store.get(&key(2)).unwrap().is_some(), fault == CommitFault::AfterApply);
            assert_eq!(store.get(&key(3)).unwrap(), None, "nothing follows an unknown outcome");
            assert_eq!(committer.counters().batches, 1);
        }
    }

    #[tokio::test]
    async fn a_full_queue_holds_callers_back_and_close_does_not_wait_for_them() {
        // Without the budget of cooperative scheduling a poll is pending only for our own reasons.
        use tokio::task::unconstrained;
        let store = Arc::new(Gated::default());
        let epoch = store.acquire(partition()).unwrap();
        let committer = Committer::start(store.clone());
        let mut first = Box::pin(committer.commit(batch(epoch, 0)));
        assert!(futures_util::poll!(&mut first).is_pending());
        store.wait_entered(1);
        let mut waiting: Vec<_> = (1..=QUEUE_MAX as u64)
            .map(|n| Box::pin(unconstrained(committer.commit(batch(epoch, n)))))
            .collect();
        for commit in &mut waiting {
            assert!(futures_util::poll!(commit).is_pending());
        }
        let mut beyond = Box::pin(unconstrained(committer.commit(batch(epoch, 9_999))));
        assert!(futures_util::poll!(&mut beyond).is_pending());
        store.open();
        committer.close();
        first.await.unwrap();
        for commit in waiting {
            commit.await.unwrap();
        }
        assert!(matches!(beyond.await, Err(CommitError::Closed)));
        assert_eq!(store.get(&key(9_999)).unwrap(), None);
        assert_eq!(committer.counters().syncs, 2);
    }

    #[tokio::test]
    async fn close_finishes_what_waits_and_refuses_the_rest() {
        let store = Arc::new(Gated::default());
        let epoch = store.acquire(partition()).unwrap();
        let committer = Committer::start(store.clone());
        let mut waiting = Box::pin(committer.commit(batch(epoch, 1)));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        store.open();
        committer.close();
        waiting.await.unwrap();
        assert!(matches!(
            committer.commit(batch(epoch, 2)).await,
            Err(CommitError::Closed)
        ));
    }
}
