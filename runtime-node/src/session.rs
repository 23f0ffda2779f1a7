//! The node's one stream to the coordinator, dialled for ever.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gantry_proto::v1::{
    Assignee, AssignmentRefused, Fault, Heartbeat, HeldVerdict, Label, LeaseDropped, Register, Registered,
    ServerToNode, node_to_server, server_to_node::Kind,
};
use gantry_proto::{ErrorCode, NODE_PROTOCOL};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use crate::board::{NotTaken, SessionHandle};
use crate::node::Shared;
use crate::retry::Backoff;
use crate::uplink::UplinkError;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error(transparent)]
    Uplink(#[from] UplinkError),
    #[error("the server did not answer in time")]
    Silent,
    #[error("the stream ended")]
    Closed,
    #[error("the server refused the node: {} ({})", .0.message, .0.code)]
    Refused(Fault),
    #[error("the server speaks protocol {0}, this node {NODE_PROTOCOL}")]
    Protocol(u32),
    #[error(
        "the server is of installation {theirs}, this node of {ours}: its address is another's, or the state directory is"
    )]
    Installation { ours: String, theirs: String },
    #[error("unexpected first message")]
    Unexpected,
    #[error("the node stops")]
    Stopped,
}

/// Of a lease, the most that may pass between two tries to reach the server: a server that comes back finds its nodes before their leases have run out.
const PAUSE_OF_LEASE: u32 = 6;
/// Of a lease, the most that one try may take.
const DIAL_OF_LEASE: u32 = 3;

/// Less than this is no time to dial in.
const DIAL_MIN: Duration = Duration::from_secs(3);

/// What one session leaves to the next.
struct Dial {
    backoff: Backoff,
    /// Longest that dialling may take, and registering.
    limit: Duration,
}

