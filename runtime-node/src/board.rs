//! What the node's tasks know of each other: steps held, the session, health, credits.
//!
//! Everything here is state that the newest value replaces, so that nothing queues and nobody waits for a slow reader.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gantry_proto::v1::{
    Assignee, CancelStep, Credits, HeldState, HeldStep, NodeHealth, NodeToServer, node_to_server::Kind,
};
use gantry_proto::{SandboxId, TaskId};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};

/// What the session wants of a step.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    /// The lease is known to live in this process's time: the step may begin.
    pub(crate) confirmed: bool,
    /// End it.
    pub(crate) cancel: Option<CancelStep>,
    /// The fence is stale: end it, drop the layer, forget it.
    pub(crate) dropped: bool,
    /// Output up to here is durable upstream.
    pub(crate) output_acked: u64,
    /// The result was taken; `true`: it was stale.
    pub(crate) result: Option<bool>,
    /// Counts renewals of the lease.
    pub(crate) renewals: u64,
}

/// A connected session.
#[derive(Debug, Clone)]
pub(crate) struct SessionHandle {
    /// Counts sessions of this process.
    pub(crate) epoch: u64,
    pub(crate) up: mpsc::Sender<NodeToServer>,
    /// Assignments received in it.
    pub(crate) seen: Arc<AtomicU64>,
    /// Credits replace each other: they are computed and sent under this lock, so that none overtakes a newer one.
    credits: Arc<tokio::sync::Mutex<()>>,
}

impl SessionHandle {
    pub(crate) fn new(epoch: u64, up: mpsc::Sender<NodeToServer>) -> Self {
        Self {
            epoch,
            up,
            seen: Arc::default(),
            credits: Arc::default(),
        }
    }

    /// Whether messages still arrive.
    pub(crate) async fn send(&self, kind: Kind) -> bool {
        self.up.send(NodeToServer { kind: Some(kind) }).await.is_ok()
    }
}

#[derive(Debug)]
struct Entry {
    orders: watch::Sender<Orders>,
    state: HeldState,
    sandbox: SandboxId,
    occupies: bool,
}

/// How a step comes onto the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// A new assignment, which needs a slot.
    New,
    /// From a claim file, with the slot that it still takes, if any.
    Kept { state: HeldState, occupies: bool },
}

/// Why an assignment is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// It is held already.
    Held,
    /// No slot is free.
    Full,
    /// The node drains.
    Draining,
    /// The node is not fit for work.
    Unfit,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Board {
    slots: u32,
    steps: Mutex<HashMap<Assignee, Entry>>,
    released: Mutex<HashSet<TaskId>>,
    session: watch::Sender<Option<SessionHandle>>,
    health: watch::Sender<NodeHealth>,
    draining: AtomicBool,
    ready: AtomicBool,
    /// Steps or fitness changed: credits are to be sent anew.
    pub(crate) changed: Notify,
    /// A step is gone.
    pub(crate) left: Notify,
}

