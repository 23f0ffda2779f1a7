//! One session of a node, from its first message to the end of its stream.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_engine::api::{Candidate, Departure, NodePort, Refusal, Serves, Verdict, Work};
use gantry_proto::v1::node_to_server::Kind;
use gantry_proto::v1::{
    Assignee, CancelStep, EndCause, Fault, Heartbeat, LeasesRenewed, NodeToServer, OutputAccepted, Refused, Register,
    Registered, ReleaseWorkspaces, ResultAccepted, ServerToNode, server_to_node,
};
use gantry_proto::{ErrorCode, NODE_PROTOCOL, NodeId, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{Coordinator, Line, kind_of};

/// Messages about tasks are spread over so many lanes: in order within a lane, and lanes share the engine's group commit.
const LANES: usize = 32;
/// What all lanes of a session hold together, in units of [`BACKLOG_UNIT`], before the stream stops reading. Heartbeats come over the same stream, so it must
/// read on while storage is slow. A node keeps at most 2 MiB of a step unacknowledged, in at most eight messages: this is room for more steps than a
/// machine runs, and it bounds what a node that does not keep to that takes of our memory.
const BACKLOG_UNITS: u32 = 64 << 10;
const BACKLOG_UNIT: usize = 1 << 10;

/// How long a message is tried while storage is away: less than a lease, which the node's next session renews.
const RECORD_FOR: Duration = Duration::from_secs(10);
/// First pause between tries; doubles.
const RECORD_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(1);

static GENERATION: AtomicU64 = AtomicU64::new(1);

/// Runs a session to its end. The engine is told of the departure unless a newer session of the same node has taken over.
pub(crate) async fn run(
    coordinator: Arc<Coordinator>,
    serves: Serves,
    mut inbound: mpsc::Receiver<NodeToServer>,
    outbound: mpsc::Sender<ServerToNode>,
    cancel: CancellationToken,
) {
    let silence = coordinator.config.silence();
    let first = tokio::select! {
        () = cancel.cancelled() => return,
        first = timeout(silence, inbound.recv()) => first,
    };
    let register = match first.ok().flatten().and_then(kind_of) {
        Some(Kind::Register(register)) => register,
        Some(_) => {
            let fault = Fault::new(
                ErrorCode::ProtocolMismatch,
                "the first message of a session must be Register",
            );
            return refuse(&outbound, fault).await;
        }
        None => return,
    };
    let Some(port) = coordinator.port().cloned() else {
        let fault =
            Fault::new(ErrorCode::StorageUnavailable, "the engine is starting").with_hint("dial again in a moment");
        return refuse(&outbound, fault).await;
    };
    if let Err(fault) = acceptable(&coordinator, &register) {
        return refuse(&outbound, fault).await;
    }

    let node = register.node;
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    let door = coordinator.door(node).lock().await;
    // The line exists before the engine decides, so that no order made in between is lost; it is read only after `Registered` has gone out.
    let (orders, mut queued) = mpsc::channel(limits::SESSION_QUEUE_MAX);
    let session_cancel = cancel.child_token();
    let line = Line {
        generation,
        orders: orders.clone(),
        cancel: session_cancel.clone(),
    };
    {
        // Both at once: an order that goes to this line counts in this account.
        let mut lines = coordinator.lines.lock();
        coordinator.ledger.lock().connect(offer(serves, &register));
        if let Some(previous) = lines.insert(node, line) {
            previous.cancel.cancel();
        }
    }

    let outcome = match port.register(serves, register).await {
        Ok(registration) => still_meant(&coordinator, &port, node, &mut queued)
            .await
            .map(|early| (registration, early)),
        Err(refusal) => Err(refusal),
    };
    drop(door);
    match outcome {
        Ok((registration, early)) => {
            let registered = Registered {
                protocol: NODE_PROTOCOL,
                heartbeat_ms: coordinator.config.heartbeat_ms,
                lease_ms: coordinator.config.lease_ms,
                verdicts: registration.verdicts,
                // The transport knows.
                installation: None,
            };
            if !registration.release.is_empty() {
                let release = ReleaseWorkspaces {
                    tasks: registration.release,
                };
                // The queue is empty but for orders of the last moment; if it is full after all, the next registration says it again.
                let _ = orders.try_send(ServerToNode {
                    kind: Some(server_to_node::Kind::Release(release)),
                });
            }
            tracing::info!(%node, "node connected");
            let session = Session {
                coordinator: &coordinator,
                port: &port,
                node,
                orders,
                cancel: session_cancel.clone(),
            };
            let mut first = VecDeque::from([ServerToNode {
                kind: Some(server_to_node::Kind::Registered(registered)),
            }]);
            first.extend(early);
            let writer = write(queued, outbound, first);
            tokio::select! {
                () = session_cancel.cancelled() => {}
                () = writer => {}
                () = session.read(inbound) => {}
            }
        }
        Err(refusal) => {
            tracing::warn!(%node, error = %refusal, "registration refused");
            let fault = Fault {
                code: refusal.code.as_str().to_owned(),
                message: refusal.message,
                hint: refusal.hint,
            };
            refuse(&outbound, fault).await;
        }
    }
    depart(&coordinator, &port, node, generation).await;
}

fn acceptable(coordinator: &Coordinator, register: &Register) -> Result<(), Fault> {
    if register.protocol == 0 || register.protocol + 1 < NODE_PROTOCOL {
        let message = format!(
            "the node speaks protocol {}, this server {NODE_PROTOCOL} and the one before",
            register.protocol
        );
        return Err(Fault::new(ErrorCode::ProtocolMismatch, message).with_hint("upgrade the node"));
    }
    if register.node.is_nil() || register.name.is_empty() || register.name.len() > limits::NAME_BYTES_MAX {
        return Err(Fault::new(
            ErrorCode::InvalidRequest,
            format!("a node needs an id and a name of 1 to {} bytes", limits::NAME_BYTES_MAX),
        ));
    }
    let lines = coordinator.lines.lock();
    if lines.len() >= limits::NODES_MAX && !lines.contains_key(&register.node) {
        return Err(Fault::new(
            ErrorCode::Overloaded,
            format!("{} nodes are connected, which is the limit", limits::NODES_MAX),
        ));
    }
    Ok(())
}

fn offer(serves: Serves, register: &Register) -> Candidate {
    Candidate {
        node: register.node,
        serves,
        work: Work::Sandboxes,
        credits: 0,
        capabilities: register.capabilities.iter().cloned().collect::<BTreeSet<_>>(),
        labels: register
            .labels
            .iter()
            .map(|label| (label.key.clone(), label.value.clone()))
            .collect::<BTreeMap<_, _>>(),
        arch: register.arch.clone(),
        cpu_millis: register.cpu_millis,
        memory_bytes: register.memory_bytes,
    }
}

async fn refuse(outbound: &mpsc::Sender<ServerToNode>, fault: Fault) {
    let message = ServerToNode {
        kind: Some(server_to_node::Kind::Refused(Refused { fault })),
    };
    // A node that has gone needs no answer.
    let _ = outbound.send(message).await;
}

/// Orders made while the node registered. Assignments that the registration has declared lost, because the node could not name what it had not got yet,
/// are left out: their tasks are assigned again.
async fn still_meant(
    coordinator: &Coordinator,
    port: &Arc<dyn NodePort>,
    node: NodeId,
    queued: &mut mpsc::Receiver<ServerToNode>,
) -> Result<Vec<ServerToNode>, Refusal> {
    let early: Vec<ServerToNode> = std::iter::from_fn(|| queued.try_recv().ok()).collect();
    let assigned: Vec<Assignee> = early.iter().filter_map(assigned).cloned().collect();
    if assigned.is_empty() {
        return Ok(early);
    }
    let mut verdicts = port.renew(node, assigned).await?.into_iter();
    let mut meant = Vec::with_capacity(early.len());
    for order in early {
        if assigned_in(&order) && verdicts.next() != Some(Verdict::Accepted) {
            coordinator.ledger.lock().unsent(node);
        } else {
            meant.push(order);
        }
    }
    Ok(meant)
}

fn assigned(order: &ServerToNode) -> Option<&Assignee> {
    match &order.kind {
        Some(server_to_node::Kind::Assign(assignment)) => Some(&assignment.assignee),
        _ => None,
    }
}

fn assigned_in(order: &ServerToNode) -> bool {
    assigned(order).is_some()
}

/// Sends `first`, then orders, until either end is gone.
async fn write(
    mut queued: mpsc::Receiver<ServerToNode>,
    outbound: mpsc::Sender<ServerToNode>,
    mut first: VecDeque<ServerToNode>,
) {
    loop {
        let next = match first.pop_front() {
            Some(message) => Some(message),
            None => queued.recv().await,
        };
        let Some(message) = next else { return };
        if outbound.send(message).await.is_err() {
            return;
        }
    }
}

async fn depart(coordinator: &Coordinator, port: &Arc<dyn NodePort>, node: NodeId, generation: u64) {
    let _door = coordinator.door(node).lock().await;
    {
        let mut lines = coordinator.lines.lock();
        if lines.get(&node).is_none_or(|line| line.generation != generation) {
            return;
        }
        lines.remove(&node);
        coordinator.ledger.lock().disconnect(node);
    }
    tracing::info!(%node, "node disconnected");
    if let Err(error) = port.departed(node, Departure::Disconnected).await {
        tracing::warn!(%node, %error, "departure not recorded");
    }
}

struct Session<'a> {
    coordinator: &'a Coordinator,
    port: &'a Arc<dyn NodePort>,
    node: NodeId,
    orders: mpsc::Sender<ServerToNode>,
    cancel: CancellationToken,
}

