//! The stored form of the state, row by row. Rows are the fold of the log's clear side: what users wrote is not in here, only the positions of the
//! records that carry it. The core works on the rows themselves, so that there is nothing to convert and nothing to forget.
//!
//! Protobuf, fields only ever added as optional ones; the numbers are stored.

use bytes::Bytes;
use gantry_proto::v1::{
    EndCause, Fault, Label, LimitTerms, Lineage, Origin, PlaybookRef, ScheduleDue, ScheduleMissed, ScheduleNext,
    ScheduleOverlap, ScheduleRun, SearchAttribute, StopFor, WaitKind, WorkflowEnd,
};
use gantry_proto::{
    ArtifactId, ErrorCode, NodeId, PrincipalId, SandboxId, ScheduleId, TaskId, TenantId, UploadId, WorkflowId,
};

pub use super::row_parts::{DecisionRow, EndingRow, PauseRow};
use crate::api::StepState;
use crate::lifecycle::node::NodeState;
use crate::lifecycle::task::TaskState;
use crate::lifecycle::workflow::WorkflowState;

/// A workflow.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WorkflowRow {
    /// Id.
    #[prost(message, required, tag = "1")]
    pub id: WorkflowId,
    /// Whose it is.
    #[prost(message, required, tag = "2")]
    pub tenant: TenantId,
    /// Name from the definition.
    #[prost(string, required, tag = "3")]
    pub name: String,
    /// Lifecycle state.
    #[prost(enumeration = "WorkflowState", required, tag = "4")]
    pub state: i32,
    /// blake3 of the definition.
    #[prost(bytes = "bytes", required, tag = "5")]
    pub digest: Bytes,
    /// Who submitted it.
    #[prost(message, required, tag = "6")]
    pub submitted_by: PrincipalId,
    /// Labels, shown and filtered by.
    #[prost(message, repeated, tag = "7")]
    pub labels: Vec<Label>,
    /// W3C trace context of the submitter.
    #[prost(string, optional, tag = "8")]
    pub traceparent: Option<String>,
    /// Submission.
    #[prost(uint64, required, tag = "9")]
    pub created_at_ms: u64,
    /// End.
    #[prost(uint64, optional, tag = "10")]
    pub ended_at_ms: Option<u64>,
    /// `ErrorCode` of the end.
    #[prost(string, optional, tag = "11")]
    pub end_code: Option<String>,
    /// Position of the record with definition and parameters.
    #[prost(uint64, required, tag = "12")]
    pub submit_seq: u64,
    /// Position of the record with outputs or the reason.
    #[prost(uint64, optional, tag = "13")]
    pub end_seq: Option<u64>,
    /// Who asked it to end.
    #[prost(message, optional, tag = "14")]
    pub cancel_by: Option<PrincipalId>,
    /// Grace that its running steps get.
    #[prost(uint64, optional, tag = "15")]
    pub cancel_grace_ms: Option<u64>,
    /// Tasks in all.
    #[prost(uint32, required, tag = "16")]
    pub tasks_total: u32,
    /// Tasks that have ended.
    #[prost(uint32, required, tag = "17")]
    pub tasks_ended: u32,
    /// The playbook version that it runs.
    #[prost(message, optional, tag = "40")]
    pub playbook: Option<PlaybookRef>,
    /// Where it comes from, when another workflow started it.
    #[prost(message, optional, tag = "100")]
    pub lineage: Option<Lineage>,
    /// How soon its tasks go among those of its tenant, 0 to 9.
    #[prost(uint32, optional, tag = "101")]
    pub priority: Option<u32>,
    /// Which schedule started it, for which time.
    #[prost(message, optional, tag = "41")]
    pub schedule: Option<ScheduleRun>,
    /// One task of code, submitted without a definition.
    #[prost(bool, optional, tag = "60")]
    pub code: Option<bool>,
    /// Signals that wait for a task, oldest first.
    #[prost(message, repeated, tag = "80")]
    pub signals: Vec<SignalRow>,
    /// Who holds it and why, while it is paused.
    #[prost(message, optional, tag = "82")]
    pub paused: Option<PauseRow>,
    /// When it has to be done.
    #[prost(uint64, optional, tag = "83")]
    pub deadline_ms: Option<u64>,
    /// It was not done by then.
    #[prost(bool, required, tag = "84")]
    pub deadline_passed: bool,
    /// What it is found by.
    #[prost(message, repeated, tag = "200")]
    pub attributes: Vec<SearchAttribute>,
    /// Which workflow it has earlier results of.
    #[prost(message, optional, tag = "201")]
    pub origin: Option<Origin>,
    /// Hashes of the newest callers' ids of signals, oldest first.
    #[prost(bytes = "bytes", repeated, tag = "81")]
    pub signal_ids: Vec<Bytes>,
    /// How it ends, once that is decided and a task of it has yet to run.
    #[prost(message, optional, tag = "180")]
    pub ending: Option<EndingRow>,
    /// What it asked to be let begin by, in the order in which it asks; none once it has ended.
    #[prost(message, repeated, tag = "190")]
    pub limits: Vec<LimitRow>,
    /// `ErrorCode`: a limit did not let it go on.
    #[prost(string, optional, tag = "191")]
    pub limit_code: Option<String>,
}

