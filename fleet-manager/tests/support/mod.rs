//! What the tests of the fleet share: an installation of its own on the real Docker, and an image with nothing but a probe.
#![allow(dead_code)] // each suite uses a part
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)] // a test ends by panicking

pub mod proxy;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_fleet_manager::{DockerFleet, Fleet, FleetConfig, ImageId, Link, LinkEvent, Profile, Sandbox};
use gantry_proto::v1::{NodeFrame, OutputAck, ProcessExited, Resources, StartProcess, node_frame, supervisor_frame};
use gantry_proto::{NodeId, PartitionId, SandboxId};

/// Longest that anything in a test may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

static NEXT: AtomicU64 = AtomicU64::new(1);

pub fn unique() -> u64 {
    u64::from(std::process::id()) << 20 | NEXT.fetch_add(1, Ordering::Relaxed)
}

pub fn sandbox_id() -> SandboxId {
    let mut random = [0; 8];
    getrandom::fill(&mut random).unwrap();
    SandboxId::new(unique(), PartitionId::new(0).unwrap(), u64::from_be_bytes(random))
}

pub fn node_id() -> NodeId {
    NodeId::from_bytes(*sandbox_id().as_bytes())
}

/// Runs a command to its end and gives its output.
pub fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        done.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

pub fn docker(args: &[&str]) -> String {
    run("docker", args)
}

/// The supervisor as `deploy/lib/build.sh supervisor` leaves it.
pub fn supervisor() -> PathBuf {
    let path = std::env::var_os("GANTRY_SUPERVISOR")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            Path::new(env!("CARGO_TARGET_TMPDIR"))
                .parent()
                .unwrap()
                .join("gantry-bin/gantry-supervisor")
        });
    assert!(
        path.is_file(),
        "{} is missing: run `deploy/lib/build.sh supervisor` or set GANTRY_SUPERVISOR",
        path.display()
    );
    path
}

/// The probe, compiled once per state of its source.
pub fn probe() -> PathBuf {
    let source = include_str!("probe.c");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = dir.join(format!("probe-{}", &blake3::hash(source.as_bytes()).to_hex()[..16]));
    if !path.exists() {
        let fresh = dir.join(format!("probe-{}", unique()));
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/probe.c");
        run("cc", &["-static", "-O1", "-o", fresh.to_str().unwrap(), file]);
        std::fs::rename(fresh, &path).unwrap();
    }
    path
}

/// An image that is removed with its last use.
pub struct TestImage {
    pub name: String,
}

impl TestImage {
    /// Imports a root made by `fill`, as an image from scratch with the given Dockerfile instructions.
    pub fn new(fill: impl FnOnce(&Path), changes: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        let name = format!("gantry-fleet-test:{}", unique());
        let mut tar = Command::new("tar")
            .args(["-C", dir.path().to_str().unwrap(), "-c", "."])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut import = Command::new("docker");
        import.arg("import");
        for change in changes {
            import.args(["--change", change]);
        }
        let status = import
            .args(["-", &name])
            .stdin(tar.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success() && tar.wait().unwrap().success(), "docker import");
        Self { name }
    }

    /// An image with the probe alone.
    pub fn probe(changes: &[&str]) -> Self {
        Self::new(
            |root| {
                std::fs::copy(probe(), root.join("probe")).unwrap();
            },
            changes,
        )
    }
}

impl Drop for TestImage {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["rmi", "-f", &self.name])
            .stdout(Stdio::null())
            .status();
    }
}

