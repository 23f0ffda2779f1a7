//! The life of step attempts on a node: real processes, real claim files, real workspaces; needs root, as the node does.

#![allow(clippy::unwrap_used, clippy::disallowed_types)] // a test ends by panicking

#[allow(unreachable_pub)]
mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::fleet::HostFleet;
use common::server::Server;
use gantry_fleet_manager::{Fleet as _, ImageId, Profile};
use gantry_proto::v1::{
    Assignee, Assignment, CancelStep, Command, EndCause, Fault, HeldState, Plan, ReleaseWorkspaces, Resources,
    StepResult, node_to_server, server_to_node::Kind,
};
use gantry_proto::{ErrorCode, NodeId, SandboxId, TaskId};
use gantry_runtime_node::{Node, NodeConfig, StrategyChoice, UplinkError};

struct Bench {
    dir: tempfile::TempDir,
    fleet: Arc<HostFleet>,
    server: Server,
    strategy: StrategyChoice,
    slots: u32,
    reconcile_interval: Duration,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Steps run as other users and must get to their slots.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let fleet = HostFleet::new(&dir.path().join("fleet"));
        Self {
            dir,
            fleet,
            server: Server::new(),
            strategy: StrategyChoice::Auto,
            slots: 2,
            reconcile_interval: Duration::from_secs(60),
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("node")
    }

    async fn start(&self) -> Node {
        let mut config = NodeConfig::new(NodeId::from_bytes([5; 16]), "test", self.state());
        config.slots = self.slots;
        config.reconcile_interval = self.reconcile_interval;
        config.strategy = self.strategy;
        config.disk_reserve_bytes = 0;
        config.health_interval = Duration::from_millis(20);
        config.reconnect = (Duration::from_millis(5), Duration::from_millis(50));
        Node::start(config, self.fleet.clone(), self.server.uplink.clone())
            .await
            .unwrap()
    }

    fn claim_files(&self) -> usize {
        let entries = fs::read_dir(self.state().join("claims")).unwrap();
        entries.filter(|entry| entry.as_ref().unwrap().path().is_file()).count()
    }

