//! Sandboxes on the real Docker with the real supervisor.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gantry_fleet_manager::{Adoptable, Fleet, LinkEvent};
use gantry_proto::ErrorCode;
use gantry_proto::v1::{NodeFrame, Shutdown, node_frame};
use support::{TestImage, World, docker, exec, init_pid, next, patient, run, sandbox_id};

#[tokio::test]
async fn a_sandbox_is_hardened_as_seen_from_inside() {
    let world = World::new();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let mut sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();

    let (status, exited) = exec(&mut sandbox, 1, &["/probe", "cat", "/proc/self/status"]).await;
    assert_eq!(exited.exit_code, Some(0));
    let field = |name: &str| {
        let line = status
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} in {status}"));
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set} of a step");
    }
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Uid"), "4242\t4242\t4242\t4242");
    fleet.destroy(sandbox.id).await.unwrap();

    let mut sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    let (calls, _) = exec(&mut sandbox, 1, &["/probe", "calls"]).await;
    let calls: BTreeMap<&str, &str> = calls.lines().filter_map(|line| line.split_once(' ')).collect();
    let denied = [
        "vsock",
        "vsock_high_bits",
        "alg",
        "packet",
        "raw",
        "ping",
        "netlink_audit",
        "userfaultfd",
        "bpf",
        "perf_event_open",
        "keyctl",
        "add_key",
        "unshare_user",
        "unshare_files",
        "clone_user",
        "setns",
        "mount",
        "umount",
        "open_tree",
        "fsopen",
        "chroot",
        "kexec_load",
        "personality_aslr",
        "syslog",
        "mknod_device",
        "setuid_root",
    ];
    for name in denied {
        assert_eq!(calls.get(name), Some(&"EPERM"), "{name}");
    }
    for name in ["io_uring_setup", "clone3"] {
        assert_eq!(calls.get(name), Some(&"ENOSYS"), "{name}");
    }
    let allowed = [
        "netlink_route",
        "tcp",
        "tcp6",
        "udp",
        "unix",
        "personality_query",
        "mknod_fifo",
        "write_tmp",
        "fork",
    ];
    for name in allowed {
        assert_eq!(calls.get(name), Some(&"ok"), "{name}");
    }
    assert_eq!(calls.get("write_root"), Some(&"EROFS"));
    assert_eq!(calls.get("write_slot"), Some(&"EROFS"));
    for name in ["write_supervisor", "list_socket_dir"] {
        assert!(
            matches!(calls.get(name), Some(&("EACCES" | "EROFS"))),
            "{name}: {:?}",
            calls.get(name)
        );
    }
    fleet.destroy(sandbox.id).await.unwrap();

    let mut sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    let (devices, _) = exec(&mut sandbox, 1, &["/probe", "cat", "/proc/net/dev"]).await;
    let names: Vec<&str> = devices
        .lines()
        .skip(2)
        .map(|line| line.split_once(':').unwrap().0.trim())
        .collect();
    assert_eq!(names, ["lo"]);

    // PID 1 as the host sees it.
    let status = std::fs::read_to_string(format!("/proc/{}/status", init_pid(&sandbox.container))).unwrap();
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(
            status.contains(&format!("{set}:\t00000000000001e0\n")),
            "{set} of PID 1 in {status}"
        );
    }
    fleet.destroy(sandbox.id).await.unwrap();
    world.assert_nothing_is_left();
    fleet.close().await.unwrap();
    assert_eq!(
        world.mounts(),
        Vec::<String>::new(),
        "a closed fleet without sandboxes leaves no mount"
    );
}