/// A limit that somebody asked for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LimitRow {
    /// Hash of the key.
    #[prost(bytes = "bytes", required, tag = "1")]
    pub key: Bytes,
    /// How much it may be used.
    #[prost(message, required, tag = "2")]
    pub terms: LimitTerms,
    /// In the definition's list.
    #[prost(uint32, required, tag = "3")]
    pub position: u32,
    /// It was granted; the first one that is not is asked for now.
    #[prost(bool, required, tag = "4")]
    pub granted: bool,
}

/// A task with its steps.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskRow {
    /// Id.
    #[prost(message, required, tag = "1")]
    pub id: TaskId,
    /// Position in the definition, from 0.
    #[prost(uint32, required, tag = "2")]
    pub index: u32,
    /// Name from the definition.
    #[prost(string, required, tag = "3")]
    pub name: String,
    /// Lifecycle state.
    #[prost(enumeration = "TaskState", required, tag = "4")]
    pub state: i32,
    /// Leases so far.
    #[prost(uint32, required, tag = "5")]
    pub attempt: u32,
    /// Fence of the newest lease; 0 before the first.
    #[prost(uint64, required, tag = "6")]
    pub fence: u64,
    /// Holder of the live lease.
    #[prost(message, optional, tag = "7")]
    pub holder: Option<NodeId>,
    /// Length of the live lease.
    #[prost(uint64, optional, tag = "8")]
    pub lease_ms: Option<u64>,
    /// What it waits for with its lease given back.
    #[prost(enumeration = "WaitKind", optional, tag = "9")]
    pub wait_kind: Option<i32>,
    /// Until when.
    #[prost(uint64, optional, tag = "10")]
    pub wait_until_ms: Option<u64>,
    /// Its running step was asked to end, with this grace.
    #[prost(uint64, optional, tag = "11")]
    pub cancel_grace_ms: Option<u64>,
    /// When it became ready for the first time.
    #[prost(uint64, optional, tag = "12")]
    pub ready_at_ms: Option<u64>,
    /// Since when it is in the ready queue, this time.
    #[prost(uint64, optional, tag = "13")]
    pub queued_at_ms: Option<u64>,
    /// First assignment.
    #[prost(uint64, optional, tag = "14")]
    pub started_at_ms: Option<u64>,
    /// End.
    #[prost(uint64, optional, tag = "15")]
    pub ended_at_ms: Option<u64>,
    /// `ErrorCode` of the end.
    #[prost(string, optional, tag = "16")]
    pub end_code: Option<String>,
    /// Position of the record with the reason.
    #[prost(uint64, optional, tag = "17")]
    pub end_seq: Option<u64>,
    /// The node that holds its workspace: since a step completed there.
    #[prost(message, optional, tag = "18")]
    pub home: Option<NodeId>,
    /// Assignments that nodes gave back since the last one that began.
    #[prost(uint32, required, tag = "19")]
    pub refusals: u32,
    /// In order.
    #[prost(message, repeated, tag = "20")]
    pub steps: Vec<StepRow>,
    /// Position of the record with outputs of the task itself, beside those of its steps.
    #[prost(uint64, optional, tag = "41")]
    pub result_seq: Option<u64>,
    /// The workflow that it started, the last one.
    #[prost(message, optional, tag = "100")]
    pub child: Option<WorkflowId>,
    /// Position of the record that made its items, when it is a task over a list.
    #[prost(uint64, optional, tag = "101")]
    pub fan_seq: Option<u64>,
    /// Index of the task over a list that it is an item of.
    #[prost(uint32, optional, tag = "102")]
    pub origin: Option<u32>,
    /// Which item, from 0.
    #[prost(uint32, optional, tag = "103")]
    pub item: Option<u32>,
    /// Index of its first item. A task that begins anew makes its items anew; those of before have lower indexes, and count for nothing.
    #[prost(uint32, optional, tag = "104")]
    pub first_item: Option<u32>,
    /// Position of the record of the last of these refusals.
    #[prost(uint64, optional, tag = "170")]
    pub refused_seq: Option<u64>,
    /// The node that refused last.
    #[prost(message, optional, tag = "171")]
    pub refused_by: Option<NodeId>,
    /// `ErrorCode` of its reason.
    #[prost(string, optional, tag = "172")]
    pub refused_code: Option<String>,
    /// Position of the record that says what it waits for, in words: a question, a reason.
    #[prost(uint64, optional, tag = "80")]
    pub wait_seq: Option<u64>,
    /// Why it was given to a person, while it is.
    #[prost(string, optional, tag = "82")]
    pub escalated: Option<String>,
    /// The newest decision of a person.
    #[prost(message, optional, tag = "83")]
    pub decision: Option<DecisionRow>,
    /// How often it began anew by a decision. Attempts of before count for nothing.
    #[prost(uint32, required, tag = "84")]
    pub epoch: u32,
    /// Position of the record with input that a decision changed.
    #[prost(uint64, optional, tag = "85")]
    pub changes_seq: Option<u64>,
    /// Why its running step was asked to end.
    #[prost(enumeration = "StopFor", optional, tag = "86")]
    pub stop_for: Option<i32>,
    /// When it has to be done.
    #[prost(uint64, optional, tag = "87")]
    pub deadline_ms: Option<u64>,
    /// It was not done by then.
    #[prost(bool, required, tag = "88")]
    pub deadline_passed: bool,
    /// It has results of steps that ran in another workflow.
    #[prost(bool, required, tag = "200")]
    pub carried: bool,
    /// Of a task of code: what a worker runs.
    #[prost(string, optional, tag = "60")]
    pub component: Option<String>,
    /// Times that the code failed.
    #[prost(uint32, optional, tag = "61")]
    pub code_failures: Option<u32>,
    /// Leases that were lost since the code last did something.
    #[prost(uint32, optional, tag = "62")]
    pub code_lost: Option<u32>,
    /// Position of the record of its last failure.
    #[prost(uint64, optional, tag = "63")]
    pub code_error_seq: Option<u64>,
    /// What it asked to be let start by, in the order in which it asks; none once it has ended.
    #[prost(message, repeated, tag = "190")]
    pub limits: Vec<LimitRow>,
    /// `ErrorCode`: a limit did not let it go on.
    #[prost(string, optional, tag = "191")]
    pub limit_code: Option<String>,
    /// It runs only before its workflow ends so.
    #[prost(enumeration = "WorkflowEnd", optional, tag = "180")]
    pub handles: Option<i32>,
    /// Reworks that were asked for, of those that there may be.
    #[prost(uint32, required, tag = "181")]
    pub reworks: u32,
    /// How often all its steps began anew. What they did before is no result of the task.
    #[prost(uint32, required, tag = "182")]
    pub round: u32,
    /// Position of the record with the feedback for this round.
    #[prost(uint64, optional, tag = "183")]
    pub feedback_seq: Option<u64>,
    /// The only node that may run it, as a person decided.
    #[prost(message, optional, tag = "184")]
    pub assigned_to: Option<NodeId>,
    /// Nodes that may not run it.
    #[prost(message, repeated, tag = "185")]
    pub excluded: Vec<NodeId>,
    /// All its steps begin anew once what runs has ended.
    #[prost(bool, required, tag = "186")]
    pub restart: bool,
    /// Workflows that it started.
    #[prost(uint32, required, tag = "187")]
    pub children: u32,
    /// Those of them that failed, since it last began anew by a decision.
    #[prost(uint32, required, tag = "188")]
    pub child_failures: u32,
}

