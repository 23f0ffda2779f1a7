//! What can be asked of a partition: one command, one file.

mod acknowledged;
mod assignment_refused;
mod bulk;
mod cancel;
mod destroy;
mod drain;
mod dropped;
mod hold;
mod lease_expired;
mod node_departed;
mod node_health;
mod node_register;
mod pause;
mod pause_scope;
mod reassign;
mod receive;
mod reconcile;
mod run_steps;
mod schedule;
mod signal;
mod step_finished;
mod step_started;
mod submit;
mod task_decide;
mod timer_due;
mod upload_create;
mod upload_delete;

use gantry_proto::v1::{Assignee, HeldVerdict};
use gantry_proto::{ErrorCode, NodeId, PartitionId, TaskId, UploadId, WorkflowId};

pub use acknowledged::Acknowledged;
pub use assignment_refused::AssignmentRefused;
pub use bulk::{BulkPage, CancelBulk, ForgetBulks, StartBulk};
pub use cancel::Cancel;
pub use destroy::{Erase, Expired, Remove};
pub use drain::Drain;
pub use dropped::Dropped;
pub use hold::{Hold, Release};
pub use lease_expired::LeaseExpired;
pub use node_departed::NodeDeparted;
pub use node_health::{NodeHealth, is_unfit};
pub use node_register::NodeRegister;
pub use pause::{Pause, Resume};
pub use pause_scope::PauseScope;
pub use receive::{Delivery, Receive};
pub use reconcile::Reconcile;
pub use run_steps::{RunAnswer, RunOp, RunSteps};
pub use schedule::{DeleteSchedule, OweRuns, PauseSchedule, SetSchedule, StartRun};
pub use signal::Signal;
pub use step_finished::StepFinished;
pub use step_started::StepStarted;
pub use submit::Submit;
pub use task_decide::TaskDecide;
pub(crate) use task_decide::{outputs_of, was_made};
pub use timer_due::TimerDue;
pub use upload_create::CreateUpload;
pub use upload_delete::DeleteUpload;

use super::apply::ApplyError;
use super::decide::{Batching, Inputs};
use super::state::{PartitionState, TaskRef};
use crate::api::{StepState, SubmitReceipt, Verdict};
use crate::lifecycle::task::TaskState;
use crate::lifecycle::workflow::WorkflowState;

/// What decides nothing and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such thing in the caller's tenant, in memory. Ended workflows are only in storage.
    #[error("not found")]
    NotFound,
    /// The key was used for another request.
    #[error("the idempotency key belongs to workflow {0}, which was started by another request")]
    IdempotencyMismatch(WorkflowId),
    /// The request cannot be recorded.
    #[error("{message}")]
    Refused {
        /// What programs match on.
        code: ErrorCode,
        /// What is wrong.
        message: String,
    },
}

/// Answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To [`Submit`].
    Submitted(SubmitReceipt),
    /// To [`Cancel`].
    State(WorkflowState),
    /// To [`Signal`].
    Signalled {
        /// Its id was known.
        duplicate: bool,
    },
    /// To [`TaskDecide`]: where the task stands now.
    Task(TaskState),
    /// To messages about an assignment.
    Verdict(Verdict),
    /// To [`Reconcile`].
    Held {
        /// One per assignment that the node named.
        verdicts: Vec<HeldVerdict>,
        /// Workspaces that it may remove.
        release: Vec<TaskId>,
    },
    /// To [`CreateUpload`].
    Uploaded {
        /// The upload; with a known idempotency key the first one.
        upload: UploadId,
        /// The idempotency key was known: nothing was kept.
        replayed: bool,
    },
    /// To [`Receive`]: everything up to this number of the sender is durable.
    Received {
        /// The newest letter.
        through: u64,
    },
    /// To [`RunSteps`]: one per operation.
    Run(Vec<RunAnswer>),
    /// To [`PauseScope`]: the newest letters to other partitions, by which they know.
    Spread(Vec<(PartitionId, u64)>),
    /// To everything that is only done.
    Done,
}

/// Result of a decision: a rejection is for the caller, an [`ApplyError`] is a fault of ours.
pub type Outcome = Result<Result<Reply, Rejection>, ApplyError>;

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A command.
        #[derive(Debug, Clone)]
        pub enum Command {
            $($(#[$doc])* $name($name),)*
        }

        impl Command {
            pub(super) fn decide(self, batch: &mut Batching<'_>, inputs: Inputs) -> Outcome {
                match self { $(Self::$name(command) => command.decide(batch, inputs),)* }
            }
        }

        $(impl From<$name> for Command {
            fn from(command: $name) -> Self {
                Self::$name(command)
            }
        })*
    };
}

