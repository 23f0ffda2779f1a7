//! A run: servers, nodes, network and clients, driven by one queue of events under virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, Stream as _};
use gantry_engine::api::TaskState;
use gantry_engine::core::Settings;
use gantry_engine::core::state::Workflow;
use gantry_engine::lifecycle::Lifecycle as _;
use gantry_proto::time::Clock as _;
use gantry_proto::v1::{Assignee, NodeToServer, ServerToNode};
use gantry_proto::{NodeId, WorkflowId};

use crate::client::{Answer, Reply};
use crate::climate::Climate;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::host::{SimHost, WallClock};
use crate::link::Link;
use crate::node::Node;
use crate::operations::{self, Operation};
use crate::oracle::{Broken, Oracle, broken};
use crate::server::{Server, Started, Starting, Stores};

pub(crate) type Local<T> = Pin<Box<dyn Future<Output = T>>>;

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    /// Somebody does something: an operation or a fault.
    Act,
    /// A server process starts.
    StartServer,
    /// A message of a node arrives.
    ToServer(u64, Box<NodeToServer>),
    /// The node's end of the stream arrives.
    NodeHungUp(u64),
    /// A message of the server arrives.
    ToNode(u64, Box<ServerToNode>),
    /// The server's end of the stream arrives.
    ServerHungUp(u64),
    /// A node dials.
    Dial(usize, u64),
    /// A node's heartbeat is due.
    Beat(usize, u64),
    /// The next stage of a step at a node.
    Work(usize, u64, Box<Assignee>),
    /// A crashed node is back.
    NodeBack(usize),
    /// A node can work again.
    NodeFit(usize),
    /// Space on the disk again.
    DiskFree,
    /// An operation wanted to be woken, with its own mark.
    Operation(usize, u64),
}

struct Scheduled {
    at_ms: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.order).cmp(&(other.at_ms, other.order))
    }
}

/// What comes from the shipped code.
pub(crate) enum Input {
    /// The disk says: die here.
    Die(u64),
    Started(u64, Started),
    /// A process says that only a new one heals its storage.
    Failed(u64, String),
    /// A line of a session, or its end.
    Line(u64, Option<Box<ServerToNode>>),
    Answer(Answer),
}

/// How long faults are left out at the end before what has not ended counts as stuck.
const REST_MS: u64 = 3_600_000;

/// Events of one run past which nobody believes that it ends.
const EVENTS_MAX: u64 = 60_000;

/// A stand-still of a server that its owners notice for sure.
const NOTICED_STALL_MS: u64 = 4_500;

pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) climate: Climate,
    pub(crate) clock: Arc<WallClock>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) host: Rc<SimHost>,
    pub(crate) stores: Stores,
    pub(crate) settings: Settings,
    pub(crate) oracle: Oracle,
    pub(crate) operations: Vec<Box<dyn Operation>>,
    /// What may be submitted.
    pub(crate) definitions: Vec<&'static str>,
    /// Acknowledged submissions.
    pub(crate) workflows: Vec<WorkflowId>,
    pub(crate) now: u64,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    pub(crate) starting: Option<Starting>,
    pub(crate) server: Option<Server>,
    pub(crate) processes: u64,
    pub(crate) reaping: FuturesUnordered<Local<()>>,
    pub(crate) deaths: tokio::sync::mpsc::Receiver<u64>,
    pub(crate) death: tokio::sync::mpsc::Sender<u64>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) next_link: u64,
    pub(crate) calls: FuturesUnordered<Local<Answer>>,
    pub(crate) events: u64,
    /// Events when faults were over.
    pub(crate) events_healed: u64,
    pub(crate) healed: bool,
    pub(crate) trace: bool,
}

