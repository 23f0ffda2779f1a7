//! One installation for one scenario: own data directory, own ports, own containers; checked for leaks at the end.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use futures_util::FutureExt;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::api::Api;
use crate::docker::{self, Recorder};
use crate::process::Process;
use crate::relay::Relay;
use crate::{cli, leaks, paths, process, wait};

/// A debug build on a busy machine starts within this.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// Which processes an installation consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// `gantry dev`: all in one.
    Dev,
    /// `gantry server` and one `gantry node`.
    Apart,
}

/// How to set an installation up.
#[derive(Debug)]
pub struct Scenario {
    name: &'static str,
    shape: Shape,
    slots: u32,
    allow_paths: Vec<PathBuf>,
    docker_socket: Option<PathBuf>,
    relayed: bool,
    lease: Option<Duration>,
    root: PathBuf,
}

impl Scenario {
    /// Daemon and node in one process.
    #[must_use]
    pub fn dev(name: &'static str) -> Self {
        Self::new(name, Shape::Dev)
    }

    /// Server and node apart.
    #[must_use]
    pub fn apart(name: &'static str) -> Self {
        Self::new(name, Shape::Apart)
    }

    fn new(name: &'static str, shape: Shape) -> Self {
        let root = paths::scratch().join(format!("{name}-{}", std::process::id()));
        Self {
            name,
            shape,
            slots: 4,
            allow_paths: Vec::new(),
            docker_socket: None,
            relayed: false,
            lease: None,
            root,
        }
    }

    /// Steps at once on the node.
    #[must_use]
    pub fn slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// The node reaches Docker through this file in the scenario's directory, which the scenario serves.
    #[must_use]
    pub fn docker_socket(mut self, file: &str) -> Self {
        self.docker_socket = Some(self.root.join(file));
        self
    }

    /// The node reaches its server through [`World::relay`]. For installations whose node is apart.
    #[must_use]
    pub fn relayed(mut self) -> Self {
        self.relayed = true;
        self
    }

    /// How long a lease is; heartbeats follow from it.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Starts the installation, lets `body` act on it, and checks that nothing is left. Logs of a failure stay in `tests/out/<name>`.
    pub async fn run(mut self, body: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
        std::fs::create_dir_all(&self.root)?;
        // Everything that a scenario wants a node to copy lies here.
        let sources = self.root.join("src");
        std::fs::create_dir_all(&sources)?;
        self.allow_paths.push(sources);
        let (name, root) = (self.name, self.root.clone());
        let world = match World::start(self).await {
            Ok(world) => world,
            Err(error) => {
                keep_logs(&root, name);
                return Err(error.context("start the installation"));
            }
        };
        // A failed assertion must not keep the installation from being taken down.
        let outcome = AssertUnwindSafe(body(&world))
            .catch_unwind()
            .await
            .unwrap_or_else(|panic| Err(anyhow!("{}", panic_text(&*panic))));
        let outcome = match outcome {
            Ok(()) => world.take_down().await.context("after the scenario"),
            failed => failed,
        };
        if outcome.is_err() {
            world.abandon().await;
        }
        match &outcome {
            Ok(()) => std::fs::remove_dir_all(&root)?,
            Err(_) => keep_logs(&root, name),
        }
        outcome
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}

/// A running installation.
pub struct World {
    /// The API, with the admin key.
    pub api: Api,
    /// `io.gantry.installation` of its containers.
    pub installation: String,
    recorder: OnceLock<Recorder>,
    root: PathBuf,
    shape: Shape,
    slots: u32,
    allow_paths: Vec<PathBuf>,
    docker_socket: Option<PathBuf>,
    lease: Option<Duration>,
    http: SocketAddr,
    grpc: SocketAddr,
    relay: Option<Relay>,
    server: Mutex<Option<Process>>,
    node: Mutex<Option<Process>>,
    node_token: String,
}

impl World {
    async fn start(scenario: Scenario) -> Result<Self> {
        let Scenario {
            shape,
            slots,
            allow_paths,
            docker_socket,
            relayed,
            lease,
            root,
            ..
        } = scenario;
        let data = root.join("data");
        let key = init(&data, &root).await?;
        let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
        let api = Api::new("", key)?;
        // Docker has whole seconds; a second early costs nothing, since events are filtered by installation.
        let since = now_seconds().saturating_sub(1);
        let mut world = World {
            recorder: OnceLock::new(),
            api,
            installation: String::new(),
            root,
            shape,
            slots,
            allow_paths,
            docker_socket,
            lease,
            http: any_port,
            grpc: any_port,
            relay: None,
            server: Mutex::new(None),
            node: Mutex::new(None),
            node_token: String::new(),
        };
        world.start_server().await?;
        // From here on the ports are fixed, so that a restarted server is found again.
        (world.http, world.grpc) = world.endpoints()?;
        if relayed {
            world.relay = Some(Relay::start(world.grpc).await?);
        }
        world.api.url = format!("http://{}", world.http);
        world.server_ready().await?;
        let status: Value = world.api.read("/api/v1/status").await?;
        world.installation = status["installation"]
            .as_str()
            .context("no installation in /status")?
            .to_owned();
        let _ = world.recorder.set(Recorder::start(&world.installation, since)?);
        if shape == Shape::Apart {
            let token = world
                .cli(&["node", "token", "create", "test-node", "-o", "json"])
                .await?
                .expect_code(0)?
                .json()?;
            world.node_token = token["token"].as_str().context("no token in the answer")?.to_owned();
            world.start_node().await?;
        }
        world.node_in_state(&["online", "busy", "degraded"]).await?;
        Ok(world)
    }

