//! One session of a worker, from its first message to the end of its stream.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gantry_engine::api::{Candidate, Refusal, Serves, Verdict, Work};
use gantry_proto::v1::worker_to_server::Kind;
use gantry_proto::v1::{
    Assignee, AssignmentRefused, Credits, Fault, LeasesRenewed, Refused, RegisterWorker, ServerToWorker, StepAnswers,
    StepOps, WorkerHeartbeat, WorkerRegistered, WorkerToServer, server_to_worker,
};
use gantry_proto::{ErrorCode, NodeId, TenantId, WORKER_PROTOCOL, limits};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{Line, Port, message};
use crate::Coordinator;

/// Messages of one worker that are being recorded at once; past it its stream is not read.
const IN_FLIGHT_MAX: usize = 4_096;

static GENERATION: AtomicU64 = AtomicU64::new(1);

/// An answer to be, or nothing when none is owed.
type Pending = BoxFuture<'static, Option<server_to_worker::Kind>>;

/// Runs a session to its end.
pub(super) async fn run(
    coordinator: Arc<Coordinator>,
    serves: Serves,
    mut inbound: mpsc::Receiver<WorkerToServer>,
    outbound: mpsc::Sender<ServerToWorker>,
    cancel: CancellationToken,
) {
    let first = tokio::select! {
        () = cancel.cancelled() => return,
        first = timeout(coordinator.config.silence(), inbound.recv()) => first,
    };
    let register = match first.ok().flatten().and_then(|message| message.kind) {
        Some(Kind::Register(register)) => register,
        Some(_) => {
            let message = "the first message of a session must be RegisterWorker";
            return refuse(&outbound, Fault::new(ErrorCode::ProtocolMismatch, message)).await;
        }
        None => return,
    };
    let Some(port) = coordinator.workers.port.get().cloned() else {
        let fault =
            Fault::new(ErrorCode::StorageUnavailable, "the engine is starting").with_hint("dial again in a moment");
        return refuse(&outbound, fault).await;
    };
    if let Err(fault) = acceptable(&coordinator, serves, &register) {
        return refuse(&outbound, fault).await;
    }
    let worker = register.worker;
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    // Room for as many runs as it may ever offer to take at once, beside what else it is told.
    let slots = register.slots.min(limits::WORKER_SLOTS_MAX);
    let (orders, queued) = mpsc::channel(limits::SESSION_QUEUE_MAX + slots as usize);
    let cancel = cancel.child_token();
    let line = Line {
        generation,
        orders,
        cancel: cancel.clone(),
    };
    {
        // Both at once: an order that goes to this line counts in this account.
        let mut lines = coordinator.workers.lines.lock();
        coordinator.ledger.lock().connect(offer(serves, &register));
        if let Some(previous) = lines.insert(worker, line) {
            previous.cancel.cancel();
        }
    }
    let session = Session {
        coordinator: &coordinator,
        port,
        worker,
        serves,
        slots,
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = session.serve(register, inbound, queued, &outbound) => {}
    }
    let mut lines = coordinator.workers.lines.lock();
    if lines.get(&worker).is_some_and(|line| line.generation == generation) {
        lines.remove(&worker);
        coordinator.ledger.lock().disconnect(worker);
        tracing::info!(%worker, "worker disconnected");
    }
}

fn acceptable(coordinator: &Coordinator, serves: Serves, register: &RegisterWorker) -> Result<(), Fault> {
    if register.protocol == 0 || register.protocol + 1 < WORKER_PROTOCOL {
        let message = format!(
            "the worker speaks protocol {}, this server {WORKER_PROTOCOL} and the one before",
            register.protocol
        );
        return Err(Fault::new(ErrorCode::ProtocolMismatch, message).with_hint("upgrade the worker's SDK"));
    }
    let named = |name: &str| !name.is_empty() && name.len() <= limits::NAME_BYTES_MAX;
    if register.worker.is_nil() || !named(&register.name) {
        let message = format!(
            "a worker needs an id and a name of 1 to {} bytes",
            limits::NAME_BYTES_MAX
        );
        return Err(Fault::new(ErrorCode::InvalidRequest, message));
    }
    let components = &register.components;
    if components.is_empty()
        || components.len() > limits::COMPONENTS_PER_WORKER_MAX
        || !components.iter().all(|component| named(&component.name))
    {
        let message = format!(
            "a worker registers 1 to {} components with names of 1 to {} bytes",
            limits::COMPONENTS_PER_WORKER_MAX,
            limits::NAME_BYTES_MAX
        );
        return Err(Fault::new(ErrorCode::InvalidRequest, message));
    }
    if !register.holding.iter().all(|assignee| covers(serves, assignee.tenant)) {
        return Err(Fault::new(ErrorCode::Forbidden, "the token does not reach these runs"));
    }
    let lines = coordinator.workers.lines.lock();
    if lines.len() >= limits::NODES_MAX && !lines.contains_key(&register.worker) {
        let message = format!("{} workers are connected, which is the limit", limits::NODES_MAX);
        return Err(Fault::new(ErrorCode::Overloaded, message));
    }
    Ok(())
}