impl World {
    pub(crate) fn new(seed: u64, host: Rc<SimHost>, dice: Dice, stores: Stores, trace: bool) -> Self {
        let climate = Climate::draw(&dice);
        let clock = WallClock::new();
        let settings = Settings {
            lease_ms: climate.lease_ms,
            idempotency_ttl_ms: 600_000,
            ..Settings::default()
        };
        let (death, deaths) = tokio::sync::mpsc::channel(16);
        let disk = Disk::new(dice.clone(), Arc::clone(&clock), climate);
        if trace {
            println!("seed {seed:#x}: {climate:?}");
        }
        let operations = operations::all();
        let definitions = operations
            .iter()
            .flat_map(|operation| operation.definitions())
            .copied()
            .collect();
        Self {
            definitions,
            workflows: Vec::new(),
            disk,
            host,
            stores,
            settings,
            oracle: Oracle::new(settings),
            operations,
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            starting: None,
            server: None,
            processes: 0,
            reaping: FuturesUnordered::new(),
            deaths,
            death,
            nodes: (0..climate.nodes).map(|number| Node::draw(number, &dice)).collect(),
            links: BTreeMap::new(),
            next_link: 1,
            calls: FuturesUnordered::new(),
            events: 0,
            events_healed: 0,
            healed: false,
            trace,
            dice,
            climate,
            clock,
        }
    }