    /// What Docker saw of this installation's containers.
    ///
    /// # Panics
    /// Never: a world that a scenario sees has started.
    #[must_use]
    pub fn docker_events(&self) -> &Recorder {
        self.recorder.get().expect("set when the world started")
    }

    /// The line between node and server.
    ///
    /// # Panics
    /// When the scenario is not [`Scenario::relayed`].
    #[must_use]
    pub fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("a relayed scenario")
    }

    /// Directory whose subdirectories the node may copy as workspaces.
    #[must_use]
    pub fn sources(&self) -> PathBuf {
        self.root.join("src")
    }

    /// The scenario's own directory; `data/` and `node/` in it are the installation's.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runs the command line client with the admin key.
    pub async fn cli(&self, arguments: &[&str]) -> Result<cli::Output> {
        cli::gantry(Some((&self.api.url, &self.api.key)), &self.root, arguments).await
    }

    /// Writes a file into the scenario's directory and gives its path, for the command line.
    pub fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.root.join(name);
        std::fs::write(&path, content)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// `kill -9` of the daemon (with its node, if it is all in one).
    pub async fn kill_server(&self) -> Result<()> {
        self.server
            .lock()
            .await
            .take()
            .context("the server does not run")?
            .kill()
            .await
    }

    /// Starts the daemon again on the same data and the same ports.
    pub async fn restart_server(&self) -> Result<()> {
        self.start_server().await?;
        self.server_ready().await
    }

    /// `kill -9` of the node.
    pub async fn kill_node(&self) -> Result<()> {
        self.node
            .lock()
            .await
            .take()
            .context("the node does not run")?
            .kill()
            .await
    }

    /// Starts the node (again) on the same state directory.
    pub async fn start_node(&self) -> Result<()> {
        let process = self.spawn_node("node", "test-node", &self.node_token, &self.root.join("node.log"))?;
        *self.node.lock().await = Some(process);
        Ok(())
    }

    /// Stops the node with SIGSTOP: it lives, and does nothing.
    pub async fn pause_node(&self) -> Result<()> {
        self.node
            .lock()
            .await
            .as_ref()
            .context("the node does not run")?
            .pause()
    }

    /// Lets the node go on.
    pub async fn resume_node(&self) -> Result<()> {
        self.node
            .lock()
            .await
            .as_ref()
            .context("the node does not run")?
            .resume()
    }

