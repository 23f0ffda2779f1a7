//! One session of a node, from its first message to the end of its stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_engine::api::{Candidate, Departure, NodePort, Serves, Verdict};
use gantry_proto::v1::node_to_server::Kind;
use gantry_proto::v1::{
    Assignee, CancelStep, EndCause, Fault, Heartbeat, LeasesRenewed, NodeToServer, OutputAccepted, Refused, Register,
    Registered, ReleaseWorkspaces, ResultAccepted, ServerToNode, server_to_node,
};
use gantry_proto::{ErrorCode, NODE_PROTOCOL, NodeId, limits};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{Coordinator, Line, kind_of};

/// Messages about tasks are spread over so many lanes: in order within a lane, and lanes share the engine's group commit.
const LANES: usize = 32;
/// Messages that one lane holds before the stream stops reading.
const LANE_QUEUE: usize = 32;

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
    // The line exists before the engine decides, so that no order made in between is lost; it is read only after `Registered` has gone out.
    let (orders, queued) = mpsc::channel(limits::SESSION_QUEUE_MAX);
    let session_cancel = cancel.child_token();
    let line = Line {
        generation,
        orders: orders.clone(),
        cancel: session_cancel.clone(),
    };
    if let Some(previous) = coordinator.lines.lock().insert(node, line) {
        previous.cancel.cancel();
    }
    coordinator.ledger.lock().connect(offer(serves, &register));

    let outcome = port.register(serves, register).await;
    match outcome {
        Ok(registration) => {
            let registered = Registered {
                protocol: NODE_PROTOCOL,
                heartbeat_ms: coordinator.config.heartbeat_ms,
                lease_ms: coordinator.config.lease_ms,
                verdicts: registration.verdicts,
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
            let writer = write(queued, outbound, server_to_node::Kind::Registered(registered));
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

/// Sends `first`, then orders, until either end is gone.
async fn write(
    mut queued: mpsc::Receiver<ServerToNode>,
    outbound: mpsc::Sender<ServerToNode>,
    first: server_to_node::Kind,
) {
    let mut next = Some(ServerToNode { kind: Some(first) });
    while let Some(message) = next {
        if outbound.send(message).await.is_err() {
            return;
        }
        next = queued.recv().await;
    }
}

async fn depart(coordinator: &Coordinator, port: &Arc<dyn NodePort>, node: NodeId, generation: u64) {
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
        for _ in 0..LANES {
            let (queue, work) = mpsc::channel(LANE_QUEUE);
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
                    if queues[lane].send(work).await.is_err() {
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

/// Handles the messages of some tasks, one after the other. A message that could not be recorded ends the session: the node dials again and repeats
/// what was not acknowledged, in order.
async fn lane(
    port: Arc<dyn NodePort>,
    node: NodeId,
    mut work: mpsc::Receiver<Kind>,
    orders: mpsc::Sender<ServerToNode>,
    session: CancellationToken,
) {
    while let Some(message) = work.recv().await {
        let answer = match handle(&port, node, message).await {
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

async fn handle(
    port: &Arc<dyn NodePort>,
    node: NodeId,
    message: Kind,
) -> Result<Option<server_to_node::Kind>, gantry_engine::api::Refusal> {
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