/// A token of one tenant reaches nothing of another, whatever the worker says.
fn covers(serves: Serves, tenant: TenantId) -> bool {
    match serves {
        Serves::All => true,
        Serves::Tenant(own) => own == tenant,
    }
}

fn offer(serves: Serves, register: &RegisterWorker) -> Candidate {
    let components: BTreeSet<String> = register.components.iter().map(|each| each.name.clone()).collect();
    let labels = register
        .labels
        .iter()
        .map(|label| (label.key.clone(), label.value.clone()));
    Candidate {
        node: register.worker,
        serves,
        work: Work::Code(Arc::new(components)),
        credits: 0,
        capabilities: register.capabilities.iter().cloned().collect(),
        labels: labels.collect::<BTreeMap<_, _>>(),
        arch: String::new(),
        cpu_millis: 0,
        memory_bytes: 0,
    }
}

async fn refuse(outbound: &mpsc::Sender<ServerToWorker>, fault: Fault) {
    let message = ServerToWorker {
        kind: Some(server_to_worker::Kind::Refused(Refused { fault })),
    };
    // A worker that has gone needs no answer.
    let _ = outbound.send(message).await;
}

fn fault_of(refusal: Refusal) -> Fault {
    Fault {
        code: refusal.code.as_str().to_owned(),
        message: refusal.message,
        hint: refusal.hint,
    }
}

struct Session<'a> {
    coordinator: &'a Coordinator,
    port: Port,
    worker: NodeId,
    serves: Serves,
    /// Most runs that it is sent without having said that it received any.
    slots: u32,
}

