//! The handle that puts an engine together: one processor per partition, and the traits that others call.

mod again;
mod backend;
mod bulk;
mod content;
mod decisions;
mod keep;
pub(crate) mod limited;
mod node_port;
mod pauses;
mod results;
mod runs;
mod schedules;
mod uploads;
mod worker_port;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};

use futures_util::future::try_join_all;
use gantry_journal::blobs::BlobStore;
use gantry_journal::{KeyRing, SegmentStore, Store, host};
use gantry_proto::time::Clock;
use gantry_proto::v1::Assignee;
use gantry_proto::{ErrorCode, NodeId, PartitionId, TaskId, TenantId, limits};
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Departure, Dispatcher, NodePort as _, Observer, PlaybookSource, Refusal};
use crate::archive::ArchiveParts;
use crate::core::{Command, Rejection, Reply, Settings};
use crate::lifecycle::node::NodeState;
use crate::processor::storage::Storage;
use crate::processor::waiters::Waiters;
use crate::processor::{CallError, Fatal, Message, Processor, Shared};
use crate::processor::{Courier, ProcessorParts};
use crate::read;
use schedules::Starter;
pub(crate) use schedules::Waker;

pub(crate) use self::content::erased;

/// Progress files that are kept for showing: those of running steps, the oldest are forgotten first.
const PROGRESS_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// How an engine is laid out.
#[derive(Debug, Clone, Copy)]
pub struct EngineConfig {
    /// Number of partitions; fixed per data directory, the store checks it.
    pub partitions: u16,
    /// Lengths that decisions use.
    pub settings: Settings,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            partitions: limits::PARTITIONS_DEFAULT,
            settings: Settings::default(),
        }
    }
}

/// What an engine works with.
pub struct Parts {
    /// Durable state.
    pub store: Arc<dyn Store>,
    /// Keys that payloads are sealed with.
    pub keyring: Arc<dyn KeyRing>,
    /// Live output.
    pub segments: Arc<SegmentStore>,
    /// Artifacts.
    pub blobs: Arc<BlobStore>,
    /// The way to nodes.
    pub dispatcher: Arc<dyn Dispatcher>,
    /// Told after each durable change.
    pub observer: Arc<dyn Observer>,
    /// Wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where runs of schedules find what they start.
    pub playbooks: Arc<dyn PlaybookSource>,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The number of partitions is 0 or past the limit.
    #[error("{0} partitions: there must be 1 to {limit}", limit = PartitionId::LIMIT)]
    Partitions(u16),
    /// A partition could not be taken or recovered.
    #[error(
        "partition {partition} cannot be recovered: {reason}. `gantry journal verify` says what holds; where it is damaged, restore the data directory from a backup"
    )]
    Recovery {
        /// Which.
        partition: PartitionId,
        /// What the journal said.
        reason: String,
    },
    /// The nodes of before could not be recorded as gone.
    #[error("the nodes of before cannot be parted from: {0}")]
    Nodes(Refusal),
    /// A processor ended while it started.
    #[error("the engine was stopped while it started")]
    Stopped,
}

struct Partition {
    mailbox: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

/// What is known of a connected node beside its row.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    at_ms: u64,
    running: u32,
    containers: u64,
}

