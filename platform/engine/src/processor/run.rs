//! The task of a partition: owns it, serves it, and recovers when its memory cannot be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gantry_journal::host;
use gantry_journal::{Epoch, Write};
use gantry_proto::time::Clock;
use gantry_proto::v1::Assignee;
use gantry_proto::{NodeId, PartitionId, TenantId, WorkflowId};
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::LiveTable;
use super::load;
use super::outgoing::Outgoing;
use super::owner::{Ended, Owner};
use super::storage::Storage;
use super::waiters::Waiters;
use crate::api::{Dispatcher, LimitDetail, LimitView, Observer, Verdict};
use crate::core::apply::ApplyError;
use crate::core::bulk::BulkRow;
use crate::core::limits::Claimant;
use crate::core::queue::Weights;
use crate::core::rows::ScheduleRow;
use crate::core::state::TaskRef;
use crate::core::{Batching, Command, PartitionState, Rejection, Reply, Settings, placement};
use crate::engine::Waker;
use crate::read::Standings;

/// First pause between tries to take ownership; doubles up to the greatest.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Owed runs that one answer names.
const OWED_MAX: usize = 64;

/// Why a call got no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The core said no; nothing was changed.
    #[error(transparent)]
    Rejected(Rejection),
    /// The mailbox is full.
    #[error("too many commands wait for this partition")]
    Overloaded,
    /// The journal cannot be written, or the partition is not owned.
    #[error("{0}")]
    Unavailable(String),
}

/// Reply to a command.
pub(super) type Answer = Result<Reply, CallError>;

/// What a processor is sent.
#[derive(Debug)]
pub enum Message {
    /// Decide, commit, then answer.
    Command {
        /// What.
        command: Box<Command>,
        /// To whom.
        reply: oneshot::Sender<Answer>,
    },
    /// Informational: answered at once, written with the next batch.
    Inform {
        /// What.
        command: Box<Command>,
        /// To whom.
        reply: oneshot::Sender<Answer>,
    },
    /// Renew leases, in memory.
    Renew {
        /// Holder.
        node: NodeId,
        /// What it holds.
        holding: Vec<Assignee>,
        /// One verdict each.
        reply: oneshot::Sender<Vec<Verdict>>,
    },
    /// Runs that schedules owe and that wait to be started, with the time of each; at most [`OWED_MAX`].
    Owed {
        /// Them.
        reply: oneshot::Sender<Vec<(ScheduleRow, u64)>>,
    },
    /// Write rows of the archive's manifest, which are no part of the state.
    Manifest(Manifest),
    /// Bulk operations that look for workflows.
    Bulks {
        /// Them.
        reply: oneshot::Sender<Vec<BulkRow>>,
    },
    /// Where those stand who wait for limited keys.
    Standings {
        /// Whose.
        tenant: TenantId,
        /// Keys that this partition owns, with who asks for them.
        asked: Vec<([u8; 16], Claimant)>,
        /// By key and who asks.
        reply: oneshot::Sender<Standings>,
    },
    /// A limited key that this partition owns.
    Limit {
        /// Whose.
        tenant: TenantId,
        /// Its hash.
        key: [u8; 16],
        /// `None`: nobody uses it.
        reply: oneshot::Sender<Option<LimitDetail>>,
    },
    /// Limited keys that this partition owns, in the order of their hashes.
    LimitPage {
        /// Whose.
        tenant: TenantId,
        /// Behind this one.
        after: Option<[u8; 16]>,
        /// How many.
        most: usize,
        /// Them.
        reply: oneshot::Sender<Vec<LimitView>>,
    },
    /// Positions of a workflow's tasks in the ready queue.
    Queue {
        /// Which workflow.
        workflow: WorkflowId,
        /// By task.
        reply: oneshot::Sender<BTreeMap<TaskRef, u32>>,
    },
}

/// Rows of the archive's manifest, for whoever owns the partition under the epoch that their objects were named with.
#[derive(Debug)]
pub struct Manifest {
    /// The ownership that they were made under.
    pub epoch: Epoch,
    /// What to write.
    pub writes: Vec<Write>,
    /// Told when it is durable; dropped when it was not written.
    pub reply: oneshot::Sender<()>,
}

/// What a processor works with; the same for all of an engine.
pub(crate) struct Parts {
    pub(crate) storage: Arc<Storage>,
    pub(crate) dispatcher: Arc<dyn Dispatcher>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Woken when schedules owe runs.
    pub(crate) starts: Arc<Waker>,
    /// Callers that wait for the end of a run.
    pub(crate) waiters: Waiters,
    /// Woken when bulk operations may go on.
    pub(crate) bulks: Arc<Waker>,
    /// Why this process cannot go on.
    pub(crate) fatal: Fatal,
    /// What tenants weigh when they share nodes.
    pub(crate) weights: RwLock<Weights>,
    /// Nodes that get nothing new.
    pub(crate) draining: RwLock<BTreeSet<NodeId>>,
    /// Connected nodes that last said they cannot work: they get nothing new either, whatever credits they have left.
    pub(crate) unfit: RwLock<BTreeSet<NodeId>>,
    /// Uploads have ended: their objects can go.
    pub(crate) uploads_gone: Notify,
}

/// A failure of storage that only a new process heals: set once, and then for good.
#[derive(Debug, Default)]
pub(crate) struct Fatal {
    reason: OnceLock<String>,
    told: CancellationToken,
}

impl Fatal {
    /// Notes the first reason; later ones follow from it.
    pub(crate) fn set(&self, reason: String) {
        if self.reason.set(reason).is_ok() {
            self.told.cancel();
        }
    }