    /// Stops the daemon with SIGSTOP: it lives, and does nothing.
    pub async fn pause_server(&self) -> Result<()> {
        self.server
            .lock()
            .await
            .as_ref()
            .context("the server does not run")?
            .pause()
    }

    /// Lets the daemon go on.
    pub async fn resume_server(&self) -> Result<()> {
        self.server
            .lock()
            .await
            .as_ref()
            .context("the server does not run")?
            .resume()
    }

    /// Waits until the node of this name is in one of these states.
    pub async fn node_named(&self, name: &str, states: &[&str]) -> Result<()> {
        wait::until(&format!("node {name} that is {states:?}"), START_DEADLINE, async || {
            let nodes = self.api.nodes().await?;
            let found = nodes
                .iter()
                .any(|node| node.name == name && states.contains(&node.state.as_str()));
            Ok(found.then_some(()))
        })
        .await
    }

    /// Starts another node that shows `token`; its output goes to `log`.
    pub fn start_intruder(&self, token: &str, log: &Path) -> Result<Process> {
        self.spawn_node("intruder", "intruder", token, log)
    }

    fn spawn_node(&self, state: &str, name: &str, token: &str, log: &Path) -> Result<Process> {
        let server = self.relay.as_ref().map_or(self.grpc, Relay::address);
        let mut arguments = words(&[
            "node",
            "--name",
            name,
            "--join",
            &format!("http://{server}"),
            "--token",
            token,
        ]);
        arguments.extend(words(&["--state-dir"]));
        arguments.push(self.root.join(state).into());
        arguments.extend(self.node_arguments());
        Process::start(&paths::gantry()?, &arguments, &environment()?, log)
    }

    /// Waits until the one node is in one of these states.
    pub async fn node_in_state(&self, states: &[&str]) -> Result<crate::views::Node> {
        wait::until(&format!("a node that is {states:?}"), START_DEADLINE, async || {
            let nodes = self.api.nodes().await?;
            Ok(nodes.into_iter().find(|node| states.contains(&node.state.as_str())))
        })
        .await
    }

    /// Waits until no container, claim or workspace is left.
    pub async fn all_given_back(&self) -> Result<()> {
        leaks::all_given_back(
            &self.installation,
            &[self.root.join("data/node"), self.root.join("node")],
        )
        .await
    }

    /// Memory of the daemon: a line of `/proc/<pid>/status`.
    pub async fn server_memory_bytes(&self, line: &str) -> Result<u64> {
        self.server
            .lock()
            .await
            .as_ref()
            .context("the server does not run")?
            .memory_bytes(line)
    }

    fn node_arguments(&self) -> Vec<OsString> {
        let mut arguments = words(&["--slots", &self.slots.to_string()]);
        for path in &self.allow_paths {
            arguments.extend([OsString::from("--allow-path"), path.into()]);
        }
        if let Some(socket) = &self.docker_socket {
            arguments.extend([OsString::from("--docker-socket"), socket.into()]);
        }
        arguments
    }

    async fn start_server(&self) -> Result<()> {
        let data = self.root.join("data");
        let endpoints = data.join("endpoints.json");
        if endpoints.exists() {
            std::fs::remove_file(&endpoints)?;
        }
        let mut arguments = words(&[if self.shape == Shape::Dev { "dev" } else { "server" }, "--data-dir"]);
        arguments.push(data.into());
        arguments.extend(words(&[
            "--listen",
            &self.http.to_string(),
            "--grpc-listen",
            &self.grpc.to_string(),
        ]));
        if let Some(lease) = self.lease {
            arguments.extend(words(&["--lease-ms", &lease.as_millis().to_string()]));
        }
        if self.shape == Shape::Dev {
            arguments.extend(self.node_arguments());
        }
        let process = Process::start(
            &paths::gantry()?,
            &arguments,
            &environment()?,
            &self.root.join("server.log"),
        )?;
        let mut server = self.server.lock().await;
        let process = server.insert(process);
        wait::until("endpoints.json", START_DEADLINE, async || {
            process.check_alive()?;
            Ok(endpoints.exists().then_some(()))
        })
        .await
    }