impl Session<'_> {
    /// Reads until the stream ends, is silent for too long, or breaks the protocol. Lanes that still work are aborted: the node repeats what was not
    /// acknowledged in its next session.
    async fn read(&self, mut inbound: mpsc::Receiver<NodeToServer>) {
        let mut lanes = JoinSet::new();
        let mut queues = Vec::with_capacity(LANES);
        let backlog = Arc::new(Semaphore::new(BACKLOG_UNITS as usize));
        for _ in 0..LANES {
            // Never full: what is in it has its units of the backlog.
            let (queue, work) = mpsc::channel(BACKLOG_UNITS as usize);
            queues.push(queue);
            lanes.spawn(lane(
                Arc::clone(self.port),
                self.node,
                work,
                self.orders.clone(),
                self.cancel.clone(),
            ));
        }
        loop {
            let message = match timeout(self.coordinator.config.silence(), inbound.recv()).await {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(_) => {
                    tracing::warn!(node = %self.node, "session ended: no heartbeat");
                    return;
                }
            };
            match kind_of(message) {
                Some(Kind::Register(_)) => {
                    tracing::warn!(node = %self.node, "session ended: registered twice");
                    return;
                }
                Some(Kind::Credits(credits)) => {
                    let woken = self
                        .coordinator
                        .ledger
                        .lock()
                        .credit(self.node, credits.slots, credits.seen);
                    self.coordinator.wake(&woken);
                }
                Some(Kind::Heartbeat(heartbeat)) => {
                    if !self.beat(heartbeat).await {
                        return;
                    }
                }
                Some(work) => {
                    let Some(assignee) = assignee_of(&work) else { continue };
                    let lane = usize::from(assignee.task.as_bytes()[15]) % LANES;
                    // With all of the backlog in use heartbeats are kept back: after a while the session ends, and the next one renews what is held.
                    let room = Arc::clone(&backlog).acquire_many_owned(units(&work));
                    let Ok(Ok(room)) = timeout(self.coordinator.config.silence(), room).await else {
                        tracing::warn!(node = %self.node, "session ended: its messages are not recorded in time");
                        return;
                    };
                    if queues[lane].send((work, room)).await.is_err() {
                        return;
                    }
                }
                None => tracing::debug!(node = %self.node, "message of an unknown kind ignored"),
            }
        }
    }

    /// False: the session is over.
    async fn beat(&self, heartbeat: Heartbeat) -> bool {
        if let Some(health) = heartbeat.health
            && let Err(error) = self.port.health(self.node, health).await
        {
            tracing::warn!(node = %self.node, %error, "health not recorded");
        }
        let verdicts = match self.port.renew(self.node, heartbeat.holding.clone()).await {
            Ok(verdicts) => verdicts,
            Err(error) => {
                tracing::warn!(node = %self.node, %error, "leases not renewed");
                return true;
            }
        };
        let (mut live, mut refused) = (Vec::new(), Vec::new());
        for (assignee, verdict) in heartbeat.holding.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Accepted => live.push(assignee),
                Verdict::Stale => refused.push(assignee),
            }
        }
        let renewed = LeasesRenewed {
            live,
            refused,
            lease_ms: self.coordinator.config.lease_ms,
        };
        self.orders
            .send(ServerToNode {
                kind: Some(server_to_node::Kind::Renewed(renewed)),
            })
            .await
            .is_ok()
    }
}

