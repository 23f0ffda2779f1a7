//! One stretch of ownership: from recovery to shutdown, or to the first commit whose outcome is not known.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_journal::{Batch, CommitError, Epoch, LogPosition};
use gantry_proto::v1::Assignee;
use gantry_proto::v1::event::Kind;
use gantry_proto::{NodeId, PartitionId, TenantId, UploadId, WorkflowId, limits};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::batch;
use super::leases::Leases;
use super::pace::Pace;
use super::run::{Answer, CallError, Manifest, Message, Processor};
use crate::api::{Order, Verdict};
use crate::core::commands::{LeaseExpired, TimerDue, held, live, reported};
use crate::core::{Batching, Command, Inputs, PartitionState, Recorded, decide};
use crate::engine::limited;

/// How long an informational record waits for a batch to ride along with, before it gets one of its own.
const LAZY_MS: u64 = 250;
/// Informational records that wait at most.
const LAZY_MAX: usize = 1_024;
/// While leases live, the loop looks at its clock so often, to notice that it was stopped.
const TICK_MS: u64 = 1_000;
/// Later than planned by so much: the process was stopped or the disk hung, and every lease starts anew.
const STALL_MS: u64 = 3_000;
/// A message has waited in the mailbox for less than this, or the partition is far beyond what it can do.
const BACKLOG_MS: u64 = 5_000;
/// Longest sleep: bounds the error when the wall clock jumps.
const SLEEP_MS_MAX: u64 = 60_000;

/// Why an owner stopped.
#[derive(Debug)]
pub(super) enum Ended {
    /// It was asked to.
    Shutdown,
    /// Memory cannot be trusted; recover.
    Lost(String),
}

pub(super) struct Owner<'a> {
    processor: &'a mut Processor,
    state: PartitionState,
    epoch: Epoch,
    end: LogPosition,
    leases: Leases,
    pace: Pace,
    lazy: Vec<Command>,
    lazy_since: Option<Instant>,
    /// Ready tasks were left over although nodes had credits.
    unplaced: bool,
}

#[derive(Default)]
struct Round {
    commands: Vec<(Command, Option<oneshot::Sender<Answer>>)>,
    manifest: Vec<Manifest>,
    woken: bool,
}

impl<'a> Owner<'a> {
    pub(super) fn new(processor: &'a mut Processor, state: PartitionState, epoch: Epoch, end: LogPosition) -> Self {
        let mut leases = Leases::default();
        let deadline = Instant::now() + Duration::from_millis(state.settings.lease_ms);
        for (id, workflow) in &state.workflows {
            for task in workflow.tasks.iter().filter(|task| task.row.holder.is_some()) {
                leases.set((*id, task.row.index), task.row.fence, deadline);
            }
        }
        processor.shared.live.own(&state);
        let pace = Pace::new(state.last_at_ms, processor.parts.clock.now_ms(), Instant::now());
        processor.shared.outgoing.reset(&state.mail);
        Self {
            processor,
            state,
            epoch,
            end,
            leases,
            pace,
            lazy: Vec::new(),
            lazy_since: None,
            unplaced: false,
        }
    }

    /// Lets callers in.
    pub(super) fn announce(&self) {
        self.processor.started.send_replace(Some(Ok(())));
    }

    /// Lets the starter look at what schedules owe, and bulk operations go on.
    pub(super) fn wake_starter(&self) {
        self.processor.parts.starts.wake();
        self.processor.parts.bulks.wake();
    }

    /// Lets every node connect anew.
    pub(super) fn reset_sessions(&self) {
        self.processor.parts.dispatcher.reset();
    }

