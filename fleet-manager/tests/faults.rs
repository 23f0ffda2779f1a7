//! What the fleet does when Docker misbehaves. The real Docker answers, through a proxy that breaks what the test names.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gantry_fleet_manager::{Fleet, LinkEvent};
use gantry_proto::ErrorCode;
use serde_json::{Value, json};
use support::proxy::{Action, Proxy};
use support::{World, docker, exec, next, patient, sandbox_id};

fn is_container_inspect(method: &str, path: &str) -> bool {
    method == "GET" && path.starts_with("/containers/gantry-") && path.contains("/json")
}

#[tokio::test]
async fn every_tampered_field_is_found_before_the_container_starts() {
    let mut world = World::new();
    let proxy = Proxy::new(world.path());
    world.config.docker_socket = proxy.socket.clone();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let tampers: [(&str, Value, &str); 22] = [
        ("/HostConfig/Privileged", json!(true), "Privileged"),
        (
            "/HostConfig/CapAdd",
            json!(["KILL", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN"]),
            "CapAdd",
        ),
        ("/HostConfig/CapDrop", json!(null), "CapDrop"),
        (
            "/HostConfig/SecurityOpt",
            json!(["no-new-privileges", "seccomp=unconfined"]),
            "SecurityOpt",
        ),
        ("/HostConfig/NetworkMode", json!("default"), "NetworkMode"),
        ("/HostConfig/ReadonlyRootfs", json!(false), "ReadonlyRootfs"),
        ("/HostConfig/PidMode", json!("host"), "PidMode"),
        ("/HostConfig/IpcMode", json!("shareable"), "IpcMode"),
        ("/HostConfig/UsernsMode", json!("host"), "UsernsMode"),
        ("/HostConfig/Memory", json!(0), "Memory"),
        ("/HostConfig/MemorySwap", json!(-1), "MemorySwap"),
        ("/HostConfig/PidsLimit", json!(null), "PidsLimit"),
        ("/HostConfig/NanoCpus", json!(0), "NanoCpus"),
        (
            "/HostConfig/Devices",
            json!([{"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm"}]),
            "Devices",
        ),
        ("/HostConfig/Binds", json!(["/:/host"]), "Binds"),
        ("/HostConfig/MaskedPaths", json!([]), "MaskedPaths"),
        ("/HostConfig/Tmpfs", json!({"/tmp": "rw"}), "Tmpfs"),
        (
            "/HostConfig/LogConfig",
            json!({"Type": "json-file", "Config": {}}),
            "LogConfig",
        ),
        ("/Config/User", json!("nobody"), "User"),
        ("/Config/Env", json!(["LD_PRELOAD=/evil.so"]), "Env"),
        ("/Image", json!("sha256:0000"), "Image"),
        ("/Mounts/0/Source", json!("/"), "Mounts"),
    ];
    for (pointer, value, field) in tampers {
        proxy.rule(move |method, path| {
            if !is_container_inspect(method, path) {
                return Action::Pass;
            }
            let value = value.clone();
            Action::Change(Box::new(move |seen| *seen.pointer_mut(pointer).expect(pointer) = value))
        });
        let error = patient("claim", fleet.claim(sandbox_id(), &profile))
            .await
            .expect_err(field);
        assert_eq!(error.code, ErrorCode::DockerRefused, "{field}: {}", error.message);
        assert!(error.message.contains(field), "{field} in {}", error.message);
        assert!(error.message.contains("not started"), "{}", error.message);
    }
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn an_extra_mount_is_found() {
    let mut world = World::new();
    let proxy = Proxy::new(world.path());
    world.config.docker_socket = proxy.socket.clone();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    proxy.rule(|method, path| {
        if !is_container_inspect(method, path) {
            return Action::Pass;
        }
        Action::Change(Box::new(|seen| {
            let mounts = seen["Mounts"].as_array_mut().unwrap();
            let mut extra = mounts[0].clone();
            extra["Destination"] = json!("/var/run/docker.sock");
            mounts.push(extra);
        }))
    });
    let error = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap_err();
    assert!(error.message.contains("/var/run/docker.sock"), "{}", error.message);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn an_image_whose_dev_is_a_link_is_refused_before_it_starts() {
    // `/dev` as a symbolic link to `/tmp`, in the encoding of the archive endpoint.
    const LINK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\nX-Docker-Container-Path-Stat: \
        eyJuYW1lIjoiZGV2Iiwic2l6ZSI6NCwibW9kZSI6MTM0MjE4MjM5LCJtdGltZSI6IjIwMjYtMDEtMDFUMDA6MDA6MDBaIiwibGlua1RhcmdldCI6Ii90bXAifQ==\r\n\r\n";
    let mut world = World::new();
    let proxy = Proxy::new(world.path());
    world.config.docker_socket = proxy.socket.clone();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let starts = Arc::new(AtomicBool::new(false));
    let started = starts.clone();
    proxy.rule(move |method, path| {
        started.fetch_or(path.contains("/start"), Ordering::SeqCst);
        if method == "HEAD" && path.contains("/archive") && path.contains("dev") {
            Action::Answer(LINK)
        } else {
            Action::Pass
        }
    });
    let error = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ImageRefused, "{}", error.message);
    assert!(error.message.contains("/dev"), "{}", error.message);
    assert!(!starts.load(Ordering::SeqCst));
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn an_absent_docker_is_an_answer_with_a_hint() {
    let mut world = World::new();
    let good = world.open().await;
    let profile = world.profile(&good).await;
    good.close().await.unwrap();
    drop(good);
    world.config.docker_socket = world.path().join("nobody.sock");
    let fleet = world.open().await;
    let health = fleet.health().await;
    assert!(!health.docker_ok);
    let fault = health.fault.unwrap();
    assert_eq!(fault.code, "docker-unavailable");
    assert!(fault.hint.unwrap().contains("start the Docker daemon"));
    let id = sandbox_id();
    for error in [
        fleet.image("alpine").await.unwrap_err(),
        fleet.claim(id, &profile).await.unwrap_err(),
        fleet.destroy(id).await.unwrap_err(),
        fleet.kill(id).await.unwrap_err(),
        fleet.reconcile(&BTreeSet::new()).await.unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::DockerUnavailable, "{error}");
    }
}

#[tokio::test]
async fn a_hanging_docker_does_not_hang_the_node() {
    let mut world = World::new();
    let proxy = Proxy::new(world.path());
    world.config.docker_socket = proxy.socket.clone();
    world.config.deadlines.health = Duration::from_millis(300);
    world.config.deadlines.read = Duration::from_millis(300);
    let fleet = world.open().await;
    proxy.rule(|_, _| Action::Hang);
    let began = Instant::now();
    let health = fleet.health().await;
    assert!(!health.docker_ok);
    assert!(health.fault.unwrap().hint.unwrap().contains("does not answer"));
    assert_eq!(
        fleet.image("alpine").await.unwrap_err().code,
        ErrorCode::DockerUnavailable
    );
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_failed_start_leaves_nothing() {
    let mut world = World::new();
    let proxy = Proxy::new(world.path());
    world.config.docker_socket = proxy.socket.clone();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    proxy.rule(|_, path| {
        if path.contains("/start") {
            Action::Fail(500)
        } else {
            Action::Pass
        }
    });
    let error = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DockerRefused);
    assert!(error.message.contains("made to fail"), "{}", error.message);
    world.assert_nothing_is_left();

    // The daemon dies while it creates: nobody knows whether there is a container, so it is looked for and removed.
    proxy.rule(|_, path| {
        if path.contains("/start") {
            Action::Drop
        } else {
            Action::Pass
        }
    });
    let error = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DockerUnavailable, "{}", error.message);
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_removal_in_progress_is_waited_out() {
    let mut world = World::new();
    let proxy = Proxy::new(world.path());
    world.config.docker_socket = proxy.socket.clone();
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    let mut refusals = vec![Action::Fail(500), Action::Fail(409)];
    proxy.rule(move |method, _| {
        if method == "DELETE" {
            refusals.pop().unwrap_or(Action::Pass)
        } else {
            Action::Pass
        }
    });
    patient("destroy", fleet.destroy(sandbox.id)).await.unwrap();
    world.assert_nothing_is_left();
}

#[tokio::test]
async fn a_line_outlives_the_daemon_and_learns_of_the_end_when_it_is_back() {
    let mut world = World::new();
    let proxy = Proxy::new(world.path());
    world.config.docker_socket = proxy.socket.clone();
    let away = Arc::new(AtomicBool::new(false));
    let is_away = away.clone();
    proxy.rule(move |_, path| match is_away.load(Ordering::SeqCst) {
        true => Action::Drop,
        // The watch's wait breaks off, as it does when the daemon goes down.
        false if path.contains("/wait") => Action::Drop,
        false => Action::Pass,
    });
    let fleet = world.open().await;
    let profile = world.profile(&fleet).await;
    let mut sandbox = patient("claim", fleet.claim(sandbox_id(), &profile)).await.unwrap();
    away.store(true, Ordering::SeqCst);
    let (_, exited) = exec(&mut sandbox, 1, &["/probe", "exit", "5"]).await;
    assert_eq!(exited.exit_code, Some(5), "frames do not pass through Docker");

    docker(&["kill", &sandbox.container]);
    assert!(matches!(next(&mut sandbox.link).await, LinkEvent::Disconnected));
    let early = tokio::time::timeout(Duration::from_millis(500), sandbox.link.events.recv()).await;
    assert!(
        early.is_err(),
        "while Docker is away nobody says that it is dead: {early:?}"
    );
    away.store(false, Ordering::SeqCst);
    assert!(matches!(next(&mut sandbox.link).await, LinkEvent::Gone(ending) if ending.exit_code == Some(137)));
    fleet.destroy(sandbox.id).await.unwrap();
    world.assert_nothing_is_left();
}
