//! A node in this process: its fleet, its state directory, its line to the coordinator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use gantry_fleet_manager::{DockerFleet, FleetConfig, PullPolicy};
use gantry_proto::time::SystemClock;
use gantry_runtime_node::{Node, NodeConfig, Uplink, identity};

/// What this machine offers, and how it is reached. Shared by `gantry dev` and `gantry node`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HostArgs {
    /// Name of the node [default: the machine's host name]
    #[arg(long)]
    name: Option<String>,
    /// Steps at once [default: one per core]
    #[arg(long)]
    slots: Option<u32>,
    /// Something that tasks may require
    #[arg(long = "capability", value_name = "NAME")]
    capabilities: Vec<String>,
    /// Label for placement
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Directory that workspaces may be copied from; nothing outside is ever read
    #[arg(long = "allow-path", value_name = "DIR")]
    allow_paths: Vec<PathBuf>,
    /// Docker's socket
    #[arg(long, default_value = "/var/run/docker.sock")]
    docker_socket: PathBuf,
    /// Fetch images that the machine does not have
    #[arg(long)]
    pull: bool,
    /// The supervisor binary [default: `gantry-supervisor` beside this one]
    #[arg(long, env = "GANTRY_SUPERVISOR")]
    supervisor: Option<PathBuf>,
}

/// Longest that one pull may take.
const PULL_DEADLINE: std::time::Duration = std::time::Duration::from_secs(600);

/// A node that runs in this process.
pub(crate) struct LocalNode {
    node: Node,
    fleet: Arc<DockerFleet>,
}

impl LocalNode {
    /// Ends the node. Sandboxes go on and are adopted at the next start.
    pub(crate) async fn stop(self) {
        self.node.shutdown().await;
        if let Err(error) = self.fleet.close().await {
            tracing::warn!(%error, "the fleet was not closed cleanly; the next start reconciles");
        }
    }
}

/// Starts a node on `state_dir`. A Docker that does not answer is no reason to fail: the node says so and takes no work until it does.
pub(crate) async fn start(
    args: &HostArgs,
    state_dir: &Path,
    installation: &str,
    uplink: Arc<dyn Uplink>,
) -> Result<LocalNode> {
    if !rustix::process::geteuid().is_root() {
        bail!("a node must run as root: it mounts workspaces and gives each step a user of its own");
    }
    let supervisor = supervisor(args)?;
    let node = identity::load_or_create(state_dir, &SystemClock).context("read the node's identity")?;
    let mut fleet = FleetConfig::new(state_dir.join("fleet"), installation.to_owned(), node, supervisor);
    fleet.docker_socket.clone_from(&args.docker_socket);
    if args.pull {
        fleet.pull = PullPolicy::IfMissing { timeout: PULL_DEADLINE };
    }
    let fleet = Arc::new(DockerFleet::open(fleet).await.context("prepare the fleet")?);

    let mut config = NodeConfig::new(node, name(args)?, state_dir);
    config.installation = Some(installation.to_owned());
    if let Some(slots) = args.slots {
        config.slots = slots;
    }
    config.capabilities.clone_from(&args.capabilities);
    for label in &args.labels {
        match label.split_once('=') {
            Some((key, value)) if !key.is_empty() => config.labels.insert(key.to_owned(), value.to_owned()),
            _ => bail!("`{label}` is not a label: write --label key=value"),
        };
    }
    config.allow_paths.clone_from(&args.allow_paths);
    let node = Node::start(config, Arc::clone(&fleet) as _, uplink)
        .await
        .context("start the node")?;
    Ok(LocalNode { node, fleet })
}

fn name(args: &HostArgs) -> Result<String> {
    if let Some(name) = &args.name {
        return Ok(name.clone());
    }
    let uname = rustix::system::uname();
    let name = uname
        .nodename()
        .to_str()
        .context("the host name is not UTF-8; give --name")?;
    Ok(name.to_owned())
}

fn supervisor(args: &HostArgs) -> Result<PathBuf> {
    if let Some(path) = &args.supervisor {
        return Ok(path.clone());
    }
    let own = std::env::current_exe().context("find this binary")?;
    let beside = own.with_file_name("gantry-supervisor");
    if beside.is_file() {
        return Ok(beside);
    }
    bail!(
        "{} does not exist: build it with deploy/lib/build.sh, or give --supervisor FILE",
        beside.display()
    );
}