/// A running engine.
pub struct Engine {
    partitions: Vec<Partition>,
    storage: Arc<Storage>,
    segments: Arc<SegmentStore>,
    blobs: Arc<BlobStore>,
    parts: Arc<ProcessorParts>,
    playbooks: Arc<dyn PlaybookSource>,
    progress: Mutex<LruCache<TaskId, (Assignee, String)>>,
    seen: RwLock<BTreeMap<NodeId, Seen>>,
    uploads: Arc<uploads::Held>,
    shutdown: CancellationToken,
    processors: TaskTracker,
    archive: OnceLock<Arc<ArchiveParts>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("partitions", &self.partitions.len())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Takes every partition and recovers it; returns when all serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: EngineConfig, parts: Parts) -> Result<Arc<Self>, StartError> {
        if config.partitions == 0 || config.partitions > PartitionId::LIMIT {
            return Err(StartError::Partitions(config.partitions));
        }
        let Parts {
            store,
            keyring,
            segments,
            blobs,
            dispatcher,
            observer,
            clock,
            playbooks,
        } = parts;
        let storage = Arc::new(Storage::new(store, keyring));
        let settings = Settings {
            partitions: config.partitions,
            ..config.settings
        };
        let (starts, bulks) = (Arc::new(Waker::default()), Arc::new(Waker::default()));
        let parts = Arc::new(ProcessorParts {
            storage: Arc::clone(&storage),
            dispatcher,
            observer,
            clock,
            waiters: Waiters::default(),
            fatal: Fatal::default(),
            weights: RwLock::default(),
            starts: Arc::clone(&starts),
            bulks: Arc::clone(&bulks),
            draining: RwLock::default(),
            unfit: RwLock::default(),
            uploads_gone: Notify::new(),
        });
        let shutdown = CancellationToken::new();
        let processors = TaskTracker::new();
        let mut partitions = Vec::with_capacity(config.partitions.into());
        let mut starting = Vec::with_capacity(config.partitions.into());
        for partition in (0..config.partitions).filter_map(PartitionId::new) {
            let (mailbox, messages) = mpsc::channel(limits::PARTITION_QUEUE_MAX);
            let (started, wait) = watch::channel(None);
            let shared = Arc::new(Shared::default());
            let processor = Processor {
                partition,
                settings,
                parts: Arc::clone(&parts),
                shared: Arc::clone(&shared),
                mailbox: messages,
                shutdown: shutdown.clone(),
                started,
            };
            processors.spawn(processor.run());
            partitions.push(Partition { mailbox, shared });
            starting.push((partition, wait));
        }
        let mailboxes: Vec<_> = partitions.iter().map(|each: &Partition| each.mailbox.clone()).collect();
        for (from, partition) in (0..config.partitions).filter_map(PartitionId::new).zip(&partitions) {
            let courier = Courier {
                from,
                storage: Arc::clone(&storage),
                shared: Arc::clone(&partition.shared),
                mailboxes: mailboxes.clone(),
                shutdown: shutdown.clone(),
            };
            processors.spawn(courier.run());
        }
        let engine = Arc::new(Self {
            partitions,
            storage,
            segments,
            blobs,
            parts,
            playbooks,
            progress: Mutex::new(LruCache::new(PROGRESS_MAX)),
            seen: RwLock::default(),
            uploads: Arc::default(),
            shutdown,
            processors,
            archive: OnceLock::new(),
        });
        for (partition, mut wait) in starting {
            let verdict = match wait.wait_for(Option::is_some).await {
                Ok(started) => started.clone().unwrap_or(Ok(())),
                Err(_) => {
                    engine.shutdown().await;
                    return Err(StartError::Stopped);
                }
            };
            if let Err(reason) = verdict {
                engine.shutdown().await;
                return Err(StartError::Recovery { partition, reason });
            }
        }
        if let Err(refusal) = engine.part_from_nodes().await {
            engine.shutdown().await;
            return Err(StartError::Nodes(refusal));
        }
        engine.processors.spawn(uploads::sweep(
            Arc::clone(&engine.parts),
            Arc::clone(&engine.blobs),
            Arc::clone(&engine.uploads),
            engine.shutdown.clone(),
        ));
        let starter = Starter {
            engine: Arc::downgrade(&engine),
            waker: starts,
            shutdown: engine.shutdown.clone(),
        };
        engine.processors.spawn(starter.run());
        let runner = bulk::Runner {
            engine: Arc::downgrade(&engine),
            waker: bulks,
            shutdown: engine.shutdown.clone(),
        };
        engine.processors.spawn(runner.run());
        Ok(engine)
    }

    /// No node has a session with a process that has just started: what the rows say of sessions is from before, and a node that never comes back would
    /// be shown as online for ever.
    async fn part_from_nodes(&self) -> Result<(), Refusal> {
        let partitions = u16::try_from(self.partitions.len()).unwrap_or(PartitionId::LIMIT);
        let rows = self
            .blocking(move |storage| read::all_nodes(storage, partitions))
            .await?;
        let gone = rows
            .iter()
            .filter(|row| !matches!(row.state(), NodeState::Disconnected | NodeState::Offline))
            .map(|row| self.departed(row.id, Departure::Disconnected));
        try_join_all(gone).await.map(drop)
    }

    /// Stops taking commands, finishes the batches that run, and gives the partitions up. Leases and timers go on with the next owner.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        self.processors.close();
        self.processors.wait().await;
        let storage = Arc::clone(&self.storage);
        // The committer's thread is joined off the async threads.
        if host::blocking(move || storage.close()).await.is_err() {
            tracing::error!("the committer could not be joined");
        }
    }

    /// Waits until storage has failed in a way that only a new process heals, and says how. Nothing is lost: what was acknowledged is durable, sandboxes
    /// go on, and nodes dial again. Cancel safe.
    pub async fn failed(&self) -> String {
        self.parts.fatal.wait().await.to_owned()
    }

    /// Sets what tenants weigh when they share nodes, from the next placement on; a tenant that is not named weighs 1.
    pub fn weigh_tenants(&self, weights: BTreeMap<TenantId, u32>) {
        *self.parts.weights.write() = Arc::new(weights);
        self.wake_all();
    }

    /// Number of syncs and bytes that the journal was written with, since the committer in use was started.
    #[must_use]
    pub fn counters(&self) -> gantry_journal::CommitterCounters {
        self.storage.committer().counters()
    }

    fn partition_count(&self) -> u16 {
        // `start` made as many as a u16 says.
        u16::try_from(self.partitions.len()).unwrap_or(u16::MAX)
    }

    fn partition(&self, partition: PartitionId) -> Result<&Partition, Refusal> {
        let found = self.partitions.get(usize::from(partition.index()));
        found.ok_or_else(|| Refusal::new(ErrorCode::NotFound, "no such id in this installation"))
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn all_partitions(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partition_count()).filter_map(PartitionId::new)
    }

    /// The partition that owns a node.
    fn home_of(&self, node: NodeId) -> PartitionId {
        PartitionId::of(TenantId::nil(), "node", node.as_bytes(), self.partition_count())
    }

    async fn call(&self, partition: PartitionId, command: impl Into<Command>) -> Result<Reply, CallRefusal> {
        let command = Box::new(command.into());
        self.send(partition, |reply| Message::Command { command, reply }).await
    }

    async fn inform(&self, partition: PartitionId, command: impl Into<Command>) -> Result<Reply, CallRefusal> {
        let command = Box::new(command.into());
        self.send(partition, |reply| Message::Inform { command, reply }).await
    }

    async fn send(
        &self,
        partition: PartitionId,
        message: impl FnOnce(oneshot::Sender<Result<Reply, CallError>>) -> Message,
    ) -> Result<Reply, CallRefusal> {
        let (reply, answer) = oneshot::channel();
        self.post(partition, message(reply)).map_err(CallRefusal::Refusal)?;
        answered(answer).await
    }

    /// Sends a command at once; its answer can be awaited by anybody.
    fn send_later(
        &self,
        partition: PartitionId,
        command: Command,
    ) -> Result<impl Future<Output = Result<Reply, CallRefusal>> + Send + use<>, CallRefusal> {
        let (reply, answer) = oneshot::channel();
        let command = Box::new(command);
        self.post(partition, Message::Command { command, reply })
            .map_err(CallRefusal::Refusal)?;
        Ok(answered(answer))
    }

    pub(crate) fn post(&self, partition: PartitionId, message: Message) -> Result<(), Refusal> {
        self.partition(partition)?
            .mailbox
            .try_send(message)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => refusal(&CallError::Overloaded),
                mpsc::error::TrySendError::Closed(_) => stopped(),
            })
    }

    fn wake_all(&self) {
        self.partitions
            .iter()
            .for_each(|partition| partition.shared.wake.notify_one());
    }

    /// Runs a read off the async threads.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Storage) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let storage = Arc::clone(&self.storage);
        host::blocking(move || read(&storage)).await.unwrap_or_else(|error| {
            Err(Refusal::new(
                ErrorCode::Internal,
                format!("a read ended unexpectedly: {error}"),
            ))
        })
    }
}