/// A signal that no task has taken yet.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SignalRow {
    /// Its name.
    #[prost(string, required, tag = "1")]
    pub name: String,
    /// Position of the record with its payload.
    #[prost(uint64, required, tag = "2")]
    pub seq: u64,
}

/// A step with its attempts.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StepRow {
    /// Where it stands.
    #[prost(enumeration = "StepState", required, tag = "1")]
    pub state: i32,
    /// Attempts that failed and count.
    #[prost(uint32, required, tag = "2")]
    pub failed: u32,
    /// Attempts that infrastructure lost.
    #[prost(uint32, required, tag = "3")]
    pub lost: u32,
    /// Position of the record with its outputs, once completed.
    #[prost(uint64, optional, tag = "4")]
    pub result_seq: Option<u64>,
    /// Tries, in order.
    #[prost(message, repeated, tag = "5")]
    pub attempts: Vec<AttemptRow>,
}

/// One try at a step.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AttemptRow {
    /// Number, from 1.
    #[prost(uint32, required, tag = "1")]
    pub attempt: u32,
    /// Under which lease.
    #[prost(uint64, required, tag = "2")]
    pub fence: u64,
    /// Where.
    #[prost(message, required, tag = "3")]
    pub node: NodeId,
    /// Where it stands.
    #[prost(enumeration = "StepState", required, tag = "4")]
    pub state: i32,
    /// When it was assigned.
    #[prost(uint64, required, tag = "5")]
    pub assigned_at_ms: u64,
    /// In which sandbox.
    #[prost(message, optional, tag = "6")]
    pub sandbox: Option<SandboxId>,
    /// Start of its process.
    #[prost(uint64, optional, tag = "7")]
    pub started_at_ms: Option<u64>,
    /// End of its process.
    #[prost(uint64, optional, tag = "8")]
    pub finished_at_ms: Option<u64>,
    /// Why it ended.
    #[prost(enumeration = "EndCause", optional, tag = "9")]
    pub cause: Option<i32>,
    /// `ErrorCode`, when it failed.
    #[prost(string, optional, tag = "10")]
    pub code: Option<String>,
    /// Exit code.
    #[prost(int32, optional, tag = "11")]
    pub exit_code: Option<i32>,
    /// Signal.
    #[prost(int32, optional, tag = "12")]
    pub signal: Option<i32>,
    /// Something in the sandbox was killed for memory.
    #[prost(bool, optional, tag = "13")]
    pub oom_seen: Option<bool>,
    /// Position of the record of its end.
    #[prost(uint64, optional, tag = "14")]
    pub end_seq: Option<u64>,
    /// Last sequence of its output.
    #[prost(uint64, optional, tag = "15")]
    pub last_seq: Option<u64>,
    /// CPU time, user and system.
    #[prost(uint64, optional, tag = "16")]
    pub cpu_us: Option<u64>,
    /// Greatest resident memory.
    #[prost(uint64, optional, tag = "17")]
    pub max_rss_bytes: Option<u64>,
    /// Of the task, when it was assigned: attempts of an earlier one count for nothing.
    #[prost(uint32, required, tag = "80")]
    pub epoch: u32,
}

