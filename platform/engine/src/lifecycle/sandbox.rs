//! The life of a sandbox. Unclaimed ones are the node's own business; the engine knows claimed ones.

use super::{Edge, Lifecycle, states};

states! {
    /// Where a sandbox stands.
    SandboxState of "sandbox" {
        /// Asked for.
        Requested = 0 "requested",
        /// The container is being created.
        Provisioning = 1 "provisioning",
        /// The container runs, its supervisor has not called yet.
        Starting = 2 "starting",
        /// Its supervisor waits for work.
        Ready = 3 "ready",
        /// It works.
        Busy = 4 "busy",
        /// A session keeps it between prompts.
        Idle = 5 "idle",
        /// Frozen to save memory.
        Hibernating = 6 "hibernating",
        /// The container has ended.
        Stopped = 7 "stopped",
        /// It is being removed.
        Deleting = 8 "deleting",
        /// Gone.
        Deleted = 9 "deleted",
    }
}

/// What happens to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxTrigger {
    /// Creation began.
    Provisioned,
    /// The container was started.
    Started,
    /// The supervisor called.
    Connected,
    /// Work was started in it.
    Engaged,
    /// Its work paused; a session keeps it.
    Rested,
    /// It was frozen.
    Froze,
    /// It was thawed.
    Thawed,
    /// The container ended, by itself or on request.
    Stopped,
    /// Removal began.
    RemovalBegan,
    /// Removal is done.
    Removed,
}

impl Lifecycle for SandboxState {
    type Trigger = SandboxTrigger;
    const ENTITY: &'static str = "sandbox";
    const ALL: &'static [Self] = Self::STATES;
    const EDGES: &'static [Edge<Self>] = {
        use SandboxState as S;
        use SandboxTrigger as T;
        &[
            (S::Requested, T::Provisioned, S::Provisioning),
            (S::Requested, T::RemovalBegan, S::Deleting),
            (S::Provisioning, T::Started, S::Starting),
            (S::Provisioning, T::Stopped, S::Stopped),
            (S::Provisioning, T::RemovalBegan, S::Deleting),
            (S::Starting, T::Connected, S::Ready),
            (S::Starting, T::Stopped, S::Stopped),
            (S::Starting, T::RemovalBegan, S::Deleting),
            (S::Ready, T::Engaged, S::Busy),
            (S::Ready, T::Stopped, S::Stopped),
            (S::Ready, T::RemovalBegan, S::Deleting),
            (S::Busy, T::Rested, S::Idle),
            (S::Busy, T::Stopped, S::Stopped),
            (S::Busy, T::RemovalBegan, S::Deleting),
            (S::Idle, T::Engaged, S::Busy),
            (S::Idle, T::Froze, S::Hibernating),
            (S::Idle, T::Stopped, S::Stopped),
            (S::Idle, T::RemovalBegan, S::Deleting),
            (S::Hibernating, T::Thawed, S::Idle),
            (S::Hibernating, T::Stopped, S::Stopped),
            (S::Hibernating, T::RemovalBegan, S::Deleting),
            (S::Stopped, T::RemovalBegan, S::Deleting),
            (S::Deleting, T::Removed, S::Deleted),
        ]
    };

    fn as_str(self) -> &'static str {
        self.text()
    }
}
