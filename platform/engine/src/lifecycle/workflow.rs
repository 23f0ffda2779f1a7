//! The life of a workflow.

use super::{Edge, Lifecycle, states};

states! {
    /// Where a workflow stands.
    WorkflowState of "workflow" {
        /// Accepted, not begun.
        Pending = 0 "pending",
        /// Its tasks run or wait.
        Active = 1 "active",
        /// Held by a person: nothing new starts.
        Paused = 2 "paused",
        /// Every task completed.
        Completed = 3 "completed",
        /// A task failed.
        Failed = 4 "failed",
        /// Ended on request.
        Cancelled = 5 "cancelled",
    }
}

impl WorkflowState {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What happens to a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkflowTrigger {
    /// It may begin.
    Activated,
    /// It is to be held.
    Paused,
    /// It may go on.
    Resumed,
    /// Every task completed.
    Completed,
    /// A task failed, or its outputs could not be made.
    Failed,
    /// It was ended on request.
    Cancelled,
}

impl Lifecycle for WorkflowState {
    type Trigger = WorkflowTrigger;
    const ENTITY: &'static str = "workflow";
    const ALL: &'static [Self] = Self::STATES;
    const EDGES: &'static [Edge<Self>] = {
        use WorkflowState as S;
        use WorkflowTrigger as T;
        &[
            (S::Pending, T::Activated, S::Active),
            (S::Pending, T::Paused, S::Paused),
            (S::Pending, T::Failed, S::Failed),
            (S::Pending, T::Cancelled, S::Cancelled),
            (S::Active, T::Paused, S::Paused),
            (S::Active, T::Completed, S::Completed),
            (S::Active, T::Failed, S::Failed),
            (S::Active, T::Cancelled, S::Cancelled),
            (S::Paused, T::Resumed, S::Active),
            (S::Paused, T::Failed, S::Failed),
            (S::Paused, T::Cancelled, S::Cancelled),
        ]
    };

    fn as_str(self) -> &'static str {
        self.text()
    }
}