/// Keeps a session until the node stops.
pub(crate) async fn run(shared: Arc<Shared>) {
    let (first, longest) = shared.config.reconnect;
    let mut dial = Dial {
        backoff: Backoff::new(first, longest),
        limit: shared.config.connect_timeout,
    };
    let mut epoch = 0;
    loop {
        epoch += 1;
        let end = tokio::select! {
            end = serve(&shared, epoch, &mut dial) => end,
            () = shared.stop.cancelled() => SessionEnd::Stopped,
        };
        shared.board.set_session(None);
        match end {
            SessionEnd::Stopped => return,
            SessionEnd::Refused(_) | SessionEnd::Protocol(_) | SessionEnd::Installation { .. } => {
                tracing::error!(%end, "session with the server ended")
            }
            _ => tracing::info!(%end, "session with the server ended; work goes on"),
        }
        tokio::select! {
            () = tokio::time::sleep(dial.backoff.pause()) => {}
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn serve(shared: &Arc<Shared>, epoch: u64, dial: &mut Dial) -> SessionEnd {
    match open(shared, epoch, dial.limit).await {
        Ok((session, registered, down)) => {
            let lease = Duration::from_millis(registered.lease_ms);
            dial.backoff.cap(lease / PAUSE_OF_LEASE);
            dial.backoff.reset();
            dial.limit = shared.config.connect_timeout.min(lease / DIAL_OF_LEASE).max(DIAL_MIN);
            shared.board.set_session(Some(session.clone()));
            match pump(shared, &session, &registered, down).await {
                Ok(()) => SessionEnd::Closed,
                Err(end) => end,
            }
        }
        Err(end) => end,
    }
}

type Opened = (SessionHandle, Registered, mpsc::Receiver<ServerToNode>);

async fn open(shared: &Arc<Shared>, epoch: u64, limit: Duration) -> Result<Opened, SessionEnd> {
    let (up, mut down) = tokio::time::timeout(limit, shared.uplink.connect())
        .await
        .map_err(|_| SessionEnd::Silent)??;
    let session = SessionHandle::new(epoch, up);
    let register = register(shared).await;
    let told: Vec<Assignee> = register.holding.iter().map(|held| held.assignee.clone()).collect();
    if !session.send(node_to_server::Kind::Register(register)).await {
        return Err(SessionEnd::Closed);
    }
    let first = tokio::time::timeout(limit, down.recv())
        .await
        .map_err(|_| SessionEnd::Silent)?;
    match first.and_then(|message| message.kind) {
        Some(Kind::Registered(registered)) => {
            // Both sides speak this version and the one before.
            if registered.protocol > NODE_PROTOCOL || registered.protocol + 1 < NODE_PROTOCOL {
                return Err(SessionEnd::Protocol(registered.protocol));
            }
            if let (Some(ours), Some(theirs)) = (&shared.config.installation, &registered.installation)
                && ours != theirs
            {
                let (ours, theirs) = (ours.clone(), theirs.clone());
                return Err(SessionEnd::Installation { ours, theirs });
            }
            apply_verdicts(shared, &told, &registered.verdicts);
            Ok((session, registered, down))
        }
        Some(Kind::Refused(refused)) => Err(SessionEnd::Refused(refused.fault)),
        None => Err(SessionEnd::Closed),
        Some(_) => Err(SessionEnd::Unexpected),
    }
}

async fn register(shared: &Arc<Shared>) -> Register {
    let config = &shared.config;
    let workspaces = shared.workspaces.clone();
    let kept = shared.tasks.spawn_blocking(move || workspaces.tasks()).await;
    let kept = match kept {
        Ok(Ok(tasks)) => tasks,
        Ok(Err(error)) => {
            tracing::warn!(%error, "workspaces cannot be listed");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    Register {
        protocol: NODE_PROTOCOL,
        node: config.node,
        name: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: config.slots,
        cpu_millis: config.cpu_millis,
        memory_bytes: config.memory_bytes,
        capabilities: config.capabilities.clone(),
        labels: config
            .labels
            .iter()
            .map(|(key, value)| Label {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
        arch: std::env::consts::ARCH.to_owned(),
        os: std::env::consts::OS.to_owned(),
        holding: shared.board.held(),
        health: Some(shared.board.health()),
        workspaces: kept,
    }
}

fn apply_verdicts(shared: &Shared, told: &[Assignee], verdicts: &[HeldVerdict]) {
    let by_assignee: HashMap<&Assignee, &HeldVerdict> = verdicts.iter().map(|v| (&v.assignee, v)).collect();
    for assignee in told {
        // Without a verdict nothing is destroyed; the next heartbeat asks again.
        let Some(verdict) = by_assignee.get(assignee) else {
            continue;
        };
        shared.board.order(assignee, |orders| {
            if verdict.keep {
                orders.confirmed = true;
                orders.output_acked = orders.output_acked.max(verdict.output_seq.unwrap_or(0));
                orders.renewals += 1;
            } else {
                orders.dropped = true;
            }
        });
    }
}

async fn pump(
    shared: &Arc<Shared>,
    session: &SessionHandle,
    registered: &Registered,
    mut down: mpsc::Receiver<ServerToNode>,
) -> Result<(), SessionEnd> {
    let beat = Duration::from_millis(registered.heartbeat_ms.max(10));
    let mut lease = Duration::from_millis(registered.lease_ms).max(beat * 2);
    // The first one at once: the leases may be old.
    let mut beats = tokio::time::interval(beat);
    let mut health = shared.board.health_changes();
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answered = Instant::now();
    shared.board.send_credits(session).await;
    loop {
        tokio::select! {
            message = down.recv() => {
                let Some(message) = message else { return Ok(()) };
                if let Some(Kind::Renewed(renewed)) = &message.kind {
                    answered = Instant::now();
                    lease = Duration::from_millis(renewed.lease_ms).max(beat * 2);
                }
                // Who takes no answer for a whole lease while it is being read is dead, or waits for us in turn.
                let received = tokio::time::timeout(lease, receive(shared, session, message));
                received.await.map_err(|_| SessionEnd::Silent)??;
            }
            Ok(()) = health.changed() => beats.reset_immediately(),
            _ = beats.tick() => {
                if answered.elapsed() > lease {
                    return Err(SessionEnd::Silent);
                }
                let holding = shared.board.held().into_iter().map(|held| held.assignee).collect();
                let heartbeat = Heartbeat { holding, health: Some(shared.board.health()) };
                let sent = session.send(node_to_server::Kind::Heartbeat(heartbeat));
                // A stream that takes nothing for a whole lease is a dead one.
                match tokio::time::timeout(lease, sent).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(_) => return Err(SessionEnd::Silent),
                }
            }
            () = shared.board.changed.notified() => {
                match tokio::time::timeout(lease, shared.board.send_credits(session)).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(()),
                    Err(_) => return Err(SessionEnd::Silent),
                }
            }
        }
    }
}

async fn receive(shared: &Arc<Shared>, session: &SessionHandle, message: ServerToNode) -> Result<(), SessionEnd> {
    let board = &shared.board;
    match message.kind {
        Some(Kind::Assign(assignment)) => {
            session.seen.fetch_add(1, Ordering::AcqRel);
            let assignee = assignment.assignee.clone();
            if let Err(reason) = shared.take(assignment) {
                let fault = match reason {
                    // Pushed again: it is being worked on.
                    NotTaken::Held => return Ok(()),
                    NotTaken::Full => Fault::new(ErrorCode::Overloaded, "all slots of the node are in use"),
                    NotTaken::Draining => Fault::new(ErrorCode::Overloaded, "the node drains"),
                    NotTaken::Unfit => board
                        .health()
                        .fault
                        .unwrap_or_else(|| Fault::new(ErrorCode::DockerUnavailable, "the node is not ready yet")),
                };
                board.send_credits(session).await;
                session
                    .send(node_to_server::Kind::AssignmentRefused(AssignmentRefused {
                        assignee,
                        fault,
                    }))
                    .await;
            }
        }
        Some(Kind::Cancel(cancel)) => {
            let assignee = cancel.assignee.clone();
            if !board.order(&assignee, |orders| orders.cancel = Some(cancel)) {
                session
                    .send(node_to_server::Kind::LeaseDropped(LeaseDropped { assignee }))
                    .await;
            }
        }
        Some(Kind::OutputAccepted(accepted)) => {
            board.order(&accepted.assignee, |orders| {
                orders.output_acked = orders.output_acked.max(accepted.seq)
            });
        }
        Some(Kind::ResultAccepted(accepted)) => {
            board.order(&accepted.assignee, |orders| orders.result = Some(accepted.stale));
        }
        Some(Kind::Renewed(renewed)) => {
            for assignee in &renewed.live {
                board.order(assignee, |orders| {
                    orders.renewals += 1;
                    orders.confirmed = true;
                });
            }
            for assignee in &renewed.refused {
                board.order(assignee, |orders| orders.dropped = true);
            }
        }
        Some(Kind::Release(release)) => {
            for task in release.tasks {
                if board.release(task) {
                    shared.release_workspace(task);
                }
            }
        }
        Some(Kind::Drain(drain)) => board.set_draining(drain.drain),
        Some(Kind::Refused(refused)) => return Err(SessionEnd::Refused(refused.fault)),
        Some(Kind::Registered(_)) => return Err(SessionEnd::Unexpected),
        // A newer server may say more than this version knows.
        None => {}
    }
    Ok(())
}