impl Session<'_> {
    /// Serves until the stream ends, is silent for too long, or breaks the protocol. What is being recorded then is recorded all the same; the worker asks
    /// again in its next session.
    async fn serve(
        &self,
        register: RegisterWorker,
        mut inbound: mpsc::Receiver<WorkerToServer>,
        mut orders: mpsc::Receiver<ServerToWorker>,
        outbound: &mpsc::Sender<ServerToWorker>,
    ) {
        let verdicts = match self.port.reconcile(self.worker, register.holding).await {
            Ok(verdicts) => verdicts,
            Err(refusal) => {
                tracing::warn!(worker = %self.worker, error = %refusal, "registration refused");
                return refuse(outbound, fault_of(refusal)).await;
            }
        };
        tracing::info!(worker = %self.worker, "worker connected");
        let registered = server_to_worker::Kind::Registered(WorkerRegistered {
            protocol: WORKER_PROTOCOL,
            heartbeat_ms: self.coordinator.config.heartbeat_ms,
            lease_ms: self.coordinator.config.lease_ms,
            verdicts,
        });
        if send(outbound, registered).await.is_err() {
            return;
        }
        let mut pending: FuturesUnordered<Pending> = FuturesUnordered::new();
        let mut heard = Instant::now();
        loop {
            let silent = heard + self.coordinator.config.silence();
            tokio::select! {
                message = inbound.recv(), if pending.len() < IN_FLIGHT_MAX => {
                    heard = Instant::now();
                    let Some(message) = message else { return };
                    match self.take(message) {
                        Ok(Some(work)) => pending.push(work),
                        Ok(None) => {}
                        Err(why) => {
                            tracing::warn!(worker = %self.worker, why, "session ended");
                            return;
                        }
                    }
                }
                Some(answer) = pending.next(), if !pending.is_empty() => {
                    if let Some(answer) = answer
                        && send(outbound, answer).await.is_err()
                    {
                        return;
                    }
                }
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    if outbound.send(order).await.is_err() {
                        return;
                    }
                }
                () = sleep_until(silent) => {
                    tracing::warn!(worker = %self.worker, "session ended: no heartbeat");
                    return;
                }
            }
        }
    }

    /// Takes a message in; what it asks for is done by the returned future.
    fn take(&self, message: WorkerToServer) -> Result<Option<Pending>, &'static str> {
        Ok(match message.kind {
            Some(Kind::Register(_)) => return Err("registered twice"),
            Some(Kind::Credits(credits)) => {
                self.credit(&credits);
                None
            }
            Some(Kind::Heartbeat(beat)) => Some(self.beat(beat)),
            Some(Kind::Steps(steps)) => Some(self.steps(steps)),
            Some(Kind::GiveBack(AssignmentRefused { assignee, fault })) => {
                let (port, worker) = (Arc::clone(&self.port), self.worker);
                self.meant(&assignee)?;
                Some(Box::pin(async move {
                    note(worker, port.run_refused(worker, assignee, fault).await);
                    None
                }))
            }
            Some(Kind::Dropped(dropped)) => {
                let (port, worker) = (Arc::clone(&self.port), self.worker);
                self.meant(&dropped.assignee)?;
                Some(Box::pin(async move {
                    note(worker, port.run_dropped(worker, dropped.assignee).await);
                    None
                }))
            }
            None => {
                tracing::debug!(worker = %self.worker, "message of an unknown kind ignored");
                None
            }
        })
    }

    fn meant(&self, assignee: &Assignee) -> Result<(), &'static str> {
        if covers(self.serves, assignee.tenant) {
            Ok(())
        } else {
            Err("it spoke of another tenant's run")
        }
    }

    fn credit(&self, credits: &Credits) {
        let woken = self
            .coordinator
            .ledger
            .lock()
            .credit(self.worker, credits.slots.min(self.slots), credits.seen);
        self.coordinator.wake(&woken);
    }

    fn beat(&self, beat: WorkerHeartbeat) -> Pending {
        let (port, worker, lease_ms) = (Arc::clone(&self.port), self.worker, self.coordinator.config.lease_ms);
        let (holding, foreign): (Vec<_>, Vec<_>) = beat
            .holding
            .into_iter()
            .partition(|assignee| covers(self.serves, assignee.tenant));
        Box::pin(async move {
            match port.renew_runs(worker, holding.clone()).await {
                Ok(verdicts) => {
                    let mut renewed = LeasesRenewed {
                        live: Vec::new(),
                        refused: foreign,
                        lease_ms,
                    };
                    for (assignee, verdict) in holding.into_iter().zip(verdicts) {
                        match verdict {
                            Verdict::Accepted => renewed.live.push(assignee),
                            Verdict::Stale => renewed.refused.push(assignee),
                        }
                    }
                    Some(server_to_worker::Kind::Renewed(renewed))
                }
                Err(refusal) => {
                    // The next heartbeat asks again; a lease outlives several.
                    tracing::warn!(%worker, error = %refusal, "leases not renewed");
                    None
                }
            }
        })
    }

    fn steps(&self, steps: StepOps) -> Pending {
        let (port, worker) = (Arc::clone(&self.port), self.worker);
        if let Some(credits) = &steps.credits {
            self.credit(credits);
        }
        let StepOps {
            request,
            assignee,
            ops,
            run_is_task,
            ..
        } = steps;
        let answers = move |stale, answers, fault| {
            Some(server_to_worker::Kind::Answers(StepAnswers {
                request,
                stale,
                answers,
                fault,
            }))
        };
        if !covers(self.serves, assignee.tenant) {
            return Box::pin(std::future::ready(answers(true, Vec::new(), None)));
        }
        let run = message::RunIdentity::of(&assignee, run_is_task.unwrap_or(false));
        let (ops, ids) = match message::ops(&run, ops) {
            Ok(taken) => taken,
            Err(fault) => return Box::pin(std::future::ready(answers(false, Vec::new(), Some(fault)))),
        };
        Box::pin(async move {
            match port.steps(worker, assignee, ops).await {
                Ok(Some(replies)) => answers(false, message::answers(replies, ids), None),
                Ok(None) => answers(true, Vec::new(), None),
                Err(refusal) => answers(false, Vec::new(), Some(fault_of(refusal))),
            }
        })
    }
}

fn note(worker: NodeId, outcome: Result<Verdict, Refusal>) {
    if let Err(refusal) = outcome {
        // The lease expires, if nothing else.
        tracing::warn!(%worker, error = %refusal, "the end of a lease is not recorded");
    }
}

async fn send(outbound: &mpsc::Sender<ServerToWorker>, kind: server_to_worker::Kind) -> Result<(), ()> {
    outbound.send(ServerToWorker { kind: Some(kind) }).await.map_err(|_| ())
}
