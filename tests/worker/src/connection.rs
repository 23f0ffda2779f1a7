//! The line to the server: registration, runs, answers, heartbeats, and dialling again with what is held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use gantry_proto::v1::worker_service_client::WorkerServiceClient;
use gantry_proto::v1::{
    Assignee, Component, Credits, RegisterWorker, RunAssignment, ServerToWorker, StepAnswers, StepOp, StepOps,
    WorkerHeartbeat, WorkerRegistered, WorkerToServer, server_to_worker, step_answer, step_op, worker_to_server,
};
use gantry_proto::{ErrorCode, NodeId, TaskId, WORKER_PROTOCOL, limits};
use parking_lot::Mutex;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::context::{Answer, Gone, Outgoing};
use crate::driver::{Driver, Outlet};
use crate::{Context, Settings, worker_id};

/// Pause between two tries to connect, and before a message is repeated that storage could not take.
const PAUSE: Duration = Duration::from_millis(100);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A message that is not answered.
struct Sent {
    assignee: Assignee,
    ops: Vec<StepOp>,
    answers: Vec<oneshot::Sender<Answer>>,
    run_is_task: bool,
}

struct Held {
    assignee: Assignee,
    run_is_task: bool,
    code: Option<AbortHandle>,
    /// Its last message is out: it needs no slot.
    ending: bool,
}

/// Into the session's stream.
struct Line {
    messages: mpsc::Sender<WorkerToServer>,
    /// Ends the session: what was not taken in is said again in the next one.
    full: CancellationToken,
}

impl Line {
    fn say(&self, kind: worker_to_server::Kind) {
        // One that has just broken is noticed by its reader.
        if let Err(TrySendError::Full(_)) = self.messages.try_send(WorkerToServer { kind: Some(kind) }) {
            self.full.cancel();
        }
    }
}

#[derive(Default)]
struct State {
    /// Where messages go; nowhere while there is no session.
    line: Option<Line>,
    runs: BTreeMap<TaskId, Held>,
    unanswered: BTreeMap<u64, Sent>,
    next_request: u64,
    /// Assignments received in this session.
    seen: u64,
}

impl State {
    fn credits(&self, slots: u32) -> Credits {
        let busy = self.runs.values().filter(|run| !run.ending).count();
        Credits {
            slots: slots.saturating_sub(u32::try_from(busy).unwrap_or(u32::MAX)),
            seen: self.seen,
        }
    }

    fn say(&self, kind: worker_to_server::Kind) {
        if let Some(line) = &self.line {
            line.say(kind);
        }
    }

    /// Forgets a run, and tells its code, if there is any left, that it is over.
    fn drop_run(&mut self, task: TaskId) {
        if let Some(code) = self.runs.remove(&task).and_then(|run| run.code) {
            code.abort();
        }
        let of_run: Vec<u64> = self
            .unanswered
            .iter()
            .filter(|(_, sent)| sent.assignee.task == task)
            .map(|(request, _)| *request)
            .collect();
        for request in of_run {
            self.unanswered.remove(&request);
        }
    }
}

struct Shared {
    settings: Settings,
    id: NodeId,
    state: Mutex<State>,
    registered: watch::Sender<u64>,
}

/// A running worker. Dropping it ends it as a crash would: without a word.
pub struct Worker {
    shared: Arc<Shared>,
    sessions: JoinHandle<()>,
}

impl Worker {
    /// Starts to dial.
    ///
    /// # Errors
    /// When there is no randomness for its id.
    pub fn start(settings: Settings) -> Result<Self> {
        let shared = Arc::new(Shared {
            id: worker_id()?,
            settings,
            state: Mutex::default(),
            registered: watch::Sender::new(0),
        });
        let sessions = tokio::spawn(dial(Arc::clone(&shared)));
        Ok(Self { shared, sessions })
    }

    /// Waits until the server has let it in.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn ready(&self, limit: Duration) -> Result<()> {
        let mut registered = self.shared.registered.subscribe();
        tokio::time::timeout(limit, registered.wait_for(|times| *times > 0))
            .await
            .context("the worker was not let in")??;
        Ok(())
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.shared.id
    }

    /// Runs that it holds now.
    #[must_use]
    pub fn holds(&self) -> usize {
        self.shared.state.lock().runs.len()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.sessions.abort();
        let mut state = self.shared.state.lock();
        state.line = None;
        for run in state.runs.values().filter_map(|run| run.code.as_ref()) {
            run.abort();
        }
    }
}

