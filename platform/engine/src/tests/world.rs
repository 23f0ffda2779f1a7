//! A node that a test plays: it keeps what it was assigned, and reports what the test says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gantry_journal::blobs::BlobStore;
use gantry_journal::{FileKeyRing, MemoryStore, SegmentStore, Store};
use gantry_proto::time::Clock;
use gantry_proto::v1::{self, Assignee, Assignment, CancelStep, EndCause, StepResult};
use gantry_proto::{ErrorCode, NodeId, PartitionId, PrincipalId, TaskId, TenantId, WorkflowId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::api::{
    Backend, Caller, Candidate, Dispatcher, NodePort, Observer, Order, PlaybookSource, Refusal, Serves, Submit,
    Verdict, WorkflowView,
};
use crate::core::Settings;
use crate::{Engine, EngineConfig, Parts};

pub(super) fn tenant() -> TenantId {
    TenantId::new(1, PartitionId::default(), 7)
}

pub(super) fn caller() -> Caller {
    Caller {
        tenant: tenant(),
        principal: PrincipalId::new(1, PartitionId::default(), 8),
    }
}

pub(super) fn node_id(number: u64) -> NodeId {
    NodeId::new(1, PartitionId::default(), number)
}

pub(super) fn candidate(number: u64, credits: u32) -> Candidate {
    Candidate {
        node: node_id(number),
        serves: Serves::All,
        work: crate::api::Work::Sandboxes,
        credits,
        capabilities: BTreeSet::new(),
        labels: BTreeMap::new(),
        arch: "x86_64".to_owned(),
        cpu_millis: 64_000,
        memory_bytes: 64 << 30,
    }
}

/// Everything that was sent to nodes, and the credits that they offer.
#[derive(Default)]
pub(super) struct Desk {
    inner: Mutex<DeskInner>,
    arrived: Notify,
}

#[derive(Default)]
struct DeskInner {
    candidates: Vec<Candidate>,
    assignments: VecDeque<(NodeId, Assignment)>,
    runs: VecDeque<(NodeId, v1::RunAssignment)>,
    cancels: VecDeque<(NodeId, CancelStep)>,
    released: Vec<(NodeId, Vec<TaskId>)>,
    resets: u32,
    abandoned: u32,
}

impl Desk {
    pub(super) fn offer(&self, candidates: Vec<Candidate>) {
        self.inner.lock().candidates = candidates;
    }

    /// The next assignment; waits for it.
    pub(super) async fn assignment(&self) -> (NodeId, Assignment) {
        loop {
            let arrived = self.arrived.notified();
            if let Some(next) = self.inner.lock().assignments.pop_front() {
                return next;
            }
            arrived.await;
        }
    }

    /// The next run of code; waits for it.
    pub(super) async fn run(&self) -> (NodeId, v1::RunAssignment) {
        loop {
            let arrived = self.arrived.notified();
            if let Some(next) = self.inner.lock().runs.pop_front() {
                return next;
            }
            arrived.await;
        }
    }

    pub(super) async fn cancel(&self) -> (NodeId, CancelStep) {
        loop {
            let arrived = self.arrived.notified();
            if let Some(next) = self.inner.lock().cancels.pop_front() {
                return next;
            }
            arrived.await;
        }
    }

    pub(super) fn try_assignment(&self) -> Option<(NodeId, Assignment)> {
        self.inner.lock().assignments.pop_front()
    }

    /// How often sessions were ended, and credits given up.
    pub(super) fn resets(&self) -> (u32, u32) {
        let inner = self.inner.lock();
        (inner.resets, inner.abandoned)
    }

    pub(super) fn released(&self) -> Vec<(NodeId, Vec<TaskId>)> {
        self.inner.lock().released.clone()
    }
}

impl Dispatcher for Desk {
    fn lend(&self, _: PartitionId) -> Vec<Candidate> {
        self.inner
            .lock()
            .candidates
            .iter()
            .filter(|candidate| candidate.credits > 0)
            .cloned()
            .collect()
    }

    fn settle(&self, _: PartitionId, _: Vec<Candidate>, _: &BTreeMap<NodeId, u32>) {}

    fn abandon(&self, _: PartitionId) {
        self.inner.lock().abandoned += 1;
    }

    fn dispatch(&self, orders: Vec<Order>) {
        let mut inner = self.inner.lock();
        for order in orders {
            match order {
                Order::Assign(node, assignment) => inner.assignments.push_back((node, *assignment)),
                Order::Run(node, run) => inner.runs.push_back((node, *run)),
                Order::Cancel(node, cancel) => inner.cancels.push_back((node, cancel)),
                Order::Release(node, tasks) => inner.released.push((node, tasks)),
            }
        }
        drop(inner);
        self.arrived.notify_waiters();
    }

    fn reset(&self) {
        self.inner.lock().resets += 1;
    }

    fn offers(&self) -> Vec<Candidate> {
        self.inner.lock().candidates.clone()
    }
}

/// The observer of a test that asks instead of listening.
pub(super) struct Deaf;

impl Observer for Deaf {
    fn workflow_changed(&self, _: TenantId, _: WorkflowId) {}
    fn node_changed(&self, _: NodeId) {}
}

/// Wall clock that goes with tokio's, so that paused time is one time, until it is set back or forward.
struct TestClock {
    start: tokio::time::Instant,
    back_ms: AtomicU64,
    forward_ms: AtomicU64,
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap();
        1_700_000_000_000 + elapsed_ms + self.forward_ms.load(Ordering::Relaxed) - self.back_ms.load(Ordering::Relaxed)
    }
}

