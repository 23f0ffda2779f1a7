//! What a node is told at start.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use gantry_proto::NodeId;

/// How workspaces are layered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StrategyChoice {
    /// Overlay when a probe at start succeeds, else copies.
    #[default]
    Auto,
    /// Overlay only: start fails where it cannot be mounted.
    Overlay,
    /// A full copy per attempt.
    Copy,
}

/// How git sources are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitConfig {
    /// Longest time that one git command may take.
    pub timeout: Duration,
    /// Command for `ssh://` sources; the default asks nothing and forwards nothing.
    pub ssh_command: String,
    /// Mirrors that are kept, the one in use included. Past this the least recently used ones are removed.
    pub mirrors_max: usize,
    /// What all mirrors may take on disk, as far as they are not in use.
    pub mirrors_bytes_max: u64,
}

impl Default for GitConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(600),
            ssh_command: "ssh -oBatchMode=yes -oForwardAgent=no -oClearAllForwardings=yes -oPermitLocalCommand=no"
                .to_owned(),
            // Enough for the repositories of a busy team; looking at each costs a walk over some hundred files.
            mirrors_max: 64,
            mirrors_bytes_max: 16 << 30,
        }
    }
}

/// What a node is told at start. [`NodeConfig::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its id, see [`crate::identity`].
    pub node: NodeId,
    /// Its name, for people.
    pub name: String,
    /// The installation that it belongs to: a server of another one is not served. `None`: whoever answers is right.
    pub installation: Option<String>,
    /// Directory of claim files, workspaces and git mirrors. Belongs to one running node at a time.
    pub state_dir: PathBuf,
    /// Steps at once.
    pub slots: u32,
    /// CPU that placement may count on, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory that placement may count on.
    pub memory_bytes: u64,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// Labels for placement.
    pub labels: BTreeMap<String, String>,
    /// OCI runtime by name; `None` is the engine's default.
    pub runtime: Option<String>,
    /// User ids for steps; each is in use by one sandbox at a time.
    pub uids: RangeInclusive<u32>,
    /// Group ids for workspaces; each belongs to one workspace at a time.
    pub gids: RangeInclusive<u32>,
    /// Host directories that workspaces may be copied from. Nothing outside is ever read.
    pub allow_paths: Vec<PathBuf>,
    /// How git sources are fetched.
    pub git: GitConfig,
    /// How workspaces are layered.
    pub strategy: StrategyChoice,
    /// Free space in the state directory below which no work is taken.
    pub disk_reserve_bytes: u64,
    /// How often Docker and the disk are looked at.
    pub health_interval: Duration,
    /// How often containers are looked for that nobody claims. The first time is at the start, the second soon after it.
    pub reconcile_interval: Duration,
    /// Longest time that connecting, and the server's first answer, may take.
    pub connect_timeout: Duration,
    /// First and longest pause before the next try to connect.
    pub reconnect: (Duration, Duration),
}

impl NodeConfig {
    /// Defaults for a node of this id, name and state directory: one slot per core.
    #[must_use]
    pub fn new(node: NodeId, name: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(1));
        let memory = rustix::system::sysinfo();
        Self {
            node,
            name: name.into(),
            installation: None,
            state_dir: state_dir.into(),
            slots: cores,
            cpu_millis: u64::from(cores) * 1000,
            memory_bytes: memory.totalram.saturating_mul(u64::from(memory.mem_unit)),
            capabilities: Vec::new(),
            labels: BTreeMap::new(),
            runtime: None,
            uids: 200_000..=265_535,
            gids: 300_000..=365_535,
            allow_paths: Vec::new(),
            git: GitConfig::default(),
            strategy: StrategyChoice::Auto,
            disk_reserve_bytes: 256 << 20,
            reconcile_interval: Duration::from_secs(60),
            health_interval: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            reconnect: (Duration::from_millis(200), Duration::from_secs(15)),
        }
    }
}