/// What a message takes of the backlog: its bytes, and at least one unit.
fn units(work: &Kind) -> u32 {
    let units = u32::try_from(work.encoded_len().div_ceil(BACKLOG_UNIT)).unwrap_or(BACKLOG_UNITS);
    units.clamp(1, BACKLOG_UNITS)
}

fn assignee_of(work: &Kind) -> Option<&Assignee> {
    match work {
        Kind::StepStarted(message) => Some(&message.assignee),
        Kind::StepOutput(message) => Some(&message.assignee),
        Kind::StepProgress(message) => Some(&message.assignee),
        Kind::StepFinished(message) => Some(&message.assignee),
        Kind::AssignmentRefused(message) => Some(&message.assignee),
        Kind::LeaseDropped(message) => Some(&message.assignee),
        Kind::Register(_) | Kind::Credits(_) | Kind::Heartbeat(_) => None,
    }
}

/// Handles the messages of some tasks, one after the other. A message that cannot be recorded now is tried again; when storage stays away, the session
/// ends, and the node repeats in its next one what was not acknowledged. A message that can never be recorded costs its attempt, and nothing else.
async fn lane(
    port: Arc<dyn NodePort>,
    node: NodeId,
    mut work: mpsc::Receiver<(Kind, OwnedSemaphorePermit)>,
    orders: mpsc::Sender<ServerToNode>,
    session: CancellationToken,
) {
    // The room of a message is free again when it is recorded.
    while let Some((message, _room)) = work.recv().await {
        let answer = match record(&port, node, message).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%node, %error, "session ended: a message could not be recorded");
                session.cancel();
                return;
            }
        };
        if let Some(kind) = answer
            && orders.send(ServerToNode { kind: Some(kind) }).await.is_err()
        {
            return;
        }
    }
}