impl Board {
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            slots,
            steps: Mutex::default(),
            released: Mutex::default(),
            session: watch::Sender::new(None),
            health: watch::Sender::new(NodeHealth::default()),
            draining: AtomicBool::new(false),
            ready: AtomicBool::new(false),
            changed: Notify::new(),
            left: Notify::new(),
        }
    }

    /// Takes up a step.
    ///
    /// A step that goes on where a finished one of the same task ended takes over its slot; under the same lease it is taken by a draining node, too.
    pub(crate) fn add(
        &self,
        assignee: Assignee,
        sandbox: SandboxId,
        entrance: Entrance,
    ) -> Result<watch::Receiver<Orders>, NotTaken> {
        let mut steps = self.steps.lock();
        if steps.contains_key(&assignee) {
            return Err(NotTaken::Held);
        }
        let (state, occupies) = match entrance {
            Entrance::New => {
                self.make_room(&mut steps, &assignee)?;
                self.released.lock().remove(&assignee.task);
                (HeldState::Claimed, true)
            }
            Entrance::Kept { state, occupies } => (state, occupies),
        };
        let (orders, receiver) = watch::channel(Orders {
            confirmed: entrance == Entrance::New,
            ..Orders::default()
        });
        let entry = Entry {
            orders,
            state,
            sandbox,
            occupies,
        };
        steps.insert(assignee, entry);
        Ok(receiver)
    }

    fn make_room(&self, steps: &mut HashMap<Assignee, Entry>, new: &Assignee) -> Result<(), NotTaken> {
        let finished = |old: &Assignee, entry: &Entry| old.task == new.task && entry.state == HeldState::Finished;
        let goes_on = steps
            .iter()
            .any(|(old, entry)| finished(old, entry) && old.fence == new.fence);
        if self.draining.load(Ordering::Acquire) && !goes_on {
            return Err(NotTaken::Draining);
        }
        if !self.fit() {
            return Err(NotTaken::Unfit);
        }
        let room = occupied(steps) < self.slots;
        let predecessor = steps
            .iter_mut()
            .find(|(old, entry)| finished(old, entry) && entry.occupies);
        match predecessor {
            Some((_, entry)) => entry.occupies = false,
            None if room => {}
            None => return Err(NotTaken::Full),
        }
        // A newer lease of the same task ends what an older one left. A finished step is no such thing: whether it counts is for the answer to its result to
        // say, and the new lease may stand on its layer.
        for (old, entry) in steps
            .iter()
            .filter(|(old, entry)| old.task == new.task && old.fence < new.fence && entry.state != HeldState::Finished)
        {
            tracing::info!(task = %old.task, old.fence, "a newer lease replaces an older one");
            entry.orders.send_modify(|orders| orders.dropped = true);
        }
        Ok(())
    }

    /// Changes what a step is told; `false` when it is not held.
    pub(crate) fn order(&self, assignee: &Assignee, change: impl FnOnce(&mut Orders)) -> bool {
        let steps = self.steps.lock();
        let Some(entry) = steps.get(assignee) else { return false };
        entry.orders.send_modify(change);
        true
    }

    /// Notes that a step runs.
    pub(crate) fn set_running(&self, assignee: &Assignee) {
        if let Some(entry) = self.steps.lock().get_mut(assignee) {
            entry.state = HeldState::Running;
        }
        self.changed.notify_one();
    }

    /// Notes that a step has its result. `keep_slot`: until the server has answered, since the task's next step comes with that answer and without a credit.
    pub(crate) fn set_finished(&self, assignee: &Assignee, keep_slot: bool) {
        if let Some(entry) = self.steps.lock().get_mut(assignee) {
            entry.state = HeldState::Finished;
            entry.occupies &= keep_slot;
        }
        self.changed.notify_one();
    }

    /// Frees the slot of a finished step.
    pub(crate) fn free_slot(&self, assignee: &Assignee) {
        if let Some(entry) = self.steps.lock().get_mut(assignee) {
            entry.occupies = false;
        }
        self.changed.notify_one();
    }

    /// Notes that a step has another sandbox now.
    pub(crate) fn set_sandbox(&self, assignee: &Assignee, sandbox: SandboxId) {
        if let Some(entry) = self.steps.lock().get_mut(assignee) {
            entry.sandbox = sandbox;
        }
    }

    /// A step is gone. Returns its task when its workspace was released meanwhile.
    pub(crate) fn remove(&self, assignee: &Assignee) -> Option<TaskId> {
        let mut steps = self.steps.lock();
        steps.remove(assignee);
        let still_held = steps.keys().any(|held| held.task == assignee.task);
        let released = !still_held && self.released.lock().remove(&assignee.task);
        drop(steps);
        self.changed.notify_one();
        self.left.notify_waiters();
        released.then_some(assignee.task)
    }

    /// A task's workspace is to go. `true`: now; else when its last step here is gone.
    pub(crate) fn release(&self, task: TaskId) -> bool {
        let steps = self.steps.lock();
        let held = steps.keys().any(|assignee| assignee.task == task);
        if held {
            self.released.lock().insert(task);
        }
        !held
    }

    pub(crate) fn held(&self) -> Vec<HeldStep> {
        let held = |(assignee, entry): (&Assignee, &Entry)| HeldStep {
            assignee: assignee.clone(),
            state: entry.state.into(),
            sandbox: Some(entry.sandbox),
        };
        self.steps.lock().iter().map(held).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.lock().is_empty()
    }

    pub(crate) fn session(&self) -> watch::Receiver<Option<SessionHandle>> {
        self.session.subscribe()
    }

    pub(crate) fn set_session(&self, session: Option<SessionHandle>) {
        self.session.send_replace(session);
    }

    /// Health, with the number of steps that run.
    pub(crate) fn health(&self) -> NodeHealth {
        let mut health = self.health.borrow().clone();
        health.running = Some(occupied(&self.steps.lock()));
        health
    }

    /// Tells of changes of health.
    pub(crate) fn health_changes(&self) -> watch::Receiver<NodeHealth> {
        self.health.subscribe()
    }

    pub(crate) fn set_health(&self, health: NodeHealth) {
        self.health.send_if_modified(|old| {
            let changed = old.docker_ok != health.docker_ok || old.fault != health.fault;
            *old = health;
            changed
        });
        self.changed.notify_one();
    }

    /// Something went wrong that makes the node unfit until the next look says otherwise.
    pub(crate) fn note_fault(&self, fault: gantry_proto::v1::Fault) {
        self.health.send_modify(|health| {
            health.docker_ok = health.docker_ok && fault.code != gantry_proto::ErrorCode::DockerUnavailable.as_str();
            health.fault = Some(fault);
        });
        self.changed.notify_one();
    }

    /// Left-over containers are gone: work may come.
    pub(crate) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Release);
        self.changed.notify_one();
    }

    fn fit(&self) -> bool {
        let health = self.health.borrow();
        self.is_ready() && health.docker_ok && health.fault.is_none()
    }

    /// Sends what the node would take now.
    pub(crate) async fn send_credits(&self, session: &SessionHandle) -> bool {
        let _in_order = session.credits.lock().await;
        let credits = {
            let steps = self.steps.lock();
            let open = self.fit() && !self.draining.load(Ordering::Acquire);
            let slots = if open {
                self.slots.saturating_sub(occupied(&steps))
            } else {
                0
            };
            Credits {
                slots,
                seen: session.seen.load(Ordering::Acquire),
            }
        };
        session.send(Kind::Credits(credits)).await
    }
}