    pub(super) async fn serve(mut self) -> Ended {
        // What recovery found ready is placed at once.
        let mut round = Round {
            woken: true,
            ..Round::default()
        };
        loop {
            if let Err(reason) = self.turn(round).await {
                return Ended::Lost(reason);
            }
            let planned = self.wake_at();
            round = Round::default();
            let shutdown = self.processor.shutdown.clone();
            let sleep = async {
                match planned {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            // Cancel safe: receiving, waiting for a permit and sleeping lose nothing.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    // What only waited for company is written before we leave.
                    self.lazy_since = self.lazy_since.map(|_| Instant::now() - Duration::from_millis(LAZY_MS));
                    return match self.turn(Round::default()).await {
                        Ok(()) => Ended::Shutdown,
                        Err(reason) => Ended::Lost(reason),
                    };
                }
                message = self.processor.mailbox.recv() => match message {
                    Some(message) => self.take(message, &mut round),
                    None => return Ended::Shutdown,
                },
                () = self.processor.shared.wake.notified() => round.woken = true,
                () = sleep => {}
            }
            let late = planned.is_some_and(|at| Instant::now() > at + Duration::from_millis(STALL_MS));
            if late {
                self.leases
                    .restart(Instant::now(), Duration::from_millis(self.state.settings.lease_ms));
            }
            while round.commands.len() < limits::BATCH_COMMANDS_MAX {
                let Ok(message) = self.processor.mailbox.try_recv() else {
                    break;
                };
                self.take(message, &mut round);
            }
        }
    }

    /// When something is to be done without being asked.
    fn wake_at(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let wall_ms = self.processor.parts.clock.now_ms();
        self.pace.now_ms(wall_ms, now);
        let earliest = now + Duration::from_millis(1);
        let latest = now + Duration::from_millis(SLEEP_MS_MAX);
        let due = self.state.next_timer_ms();
        let timer = due.map(|due| self.pace.reaches(due, wall_ms, now).clamp(earliest, latest));
        let lazy = self.lazy_since.map(|since| since + Duration::from_millis(LAZY_MS));
        let tick = (!self.leases.is_empty()).then(|| now + Duration::from_millis(TICK_MS));
        [timer, lazy, tick, self.leases.next()].into_iter().flatten().min()
    }

    /// Takes a message in. What needs no batch is answered at once.
    fn take(&mut self, message: Message, round: &mut Round) {
        match message {
            Message::Command { command, reply } => {
                // What a node says that it holds when it connects counts as a renewal: one whose sessions are short must not lose its leases.
                if let Command::Reconcile(reconcile) = &*command {
                    self.renew(reconcile.node, &reconcile.holding);
                }
                round.commands.push((*command, Some(reply)));
            }
            Message::Inform { command, reply } => {
                // The verdict is known now, since nothing that follows depends on the record.
                let answer = match &*command {
                    Command::StepStarted(started) => {
                        let live = live(&self.state, started.node, &started.started.assignee).is_some();
                        crate::core::Reply::Verdict(if live { Verdict::Accepted } else { Verdict::Stale })
                    }
                    _ => crate::core::Reply::Done,
                };
                self.lazy.push(*command);
                self.lazy_since.get_or_insert_with(Instant::now);
                // The caller may be gone; its message counts all the same.
                let _ = reply.send(Ok(answer));
            }
            Message::Renew { node, holding, reply } => {
                let verdicts = self.renew(node, &holding);
                let _ = reply.send(verdicts);
            }
            Message::Owed { reply } => {
                let _ = reply.send(Processor::owed(&self.state));
            }
            Message::Manifest(rows) => round.manifest.push(rows),
            Message::Bulks { reply } => {
                let searching = self.state.bulks.values().filter(|row| row.searches());
                let _ = reply.send(searching.cloned().collect());
            }
            Message::Standings { tenant, asked, reply } => {
                let _ = reply.send(limited::standings(&self.state.limits, tenant, &asked));
            }
            Message::Limit { tenant, key, reply } => {
                let found = self.state.limits.key(&(tenant, key));
                let _ = reply.send(found.map(|limited| limited::detail(&key, limited)));
            }
            Message::LimitPage {
                tenant,
                after,
                most,
                reply,
            } => {
                let _ = reply.send(limited::page(&self.state.limits, tenant, after, most));
            }
            Message::Queue { workflow, reply } => {
                let tasks = self
                    .state
                    .workflows
                    .get(&workflow)
                    .map_or(&[][..], |found| &found.tasks);
                let ready = tasks.iter().map(|task| (workflow, task.row.index));
                let positions = ready.filter_map(|task| Some((task, self.state.ready.position(task)?)));
                let _ = reply.send(positions.collect());
            }
        }
    }