/// Whether the refusal is about the state of storage, and not about what was said.
fn may_pass(refusal: &Refusal) -> bool {
    matches!(refusal.code, ErrorCode::StorageUnavailable | ErrorCode::Overloaded)
}

/// Repeats a call while storage is away, for at most [`RECORD_FOR`].
async fn patiently<T, F: Future<Output = Result<T, Refusal>>>(call: impl Fn() -> F) -> Result<T, Refusal> {
    let started = Instant::now();
    let mut pause = RECORD_PAUSE;
    loop {
        match call().await {
            Err(refusal) if may_pass(&refusal) && started.elapsed() < RECORD_FOR => {
                tracing::debug!(error = %refusal, "not recorded yet");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RECORD_PAUSE_MAX);
            }
            outcome => return outcome,
        }
    }
}

/// Records a message; an error means that the journal is away. What cannot be recorded in time although the journal can take the word that its attempt
/// is given up (its output cannot be stored, say) costs that attempt, and not the session of its node.
async fn record(
    port: &Arc<dyn NodePort>,
    node: NodeId,
    message: Kind,
) -> Result<Option<server_to_node::Kind>, Refusal> {
    let refusal = match patiently(|| handle(port, node, message.clone())).await {
        Ok(answer) => return Ok(answer),
        Err(refusal) => refusal,
    };
    let Some(assignee) = assignee_of(&message).cloned() else {
        return Ok(None);
    };
    if !matches!(
        message,
        Kind::StepStarted(_) | Kind::StepOutput(_) | Kind::StepFinished(_)
    ) {
        // Nothing follows from a refusal for good: progress is only shown, and what is given back was nobody's.
        return if may_pass(&refusal) { Err(refusal) } else { Ok(None) };
    }
    tracing::warn!(%node, task = %assignee.task, error = %refusal, "a message cannot be recorded; its attempt is given up");
    match patiently(|| port.give_up(node, assignee.clone(), refusal.message.clone())).await {
        Err(error) if may_pass(&error) => return Err(error),
        Err(error) => tracing::warn!(%node, task = %assignee.task, %error, "the attempt is not known here"),
        Ok(_) => {}
    }
    Ok(match message {
        Kind::StepFinished(_) => Some(server_to_node::Kind::ResultAccepted(ResultAccepted {
            assignee,
            stale: true,
        })),
        _ => stale(Verdict::Stale, assignee),
    })
}