    pub(crate) fn at(&mut self, at_ms: u64, event: Event) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Scheduled {
            at_ms: at_ms.max(self.now),
            order,
            event,
        }));
    }

    pub(crate) fn after(&mut self, ms: u64, event: Event) {
        self.at(self.now + ms, event);
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>9} {}", self.now, what());
        }
    }

    /// Faults until so many events have happened, then rest.
    pub(crate) async fn run(&mut self, events: u64) -> Result<(), Broken> {
        self.at(0, Event::StartServer);
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            let at_ms = self.dice.between(0, 2_000);
            self.at(at_ms, Event::Dial(node, life));
        }
        self.at(10, Event::Act);
        // What it takes to come to rest makes up for the rest of the events.
        while self.events < events * 4 / 5 {
            self.turn().await?;
        }
        self.events_healed = self.events;
        self.heal();
        let until_ms = self.now + REST_MS;
        while !self.is_quiet() {
            if self.now > until_ms {
                break;
            }
            self.turn().await?;
        }
        while self.events < events {
            self.turn().await?;
        }
        self.end().await
    }

    /// Nothing is under way any more, except what waits for something that nobody offers.
    fn is_quiet(&self) -> bool {
        self.server.is_some()
            && self.calls.is_empty()
            && self.operations.iter().all(|operation| operation.at_rest())
            && self
                .oracle
                .facts
                .active_all()
                .all(|workflow| self.is_nowhere(workflow) || self.is_lost(workflow))
    }

    /// Whether nothing of a workflow runs, and no node offers what it asks for.
    fn is_nowhere(&self, workflow: &Workflow) -> bool {
        self.has_no_node(&workflow.row.name) && workflow.tasks.iter().all(|task| task.row.holder.is_none())
    }

    /// Whether no node offers what a definition asks for.
    fn has_no_node(&self, definition: &str) -> bool {
        match definition {
            "nowhere" => true,
            "gpu" => !self.nodes.iter().any(Node::has_gpu),
            _ => false,
        }
    }

    /// Whether all that is left of a workflow waits for a node that is gone: a task's workspace is there, or a child's.
    fn is_lost(&self, workflow: &Workflow) -> bool {
        let gone = |home: &NodeId| self.nodes.iter().any(|node| node.id == *home && node.gone);
        // Workspaces of its tasks come from each other.
        let hand = workflow.row.name == "hand"
            && workflow
                .tasks
                .iter()
                .any(|task| task.row.home.as_ref().is_some_and(gone));
        let mut open = workflow
            .tasks
            .iter()
            .map(|task| &task.row)
            .filter(|row| !row.state().is_final());
        let mut any = false;
        open.all(|row| match row.state() {
            TaskState::Ready => {
                let bound = hand || row.home.as_ref().is_some_and(gone);
                any |= bound;
                bound
            }
            TaskState::Pending => {
                let child = row
                    .child
                    .map(|child| self.oracle.facts.active(child).is_some_and(|child| self.is_lost(child)));
                any |= child == Some(true);
                child != Some(false) && row.wait_until_ms.is_none()
            }
            _ => false,
        }) && any
    }

    async fn end(&mut self) -> Result<(), Broken> {
        self.look()?;
        self.waiting().await?;
        self.stop_server().await;
        self.look()?;
        self.oracle.quiet(&self.disk)?;
        let operations = std::mem::take(&mut self.operations);
        for operation in &operations {
            operation
                .quiet(self)
                .map_err(|what| broken(operation.invariant(), what))?;
        }
        self.operations = operations;
        Ok(())
    }

    /// Takes in what became durable and looks whether anything broke.
    pub(crate) fn look(&mut self) -> Result<(), Broken> {
        while let Some(durable) = self.disk.news() {
            self.events += 1;
            let records = self.oracle.take(&durable)?;
            let trace = self.trace;
            for (place, kind) in records {
                if trace {
                    println!(
                        "{:>9}   p{} #{} {}",
                        self.now,
                        durable.batch.partition,
                        place.seq,
                        crate::text::record(&kind)
                    );
                }
                for operation in &mut self.operations {
                    operation
                        .recorded(&self.oracle.facts, &place, &kind)
                        .map_err(|what| broken(operation.invariant(), what))?;
                }
            }
            let _ = (durable.process, durable.together);
        }
        if let Some(panic) = crate::panics::take() {
            return Err(broken("the shipped code does not panic", panic));
        }
        self.oracle.passes(self.now, self.clock.now_ms())
    }

    /// One event.
    async fn turn(&mut self) -> Result<(), Broken> {
        let next = self.queue.peek().map(|Reverse(next)| next.at_ms);
        let at_ms = next.unwrap_or(self.now + 1_000);
        let wake = self.clock.instant(at_ms);
        let input = tokio::select! {
            biased;
            input = std::future::poll_fn(|cx| self.poll(cx)) => Some(input),
            () = tokio::time::sleep_until(wake) => None,
        };
        self.now = self.clock.monotonic_ms();
        self.look()?;
        self.events += 1;
        if self.events > EVENTS_MAX {
            return Err(broken(
                "everything comes to rest",
                format!("{EVENTS_MAX} events and no end, at {} ms", self.now),
            ));
        }
        match input {
            Some(input) => self.input(input).await?,
            None => {
                if let Some(Reverse(scheduled)) = self.queue.pop() {
                    self.event(scheduled.event).await?;
                }
            }
        }
        // Sometimes several things happen before anybody else runs.
        if self.dice.chance(700) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The server stands still for `ms` while everything else goes on.
    pub(crate) async fn stand_still(&mut self, ms: u64) -> Result<(), Broken> {
        let until_ms = self.now + ms;
        while let Some(Reverse(next)) = self.queue.peek()
            && next.at_ms <= until_ms
        {
            // What needs the server's own tasks waits.
            if matches!(next.event, Event::Act | Event::StartServer | Event::Operation(..)) {
                if let Some(Reverse(late)) = self.queue.pop() {
                    self.at(until_ms + 1, late.event);
                }
                continue;
            }
            let Some(Reverse(scheduled)) = self.queue.pop() else {
                break;
            };
            self.now = self.now.max(scheduled.at_ms);
            self.events += 1;
            self.soon(scheduled.event)?;
        }
        let passed = until_ms.saturating_sub(self.clock.monotonic_ms());
        tokio::time::advance(std::time::Duration::from_millis(passed)).await;
        self.now = self.clock.monotonic_ms();
        // So long is noticed for sure (the owner's STALL_MS and its tick), and every lease begins anew.
        if ms > NOTICED_STALL_MS && self.server.is_some() {
            self.oracle.serving(until_ms - ms, Some(self.now));
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        if let Poll::Ready(Some(process)) = self.deaths.poll_recv(cx) {
            return Poll::Ready(Input::Die(process));
        }
        if let Some(starting) = &mut self.starting
            && let Poll::Ready(started) = starting.future.as_mut().poll(cx)
        {
            return Poll::Ready(Input::Started(starting.number, started));
        }
        if let Some(server) = &mut self.server
            && let Some(failed) = &mut server.failed
            && let Poll::Ready(reason) = failed.as_mut().poll(cx)
        {
            server.failed = None;
            return Poll::Ready(Input::Failed(server.number, reason));
        }
        while let Poll::Ready(Some(())) = Pin::new(&mut self.reaping).poll_next(cx) {}
        for link in self.links.values_mut().filter(|link| !link.ended) {
            if let Poll::Ready(message) = link.from_server.poll_recv(cx) {
                link.ended = message.is_none();
                return Poll::Ready(Input::Line(link.number, message.map(Box::new)));
            }
        }
        if let Poll::Ready(Some(answer)) = Pin::new(&mut self.calls).poll_next(cx) {
            return Poll::Ready(Input::Answer(answer));
        }
        Poll::Pending
    }

    async fn input(&mut self, input: Input) -> Result<(), Broken> {
        match input {
            Input::Die(process) => {
                if self.current() == Some(process) {
                    self.say(|| "the server dies at a sync".to_owned());
                    self.kill_server()?;
                }
            }
            Input::Started(number, started) => self.server_started(number, started),
            Input::Failed(number, reason) => {
                if self.current() == Some(number) {
                    self.say(|| format!("the server gives up: {reason}"));
                    self.kill_server()?;
                }
            }
            Input::Line(link, message) => self.server_said(link, message)?,
            Input::Answer(mut answer) => {
                if self.server.as_ref().map(|server| server.number) != Some(answer.process) {
                    // Nobody hears what a dead process says.
                    answer.reply = Reply::Unknown;
                }
                self.say(|| format!("client: {:?}", answer.reply));
                let mut operations = std::mem::take(&mut self.operations);
                let heard = operations[answer.operation].answered(self, answer.tag, answer.reply);
                self.operations = operations;
                heard?;
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Act => {
                if !self.healed {
                    let pause_ms = self.dice.between(1, self.climate.act_ms * 2);
                    self.after(pause_ms, Event::Act);
                    self.act().await?;
                }
                Ok(())
            }
            Event::StartServer => {
                self.start_server();
                Ok(())
            }
            Event::Operation(index, mark) => {
                let mut operations = std::mem::take(&mut self.operations);
                operations[index].woken(self, mark);
                self.operations = operations;
                Ok(())
            }
            other => self.soon(other),
        }
    }

    /// Events that need nobody's time.
    fn soon(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::ToServer(link, message) => self.arrive_at_server(link, message),
            Event::NodeHungUp(link) => drop(self.links.remove(&link)),
            Event::ToNode(link, message) => self.arrive_at_node(link, *message)?,
            Event::ServerHungUp(link) => self.node_hears_end(link),
            Event::Dial(node, life) => self.dial(node, life),
            Event::Beat(node, link) => self.beat(node, link),
            Event::Work(node, life, assignee) => self.work(node, life, *assignee),
            Event::NodeBack(node) => self.node_back(node),
            Event::NodeFit(node) => self.node_fit(node),
            Event::DiskFree => self.disk.set_full(false),
            Event::Act | Event::StartServer | Event::Operation(..) => {}
        }
        Ok(())
    }

    /// What has not ended says why it waits, and may.
    async fn waiting(&mut self) -> Result<(), Broken> {
        const INVARIANT: &str = "every workflow ends or states why it waits";
        let active: Vec<(WorkflowId, bool)> = self
            .oracle
            .facts
            .active_all()
            .map(|workflow| (workflow.row.id, self.is_lost(workflow)))
            .collect();
        let Some(server) = &self.server else {
            return Err(broken(INVARIANT, "no server runs though nothing keeps it from it"));
        };
        let engine = Arc::clone(&server.engine);
        for (id, lost) in active {
            let view = gantry_engine::api::Backend::workflow(engine.as_ref(), crate::names::tenant(), id).await;
            let view = view.map_err(|error| broken(INVARIANT, format!("{id} cannot be read: {error}")))?;
            for task in view.tasks.iter().filter(|task| task.ended_at_ms.is_none()) {
                if !crate::text::may_wait(task, lost) {
                    let name = &view.summary.name;
                    return Err(broken(INVARIANT, format!("{id} ({name}): {task:?}")));
                }
            }
        }
        if !self.calls.is_empty() || !self.operations.iter().all(|operation| operation.at_rest()) {
            let restless = self.operations.iter().filter(|operation| !operation.at_rest());
            let whose: Vec<&str> = restless.map(|operation| operation.invariant()).collect();
            let calls = self.calls.len();
            return Err(broken(
                INVARIANT,
                format!("clients wait for an hour without faults: {calls} calls, and {whose:?}"),
            ));
        }
        Ok(())
    }
}