/// An installation of its own; everything of it is removed at the end, whatever the test did.
pub struct World {
    pub image: TestImage,
    pub config: FleetConfig,
    dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        Self::with_image(TestImage::probe(&[]))
    }

    pub fn with_image(image: TestImage) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let installation = format!("test-{}", unique());
        let config = FleetConfig::new(dir.path().join("state"), installation, node_id(), supervisor());
        Self { image, config, dir }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub async fn open(&self) -> DockerFleet {
        DockerFleet::open(self.config.clone()).await.unwrap()
    }

    pub async fn profile(&self, fleet: &DockerFleet) -> Profile {
        profile(fleet.image(&self.image.name).await.unwrap().id)
    }

    /// Docker's ids of all containers of this installation.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=io.gantry.installation={}", self.config.installation);
        docker(&["ps", "-aq", "--no-trunc", "--filter", &filter])
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// Mount points beneath the state directory, the shared one included.
    pub fn mounts(&self) -> Vec<String> {
        let root = self.dir.path().canonicalize().unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        points
            .filter(|point| Path::new(point).starts_with(&root))
            .map(str::to_owned)
            .collect()
    }

    /// Names in `slots/` and `sock/`.
    pub fn sandbox_dirs(&self) -> Vec<String> {
        let dirs = ["slots", "sock"].map(|name| self.config.state_dir.join(name));
        let entries = dirs.iter().flat_map(|dir| std::fs::read_dir(dir).unwrap());
        entries
            .map(|entry| entry.unwrap().path().display().to_string())
            .collect()
    }

    pub fn assert_nothing_is_left(&self) {
        assert_eq!(self.containers(), Vec::<String>::new());
        assert_eq!(self.sandbox_dirs(), Vec::<String>::new());
        let slots = self.config.state_dir.canonicalize().unwrap().join("slots");
        let others: Vec<String> = self
            .mounts()
            .into_iter()
            .filter(|point| Path::new(point) != slots)
            .collect();
        assert_eq!(others, Vec::<String>::new());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for id in self.containers() {
            let _ = Command::new("docker")
                .args(["rm", "-f", &id])
                .stdout(Stdio::null())
                .status();
        }
        for point in self.mounts().iter().rev() {
            let _ = Command::new("umount").args(["-l", point]).status();
        }
    }
}

pub fn profile(image: ImageId) -> Profile {
    let resources = Resources {
        cpu_millis: 500,
        memory_bytes: 128 << 20,
        pids: 32,
        tmp_bytes: 16 << 20,
    };
    Profile {
        image,
        resources,
        runtime: None,
    }
}

pub async fn patient<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what} took longer than {PATIENCE:?}"))
}

pub async fn next(link: &mut Link) -> LinkEvent {
    patient("the next event", link.events.recv())
        .await
        .expect("the line ended without a word")
}

/// The host's pid of PID 1.
pub fn init_pid(container: &str) -> u32 {
    docker(&["inspect", "-f", "{{.State.Pid}}", container]).parse().unwrap()
}

/// Starts a command and returns its whole output and how it ended.
pub async fn exec(sandbox: &mut Sandbox, run: u64, argv: &[&str]) -> (String, ProcessExited) {
    let start = StartProcess {
        run,
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        cwd: "/tmp".to_owned(),
        uid: 4242,
        gid: 4242,
        timeout_ms: Some(30_000),
        grace_ms: 1_000,
        deadman_ms: 60_000,
        output_limit_bytes: 1 << 20,
        ..Default::default()
    };
    let frames = sandbox.link.frames.clone();
    frames
        .send(NodeFrame {
            kind: Some(node_frame::Kind::Start(start)),
        })
        .await
        .unwrap();
    let mut output = Vec::new();
    loop {
        let LinkEvent::Frame(frame) = next(&mut sandbox.link).await else {
            continue;
        };
        match frame.kind.unwrap() {
            supervisor_frame::Kind::Output(chunk) => {
                output.extend_from_slice(&chunk.data);
                let ack = OutputAck { run, seq: chunk.seq };
                frames
                    .send(NodeFrame {
                        kind: Some(node_frame::Kind::OutputAck(ack)),
                    })
                    .await
                    .unwrap();
            }
            supervisor_frame::Kind::Exited(exited) => return (String::from_utf8(output).unwrap(), exited),
            supervisor_frame::Kind::Fault(fault) => panic!("the supervisor refuses: {fault:?}"),
            _ => {}
        }
    }
}