async fn answered(answer: oneshot::Receiver<Result<Reply, CallError>>) -> Result<Reply, CallRefusal> {
    let answer = answer.await.map_err(|_| CallRefusal::Refusal(stopped()))?;
    answer.map_err(|error| match error {
        CallError::Rejected(rejection) => CallRefusal::Rejection(rejection),
        other => CallRefusal::Refusal(refusal(&other)),
    })
}

/// A call that got no reply: what the core said is still typed.
enum CallRefusal {
    Rejection(Rejection),
    Refusal(Refusal),
}

impl From<CallRefusal> for Refusal {
    fn from(call: CallRefusal) -> Self {
        match call {
            CallRefusal::Refusal(refusal) => refusal,
            CallRefusal::Rejection(rejection) => match rejection {
                Rejection::NotFound => not_found(),
                Rejection::IdempotencyMismatch(workflow) => Self::new(
                    ErrorCode::IdempotencyMismatch,
                    format!("the idempotency key was used for another request, which started {workflow}"),
                )
                .with_hint("Use a new key for a new request; the same key only with the same body."),
                Rejection::Refused { code, message } => Self::new(code, message),
            },
        }
    }
}

pub(crate) fn not_found() -> Refusal {
    Refusal::new(
        ErrorCode::NotFound,
        "there is no such thing, or it belongs to another tenant",
    )
}

fn stopped() -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        "the engine is stopping or recovering; whether the change was made is not known",
    )
    .with_hint("Ask again; with an idempotency key nothing is done twice.")
}

fn refusal(error: &CallError) -> Refusal {
    let code = match error {
        CallError::Overloaded => ErrorCode::Overloaded,
        CallError::Rejected(_) | CallError::Unavailable(_) => ErrorCode::StorageUnavailable,
    };
    Refusal::new(code, error.to_string())
}

pub(crate) fn unreadable(error: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        format!("the journal cannot be read: {error}"),
    )
}

fn unexpected(reply: &Reply) -> Refusal {
    Refusal::new(ErrorCode::Internal, format!("an unexpected reply: {reply:?}"))
}
