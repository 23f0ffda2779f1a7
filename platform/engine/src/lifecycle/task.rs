//! The life of a task.

use super::{Edge, Lifecycle, states};

states! {
    /// Where a task stands.
    TaskState of "task" {
        /// Waits: for needed tasks, a back-off, later a timer, signal or child.
        Pending = 0 "pending",
        /// Could run; waits for a node.
        Ready = 1 "ready",
        /// Leased to a node; nothing runs yet.
        Claimed = 2 "claimed",
        /// Its steps run.
        InProgress = 3 "in_progress",
        /// A person or policy must decide before it goes on.
        AwaitingApproval = 4 "awaiting_approval",
        /// Its output is there and is being assessed.
        OutputPendingAssessment = 5 "output_pending_assessment",
        /// Done.
        Completed = 6 "completed",
        /// Over without success.
        Failed = 7 "failed",
        /// Given to a person.
        Escalated = 8 "escalated",
        /// Ended on request, or never run because another failed.
        Cancelled = 9 "cancelled",
    }
}

/// What happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskTrigger {
    /// Everything it waited for is there.
    Readied,
    /// It was leased.
    Claimed,
    /// Its holder reported on a step.
    Began,
    /// The lease ended without a result: it can be leased again at once.
    Returned,
    /// It holds no lease, and something is waited for.
    Waited,
    /// A decision is asked for.
    ApprovalAsked,
    /// The decision is to go on.
    Approved,
    /// Its output waits for assessment.
    OutputReported,
    /// The work is to be done again, with feedback.
    ReworkAsked,
    /// A person lets it try again.
    Retried,
    /// It was given to a person.
    Escalated,
    /// All steps completed, its output was accepted, what it waited for is done, or it was skipped or resolved without running.
    Completed,
    /// It failed for good.
    Failed,
    /// It was ended on request.
    Cancelled,
}

impl Lifecycle for TaskState {
    type Trigger = TaskTrigger;
    const ENTITY: &'static str = "task";
    const ALL: &'static [Self] = Self::STATES;
    const EDGES: &'static [Edge<Self>] = {
        use TaskState as S;
        use TaskTrigger as T;
        &[
            (S::Pending, T::Readied, S::Ready),
            (S::Pending, T::Waited, S::Pending),
            (S::Pending, T::ApprovalAsked, S::AwaitingApproval),
            (S::Pending, T::Escalated, S::Escalated),
            (S::Pending, T::Completed, S::Completed),
            (S::Pending, T::Failed, S::Failed),
            (S::Pending, T::Cancelled, S::Cancelled),
            (S::Ready, T::Claimed, S::Claimed),
            (S::Ready, T::Completed, S::Completed),
            (S::Ready, T::Failed, S::Failed),
            (S::Ready, T::Cancelled, S::Cancelled),
            (S::Claimed, T::Began, S::InProgress),
            (S::Claimed, T::Returned, S::Ready),
            (S::Claimed, T::Waited, S::Pending),
            (S::Claimed, T::Failed, S::Failed),
            (S::Claimed, T::Cancelled, S::Cancelled),
            (S::InProgress, T::Returned, S::Ready),
            (S::InProgress, T::Waited, S::Pending),
            (S::InProgress, T::ApprovalAsked, S::AwaitingApproval),
            (S::InProgress, T::OutputReported, S::OutputPendingAssessment),
            (S::InProgress, T::Escalated, S::Escalated),
            (S::InProgress, T::Completed, S::Completed),
            (S::InProgress, T::Failed, S::Failed),
            (S::InProgress, T::Cancelled, S::Cancelled),
            (S::AwaitingApproval, T::Approved, S::Pending),
            (S::AwaitingApproval, T::Completed, S::Completed),
            (S::AwaitingApproval, T::Escalated, S::Escalated),
            (S::AwaitingApproval, T::Failed, S::Failed),
            (S::AwaitingApproval, T::Cancelled, S::Cancelled),
            (S::OutputPendingAssessment, T::Completed, S::Completed),
            (S::OutputPendingAssessment, T::ReworkAsked, S::Pending),
            (S::OutputPendingAssessment, T::Escalated, S::Escalated),
            (S::OutputPendingAssessment, T::Failed, S::Failed),
            (S::OutputPendingAssessment, T::Cancelled, S::Cancelled),
            (S::Escalated, T::Retried, S::Pending),
            (S::Escalated, T::Completed, S::Completed),
            (S::Escalated, T::Failed, S::Failed),
            (S::Escalated, T::Cancelled, S::Cancelled),
        ]
    };

    fn as_str(self) -> &'static str {
        self.text()
    }
}
