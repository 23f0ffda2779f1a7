//! The real engine on RocksDB, the real coordinator and gRPC service, the real directory, and the worker of this crate. What needs processes to be killed is
//! in the e2e suite.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gantry_coordinator::{Coordinator, CoordinatorConfig, WorkerServer};
use gantry_directory::{Directory, NewNodeToken, SqliteDirectory};
use gantry_engine::api::{Backend as _, Caller, NoPlaybooks, Observer, Run, RunView, WaitingView, WorkflowState};
use gantry_engine::core::Settings as Lengths;
use gantry_engine::{Engine, EngineConfig, Parts, verify};
use gantry_journal::{BlobStore, FileKeyRing, RocksOptions, RocksStore, SegmentStore, Store};
use gantry_proto::time::SystemClock;
use gantry_proto::{ErrorCode, NodeId, PartitionId, PrincipalId, TenantId, WorkflowId};
use gantry_test_worker::{Context, Failure, Policy, Settings, Worker, components};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(30);
const LEASE_MS: u64 = 1_500;

struct Deaf;

impl Observer for Deaf {
    fn workflow_changed(&self, _: TenantId, _: WorkflowId) {}
    fn node_changed(&self, _: NodeId) {}
}

/// One server with its gRPC listener.
struct Server {
    engine: Arc<Engine>,
    coordinator: Arc<Coordinator>,
    directory: Arc<SqliteDirectory>,
    address: SocketAddr,
    stop: CancellationToken,
    listener: tokio::task::JoinHandle<()>,
    store: Arc<RocksStore>,
    tenant: TenantId,
}

impl Server {
    async fn start(dir: PathBuf) -> Self {
        let directory = Arc::new(SqliteDirectory::open(&dir.join("directory.db")).await.unwrap());
        let tenant = directory.ensure_bootstrap().await.unwrap().tenant;
        let coordinator = Coordinator::new(CoordinatorConfig {
            heartbeat_ms: LEASE_MS / 6,
            lease_ms: LEASE_MS,
        });
        let store = Arc::new(RocksStore::open(&dir.join("journal"), RocksOptions { partitions: 2 }).unwrap());
        let parts = Parts {
            store: Arc::clone(&store) as _,
            keyring: Arc::new(FileKeyRing::open_or_create(&dir.join("master.key")).unwrap()),
            segments: Arc::new(SegmentStore::open(&dir.join("segments")).unwrap()),
            blobs: Arc::new(BlobStore::local(&dir.join("blobs")).unwrap()),
            dispatcher: Arc::clone(&coordinator) as _,
            observer: Arc::new(Deaf),
            clock: Arc::new(SystemClock),
            playbooks: Arc::new(NoPlaybooks),
        };
        let config = EngineConfig {
            partitions: 2,
            settings: Lengths {
                lease_ms: LEASE_MS,
                ..Lengths::default()
            },
        };
        let engine = Engine::start(config, parts).await.unwrap();
        coordinator.attach(Arc::clone(&engine) as _);
        coordinator.attach_workers(Arc::clone(&engine) as _);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = WorkerServer::service(Arc::clone(&coordinator), Arc::clone(&directory) as Arc<dyn Directory>);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let listener = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped.cancelled())
                .await
                .unwrap();
        });
        Self {
            engine,
            coordinator,
            directory,
            address,
            stop,
            listener,
            store,
            tenant,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.coordinator.shutdown().await;
        self.listener.await.unwrap();
        self.engine.shutdown().await;
        self.directory.close().await;
        for partition in (0..2).filter_map(PartitionId::new) {
            verify::verify(self.store.as_ref() as &dyn Store, partition).unwrap();
        }
    }

    async fn token(&self) -> String {
        let new = NewNodeToken {
            tenant: self.tenant,
            name: "worker".to_owned(),
            shared: false,
            created_by: None,
        };
        let token = self.directory.create_node_token(new).await.unwrap().token;
        token.expose_secret().to_owned()
    }

    async fn settings(&self) -> Settings {
        Settings::new(format!("http://{}", self.address), self.token().await)
    }

    async fn run(&self, component: &str, input: &serde_json::Value, wait_ms: u64) -> RunView {
        let run = Run {
            caller: Caller {
                tenant: self.tenant,
                principal: PrincipalId::nil(),
            },
            component: component.to_owned(),
            input: input.to_string().into(),
            idempotency_key: None,
            labels: Vec::new(),
            traceparent: None,
            wait_ms,
        };
        self.engine.run(run).await.unwrap()
    }

    async fn ended(&self, id: WorkflowId) -> RunView {
        let until = tokio::time::Instant::now() + LIMIT;
        loop {
            let view = self.engine.run_result(self.tenant, id, 1_000).await.unwrap();
            if view.state != WorkflowState::Active {
                return view;
            }
            assert!(tokio::time::Instant::now() < until, "the run does not end: {view:?}");
            tokio::task::yield_now().await;
        }
    }
}