async fn dial(shared: Arc<Shared>) {
    loop {
        if let Err(error) = session(&shared).await {
            eprintln!("session of worker {} ended: {error:#}", shared.settings.name);
        }
        shared.state.lock().line = None;
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(settings: &Settings) -> Result<Channel> {
    Ok(Endpoint::from_shared(settings.endpoint.clone())?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .connect()
        .await?)
}

/// One session, from registration to the end of the stream.
async fn session(shared: &Arc<Shared>) -> Result<()> {
    let channel = connect(&shared.settings).await?;
    let (messages, queued) = mpsc::channel(limits::SESSION_QUEUE_MAX);
    let full = CancellationToken::new();
    let line = Line {
        messages,
        full: full.clone(),
    };
    line.say(worker_to_server::Kind::Register(registration(shared)));
    let mut request = tonic::Request::new(ReceiverStream::new(queued));
    let bearer = format!("Bearer {}", shared.settings.token).parse()?;
    request.metadata_mut().insert("authorization", bearer);
    let mut answers = WorkerServiceClient::new(channel).session(request).await?.into_inner();
    let registered = match next(&mut answers).await? {
        server_to_worker::Kind::Registered(registered) => registered,
        server_to_worker::Kind::Refused(refused) => bail!("refused: {}: {}", refused.fault.code, refused.fault.message),
        other => bail!("an unexpected first message: {other:?}"),
    };
    let mut beat = tokio::time::interval(Duration::from_millis(registered.heartbeat_ms.max(10)));
    let length = Duration::from_millis(registered.lease_ms);
    resume(shared, line, registered);
    shared.registered.send_modify(|times| *times += 1);
    let mut heard = tokio::time::Instant::now();
    loop {
        tokio::select! {
            message = next(&mut answers) => {
                heard = tokio::time::Instant::now();
                take(shared, message?);
            }
            () = full.cancelled() => bail!("the server does not read"),
            _ = beat.tick() => {
                if heard.elapsed() > length {
                    bail!("the server was silent for longer than a lease");
                }
                let state = shared.state.lock();
                let holding = state.runs.values().map(|run| run.assignee.clone()).collect();
                state.say(worker_to_server::Kind::Heartbeat(WorkerHeartbeat { holding }));
            }
        }
    }
}

async fn next(answers: &mut Streaming<ServerToWorker>) -> Result<server_to_worker::Kind> {
    loop {
        let message = answers.message().await?.context("the stream ended")?;
        // Kinds of a newer server are passed over.
        if let Some(kind) = message.kind {
            return Ok(kind);
        }
    }
}

fn registration(shared: &Shared) -> RegisterWorker {
    let settings = &shared.settings;
    let state = shared.state.lock();
    RegisterWorker {
        protocol: WORKER_PROTOCOL,
        worker: shared.id,
        name: settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        slots: settings.slots,
        components: settings
            .components
            .keys()
            .map(|name| Component { name: name.clone() })
            .collect(),
        holding: state.runs.values().map(|run| run.assignee.clone()).collect(),
        ..RegisterWorker::default()
    }
}

/// Takes the session up: what the server does not know any more is dropped, what was not answered is said again.
fn resume(shared: &Shared, line: Line, registered: WorkerRegistered) {
    let mut state = shared.state.lock();
    for verdict in registered.verdicts.iter().filter(|verdict| !verdict.keep) {
        state.drop_run(verdict.assignee.task);
    }
    state.line = Some(line);
    state.seen = 0;
    let credits = state.credits(shared.settings.slots);
    state.say(worker_to_server::Kind::Credits(credits));
    for sent in state.unanswered.values_mut() {
        for op in &mut sent.ops {
            if let Some(step_op::Kind::Begin(begin)) = &mut op.kind {
                begin.again = Some(true);
            }
        }
    }
    for (request, sent) in &state.unanswered {
        state.say(message(*request, sent, None));
    }
}

fn message(request: u64, sent: &Sent, credits: Option<Credits>) -> worker_to_server::Kind {
    worker_to_server::Kind::Steps(StepOps {
        request,
        assignee: sent.assignee.clone(),
        ops: sent.ops.clone(),
        credits,
        run_is_task: sent.run_is_task.then_some(true),
    })
}

fn take(shared: &Arc<Shared>, kind: server_to_worker::Kind) {
    match kind {
        server_to_worker::Kind::Run(assignment) => begin(shared, assignment),
        server_to_worker::Kind::Answers(answers) => answered(shared, answers),
        server_to_worker::Kind::Cancel(cancel) => shared.state.lock().drop_run(cancel.assignee.task),
        server_to_worker::Kind::Renewed(renewed) => {
            let mut state = shared.state.lock();
            for refused in renewed.refused {
                // One whose last message is on its way is over anyhow, and its answer will say how.
                let lost = state
                    .runs
                    .get(&refused.task)
                    .is_some_and(|run| run.assignee.fence == refused.fence && !run.ending);
                if lost {
                    state.drop_run(refused.task);
                }
            }
        }
        server_to_worker::Kind::Registered(_) | server_to_worker::Kind::Refused(_) => {}
    }
}

fn begin(shared: &Arc<Shared>, assignment: RunAssignment) {
    let task = assignment.assignee.task;
    let run_is_task = assignment.run == task.to_string();
    {
        let mut state = shared.state.lock();
        state.seen += 1;
        // A newer lease of the same run: the older one is stale.
        state.drop_run(task);
        let held = Held {
            assignee: assignment.assignee.clone(),
            run_is_task,
            code: None,
            ending: false,
        };
        state.runs.insert(task, held);
    }
    let Some(handler) = shared.settings.components.get(&assignment.component).cloned() else {
        // The server assigns only what was registered.
        return shared.state.lock().drop_run(task);
    };
    let context = Context::new(&assignment, &shared.settings.artifact);
    let driver = Driver {
        code: handler(context.clone(), assignment.input),
        context,
        outlet: RunOutlet {
            shared: Arc::clone(shared),
            task,
        },
        retry: shared.settings.retry,
    };
    let fence = assignment.assignee.fence;
    let code = tokio::spawn({
        let shared = Arc::clone(shared);
        async move {
            if let Some(told) = driver.await {
                // Stale or recorded: the run is over for this worker.
                let _ = told.await;
            }
            let mut state = shared.state.lock();
            if state.runs.get(&task).is_some_and(|run| run.assignee.fence == fence) {
                state.runs.remove(&task);
            }
        }
    });
    let mut state = shared.state.lock();
    match state.runs.get_mut(&task).filter(|run| run.assignee.fence == fence) {
        Some(run) => run.code = Some(code.abort_handle()),
        // It has ended by now.
        None => drop(code),
    }
}

struct RunOutlet {
    shared: Arc<Shared>,
    task: TaskId,
}

impl Outlet for RunOutlet {
    fn send(&self, ops: Vec<Outgoing>, last: bool) {
        let mut state = self.shared.state.lock();
        let Some(run) = state.runs.get_mut(&self.task) else {
            // Dropped answers read as: the run is over.
            return;
        };
        run.ending |= last;
        let (assignee, run_is_task) = (run.assignee.clone(), run.run_is_task);
        let request = state.next_request;
        state.next_request += 1;
        let (ops, answers) = ops.into_iter().map(|each| (each.op, each.answer)).unzip();
        let sent = Sent {
            assignee,
            ops,
            answers,
            run_is_task,
        };
        let credits = last.then(|| state.credits(self.shared.settings.slots));
        state.say(message(request, &sent, credits));
        state.unanswered.insert(request, sent);
    }
}

fn answered(shared: &Arc<Shared>, answers: StepAnswers) {
    let mut state = shared.state.lock();
    let passing = answers.fault.as_ref().is_some_and(|fault| {
        [ErrorCode::StorageUnavailable, ErrorCode::Overloaded]
            .iter()
            .any(|code| code.as_str() == fault.code)
    });
    if passing {
        let (shared, request) = (Arc::clone(shared), answers.request);
        tokio::spawn(async move {
            tokio::time::sleep(PAUSE).await;
            let state = shared.state.lock();
            if let Some(sent) = state.unanswered.get(&request) {
                state.say(message(request, sent, None));
            }
        });
        return;
    }
    let Some(sent) = state.unanswered.remove(&answers.request) else {
        return;
    };
    let slept = sent.ops.iter().zip(&answers.answers).any(|(op, answer)| {
        matches!(op.kind, Some(step_op::Kind::Sleep(_))) && matches!(answer.kind, Some(step_answer::Kind::Recorded(_)))
    });
    if answers.stale || answers.fault.is_some() {
        for told in sent.answers {
            let _ = told.send(Err(Gone(answers.fault.clone())));
        }
        if answers.stale {
            state.drop_run(sent.assignee.task);
        }
    } else {
        for (told, answer) in sent.answers.into_iter().zip(answers.answers) {
            let _ = told.send(Ok(answer));
        }
    }
    if slept || answers.stale {
        state.drop_run(sent.assignee.task);
        let credits = state.credits(shared.settings.slots);
        state.say(worker_to_server::Kind::Credits(credits));
    }
}