    async fn server_ready(&self) -> Result<()> {
        let mut server = self.server.lock().await;
        let process = server.as_mut().context("the server does not run")?;
        wait::until("/readyz", START_DEADLINE, async || {
            process.check_alive()?;
            let ready = self
                .api
                .get("/readyz")
                .await
                .is_ok_and(|reply| reply.status.is_success());
            Ok(ready.then_some(()))
        })
        .await
    }

    fn endpoints(&self) -> Result<(SocketAddr, SocketAddr)> {
        let text = std::fs::read_to_string(self.root.join("data/endpoints.json"))?;
        let endpoints: Value = serde_json::from_str(&text)?;
        let address = |name: &str| -> Result<SocketAddr> {
            let text = endpoints[name]
                .as_str()
                .with_context(|| format!("no `{name}` in {endpoints}"))?;
            Ok(text.trim_start_matches("http://").trim_end_matches('/').parse()?)
        };
        Ok((address("http")?, address("grpc")?))
    }

    /// Orderly end: everything is given back by itself, then the processes stop, then nothing is left.
    async fn take_down(&self) -> Result<()> {
        self.all_given_back().await?;
        self.docker_events().all_destroyed(START_DEADLINE).await?;
        for process in [self.node.lock().await.take(), self.server.lock().await.take()]
            .into_iter()
            .flatten()
        {
            let status = process.stop().await?;
            if !status.success() {
                bail!("a process ended with {status} after SIGTERM");
            }
        }
        leaks::nothing_left(&self.root)
    }

    /// After a failure: end and remove what there is, whatever state it is in. The failure itself is what is reported.
    async fn abandon(&self) {
        for process in [self.node.lock().await.take(), self.server.lock().await.take()]
            .into_iter()
            .flatten()
        {
            let _ = process.kill().await;
        }
        if !self.installation.is_empty() {
            for container in docker::containers(&self.installation).await.unwrap_or_default() {
                let _ = docker::docker(&["rm", "--force", "--volumes", &container]).await;
            }
        }
        let mut mounts = leaks::mounts(&self.root.to_string_lossy()).unwrap_or_default();
        mounts.reverse();
        for mount in mounts {
            let _ = rustix::mount::unmount(mount.as_str(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Keeps the logs of a failure and says where; the rest of the directory goes, unless `GANTRY_TEST_KEEP` is set.
fn keep_logs(root: &Path, name: &str) {
    let kept = paths::kept_logs(name);
    let created = std::fs::create_dir_all(&kept).is_ok();
    for log in ["server.log", "node.log"] {
        let from = root.join(log);
        if created && from.exists() && std::fs::copy(&from, kept.join(log)).is_ok() {
            eprintln!("log kept: {}\n{}", kept.join(log).display(), process::tail(&from));
        }
    }
    if std::env::var_os("GANTRY_TEST_KEEP").is_none() {
        let _ = std::fs::remove_dir_all(root);
    }
}

/// Creates the data directory; the admin key that is shown once.
pub async fn init(data: &Path, home: &Path) -> Result<String> {
    let output = cli::gantry(None, home, &["init", "--data-dir", &data.to_string_lossy()])
        .await?
        .expect_code(0)?;
    let key = output.stdout.split_whitespace().find(|word| word.starts_with("ab_"));
    Ok(key
        .with_context(|| format!("no key in the output of `gantry init`: {output:?}"))?
        .to_owned())
}

fn words(texts: &[&str]) -> Vec<OsString> {
    texts.iter().map(OsString::from).collect()
}

fn environment() -> Result<Vec<(&'static str, OsString)>> {
    let log = std::env::var_os("GANTRY_LOG").unwrap_or_else(|| "info".into());
    Ok(vec![
        ("GANTRY_SUPERVISOR", paths::supervisor()?.into()),
        ("GANTRY_LOG", log),
    ])
}

/// Seconds of the epoch, for Docker's `--since`.
#[allow(
    clippy::disallowed_methods,
    reason = "Docker's clock is the machine's; nothing is simulated here"
)]
fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
