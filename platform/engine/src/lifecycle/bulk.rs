//! The life of a bulk operation.

use super::{Edge, Lifecycle, states};

states! {
    /// Where a bulk operation stands.
    BulkState of "bulk operation" {
        /// It looks for workflows and has them acted upon.
        Running = 0 "running",
        /// It takes no more; what was asked of workflows is awaited.
        Cancelling = 1 "cancelling",
        /// Every workflow that matched was acted upon.
        Completed = 2 "completed",
        /// It was ended on request.
        Cancelled = 3 "cancelled",
    }
}

/// What happens to a bulk operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkTrigger {
    /// Somebody wants no more of it.
    CancelRequested,
    /// Nothing of it is under way any more.
    Ended,
}

impl Lifecycle for BulkState {
    type Trigger = BulkTrigger;
    const ENTITY: &'static str = "bulk operation";
    const ALL: &'static [Self] = Self::STATES;
    const EDGES: &'static [Edge<Self>] = {
        use BulkState as S;
        use BulkTrigger as T;
        &[
            (S::Running, T::CancelRequested, S::Cancelling),
            (S::Running, T::Ended, S::Completed),
            (S::Cancelling, T::Ended, S::Cancelled),
        ]
    };

    fn as_str(self) -> &'static str {
        self.text()
    }
}