/// A node.
#[derive(Clone, PartialEq, prost::Message)]
pub struct NodeRow {
    /// Id.
    #[prost(message, required, tag = "1")]
    pub id: NodeId,
    /// Its name.
    #[prost(string, required, tag = "2")]
    pub name: String,
    /// Version of its binary.
    #[prost(string, required, tag = "3")]
    pub version: String,
    /// Steps at once.
    #[prost(uint32, required, tag = "4")]
    pub slots: u32,
    /// Capabilities.
    #[prost(string, repeated, tag = "5")]
    pub capabilities: Vec<String>,
    /// Labels.
    #[prost(message, repeated, tag = "6")]
    pub labels: Vec<Label>,
    /// CPU architecture.
    #[prost(string, required, tag = "7")]
    pub arch: String,
    /// Operating system.
    #[prost(string, required, tag = "8")]
    pub os: String,
    /// CPU.
    #[prost(uint64, required, tag = "9")]
    pub cpu_millis: u64,
    /// Memory.
    #[prost(uint64, required, tag = "10")]
    pub memory_bytes: u64,
    /// Whose work it takes; absent: everybody's.
    #[prost(message, optional, tag = "11")]
    pub serves: Option<TenantId>,
    /// Lifecycle state.
    #[prost(enumeration = "NodeState", required, tag = "12")]
    pub state: i32,
    /// An operator wants it empty; outlives a reconnection.
    #[prost(bool, required, tag = "13")]
    pub drain: bool,
    /// What is wrong with it.
    #[prost(message, optional, tag = "14")]
    pub fault: Option<Fault>,
    /// First registration.
    #[prost(uint64, required, tag = "15")]
    pub registered_at_ms: u64,
}