/// Playbooks by name, each version in order.
#[derive(Default)]
pub(super) struct Shelf(Mutex<BTreeMap<String, Vec<String>>>);

impl Shelf {
    /// Adds a version.
    pub(super) fn put(&self, name: &str, source: &str) {
        self.0
            .lock()
            .entry(name.to_owned())
            .or_default()
            .push(source.to_owned());
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.lock().remove(name);
    }
}

#[async_trait::async_trait]
impl PlaybookSource for Shelf {
    async fn playbook(&self, _: TenantId, name: &str, version: Option<u32>) -> Result<(Bytes, u32), Refusal> {
        let shelf = self.0.lock();
        let versions = shelf.get(name).map_or(&[][..], Vec::as_slice);
        let number = version.unwrap_or_else(|| u32::try_from(versions.len()).unwrap());
        let found = usize::try_from(number)
            .unwrap()
            .checked_sub(1)
            .and_then(|index| versions.get(index));
        let source =
            found.ok_or_else(|| Refusal::new(ErrorCode::NotFound, format!("there is no playbook `{name}`")))?;
        Ok((Bytes::from(source.clone()), number))
    }
}

/// An engine on a model store, with everything around it.
pub(super) struct World {
    pub(super) engine: Arc<Engine>,
    pub(super) desk: Arc<Desk>,
    pub(super) store: Arc<MemoryStore>,
    pub(super) shelf: Arc<Shelf>,
    clock: Arc<TestClock>,
    dir: Arc<tempfile::TempDir>,
    partitions: u16,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with_partitions(2).await
    }

    pub(super) async fn with_partitions(partitions: u16) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let clock = Arc::new(TestClock {
            start: tokio::time::Instant::now(),
            back_ms: AtomicU64::new(0),
            forward_ms: AtomicU64::new(0),
        });
        Self::open(dir, Arc::new(MemoryStore::new()), Arc::default(), clock, partitions).await
    }

    async fn open(
        dir: Arc<tempfile::TempDir>,
        store: Arc<MemoryStore>,
        shelf: Arc<Shelf>,
        clock: Arc<TestClock>,
        partitions: u16,
    ) -> Self {
        let desk = Arc::new(Desk::default());
        desk.offer(vec![candidate(1, 8)]);
        let as_store: Arc<dyn Store> = store.clone();
        let parts = Parts {
            store: as_store,
            keyring: Arc::new(FileKeyRing::open_or_create(&dir.path().join("master.key")).unwrap()),
            segments: Arc::new(SegmentStore::open(&dir.path().join("segments")).unwrap()),
            blobs: Arc::new(BlobStore::local(&dir.path().join("blobs")).unwrap()),
            dispatcher: desk.clone(),
            observer: Arc::new(Deaf),
            clock: clock.clone(),
            playbooks: shelf.clone(),
        };
        let config = EngineConfig {
            partitions,
            settings: Settings::default(),
        };
        let engine = Engine::start(config, parts).await.unwrap();
        Self {
            engine,
            desk,
            store,
            shelf,
            clock,
            dir,
            partitions,
        }
    }

    /// As after kill -9: memory is gone, what was durable is there.
    pub(super) async fn restart(self) -> Self {
        self.engine.shutdown().await;
        self.reopened().await
    }

    /// A new engine on what is durable; the one before must have been shut down.
    pub(super) async fn reopened(self) -> Self {
        let store = Arc::new(self.store.reopened());
        Self::open(
            self.dir.clone(),
            store,
            self.shelf.clone(),
            self.clock.clone(),
            self.partitions,
        )
        .await
    }

    /// Milliseconds of the wall clock.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Sets the wall clock back.
    pub(super) fn set_back(&self, by: std::time::Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap();
        self.clock.back_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Sets the wall clock forward.
    pub(super) fn forward(&self, by: std::time::Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap();
        self.clock.forward_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Where its files are.
    pub(super) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// As a process on another state of the store would find things, an older one from a backup for example.
    pub(super) async fn restart_on(self, store: MemoryStore) -> Self {
        self.engine.shutdown().await;
        Self::open(
            self.dir.clone(),
            Arc::new(store),
            self.shelf.clone(),
            self.clock.clone(),
            self.partitions,
        )
        .await
    }

    /// A place in the data directory.
    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(super) async fn submit(&self, source: &str) -> WorkflowId {
        self.engine.submit(submission(source)).await.unwrap().workflow
    }

    pub(super) async fn view(&self, workflow: WorkflowId) -> WorkflowView {
        self.engine.workflow(tenant(), workflow).await.unwrap()
    }

    pub(super) async fn finish(&self, node: NodeId, assignee: &Assignee, result: StepResult) -> Verdict {
        self.engine.finished(node, assignee.clone(), result).await.unwrap()
    }

    /// Every partition's rows are the fold of its log.
    pub(super) fn verify(&self) {
        for partition in (0..self.partitions).filter_map(PartitionId::new) {
            crate::verify::verify(self.store.as_ref(), partition).unwrap();
        }
    }

    /// Letters that are in outboxes.
    pub(super) fn letters(&self) -> usize {
        let partitions = (0..self.partitions).filter_map(PartitionId::new);
        let mails = partitions.map(|partition| crate::processor::load::mail(self.store.as_ref(), partition).unwrap());
        mails.map(|mail| mail.open.len()).sum()
    }

    /// Runs every assignment to success until the workflow has ended; answers in the order of running.
    pub(super) async fn run_all(&self, workflow: WorkflowId) -> Vec<String> {
        let mut ran = Vec::new();
        loop {
            let view = self.view(workflow).await;
            if view.summary.ended_at_ms.is_some() {
                return ran;
            }
            let (node, assignment) = self.desk.assignment().await;
            ran.push(format!("{}/{}", assignment.plan.task_name, assignment.plan.step_key));
            assert_eq!(self.finish(node, &assignment.assignee, ok()).await, Verdict::Accepted);
        }
    }
}

pub(super) fn submission(source: &str) -> Submit {
    Submit {
        caller: caller(),
        source: Bytes::copy_from_slice(source.as_bytes()),
        parameters: serde_json::Map::new(),
        idempotency_key: None,
        idempotency_ttl_ms: None,
        labels: Vec::new(),
        attributes: serde_json::Map::new(),
        traceparent: None,
        priority: None,
        playbook: None,
    }
}

pub(super) fn ended(cause: EndCause, exit_code: Option<i32>) -> StepResult {
    let mut result = StepResult {
        exit_code,
        finished_at_ms: 5,
        started_at_ms: Some(4),
        ..StepResult::default()
    };
    result.set_cause(cause);
    result
}

pub(super) fn ok() -> StepResult {
    ended(EndCause::Exited, Some(0))
}

pub(super) fn with_outputs(json: &str) -> StepResult {
    StepResult {
        outputs_json: Some(Bytes::copy_from_slice(json.as_bytes())),
        ..ok()
    }
}

pub(super) fn started(assignee: &Assignee) -> v1::StepStarted {
    v1::StepStarted {
        assignee: assignee.clone(),
        sandbox: gantry_proto::SandboxId::new(2, PartitionId::default(), 3),
        started_at_ms: 3,
        container: None,
    }
}
