//! What a node asks of its fleet. The one implementation is [`crate::DockerFleet`]; tests of the node may use another.

use std::collections::BTreeSet;
use std::path::PathBuf;

use gantry_proto::v1::{Fault, NodeFrame, Resources, SupervisorFrame};
use gantry_proto::{ErrorCode, SandboxId};
use tokio::sync::mpsc;

/// What a pool is keyed by, and all that a container is created from. Everything else is bound late over the socket.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The image, by its immutable id (`sha256:...`).
    pub image: ImageId,
    /// CPU, memory, pids, /tmp.
    pub resources: Resources,
    /// OCI runtime by name; `None` is the engine's default.
    pub runtime: Option<String>,
}

/// Immutable id of a local image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub String);

/// What an image says about itself, checked to be runnable hardened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its immutable id.
    pub id: ImageId,
    /// Its environment, `NAME=value`; applied by the supervisor below the step's own.
    pub env: Vec<(String, String)>,
    /// Its working directory; empty when it has none.
    pub workdir: String,
    /// CPU architecture as Docker spells it.
    pub arch: String,
}

/// A sandbox that belongs to the caller until [`Fleet::destroy`].
pub struct Sandbox {
    /// Its id, also in the container's labels.
    pub id: SandboxId,
    /// Docker's id of the container.
    pub container: String,
    /// Host directory of the slot: mount the workspace at `slot/w`, and it appears in the sandbox under [`SLOT_IN_SANDBOX`]`/w`.
    pub slot: PathBuf,
    /// What the supervisor must prove to know; goes into the claim file for adoption.
    pub nonce: [u8; 32],
    /// The line to the supervisor.
    pub link: Link,
}

/// Where `slot/` is seen from inside.
pub const SLOT_IN_SANDBOX: &str = "/gantry";

/// What a [`Link`] tells.
#[derive(Debug)]
pub enum LinkEvent {
    /// The supervisor (re)connected and both nonces were right; it holds this, if it started something before. Re-send what was not answered.
    Connected(Option<gantry_proto::v1::ProcessStatus>),
    /// A frame, after hello.
    Frame(SupervisorFrame),
    /// The connection broke; the supervisor dials again by itself.
    Disconnected,
    /// The container has ended: nothing more will come.
    Gone(Ending),
}

/// How a container ended, from Docker and its cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ending {
    /// Exit code of PID 1, when Docker knows it.
    pub exit_code: Option<i64>,
    /// Docker saw an OOM kill in the container.
    pub oom_killed: bool,
    /// In words, for the record.
    pub detail: String,
}

/// The line to one supervisor: frames to send, events to receive. The first event is [`LinkEvent::Connected`] (or [`LinkEvent::Gone`]); after
/// [`LinkEvent::Gone`] or [`Fleet::destroy`] the events end. Bounded both ways; not reading stops the supervisor, which stops reading its pipes.
/// Dropping the events closes the line; the sandbox stays the caller's.
#[derive(Debug)]
pub struct Link {
    /// Frames to the supervisor. Sent only while connected; frames sent while disconnected wait in the queue.
    pub frames: mpsc::Sender<NodeFrame>,
    /// What it tells.
    pub events: mpsc::Receiver<LinkEvent>,
}

/// A sandbox from before a restart, as the claim file names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Adoptable {
    /// Its id.
    pub id: SandboxId,
    /// Docker's id of the container.
    pub container: String,
    /// Its nonce.
    pub nonce: [u8; 32],
}

// Without the nonces: a log must not show them.
impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("id", &self.id)
            .field("container", &self.container)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Adoptable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Adoptable")
            .field("id", &self.id)
            .field("container", &self.container)
            .finish_non_exhaustive()
    }
}

/// Docker as the node sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct FleetHealth {
    /// Docker answers.
    pub docker_ok: bool,
    /// Why the fleet cannot take work, with a hint.
    pub fault: Option<Fault>,
    /// Containers of this node, in any state.
    pub containers: u64,
}

/// What a reconciliation pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Containers of this node that are claimed and live.
    pub kept: Vec<SandboxId>,
    /// Unclaimed ones that were removed.
    pub removed: Vec<String>,
    /// Claimed ones that Docker no longer has, or that have exited.
    pub missing: Vec<SandboxId>,
}

/// Why the fleet could not do it. `code` says whose fault it is: `docker-unavailable` is waited out, `image-not-found`, `image-refused` and
/// `step-cannot-start` are the step's, the rest is infrastructure.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct FleetError {
    /// What programs match on.
    pub code: ErrorCode,
    /// What went wrong, with Docker's words.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl From<FleetError> for Fault {
    fn from(error: FleetError) -> Self {
        Self {
            code: error.code.as_str().to_owned(),
            message: error.message,
            hint: error.hint,
        }
    }
}

/// Containers of one node. Every call has a deadline of its own and may be repeated.
#[async_trait::async_trait]
pub trait Fleet: Send + Sync + 'static {
    /// Asks Docker how it is. Never fails: an unreachable Docker is an answer.
    async fn health(&self) -> FleetHealth;

    /// Finds a local image (pulling it when allowed and possible) and checks that it can run hardened.
    async fn image(&self, name: &str) -> Result<Image, FleetError>;

    /// A fresh sandbox of the profile, supervisor connected. `id` is the caller's, and durable in its claim file before the call, so that a crash in
    /// between leaves a container that the next start recognises. Cancel safe: a dropped call leaves at most a container that reconciliation removes.
    async fn claim(&self, id: SandboxId, profile: &Profile) -> Result<Sandbox, FleetError>;

    /// Takes up the line to a sandbox from before a restart, or to one whose [`Link`] was dropped. Does not wait for the supervisor to dial: the
    /// first event tells. `Ok(Err(ending))`: it has ended meanwhile.
    async fn adopt(&self, adoptable: &Adoptable) -> Result<Result<Sandbox, Ending>, FleetError>;

    /// Kills and removes the container, its socket directory and slot directory. Idempotent; unmounting the slot is the caller's and comes between
    /// [`Fleet::kill`] and this. What is still mounted beneath the slot is unmounted, never deleted.
    async fn destroy(&self, id: SandboxId) -> Result<(), FleetError>;

    /// Kills the container and waits until it is dead, without removing it, so that the workspace can be captured undisturbed. Idempotent.
    async fn kill(&self, id: SandboxId) -> Result<Ending, FleetError>;

    /// Removes every container and directory of this node that no claim names, and says what became of the claimed ones. What this process claimed or
    /// adopted and has not destroyed is left alone even when `claimed` lacks it.
    async fn reconcile(&self, claimed: &BTreeSet<SandboxId>) -> Result<Reconciled, FleetError>;
}