    /// Waits for a reason. Cancel safe.
    pub(crate) async fn wait(&self) -> &str {
        self.told.cancelled().await;
        // The reason is set before it is told.
        self.reason.get().map_or("", String::as_str)
    }
}

/// What others see of a processor.
#[derive(Debug, Default)]
pub struct Shared {
    /// Live attempts.
    pub live: LiveTable,
    /// Credits are free.
    pub wake: Notify,
    /// Letters that are durable and not acknowledged.
    pub outgoing: Outgoing,
    /// Epoch of the ownership; 0 while there is none.
    pub epoch: AtomicU64,
}

/// How the first recovery went: `None` while it runs.
pub(crate) type Started = Option<Result<(), String>>;

/// The task of a partition.
pub struct Processor {
    pub(crate) partition: PartitionId,
    pub(crate) settings: Settings,
    pub(crate) parts: Arc<Parts>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: mpsc::Receiver<Message>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) started: watch::Sender<Started>,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Processor")
            .field("partition", &self.partition)
            .finish_non_exhaustive()
    }
}

impl Processor {
    /// Runs until shutdown. What waits in the mailbox then is dropped, which its callers read as "unavailable".
    pub(crate) async fn run(mut self) {
        let mut pause = RETRY;
        let mut lost = false;
        loop {
            if self.shutdown.is_cancelled() {
                return;
            }
            match self.own(lost).await {
                Ok(Ended::Shutdown) => {
                    self.shared.live.disown();
                    return;
                }
                Ok(Ended::Lost(reason)) => {
                    pause = RETRY;
                    lost = true;
                    // Whatever was placed and not committed is not dispatched any more.
                    self.parts.dispatcher.abandon(self.partition);
                    tracing::error!(partition = %self.partition, reason, "lost the partition; recovering from the journal");
                }
                Err(reason) => {
                    tracing::error!(partition = %self.partition, reason, "cannot take the partition");
                    self.started.send_if_modified(|started| {
                        let first = started.is_none();
                        if first {
                            *started = Some(Err(reason));
                        }
                        first
                    });
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
            self.shared.live.disown();
            self.shared.epoch.store(0, Ordering::Release);
            if let Some(reason) = self.parts.storage.store().failure() {
                self.parts
                    .fatal
                    .set(format!("the journal takes no more writes: {reason}"));
            }
            self.refuse_waiting();
            let shutdown = self.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Takes ownership and serves until it ends. `again`: this process owned it before, and may have left orders undelivered.
    async fn own(&mut self, again: bool) -> Result<Ended, String> {
        let (storage, partition, settings) = (Arc::clone(&self.parts.storage), self.partition, self.settings);
        let recovered = host::blocking(move || {
            let epoch = storage.store().acquire(partition).map_err(|error| error.to_string())?;
            let (state, end) = load::recover(&storage, partition, settings).map_err(|error| error.to_string())?;
            Ok::<_, String>((state, epoch, end))
        });
        let (state, epoch, end) = recovered.await.map_err(|error| error.to_string())??;
        {
            let mut draining = self.parts.draining.write();
            for node in state.nodes.values() {
                if node.drain {
                    draining.insert(node.id);
                } else {
                    draining.remove(&node.id);
                }
            }
        }
        self.shared.epoch.store(epoch.0, Ordering::Release);
        let owner = Owner::new(self, state, epoch, end);
        // A batch whose outcome was unknown may have made runs owed that nobody was told of.
        owner.wake_starter();
        if again {
            // A batch whose outcome was unknown may be durable, and its orders were never sent. Nodes that say again what they hold make up for that.
            owner.reset_sessions();
        }
        owner.announce();
        Ok(owner.serve().await)
    }

    /// Callers that wait while nobody owns the partition are told so, rather than left hanging.
    fn refuse_waiting(&mut self) {
        while let Ok(message) = self.mailbox.try_recv() {
            let refusal = || CallError::Unavailable("the partition is being recovered; try again".to_owned());
            match message {
                Message::Command { reply, .. } | Message::Inform { reply, .. } => {
                    let _ = reply.send(Err(refusal()));
                }
                // Their callers read a dropped reply as unavailable.
                Message::Renew { .. }
                | Message::Queue { .. }
                | Message::Owed { .. }
                | Message::Bulks { .. }
                | Message::Standings { .. }
                | Message::Limit { .. }
                | Message::LimitPage { .. }
                | Message::Manifest(_) => {}
            }
        }
    }

    pub(super) fn entropy(&self) -> Result<u64, String> {
        host::entropy().map_err(|error| format!("no randomness: {error}"))
    }

    /// Borrows credits for the ready tasks. Returns whether some stay although nodes have credits.
    pub(super) fn place(&self, batching: &mut Batching<'_>) -> Result<bool, ApplyError> {
        let lent = self.parts.dispatcher.lend(self.partition);
        if lent.is_empty() {
            return Ok(false);
        }
        let mut candidates = lent.clone();
        {
            let (draining, unfit) = (self.parts.draining.read(), self.parts.unfit.read());
            candidates.retain(|candidate| !draining.contains(&candidate.node) && !unfit.contains(&candidate.node));
        }
        batching.state.ready.weigh(Arc::clone(&self.parts.weights.read()));
        let placed = placement::place(batching, &mut candidates);
        self.parts.dispatcher.settle(self.partition, lent, &batching.spent);
        placed?;
        Ok(!batching.state.ready.is_empty())
    }

    /// See [`Message::Owed`].
    pub(super) fn owed(state: &PartitionState) -> Vec<(ScheduleRow, u64)> {
        let asked = state
            .schedules
            .values()
            .flat_map(|row| row.asked.iter().map(move |due| (row, due.due_ms)));
        asked
            .take(OWED_MAX)
            .map(|(row, due_ms)| (row.clone(), due_ms))
            .collect()
    }
}