/// A schedule.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ScheduleRow {
    /// Id; follows from tenant and name.
    #[prost(message, required, tag = "1")]
    pub id: ScheduleId,
    /// Whose it is.
    #[prost(message, required, tag = "2")]
    pub tenant: TenantId,
    /// Unique in the tenant.
    #[prost(string, required, tag = "3")]
    pub name: String,
    /// What it starts.
    #[prost(string, required, tag = "4")]
    pub playbook: String,
    /// Which version; none: the newest at the time of each run.
    #[prost(uint32, optional, tag = "5")]
    pub version: Option<u32>,
    /// When, as a cron pattern.
    #[prost(string, required, tag = "6")]
    pub cron: String,
    /// Where the pattern's hours are: an IANA name.
    #[prost(string, required, tag = "7")]
    pub time_zone: String,
    /// Each time is put off by less than this.
    #[prost(uint64, required, tag = "8")]
    pub jitter_ms: u64,
    /// What happens while a run goes on.
    #[prost(enumeration = "ScheduleOverlap", required, tag = "9")]
    pub overlap: i32,
    /// What happens with times that passed unseen.
    #[prost(enumeration = "ScheduleMissed", required, tag = "10")]
    pub missed: i32,
    /// From when on a time counts as missed.
    #[prost(uint64, required, tag = "11")]
    pub grace_ms: u64,
    /// Of its runs.
    #[prost(message, repeated, tag = "12")]
    pub labels: Vec<Label>,
    /// Who made or changed it last; its runs are theirs.
    #[prost(message, required, tag = "13")]
    pub changed_by: PrincipalId,
    /// First made.
    #[prost(uint64, required, tag = "14")]
    pub created_at_ms: u64,
    /// Changed last.
    #[prost(uint64, required, tag = "15")]
    pub changed_at_ms: u64,
    /// Position of the record with its parameters.
    #[prost(uint64, required, tag = "16")]
    pub set_seq: u64,
    /// When it fires next.
    #[prost(message, optional, tag = "17")]
    pub next: Option<ScheduleNext>,
    /// Who paused it.
    #[prost(message, optional, tag = "18")]
    pub paused_by: Option<PrincipalId>,
    /// Owed runs that wait for the one before.
    #[prost(message, repeated, tag = "19")]
    pub queue: Vec<ScheduleDue>,
    /// Owed runs whose playbook is being looked up.
    #[prost(message, repeated, tag = "20")]
    pub asked: Vec<ScheduleDue>,
    /// Runs that go on.
    #[prost(message, repeated, tag = "21")]
    pub running: Vec<WorkflowId>,
    /// The newest run.
    #[prost(message, optional, tag = "22")]
    pub last_run: Option<WorkflowId>,
    /// For which time it was.
    #[prost(uint64, optional, tag = "23")]
    pub last_due_ms: Option<u64>,
    /// Runs started.
    #[prost(uint64, required, tag = "24")]
    pub started: u64,
    /// Times that passed unseen and were left out.
    #[prost(uint64, required, tag = "25")]
    pub missed_times: u64,
    /// Times left out because a run went on.
    #[prost(uint64, required, tag = "26")]
    pub overlapped: u64,
    /// Runs that could not be started.
    #[prost(uint64, required, tag = "27")]
    pub failed: u64,
    /// Position of the record that says why the newest of them could not.
    #[prost(uint64, optional, tag = "28")]
    pub failed_seq: Option<u64>,
    /// `ErrorCode` of it.
    #[prost(string, optional, tag = "29")]
    pub failed_code: Option<String>,
    /// What its parameters and messages are sealed under: no workflow, and new whenever it is changed, so that a key is made once and never again.
    #[prost(message, required, tag = "30")]
    pub content: WorkflowId,
}