async fn handle(
    port: &Arc<dyn NodePort>,
    node: NodeId,
    message: Kind,
) -> Result<Option<server_to_node::Kind>, Refusal> {
    Ok(match message {
        Kind::StepStarted(started) => {
            let assignee = started.assignee.clone();
            stale(port.started(node, started).await?, assignee)
        }
        Kind::StepOutput(output) => {
            let assignee = output.assignee;
            match port.output(node, assignee.clone(), output.chunks).await? {
                (Verdict::Accepted, seq) => {
                    Some(server_to_node::Kind::OutputAccepted(OutputAccepted { assignee, seq }))
                }
                (Verdict::Stale, _) => stale(Verdict::Stale, assignee),
            }
        }
        Kind::StepProgress(progress) => {
            let verdict = port.progress(node, progress.assignee.clone(), progress.content).await?;
            stale(verdict, progress.assignee)
        }
        Kind::StepFinished(finished) => {
            let assignee = finished.assignee;
            let verdict = port.finished(node, assignee.clone(), finished.result).await?;
            Some(server_to_node::Kind::ResultAccepted(ResultAccepted {
                assignee,
                stale: verdict == Verdict::Stale,
            }))
        }
        Kind::AssignmentRefused(refused) => {
            port.refused(node, refused.assignee, refused.fault).await?;
            None
        }
        Kind::LeaseDropped(dropped) => {
            port.dropped(node, dropped.assignee).await?;
            None
        }
        Kind::Register(_) | Kind::Credits(_) | Kind::Heartbeat(_) => None,
    })
}

/// A holder that is told nothing goes on; one with a stale fence is told to end its work at once.
fn stale(verdict: Verdict, assignee: Assignee) -> Option<server_to_node::Kind> {
    (verdict == Verdict::Stale).then(|| {
        server_to_node::Kind::Cancel(CancelStep {
            assignee,
            grace_ms: 0,
            cause: EndCause::Lost.into(),
        })
    })
}

#[cfg(test)]
mod tests;