#[tokio::test]
async fn what_an_image_brings_does_not_reach_the_supervisor() {
    let changes = [
        "ENV LD_PRELOAD=/evil.so",
        "ENV PATH=/evil",
        "CMD [\"/evil\"]",
        "ENTRYPOINT [\"/evil\"]",
        "USER evil",
        "WORKDIR /evil",
        "HEALTHCHECK --interval=1s CMD [\"/evil\"]",
        "EXPOSE 80",
        "LABEL a=b",
    ];
    let world = World::with_image(TestImage::probe(&changes));
    let fleet = world.open().await;
    let image = fleet.image(&world.image.name).await.unwrap();
    assert_eq!(image.workdir, "/evil", "it is handed on, for the step");
    assert!(image.env.contains(&("PATH".to_owned(), "/evil".to_owned())));
    let sandbox = patient("claim", fleet.claim(sandbox_id(), &support::profile(image.id)))
        .await
        .unwrap();
    let environment = std::fs::read_to_string(format!("/proc/{}/environ", init_pid(&sandbox.container))).unwrap();
    assert!(!environment.contains("evil"), "{environment:?}");
    fleet.destroy(sandbox.id).await.unwrap();
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_mount_in_the_slot_appears_inside_and_is_gone_after_destroy() {
    let world = World::new();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let mut sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    assert!(
        matches!(next(&mut sandbox.link).await, LinkEvent::Connected(None)),
        "the first event of a claimed link"
    );

    let dirs = ["lower", "upper", "work"].map(|name| world.path().join(name));
    for dir in &dirs {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::write(dirs[0].join("hello"), "from below").unwrap();
    let target = sandbox.slot.join("w");
    std::fs::create_dir(&target).unwrap();
    let [lower, upper, work] = dirs.each_ref().map(|dir| dir.display());
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    run(
        "mount",
        &["-t", "overlay", "overlay", "-o", &options, target.to_str().unwrap()],
    );
    let (text, _) = exec(&mut sandbox, 1, &["/probe", "cat", "/gantry/w/hello"]).await;
    assert_eq!(text, "from below");

    fleet.destroy(sandbox.id).await.unwrap();
    world.assert_nothing_is_left();
    assert!(dirs[0].join("hello").exists(), "what was mounted is not deleted");
    fleet.destroy(sandbox.id).await.expect("again is fine");
}

#[tokio::test]
async fn a_sandbox_outlives_the_fleet_and_is_adopted() {
    let world = World::new();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    let adoptable = Adoptable {
        id: sandbox.id,
        container: sandbox.container.clone(),
        nonce: sandbox.nonce,
    };
    drop(sandbox);
    patient("close", fleet.close()).await.unwrap();
    drop(fleet);
    assert_eq!(
        world.containers(),
        std::slice::from_ref(&adoptable.container),
        "a closed fleet leaves its containers running"
    );

    let fleet = world.open().await;
    let mut sandbox = patient("adopt", fleet.adopt(&adoptable))
        .await
        .unwrap()
        .expect("it lives");
    assert!(matches!(next(&mut sandbox.link).await, LinkEvent::Connected(None)));
    let (_, exited) = exec(&mut sandbox, 1, &["/probe", "exit", "3"]).await;
    assert_eq!(exited.exit_code, Some(3));

    // A second restart, while the container holds an exit that nobody has acknowledged.
    drop(sandbox);
    patient("close", fleet.close()).await.unwrap();
    drop(fleet);
    let fleet = world.open().await;
    let mut sandbox = patient("adopt", fleet.adopt(&adoptable))
        .await
        .unwrap()
        .expect("it lives");
    let LinkEvent::Connected(Some(held)) = next(&mut sandbox.link).await else {
        panic!("it holds a process")
    };
    assert_eq!(held.exited.unwrap().exit_code, Some(3));

    docker(&["kill", &adoptable.container]);
    loop {
        match next(&mut sandbox.link).await {
            LinkEvent::Gone(ending) => {
                assert_eq!(ending.exit_code, Some(137));
                break;
            }
            LinkEvent::Connected(_) => panic!("a dead container connects"),
            LinkEvent::Frame(_) | LinkEvent::Disconnected => {}
        }
    }
    assert!(sandbox.link.events.recv().await.is_none(), "nothing comes after that");
    let ended = patient("adopt", fleet.adopt(&adoptable)).await.unwrap();
    assert_eq!(ended.unwrap_err().exit_code, Some(137), "a dead one is not adopted");
    fleet.destroy(adoptable.id).await.unwrap();
    let removed = patient("adopt", fleet.adopt(&adoptable)).await.unwrap();
    assert_eq!(removed.unwrap_err().exit_code, None);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn reconciliation_removes_what_nobody_claims_and_nothing_else() {
    let world = World::new();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let [kept, orphan, dead] = [sandbox_id(), sandbox_id(), sandbox_id()];
    let mut containers = BTreeMap::new();
    for id in [kept, orphan, dead] {
        let sandbox = patient("claim", fleet.claim(id, &profile)).await.unwrap();
        containers.insert(id, sandbox.container);
    }
    // The orphan has something mounted.
    let workspace = world.path().join("workspace");
    std::fs::create_dir(&workspace).unwrap();
    std::fs::write(workspace.join("precious"), "").unwrap();
    let point = world.config.state_dir.join("slots").join(orphan.to_string()).join("w");
    std::fs::create_dir(&point).unwrap();
    run(
        "mount",
        &["--bind", workspace.to_str().unwrap(), point.to_str().unwrap()],
    );
    docker(&["kill", &containers[&dead]]);

    // Others' containers: another node of the installation, and one that only has our labels.
    let installation = format!("io.gantry.installation={}", world.config.installation);
    let label = |node: String| {
        let id = sandbox_id();
        let (node, sandbox) = (format!("io.gantry.node={node}"), format!("io.gantry.sandbox={id}"));
        let args = [
            "create",
            "--label",
            &installation,
            "--label",
            &node,
            "--label",
            &sandbox,
        ];
        docker(&[&args[..], &[&world.image.name, "/probe"]].concat())
    };
    let others = [
        label(support::node_id().to_string()),
        label(world.config.node.to_string()),
    ];

    let held = fleet.reconcile(&BTreeSet::new()).await.unwrap();
    assert_eq!(
        held.removed,
        Vec::<String>::new(),
        "what this process gave out is not left over"
    );
    fleet.close().await.unwrap();
    drop(fleet);

    let fleet = world.open().await;
    let nowhere = sandbox_id();
    let claimed = BTreeSet::from([kept, dead, nowhere]);
    let done = patient("reconcile", fleet.reconcile(&claimed)).await.unwrap();
    assert_eq!(done.kept, [kept]);
    assert_eq!(done.removed, [orphan.to_string()]);
    assert_eq!(
        done.missing.iter().copied().collect::<BTreeSet<_>>(),
        BTreeSet::from([dead, nowhere])
    );
    let left: BTreeSet<String> = world.containers().into_iter().collect();
    let expected = [&containers[&kept], &containers[&dead], &others[0], &others[1]];
    assert_eq!(left, expected.into_iter().cloned().collect());
    assert!(workspace.join("precious").exists());
    assert!(!point.exists());
    let again = patient("reconcile", fleet.reconcile(&claimed)).await.unwrap();
    assert_eq!(again.removed, Vec::<String>::new());

    for id in [kept, dead] {
        fleet.destroy(id).await.unwrap();
    }
    assert_eq!(world.containers().len(), 2, "others' containers are still there");
}

#[tokio::test]
async fn a_killed_sandbox_is_dead_before_it_is_removed() {
    let world = World::new();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let id = sandbox_id();
    let mut sandbox = patient("claim", fleet.claim(id, &profile)).await.unwrap();
    let pid = init_pid(&sandbox.container);
    let ending = patient("kill", fleet.kill(id)).await.unwrap();
    assert_eq!(ending.exit_code, Some(137));
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(world.containers().len(), 1, "killed, not removed");
    assert_eq!(patient("kill", fleet.kill(id)).await.unwrap(), ending, "again is fine");
    while !matches!(next(&mut sandbox.link).await, LinkEvent::Gone(_)) {}
    fleet.destroy(id).await.unwrap();
    assert_eq!(patient("kill", fleet.kill(id)).await.unwrap().exit_code, None);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_supervisor_that_is_told_to_go_is_reported_gone() {
    let world = World::new();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let mut sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    let shutdown = NodeFrame {
        kind: Some(node_frame::Kind::Shutdown(Shutdown {})),
    };
    sandbox.link.frames.send(shutdown).await.unwrap();
    let ending = loop {
        if let LinkEvent::Gone(ending) = next(&mut sandbox.link).await {
            break ending;
        }
    };
    assert_eq!(ending.exit_code, Some(0), "{ending:?}");
    fleet.destroy(sandbox.id).await.unwrap();
}

#[tokio::test]
async fn only_the_supervisor_may_speak_on_its_socket() {
    let world = World::new();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let mut sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    let socket = world
        .config
        .state_dir
        .join("sock")
        .join(sandbox.id.to_string())
        .join("node.sock");
    let mut intruder = UnixStream::connect(socket).unwrap();
    intruder.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let got = tokio::task::spawn_blocking(move || intruder.read(&mut [0; 1]))
        .await
        .unwrap();
    assert!(matches!(got, Ok(0)) || got.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    let (_, exited) = exec(&mut sandbox, 1, &["/probe", "exit", "0"]).await;
    assert_eq!(exited.exit_code, Some(0), "the line is undisturbed");
    fleet.destroy(sandbox.id).await.unwrap();
}

#[tokio::test]
async fn sandboxes_are_claimed_side_by_side_and_a_dropped_claim_leaves_nothing() {
    let world = World::new();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let health = fleet.health().await;
    assert!(
        health.docker_ok && health.fault.is_none() && health.containers == 0,
        "{health:?}"
    );
    let ids = [sandbox_id(), sandbox_id(), sandbox_id(), sandbox_id()];
    let claims = ids.map(|id| fleet.claim(id, &profile));
    let sandboxes = patient("claims", futures_util::future::try_join_all(claims))
        .await
        .unwrap();
    assert_eq!(world.containers().len(), 4);
    assert_eq!(fleet.health().await.containers, 4);
    patient(
        "destroy",
        futures_util::future::try_join_all(sandboxes.iter().map(|sandbox| fleet.destroy(sandbox.id))),
    )
    .await
    .unwrap();
    world.assert_nothing_is_left();

    let id = sandbox_id();
    let dropped = tokio::time::timeout(Duration::from_millis(40), fleet.claim(id, &profile)).await;
    assert!(dropped.is_err(), "a claim takes longer than that");
    // Close waits for what is under way.
    patient("close", fleet.close()).await.unwrap();
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_supervisor_that_never_connects_is_a_typed_error_and_leaves_nothing() {
    let mut world = World::new();
    world.config.supervisor = support::probe();
    world.config.deadlines.hello = Duration::from_secs(2);
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let error = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SupervisorFault);
    assert!(error.message.contains("did not connect"), "{}", error.message);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn images_that_cannot_run_hardened_are_refused() {
    let world = World::with_image(TestImage::probe(&["VOLUME /data"]));
    let fleet = world.open().await;
    let error = fleet.image(&world.image.name).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ImageRefused);
    assert!(error.message.contains("/data"), "{}", error.message);

    let error = fleet.image("gantry-fleet-test:no-such").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ImageNotFound);
    assert!(error.hint.unwrap().contains("docker pull"));
    assert_eq!(
        fleet.image("../../info").await.unwrap_err().code,
        ErrorCode::ImageNotFound
    );

    let linked = TestImage::new(
        |root| {
            std::fs::copy(support::probe(), root.join("probe")).unwrap();
            std::os::unix::fs::symlink("/tmp", root.join("dev")).unwrap();
        },
        &[],
    );
    let image = fleet.image(&linked.name).await.unwrap();
    let claimed = patient("claim", fleet.claim(sandbox_id(), &support::profile(image.id.clone()))).await;
    // This engine puts a directory in the link's place before anything follows it; faults.rs shows the refusal where it does not.
    let sandbox = claimed.unwrap();
    let dev = format!("/proc/{}/root/dev", init_pid(&sandbox.container));
    assert!(std::fs::symlink_metadata(dev).unwrap().is_dir());
    fleet.destroy(sandbox.id).await.unwrap();

    let mut boundless = support::profile(image.id);
    boundless.resources.memory_bytes = 0;
    let error = fleet.claim(sandbox_id(), &boundless).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StepCannotStart);
    assert!(error.message.contains("memory_bytes"), "{}", error.message);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn the_tools_of_the_sandbox_image_work_under_the_profile() {
    let name = std::env::var("GANTRY_SANDBOX_IMAGE").unwrap_or_else(|_| "gantry/sandbox:latest".to_owned());
    let world = World::new();
    let fleet = world.open().await;
    let image = fleet.image(&name).await.expect("deploy/up builds the sandbox image");
    let script = r#"
set -e
cd /tmp && export HOME=/tmp
git init -q repo && cd repo
git -c user.name=a -c user.email=a@b commit -q --allow-empty -m first
git log --oneline | grep -q first && echo git
python3 - <<'PY'
import concurrent.futures, multiprocessing, os, pty, socket, subprocess, sys, tempfile, threading
assert subprocess.run(["/bin/echo", "x"], capture_output=True, check=True).stdout == b"x\n"
listener = socket.create_server(("localhost", 0))
socket.create_connection(("localhost", listener.getsockname()[1])).close()
with concurrent.futures.ProcessPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
master, _ = pty.openpty()
print("python")
PY
node -e '
const os = require("os"), { Worker } = require("worker_threads"), { execFileSync } = require("child_process");
os.networkInterfaces();
execFileSync("/bin/true");
require("fs").promises.writeFile("/tmp/n", "x").then(() => {
  new Worker("require(\"worker_threads\").parentPort.postMessage(1)", { eval: true }).on("message", () => console.log("node"));
});'
rg --version >/dev/null && curl --version >/dev/null && echo others
"#;
    let mut profile = support::profile(image.id);
    (profile.resources.memory_bytes, profile.resources.pids) = (512 << 20, 128);
    let mut sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    let (output, exited) = exec(&mut sandbox, 1, &["/bin/sh", "-c", script]).await;
    assert_eq!(exited.exit_code, Some(0), "{output}");
    assert_eq!(output.lines().collect::<Vec<_>>(), ["git", "python", "node", "others"]);
    fleet.destroy(sandbox.id).await.unwrap();
}