async fn worker(settings: Settings) -> Worker {
    let worker = Worker::start(settings).unwrap();
    worker.ready(LIMIT).await.unwrap();
    worker
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_runs_fails_and_waits_as_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().to_owned()).await;
    let _worker = worker(components::all(server.settings().await)).await;
    let echoed = server.run("noop", &json!({"a": 1}), 10_000).await;
    assert_eq!(
        (echoed.state, echoed.result),
        (WorkflowState::Completed, Some(json!({"a": 1})))
    );
    // Alone on the machine, so these are its syncs: submission with the claim, two steps, and the third with the end.
    let before = server.engine.counters().syncs;
    let summed = server.run("three", &json!(null), 10_000).await;
    assert_eq!(summed.result, Some(json!(3)));
    assert_eq!(server.engine.counters().syncs - before, 4);
    let begun = std::time::Instant::now();
    let failing = server.run("fail", &json!(null), 10_000).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(failing.failure.as_ref().unwrap().message, "this code always fails");
    assert_eq!(failing.state, WorkflowState::Active, "it is tried again, and said so");
    let ended = server.ended(failing.id).await;
    assert_eq!(ended.state, WorkflowState::Failed);
    let unserved = server.run("nobody", &json!(null), 10_000).await;
    assert!(
        matches!(unserved.waiting, Some(WaitingView::Unplaceable { .. })),
        "{unserved:?}"
    );
    let napped = server.run("nap", &json!(300), 10_000).await;
    assert_eq!(napped.result, Some(json!(true)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sleeping_run_holds_no_slot() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().to_owned()).await;
    let mut settings = components::all(server.settings().await);
    settings.slots = 1;
    let worker = worker(settings).await;
    let sleeping = server.run("nap", &json!(3_000), 0).await;
    while server.engine.workflow(server.tenant, sleeping.id).await.unwrap().tasks[0]
        .waiting
        .is_none()
    {
        tokio::task::yield_now().await;
    }
    let echoed = server.run("noop", &json!(7), 2_000).await;
    assert_eq!(echoed.result, Some(json!(7)), "the one slot is free");
    assert_eq!(server.ended(sleeping.id).await.result, Some(json!(true)));
    // Its last answer may be on its way.
    while worker.holds() > 0 {
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

/// Counts executions of each step; the second one hangs until it is let go.
fn counted(settings: Settings, counts: &Arc<[AtomicU32; 3]>, gate: &CancellationToken, policy: Policy) -> Settings {
    let (counts, gate) = (Arc::clone(counts), gate.clone());
    settings.component("counted", move |context: Context, _| {
        let (counts, gate) = (Arc::clone(&counts), gate.clone());
        async move {
            for at in 0..3usize {
                let (counts, gate) = (&counts, &gate);
                let policy = if at == 1 { policy } else { Policy::IdempotentRetry };
                let done = context.step_with("s", policy, &at, || async move {
                    counts[at].fetch_add(1, Ordering::SeqCst);
                    if at == 1 {
                        gate.cancelled().await;
                    }
                    Ok(at)
                });
                match done.await {
                    Err(failure) if failure.fault.code == ErrorCode::OutcomeUnknown.as_str() => {
                        return Ok(Bytes::from_static(b"\"unknown\""));
                    }
                    done => done?,
                };
            }
            Ok(Bytes::from_static(b"\"done\""))
        }
    })
}

fn values(counts: &[AtomicU32; 3]) -> [u32; 3] {
    [0, 1, 2].map(|at| counts[at].load(Ordering::SeqCst))
}

async fn reached(counts: &[AtomicU32; 3], wanted: [u32; 3]) {
    let until = tokio::time::Instant::now() + LIMIT;
    while values(counts) != wanted {
        assert!(
            tokio::time::Instant::now() < until,
            "{:?} instead of {wanted:?}",
            values(counts)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_worker_costs_the_step_that_ran_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().to_owned()).await;
    for (policy, expected, result) in [
        (Policy::IdempotentRetry, [1, 2, 1], "done"),
        (Policy::UnknownOutcome, [1, 1, 0], "unknown"),
    ] {
        let counts: Arc<[AtomicU32; 3]> = Arc::default();
        let gate = CancellationToken::new();
        let settings = counted(server.settings().await, &counts, &gate, policy);
        let first = worker(settings.clone()).await;
        let run = server.run("counted", &json!(null), 0).await;
        reached(&counts, [1, 1, 0]).await;
        drop(first);
        gate.cancel();
        let _second = worker(settings).await;
        let ended = server.ended(run.id).await;
        assert_eq!(ended.result, Some(json!(result)), "{ended:?}");
        assert_eq!(values(&counts), expected);
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_code_is_a_conflict_at_replay() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().to_owned()).await;
    let counts: Arc<[AtomicU32; 3]> = Arc::default();
    let gate = CancellationToken::new();
    let mut settings = counted(server.settings().await, &counts, &gate, Policy::IdempotentRetry);
    let first = worker(settings.clone()).await;
    let run = server.run("counted", &json!(null), 0).await;
    reached(&counts, [1, 1, 0]).await;
    drop(first);
    settings.artifact = [8; 32];
    let _second = worker(settings).await;
    let ended = server.ended(run.id).await;
    assert_eq!(ended.state, WorkflowState::Failed);
    assert_eq!(ended.failure.unwrap().code, ErrorCode::NotDeterministic.as_str());
    assert_eq!(values(&counts), [1, 1, 0]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_fails_for_good_is_replayed_as_that_failure() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path().to_owned()).await;
    let tries = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&tries);
    let mut settings = server.settings().await.component("strict", move |context: Context, _| {
        let tries = Arc::clone(&counted);
        async move {
            let failed = context
                .step("charge", || async move {
                    tries.fetch_add(1, Ordering::SeqCst);
                    Err::<(), _>(Failure::standing(gantry_proto::v1::Fault::new(
                        ErrorCode::WorkerFailed,
                        "card declined",
                    )))
                })
                .await
                .unwrap_err();
            // The step stands as failed; the code is tried once more, to show that it replays.
            if context.failures() == 0 {
                return Err(Failure::of("again"));
            }
            Ok(serde_json::to_vec(&failed.fault.message).unwrap().into())
        }
    });
    settings.retry = (2, 10);
    let _worker = worker(settings).await;
    let begun = server.run("strict", &json!(null), 0).await;
    assert_eq!(server.ended(begun.id).await.result, Some(json!("card declined")));
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    server.stop().await;
}