fn occupied(steps: &HashMap<Assignee, Entry>) -> u32 {
    u32::try_from(steps.values().filter(|entry| entry.occupies).count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(task: u8, fence: u64, step: u32) -> Assignee {
        Assignee {
            task: TaskId::from_bytes([task; 16]),
            fence,
            step,
            attempt: 1,
            ..Assignee::default()
        }
    }

    fn board(slots: u32) -> Board {
        let board = Board::new(slots);
        board.set_ready();
        board.set_health(NodeHealth {
            docker_ok: true,
            ..NodeHealth::default()
        });
        board
    }

    fn add(board: &Board, assignee: Assignee) -> Result<watch::Receiver<Orders>, NotTaken> {
        board.add(assignee, SandboxId::default(), Entrance::New)
    }

    #[test]
    fn a_newer_lease_ends_what_runs_and_leaves_what_has_a_result() {
        let board = board(3);
        let running = add(&board, step(1, 1, 0)).unwrap();
        let finished = add(&board, step(2, 1, 0)).unwrap();
        board.set_finished(&step(2, 1, 0), true);
        add(&board, step(1, 2, 0)).unwrap();
        add(&board, step(2, 2, 1)).unwrap();
        assert!(running.borrow().dropped);
        assert!(!finished.borrow().dropped);
    }

    #[test]
    fn a_draining_node_goes_on_with_the_tasks_that_it_holds() {
        let board = board(1);
        add(&board, step(1, 1, 0)).unwrap();
        board.set_finished(&step(1, 1, 0), true);
        board.set_draining(true);
        assert_eq!(add(&board, step(2, 1, 0)).unwrap_err(), NotTaken::Draining);
        assert_eq!(add(&board, step(1, 2, 1)).unwrap_err(), NotTaken::Draining);
        add(&board, step(1, 1, 1)).unwrap();
        board.set_draining(false);
        assert_eq!(add(&board, step(2, 1, 0)).unwrap_err(), NotTaken::Full);
        board.set_finished(&step(1, 1, 1), false);
        add(&board, step(2, 1, 0)).unwrap();
    }
}