impl ScheduleRow {
    /// Whether it waits for nothing: a run may start though another's policy would forbid it.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.asked.is_empty()
    }
}

/// A remembered idempotency key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IdempotencyRow {
    /// What was asked for with it.
    #[prost(bytes = "bytes", required, tag = "1")]
    pub request_hash: Bytes,
    /// What was started.
    #[prost(message, required, tag = "2")]
    pub workflow: WorkflowId,
    /// When it is forgotten.
    #[prost(uint64, required, tag = "3")]
    pub expires_at_ms: u64,
}

/// An upload that has not ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UploadRow {
    /// Id.
    #[prost(message, required, tag = "1")]
    pub id: UploadId,
    /// Whose it is.
    #[prost(message, required, tag = "2")]
    pub tenant: TenantId,
    /// The object that holds it.
    #[prost(message, required, tag = "3")]
    pub content: ArtifactId,
    /// Size.
    #[prost(uint64, required, tag = "4")]
    pub size_bytes: u64,
    /// Who sent it.
    #[prost(message, required, tag = "5")]
    pub by: PrincipalId,
    /// When it was stored.
    #[prost(uint64, required, tag = "6")]
    pub created_at_ms: u64,
    /// When it is forgotten.
    #[prost(uint64, required, tag = "7")]
    pub expires_at_ms: u64,
    /// Position of the record with name and digest.
    #[prost(uint64, required, tag = "8")]
    pub created_seq: u64,
    /// Hash of the idempotency key that it was sent with.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub key_hash: Option<Bytes>,
    /// Hash of what was sent with that key.
    #[prost(bytes = "bytes", optional, tag = "10")]
    pub request_hash: Option<Bytes>,
}

impl AttemptRow {
    /// Assigned or running: its end is not journaled.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state(), StepState::Assigned | StepState::Running)
    }
}

impl StepRow {
    /// The attempt that is assigned or running.
    #[must_use]
    pub fn open(&self) -> Option<&AttemptRow> {
        self.attempts.last().filter(|attempt| attempt.is_open())
    }
}

impl TaskRow {
    /// Completed, failed or cancelled.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        matches!(
            self.state(),
            TaskState::Completed | TaskState::Failed | TaskState::Cancelled
        )
    }

    /// It is to fail when what runs of it has ended: why.
    #[must_use]
    pub fn to_fail(&self) -> Option<(ErrorCode, &'static str)> {
        if self.deadline_passed {
            return Some((ErrorCode::DeadlineExceeded, "it was not done by its deadline"));
        }
        let code = self.limit_code.as_ref()?.parse().unwrap_or(ErrorCode::LimitReached);
        Some((code, "a limit did not let it go on"))
    }

    /// It waits for nothing but to begin.
    #[must_use]
    pub fn is_unbegun(&self) -> bool {
        self.state() == TaskState::Pending && self.wait_kind.is_none()
    }

    /// The workflow that it started and waits for.
    #[must_use]
    pub fn open_child(&self) -> Option<WorkflowId> {
        let waits = self.wait_kind == Some(WaitKind::Child.into());
        self.child.filter(|_| waits && !self.is_ended())
    }

    /// All its steps are done, and nothing follows but the judgement of their result.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.steps.is_empty() && self.current().is_none()
    }

    /// The step that runs or comes next, with its position; `None` when all completed.
    #[must_use]
    pub fn current(&self) -> Option<(usize, &StepRow)> {
        self.steps
            .iter()
            .enumerate()
            .find(|(_, step)| step.state() != StepState::Completed)
    }

    /// The open attempt, with the position of its step.
    #[must_use]
    pub fn open(&self) -> Option<(usize, &AttemptRow)> {
        self.steps
            .iter()
            .enumerate()
            .find_map(|(index, step)| step.open().map(|attempt| (index, attempt)))
    }
}

impl WorkflowRow {
    /// Nothing new of it begins, and it ends when all that runs has.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.cancel_by.is_some() || self.deadline_passed || self.limit_code.is_some() || self.ending.is_some()
    }

    /// Completed, failed or cancelled.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.state().is_end()
    }
}