    /// Renews the leases of what a node holds. One verdict per entry, in order.
    fn renew(&mut self, node: NodeId, holding: &[Assignee]) -> Vec<Verdict> {
        let deadline = Instant::now() + Duration::from_millis(self.state.settings.lease_ms);
        let verdict = |assignee: &Assignee| match live(&self.state, node, assignee) {
            Some(task) => {
                self.leases.set(task, assignee.fence, deadline);
                Verdict::Accepted
            }
            // It reported the end, and is about to hear of it or of the task's next step: no reason to drop anything, and the lease, if it goes on, is
            // as good as renewed. A task of short steps would else lose it, whose heartbeats all come between two steps.
            None if reported(&self.state, node, assignee) => {
                if let Some(task) = held(&self.state, node, assignee) {
                    self.leases.set(task, assignee.fence, deadline);
                }
                Verdict::Accepted
            }
            None => Verdict::Stale,
        };
        holding.iter().map(verdict).collect()
    }

    /// One batch: decide, commit, and only then tell.
    async fn turn(&mut self, round: Round) -> Result<(), String> {
        let Round {
            mut commands,
            manifest,
            woken,
        } = round;
        for rows in manifest {
            self.manifest(rows).await?;
        }
        let now = Instant::now();
        let now_ms = self.pace.now_ms(self.processor.parts.clock.now_ms(), now);
        if self.state.next_timer_ms().is_some_and(|due| due <= now_ms) {
            commands.push((TimerDue.into(), None));
        }
        // A renewal that waits in the mailbox counts: leases expire when everything that was said is heard. A mailbox that never runs empty delays that
        // by no more than what it can hold.
        let heard = if self.processor.mailbox.is_empty() {
            Some(now)
        } else {
            now.checked_sub(Duration::from_millis(BACKLOG_MS))
        };
        let expired = heard.map(|heard| self.leases.expired(heard)).unwrap_or_default();
        commands.extend(
            expired
                .into_iter()
                .map(|(task, fence)| (LeaseExpired { task, fence }.into(), None)),
        );
        let lazy_due = self.lazy.len() >= LAZY_MAX
            || self
                .lazy_since
                .is_some_and(|since| now >= since + Duration::from_millis(LAZY_MS));
        if !commands.is_empty() || lazy_due {
            self.lazy_since = None;
            let informed = std::mem::take(&mut self.lazy)
                .into_iter()
                .map(|command| (command, None));
            commands.splice(0..0, informed);
        }

        let mut replies = Vec::with_capacity(commands.len());
        let mut batching = Batching::new(&mut self.state, now_ms);
        for (command, reply) in commands {
            let entropy = self.processor.entropy()?;
            let now_ms = batching.now_ms;
            let decision =
                decide(&mut batching, command, Inputs { now_ms, entropy }).map_err(|error| error.to_string())?;
            if let Some(reply) = reply {
                replies.push((reply, decision.reply));
            }
        }
        let place = woken || !batching.events.is_empty() || self.unplaced;
        if place && !batching.state.ready.is_empty() {
            self.unplaced = self.processor.place(&mut batching).map_err(|error| error.to_string())?;
        } else if batching.state.ready.is_empty() {
            self.unplaced = false;
        }
        let Batching {
            now_ms, events, orders, ..
        } = batching;
        if events.is_empty() {
            // Orders that are only said again stand on what is durable already.
            if !orders.is_empty() {
                self.processor.parts.dispatcher.dispatch(orders);
            }
        } else if let Err((error, reason)) = self.commit(now_ms, events, orders).await {
            for (reply, _) in replies {
                let _ = reply.send(Err(error.clone()));
            }
            return Err(reason);
        }
        for (reply, answer) in replies {
            let _ = reply.send(answer.map_err(CallError::Rejected));
        }
        Ok(())
    }

    /// Writes rows of the archive's manifest. Those of another ownership are dropped: their objects count for nothing.
    async fn manifest(&mut self, rows: Manifest) -> Result<(), String> {
        if rows.epoch != self.epoch {
            return Ok(());
        }
        let batch = Batch {
            partition: self.state.partition,
            epoch: self.epoch,
            writes: rows.writes,
        };
        let storage = &self.processor.parts.storage;
        storage.commit(batch).await.map_err(|error| error.to_string())?;
        let _ = rows.reply.send(());
        Ok(())
    }