    /// Everything of all steps is gone.
    async fn nothing_left(&self, node: &Node) {
        tokio::time::timeout(Duration::from_secs(30), node.drain())
            .await
            .expect("steps end");
        assert_eq!(self.fleet.live(), 0, "sandboxes are left");
        assert_eq!(self.claim_files(), 0, "claim files are left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.path().to_str().unwrap()), "mounts are left");
    }
}

fn assignment(step: u32, attempt: u32, shell: &str) -> Assignment {
    let task = TaskId::from_bytes([2; 16]);
    let plan = Plan {
        image: "any".into(),
        command: Command {
            shell: Some(shell.into()),
            argv: Vec::new(),
        },
        resources: Resources::default(),
        grace_ms: 200,
        output_limit_bytes: 1 << 20,
        step_key: "s".into(),
        task_name: "t".into(),
        idempotency_key: "k".into(),
        last: true,
        ..Plan::default()
    };
    let assignee = Assignee {
        task,
        fence: u64::from(attempt),
        step,
        attempt,
        ..Assignee::default()
    };
    Assignment {
        assignee,
        plan,
        lease_ms: 5_000,
        deadman_ms: 60_000,
        ..Assignment::default()
    }
}

async fn run(bench: &mut Bench, assignment: Assignment) -> StepResult {
    let assignee = assignment.assignee.clone();
    bench.server.send(Kind::Assign(assignment)).await;
    let (of, result) = bench.server.finished().await;
    assert_eq!(of, assignee);
    bench.server.accept_result(&assignee, false).await;
    result
}

#[tokio::test]
async fn a_step_runs_reports_and_leaves_nothing_but_its_layer() {
    let mut bench = Bench::new();
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let script = "echo out; echo err >&2; pwd; mkdir dir; echo made > dir/file.txt; \
        echo \"a=1\" >> $GANTRY_OUTPUT; echo \"k=$GANTRY_IDEMPOTENCY_KEY\" >> $GANTRY_ATTRS; id -u";
    let mut first = assignment(0, 1, script);
    first.plan.artifact_globs = vec!["dir/*.txt".into()];
    first.plan.outputs = vec!["a".into()];
    let assignee = first.assignee.clone();
    let result = run(&mut bench, first).await;
    assert_eq!(result.cause(), EndCause::Exited, "{result:?}");
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(result.outputs_json.as_deref(), Some(br#"{"a":"1"}"#.as_slice()));
    assert_eq!(result.attrs_json.as_deref(), Some(br#"{"k":"k"}"#.as_slice()));
    assert_eq!(result.artifacts.len(), 1);
    assert_eq!(bench.server.uplink.artifacts.lock()["dir/file.txt"], b"made\n");
    let output = String::from_utf8(bench.server.output[&assignee].1.clone()).unwrap();
    assert!(
        output.contains("out\n") && output.contains("err\n") && output.contains("/slot/w\n"),
        "{output}"
    );
    assert_eq!(bench.server.started, std::slice::from_ref(&assignee));
    assert_eq!(result.last_seq, Some(bench.server.output[&assignee].0));
    // The next step sees it as another user, a failing one leaves no trace, and the one after does not see that.
    let wreck = run(&mut bench, assignment(1, 1, "rm -r dir; echo wreck > wreck; exit 3")).await;
    assert_eq!((wreck.cause(), wreck.exit_code), (EndCause::Exited, Some(3)));
    let again = run(
        &mut bench,
        assignment(
            1,
            2,
            "test ! -e wreck; grep made dir/file.txt; echo more >> dir/file.txt",
        ),
    )
    .await;
    assert_eq!(again.exit_code, Some(0));
    assert_eq!(bench.fleet.claims.lock().len(), 3, "a sandbox per attempt");
    bench.nothing_left(&node).await;
    let task = TaskId::from_bytes([2; 16]);
    assert!(bench.state().join("ws").join(task.to_string()).exists());
    bench
        .server
        .send(Kind::Release(ReleaseWorkspaces { tasks: vec![task] }))
        .await;
    node.shutdown().await;
}

#[tokio::test]
async fn faults_are_typed_and_the_next_step_runs() {
    let mut bench = Bench::new();
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let mut escaping = assignment(0, 1, "ln -s /etc/passwd stolen");
    escaping.plan.artifact_globs = vec!["stolen".into()];
    let mut outside = assignment(0, 2, "true");
    outside.plan.artifact_globs = vec!["../../etc/passwd".into()];
    let mut missing = assignment(0, 3, "true");
    missing.plan.required_artifacts = vec!["report.json".into()];
    let mut unset = assignment(0, 4, "true");
    unset.plan.outputs = vec!["version".into()];
    let bad = assignment(0, 5, "echo nonsense > $GANTRY_OUTPUT");
    let mut image = assignment(0, 6, "true");
    image.plan.image = "missing".into();
    for (assignment, cause, code) in [
        (escaping, EndCause::Contract, "artifact-refused"),
        (outside, EndCause::Invalid, "artifact-refused"),
        (missing, EndCause::Contract, "artifact-refused"),
        (unset, EndCause::Contract, "step-bad-output"),
        (bad, EndCause::Contract, "step-bad-output"),
        (image, EndCause::Invalid, "image-not-found"),
    ] {
        let result = run(&mut bench, assignment).await;
        assert_eq!(result.cause(), cause, "{result:?}");
        assert_eq!(result.fault.unwrap().code, code);
    }
    assert!(bench.server.uplink.artifacts.lock().is_empty());
    assert_eq!(
        run(&mut bench, assignment(0, 7, "test ! -e stolen")).await.exit_code,
        Some(0)
    );
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_running_step_survives_the_node_and_its_output_is_whole() {
    for strategy in [StrategyChoice::Overlay, StrategyChoice::Copy] {
        let mut bench = Bench::new();
        bench.strategy = strategy;
        let node = bench.start().await;
        bench.server.accept().await;
        bench.server.credits_of(2).await;
        let gate = bench.dir.path().join("gate");
        let script = format!(
            "echo before; while [ ! -e {} ]; do sleep 0.05; done; echo after; echo kept > file",
            gate.display()
        );
        let mut step = assignment(0, 1, &script);
        step.plan.artifact_globs = vec!["file".into()];
        let assignee = step.assignee.clone();
        bench.server.send(Kind::Assign(step)).await;
        bench.server.output_contains(&assignee, "before").await;
        node.shutdown().await;
        bench.server.hang_up();
        assert_eq!((bench.fleet.live(), bench.claim_files()), (1, 1));
        // The process goes on and ends while there is no node.
        fs::write(&gate, "").unwrap();
        let node = bench.start().await;
        let register = bench.server.accept().await;
        assert_eq!(register.holding.len(), 1);
        assert_eq!(register.holding[0].state(), HeldState::Running);
        assert_eq!(register.workspaces, [assignee.task]);
        let (_, result) = bench.server.finished().await;
        assert_eq!(
            (result.cause(), result.exit_code),
            (EndCause::Exited, Some(0)),
            "{result:?}"
        );
        assert_eq!(
            String::from_utf8_lossy(&bench.server.output[&assignee].1),
            "before\nafter\n"
        );
        assert_eq!(bench.server.uplink.artifacts.lock()["file"], b"kept\n");
        // Killed again before the server has answered: the same result, word for word.
        node.shutdown().await;
        bench.server.hang_up();
        let node = bench.start().await;
        assert_eq!(bench.server.accept().await.holding[0].state(), HeldState::Finished);
        let (_, repeated) = bench.server.finished().await;
        assert_eq!(repeated, result);
        bench.server.accept_result(&assignee, false).await;
        bench.nothing_left(&node).await;
        assert_eq!(bench.fleet.claims.lock().len(), 1, "it ran once");
        // By then the name may mean another image.
        assert_eq!(*bench.fleet.images.lock(), ["any", "sha256:1"]);
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_sandbox_that_died_without_its_node_is_reported_as_lost() {
    let mut bench = Bench::new();
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let step = assignment(0, 1, "echo up; touch trace; sleep 600");
    let assignee = step.assignee.clone();
    bench.server.send(Kind::Assign(step)).await;
    bench.server.output_contains(&assignee, "up").await;
    node.shutdown().await;
    bench.server.hang_up();
    let sandbox = bench.fleet.claims.lock()[0];
    bench.fleet.end(sandbox).await;
    let node = bench.start().await;
    bench.server.accept().await;
    let (_, result) = bench.server.finished().await;
    assert_eq!(result.cause(), EndCause::Lost);
    bench.server.accept_result(&assignee, false).await;
    bench.server.credits_of(2).await;
    assert_eq!(
        run(&mut bench, assignment(0, 2, "test ! -e trace")).await.exit_code,
        Some(0)
    );
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_claim_without_a_sandbox_waits_for_the_verdict_and_runs_in_a_new_one() {
    let mut bench = Bench::new();
    bench.fleet.hold_images.store(true, Ordering::SeqCst);
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    for task in [1u8, 3] {
        let mut step = assignment(0, 1, "echo ran");
        step.assignee.task = TaskId::from_bytes([task; 16]);
        bench.server.send(Kind::Assign(step)).await;
        bench.fleet.image_asked.notified().await;
    }
    node.shutdown().await;
    bench.server.hang_up();
    assert_eq!(bench.claim_files(), 2);
    bench.fleet.hold_images.store(false, Ordering::SeqCst);
    let node = bench.start().await;
    let kept = TaskId::from_bytes([1; 16]);
    let register = bench.server.accept_with(|assignee| assignee.task == kept).await;
    assert!(register.holding.iter().all(|held| held.state() == HeldState::Claimed));
    let (assignee, result) = bench.server.finished().await;
    assert_eq!((assignee.task, result.exit_code), (kept, Some(0)));
    bench.server.accept_result(&assignee, false).await;
    bench.nothing_left(&node).await;
    assert_eq!(bench.fleet.claims.lock().len(), 1, "the stale one never ran");
    node.shutdown().await;
}

#[tokio::test]
async fn steps_end_while_the_server_is_away_and_are_told_later() {
    let mut bench = Bench::new();
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let step = assignment(0, 1, "echo one; echo two > file");
    let assignee = step.assignee.clone();
    bench.server.uplink.away.store(true, Ordering::SeqCst);
    bench.server.send(Kind::Assign(step)).await;
    // Heard by the node for certain: it says that the slot is taken.
    bench.server.credits_of(1).await;
    bench.server.hang_up();
    bench.server.uplink.away.store(false, Ordering::SeqCst);
    let register = bench.server.accept().await;
    assert_eq!(register.holding.len(), 1, "nothing was given up");
    let (_, result) = bench.server.finished().await;
    assert_eq!(result.exit_code, Some(0));
    assert_eq!(bench.server.output[&assignee].1, b"one\n");
    // Stale after all: the layer goes, too.
    bench.server.accept_result(&assignee, true).await;
    assert_eq!(
        run(&mut bench, assignment(0, 2, "test ! -e file")).await.exit_code,
        Some(0)
    );
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn cancel_and_stale_leases_end_steps() {
    let mut bench = Bench::new();
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let step = assignment(0, 1, "echo up; sleep 600");
    let assignee = step.assignee.clone();
    bench.server.send(Kind::Assign(step)).await;
    bench.server.output_contains(&assignee, "up").await;
    let cause = EndCause::Cancelled.into();
    bench
        .server
        .send(Kind::Cancel(CancelStep {
            assignee: assignee.clone(),
            grace_ms: 100,
            cause,
        }))
        .await;
    let (_, result) = bench.server.finished().await;
    assert_eq!(result.cause(), EndCause::Cancelled, "{result:?}");
    bench.server.accept_result(&assignee, false).await;
    let step = assignment(0, 2, "echo up; sleep 600");
    let assignee = step.assignee.clone();
    bench.server.send(Kind::Assign(step)).await;
    bench.server.output_contains(&assignee, "up").await;
    bench.server.hang_up();
    bench.server.accept_with(|_| false).await;
    bench.server.credits_of(2).await;
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn without_docker_work_is_given_back_and_comes_again_when_docker_does() {
    let mut bench = Bench::new();
    bench.fleet.docker_down.store(true, Ordering::SeqCst);
    let node = bench.start().await;
    let register = bench.server.accept().await;
    assert!(!register.health.unwrap().docker_ok);
    bench.server.credits_of(0).await;
    // Sent all the same, by a server that had not heard yet.
    bench.server.send(Kind::Assign(assignment(0, 1, "true"))).await;
    let fault = loop {
        if let node_to_server::Kind::AssignmentRefused(refused) = bench.server.next().await {
            break refused.fault;
        }
    };
    assert_eq!(fault.code, "docker-unavailable");
    bench.fleet.docker_down.store(false, Ordering::SeqCst);
    bench.server.credits_of(2).await;
    assert_eq!(run(&mut bench, assignment(0, 2, "true")).await.exit_code, Some(0));
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn work_is_given_back_before_docker_is_there_to_clean_up() {
    let mut bench = Bench::new();
    bench.fleet.hold_images.store(true, Ordering::SeqCst);
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let step = assignment(0, 1, "true");
    let assignee = step.assignee.clone();
    bench.server.send(Kind::Assign(step)).await;
    bench.fleet.image_asked.notified().await;
    bench.fleet.docker_down.store(true, Ordering::SeqCst);
    bench.fleet.hold_images.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        loop {
            if let node_to_server::Kind::AssignmentRefused(refused) = bench.server.next().await {
                assert_eq!(refused.assignee, assignee);
                break;
            }
        }
        assert_eq!(
            bench.claim_files(),
            1,
            "it is forgotten only when nothing of it is left"
        );
        // The next session hears it, too: the server may not have noted it.
        bench.server.hang_up();
        let register = bench.server.accept().await;
        assert_eq!(register.holding.len(), 1);
    }
    bench.fleet.docker_down.store(false, Ordering::SeqCst);
    bench.server.credits_of(2).await;
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_damaged_claim_is_put_aside_and_its_sandbox_removed() {
    let mut bench = Bench::new();
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let step = assignment(0, 1, "echo up; sleep 600");
    let assignee = step.assignee.clone();
    bench.server.send(Kind::Assign(step)).await;
    bench.server.output_contains(&assignee, "up").await;
    node.shutdown().await;
    bench.server.hang_up();
    let claims = bench.state().join("claims");
    let file = fs::read_dir(&claims)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_file())
        .unwrap();
    fs::write(&file, b"GNTCLAIM but not one").unwrap();
    // The slot is not claimed any more, so its mount goes before the fleet removes the sandbox.
    let slot = bench
        .dir
        .path()
        .join("fleet")
        .join(bench.fleet.claims.lock()[0].to_string())
        .join("slot/w");
    let node = bench.start().await;
    let register = bench.server.accept().await;
    assert!(register.holding.is_empty());
    bench.server.credits_of(2).await;
    assert!(!slot.exists());
    assert_eq!(fs::read_dir(claims.join("damaged")).unwrap().count(), 1);
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_process_that_ended_well_is_not_run_again_because_the_server_cannot_store_for_a_while() {
    let mut bench = Bench::new();
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let refusals = [
        ErrorCode::StorageUnavailable,
        ErrorCode::Overloaded,
        ErrorCode::Internal,
    ];
    *bench.server.uplink.refusals.lock() = refusals
        .map(|code| UplinkError::Refused(Fault::new(code, "not now")))
        .into();
    let mut step = assignment(0, 1, "echo made > file");
    step.plan.artifact_globs = vec!["file".into()];
    let result = run(&mut bench, step).await;
    assert_eq!(
        (result.cause(), result.exit_code),
        (EndCause::Exited, Some(0)),
        "{result:?}"
    );
    assert_eq!(bench.server.uplink.artifacts.lock()["file"], b"made\n");
    // What the server will never take is the step's own fault, at once.
    let too_large = UplinkError::Refused(Fault::new(ErrorCode::TooLarge, "no"));
    bench.server.uplink.refusals.lock().push(too_large);
    let mut step = assignment(0, 2, "echo made > file");
    step.plan.artifact_globs = vec!["file".into()];
    assert_eq!(run(&mut bench, step).await.cause(), EndCause::Contract);
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_container_that_appears_after_the_start_and_that_nobody_claims_is_removed() {
    let mut bench = Bench::new();
    bench.reconcile_interval = Duration::from_millis(20);
    let node = bench.start().await;
    let register = bench.server.accept().await;
    assert!(register.health.unwrap().docker_ok, "it looks before it registers");
    bench.server.credits_of(2).await;
    // An earlier process had asked for it and was killed before Docker had made it.
    let profile = Profile {
        image: ImageId("sha256:1".into()),
        resources: Resources::default(),
        runtime: None,
    };
    bench
        .fleet
        .claim(SandboxId::from_bytes([8; 16]), &profile)
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(30), bench.fleet.destroyed.notified())
        .await
        .expect("it is found");
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_node_beats_at_once_and_when_its_health_changes() {
    let mut bench = Bench::new();
    bench.server.heartbeat_ms = 3_600_000;
    let node = bench.start().await;
    bench.server.accept().await;
    // The server may have been away: the leases are renewed first of all.
    bench.server.heartbeat().await;
    bench.fleet.docker_down.store(true, Ordering::SeqCst);
    while bench.server.heartbeat().await.health.unwrap().docker_ok {}
    node.shutdown().await;
}

/// A step that is not the last of its task.
fn not_last(mut assignment: Assignment) -> Assignment {
    assignment.plan.last = false;
    assignment
}

#[tokio::test]
async fn a_newer_lease_stands_on_the_layer_of_a_step_whose_result_is_not_answered_yet() {
    let mut bench = Bench::new();
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(2).await;
    let first = not_last(assignment(0, 1, "echo kept > file"));
    let before = first.assignee.clone();
    bench.server.send(Kind::Assign(first)).await;
    assert_eq!(bench.server.finished().await.1.exit_code, Some(0));
    // The result was journaled and its answer lost with the session; the step after it was lost with it and comes under a newer lease, first of all.
    node.shutdown().await;
    bench.server.hang_up();
    let node = bench.start().await;
    bench.server.accept().await;
    let mut second = assignment(1, 2, "cat file");
    second.assignee.fence = 7;
    let assignee = second.assignee.clone();
    bench.server.send(Kind::Assign(second)).await;
    let result = loop {
        let (of, result) = bench.server.finished().await;
        if of == assignee {
            break result;
        }
    };
    assert_eq!(
        (result.cause(), result.exit_code),
        (EndCause::Exited, Some(0)),
        "{result:?}"
    );
    assert_eq!(bench.server.output[&assignee].1, b"kept\n");
    bench.server.accept_result(&before, false).await;
    bench.server.accept_result(&assignee, false).await;
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn the_next_step_of_a_task_has_its_slot_and_other_work_does_not_get_in_between() {
    let mut bench = Bench::new();
    bench.slots = 1;
    let node = bench.start().await;
    bench.server.accept().await;
    bench.server.credits_of(1).await;
    let first = not_last(assignment(0, 1, "echo kept > file"));
    let before = first.assignee.clone();
    bench.server.send(Kind::Assign(first)).await;
    assert_eq!(bench.server.finished().await.1.exit_code, Some(0));
    assert_eq!(bench.server.credits, Some(0), "the slot waits for what the server says");
    let mut other = assignment(0, 1, "true");
    other.assignee.task = TaskId::from_bytes([9; 16]);
    bench.server.send(Kind::Assign(other)).await;
    loop {
        if let node_to_server::Kind::AssignmentRefused(refused) = bench.server.next().await {
            assert_eq!(refused.assignee.task, TaskId::from_bytes([9; 16]));
            break;
        }
    }
    // As the engine does it: the next step goes out in the batch that made it ready, the answer follows.
    let second = not_last(assignment(1, 1, "cat file"));
    let next = second.assignee.clone();
    bench.server.send(Kind::Assign(second)).await;
    bench.server.accept_result(&before, false).await;
    let (of, result) = bench.server.finished().await;
    assert_eq!((of, result.exit_code), (next.clone(), Some(0)));
    // Nothing follows after all: the answer alone frees the slot.
    bench.server.accept_result(&next, false).await;
    bench.server.credits_of(1).await;
    bench.nothing_left(&node).await;
    node.shutdown().await;
}

#[tokio::test]
async fn one_node_per_state_directory() {
    let bench = Bench::new();
    let node = bench.start().await;
    let config = NodeConfig::new(NodeId::from_bytes([5; 16]), "second", bench.state());
    let second = Node::start(config, bench.fleet.clone(), bench.server.uplink.clone()).await;
    assert!(matches!(second, Err(gantry_runtime_node::StartError::Locked { .. })));
    node.shutdown().await;
}