commands! {
    /// Start a workflow.
    Submit,
    /// End a workflow.
    Cancel,
    /// Hold a workflow.
    Pause,
    /// Let a workflow go on.
    Resume,
    /// Hold a definition or a tenant, or let it go on.
    PauseScope,
    /// Give a workflow a signal.
    Signal,
    /// Decide on a task.
    TaskDecide,
    /// What the code of one run did.
    RunSteps,
    /// A step attempt's process runs.
    StepStarted,
    /// A step attempt ended.
    StepFinished,
    /// A node gave an assignment back.
    AssignmentRefused,
    /// A node lost what it held.
    Dropped,
    /// A lease was not renewed.
    LeaseExpired,
    /// Timers are due.
    TimerDue,
    /// A node says what it holds.
    Reconcile,
    /// A node connected.
    NodeRegister,
    /// A node's stream ended.
    NodeDeparted,
    /// A node says how it is.
    NodeHealth,
    /// An operator drains a node, or stops that.
    Drain,
    /// A workflow is kept.
    Hold,
    /// A workflow is no longer kept.
    Release,
    /// What users wrote in workflows is destroyed.
    Erase,
    /// Workflows are removed.
    Remove,
    /// A file was stored for workflows to come.
    CreateUpload,
    /// An upload is not wanted any more.
    DeleteUpload,
    /// Act upon every workflow that a filter fits.
    StartBulk,
    /// Workflows were found for a bulk operation.
    BulkPage,
    /// Let a bulk operation take no further workflows.
    CancelBulk,
    /// Forget the bulk operations of a tenant.
    ForgetBulks,
    /// Letters of another partition.
    Receive,
    /// Letters have arrived.
    Acknowledged,
    /// Make a schedule or replace what it says.
    SetSchedule,
    /// Pause a schedule or resume it.
    PauseSchedule,
    /// Delete a schedule.
    DeleteSchedule,
    /// A person asks for runs of a schedule.
    OweRuns,
    /// The playbook of an owed run was looked up.
    StartRun,
}

/// The leased task whose open attempt is exactly this one, held by this node.
#[must_use]
pub fn live(state: &PartitionState, node: NodeId, assignee: &Assignee) -> Option<TaskRef> {
    let workflow = state.workflows.get(&assignee.workflow)?;
    if workflow.row.tenant != assignee.tenant {
        return None;
    }
    let task = state.find(assignee.workflow, assignee.task)?;
    let row = &state.task(task)?.row;
    if row.component.is_some() {
        // A run is held as a whole: its activations are not named.
        return (row.holder == Some(node) && row.fence == assignee.fence).then_some(task);
    }
    let (step, open) = row.open()?;
    let named = row.holder == Some(node)
        && row.fence == assignee.fence
        && open.fence == assignee.fence
        && step == assignee.step as usize
        && open.attempt == assignee.attempt;
    named.then_some(task)
}

/// The task whose live lease is this one, whichever of its steps the assignment is of.
#[must_use]
pub fn held(state: &PartitionState, node: NodeId, assignee: &Assignee) -> Option<TaskRef> {
    let workflow = state.workflows.get(&assignee.workflow)?;
    let task = state.find(assignee.workflow, assignee.task)?;
    let row = &state.task(task)?.row;
    let holds = row.holder == Some(node) && row.fence == assignee.fence;
    (holds && workflow.row.tenant == assignee.tenant).then_some(task)
}

/// Whether the attempt ended by its holder's own report, which a repeated report must not contradict.
#[must_use]
pub fn reported(state: &PartitionState, node: NodeId, assignee: &Assignee) -> bool {
    let found = state
        .workflows
        .get(&assignee.workflow)
        .filter(|workflow| workflow.row.tenant == assignee.tenant);
    let task = found
        .and_then(|_| state.find(assignee.workflow, assignee.task))
        .and_then(|task| state.task(task));
    task.is_some_and(|task| reported_in(&task.row, node, assignee))
}

/// [`reported`], of a row.
#[must_use]
pub fn reported_in(row: &super::rows::TaskRow, node: NodeId, assignee: &Assignee) -> bool {
    row.steps.get(assignee.step as usize).is_some_and(|step| {
        step.attempts.iter().any(|attempt| {
            attempt.attempt == assignee.attempt
                && attempt.fence == assignee.fence
                && attempt.node == node
                && matches!(
                    attempt.state(),
                    StepState::Completed | StepState::Failed | StepState::Cancelled
                )
        })
    })
}

fn verdict(verdict: Verdict) -> Outcome {
    Ok(Ok(Reply::Verdict(verdict)))
}