    async fn commit(
        &mut self,
        at_ms: u64,
        events: Vec<Recorded>,
        orders: Vec<Order>,
    ) -> Result<(), (CallError, String)> {
        let shared = &self.processor.shared;
        let mut changed: BTreeSet<(TenantId, WorkflowId)> = BTreeSet::new();
        let mut claims = Vec::new();
        let mut released = Vec::new();
        let mut ending = Vec::new();
        let mut letters = Vec::new();
        let (mut asked, mut bulks) = (false, false);
        for event in &events {
            changed.extend(event.workflow.map(|workflow| (event.tenant, workflow)));
            match &event.kind {
                Kind::StepEnded(ended) => ending.push(ended.task),
                Kind::MessageSent(sent) => {
                    let to = u16::try_from(sent.to).ok().and_then(PartitionId::new);
                    letters.extend(to.map(|to| (to, (sent.number, event.seq))));
                }
                Kind::ScheduleAsked(_) => asked = true,
                Kind::BulkRequested(_) | Kind::BulkAdvanced(_) | Kind::BulkReported(_) => bulks = true,
                Kind::LeaseEnded(ended) => {
                    ending.push(ended.task);
                    released.extend(event.workflow.and_then(|id| self.state.find(id, ended.task)));
                }
                Kind::TaskClaimed(claimed) => {
                    claims.extend(
                        event
                            .workflow
                            .and_then(|id| self.state.find(id, claimed.task))
                            .map(|task| (task, claimed.fence)),
                    );
                }
                _ => {}
            }
        }
        let ends = self.processor.parts.waiters.ends(&events);
        // Output that is being stored is stored before the end is: what comes behind an end would be seen by some readers only.
        for task in &ending {
            shared.live.end(*task).await;
        }
        let storage = &self.processor.parts.storage;
        let built = batch::build(&self.state, storage, self.epoch, self.end, at_ms, events);
        let (batch, end) = built.map_err(|error| {
            (
                CallError::Unavailable("the change could not be sealed; nothing was written".to_owned()),
                error.to_string(),
            )
        })?;
        let nodes: Vec<NodeId> = self.state.dirty.nodes.iter().copied().collect();
        let dirty_uploads = self.state.dirty.uploads.iter().map(|(_, upload)| *upload);
        let uploads_gone: Vec<UploadId> = dirty_uploads
            .filter(|upload| !self.state.uploads.contains_key(upload))
            .collect();
        let before = Instant::now();
        storage.commit(batch).await.map_err(|error| {
            let unknown = matches!(error, CommitError::Unknown { .. });
            let said = if unknown {
                "the outcome is not known; ask again with the same idempotency key"
            } else {
                "nothing was written"
            };
            (
                CallError::Unavailable(format!("the journal could not be written: {said}")),
                error.to_string(),
            )
        })?;
        self.end = end;
        let now = Instant::now();
        let lease = Duration::from_millis(self.state.settings.lease_ms);
        if now > before + Duration::from_millis(STALL_MS) {
            self.leases.restart(now, lease);
        }
        for task in released {
            self.leases.remove(task);
        }
        for (task, fence) in claims {
            let holds = self
                .state
                .task(task)
                .is_some_and(|task| task.row.holder.is_some() && task.row.fence == fence);
            if holds {
                self.leases.set(task, fence, now + lease);
            }
        }
        for task in ending {
            shared.live.remove(task);
        }
        if asked {
            self.processor.parts.starts.wake();
        }
        if bulks {
            self.processor.parts.bulks.wake();
        }
        for order in &orders {
            if let Order::Assign(node, assignment) = order {
                shared.live.insert(*node, assignment.assignee.clone());
            }
        }
        for id in std::mem::take(&mut self.state.dirty).ended {
            self.state.forget(id);
        }
        shared.outgoing.add(letters);
        let parts = &self.processor.parts;
        for upload in &uploads_gone {
            parts.storage.forget_key((*upload).into());
        }
        if !uploads_gone.is_empty() {
            parts.uploads_gone.notify_one();
        }
        if !orders.is_empty() {
            parts.dispatcher.dispatch(orders);
        }
        parts.waiters.tell(ends);
        for (tenant, workflow) in changed {
            parts.observer.workflow_changed(tenant, workflow);
        }
        for node in nodes {
            parts.observer.node_changed(node);
        }
        Ok(())
    }
}
