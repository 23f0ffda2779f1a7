//! What a fleet is opened with.

use std::path::PathBuf;
use std::time::Duration;

use gantry_proto::NodeId;

/// Everything [`crate::DockerFleet::open`] needs.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// Docker's Unix socket.
    pub docker_socket: PathBuf,
    /// Directory of this fleet alone: `slots/<sandbox>/`, `sock/<sandbox>/`, `bin/`, `etc/`. Created when it is missing, owned by root, 0700.
    pub state_dir: PathBuf,
    /// Whose containers these are: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`. Two installations share one Docker without seeing each other.
    pub installation: String,
    /// The node. Containers of another node are never touched.
    pub node: NodeId,
    /// The static supervisor binary. It is copied into `bin/` under its hash, so that replacing it does not disturb running containers.
    pub supervisor: PathBuf,
    /// Whether a missing image may be fetched.
    pub pull: PullPolicy,
    /// Containers created and started at once; more buys only tail latency (twice the cores).
    pub starts_at_once: usize,
    /// Containers killed and removed at once. Smaller, so that removal does not starve starts (once the cores).
    pub removals_at_once: usize,
    /// How long Docker and supervisors may take.
    pub deadlines: Deadlines,
}

impl FleetConfig {
    /// A configuration with the defaults of everything that has one.
    #[must_use]
    pub fn new(state_dir: PathBuf, installation: String, node: NodeId, supervisor: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            docker_socket: PathBuf::from("/var/run/docker.sock"),
            state_dir,
            installation,
            node,
            supervisor,
            pull: PullPolicy::Never,
            starts_at_once: 2 * cores,
            removals_at_once: cores,
            deadlines: Deadlines::default(),
        }
    }
}

/// Whether an image that is not on the node may be fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// Only local images.
    Never,
    /// Fetched when missing.
    IfMissing {
        /// Longest that one pull may take.
        timeout: Duration,
    },
}

/// How long each kind of call may take. Docker's client has none of its own for streams, and whole seconds for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// Reads: inspect, list. A loaded daemon takes a second; ten mean that it hangs.
    pub read: Duration,
    /// Create, start, kill, remove: what the daemon does with the kernel, p99 under 1 s on a quiet machine.
    pub change: Duration,
    /// From start until the supervisor has said hello.
    pub hello: Duration,
    /// From SIGKILL until Docker says that the container is dead.
    pub death: Duration,
    /// All of one health check.
    pub health: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(10),
            change: Duration::from_secs(60),
            hello: Duration::from_secs(30),
            death: Duration::from_secs(20),
            health: Duration::from_secs(3),
        }
    }
}
