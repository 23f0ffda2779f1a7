//! What gateways call about schedules.

use bytes::Bytes;
use gantry_proto::{PrincipalId, ScheduleId, TenantId, WorkflowId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::backend::{Caller, Refusal};
use super::view::FailureView;

/// What happens when a time comes while a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// None is started.
    #[default]
    Skip,
    /// It waits for the one before.
    Queue,
    /// It is started beside it.
    Allow,
    /// The one before is cancelled, and it starts when that has ended.
    Replace,
}

/// What happens with times that passed while nobody looked: the daemon was down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// They are left out.
    Skip,
    /// The latest of them is made up for.
    #[default]
    Once,
    /// Each of them is, at most 1,000.
    All,
}

/// What a schedule says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// What it starts: `name` (the newest version at the time of each run) or `name@version`.
    pub playbook: String,
    /// When: a cron pattern of five fields, or six with seconds first.
    pub cron: String,
    /// Where the pattern's hours are: an IANA name.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Each time is put off by less than this, differently for each and always the same; at most a day.
    #[serde(default)]
    pub jitter_ms: u64,
    /// What happens when a time comes while a run goes on.
    #[serde(default)]
    pub overlap: Overlap,
    /// What happens with times that passed while the daemon was down.
    #[serde(default)]
    pub missed: Missed,
    /// A time that is later than this has been missed.
    #[serde(default = "grace")]
    pub grace_ms: u64,
    /// Parameters of its runs.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// Labels of its runs.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn grace() -> u64 {
    gantry_proto::limits::SCHEDULE_GRACE_MS_DEFAULT
}

/// A schedule as readers see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ScheduleView {
    /// Id, `sched_...`.
    #[schema(value_type = String)]
    pub id: ScheduleId,
    /// Unique in the tenant.
    pub name: String,
    /// What it says. In a list the parameters are left out.
    #[serde(flatten)]
    pub spec: ScheduleSpec,
    /// Who paused it; absent: it is not paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub paused_by: Option<PrincipalId>,
    /// The times that come next, without jitter; none while it is paused.
    pub next_ms: Vec<u64>,
    /// Runs that go on.
    #[schema(value_type = Vec<String>)]
    pub running: Vec<WorkflowId>,
    /// Times whose runs wait for the one before.
    pub queued_ms: Vec<u64>,
    /// The newest run.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub last_run: Option<WorkflowId>,
    /// For which time it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_due_ms: Option<u64>,
    /// Runs started.
    pub started: u64,
    /// Times left out because they had passed.
    pub missed_times: u64,
    /// Times left out because a run went on.
    pub overlapped: u64,
    /// Runs that could not be started.
    pub failed: u64,
    /// Why the newest of them could not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// First made.
    pub created_at_ms: u64,
    /// Changed last.
    pub changed_at_ms: u64,
    /// By whom; its runs are theirs.
    #[schema(value_type = String)]
    pub changed_by: PrincipalId,
}

/// Schedules of a tenant. Writes return when they are durable.
#[async_trait::async_trait]
pub trait Schedules: Send + Sync + 'static {
    /// Makes a schedule or replaces what it says; runs that are owed or go on are not touched. Playbook and parameters are checked now, and again for each
    /// run. `new`: refuse when it exists.
    async fn set_schedule(
        &self,
        caller: Caller,
        name: &str,
        spec: ScheduleSpec,
        new: bool,
    ) -> Result<ScheduleView, Refusal>;

    /// By name, after `after` (exclusive), at most `limit`.
    async fn schedules(
        &self,
        tenant: TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ScheduleView>, Refusal>;

    /// One schedule.
    async fn schedule(&self, tenant: TenantId, name: &str) -> Result<ScheduleView, Refusal>;

    /// Deletes it with everything that it owes; runs that go on go on.
    async fn delete_schedule(&self, caller: Caller, name: &str) -> Result<(), Refusal>;

    /// Pauses it or resumes it. Times of the pause are not made up for. Repeating it changes nothing.
    async fn pause_schedule(&self, caller: Caller, name: &str, paused: bool) -> Result<ScheduleView, Refusal>;

    /// Owes a run for now, or one for each of the calendar's times in `range`; also while it is paused. `overlap`: instead of the schedule's own.
    async fn owe_runs(
        &self,
        caller: Caller,
        name: &str,
        range: Option<(u64, u64)>,
        overlap: Option<Overlap>,
    ) -> Result<ScheduleView, Refusal>;
}

/// Where playbooks are looked up when a run begins.
#[async_trait::async_trait]
pub trait PlaybookSource: Send + Sync + 'static {
    /// The definition of a version, the newest without a number, with its number. What will not change by waiting (no such playbook, archived) has another
    /// code than [`gantry_proto::ErrorCode::StorageUnavailable`], which is asked again.
    async fn playbook(&self, tenant: TenantId, name: &str, version: Option<u32>) -> Result<(Bytes, u32), Refusal>;
}

/// An installation without playbooks: simulations and tests of other things.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPlaybooks;

#[async_trait::async_trait]
impl PlaybookSource for NoPlaybooks {
    async fn playbook(&self, _: TenantId, name: &str, _: Option<u32>) -> Result<(Bytes, u32), Refusal> {
        Err(Refusal::new(
            gantry_proto::ErrorCode::NotFound,
            format!("there is no playbook `{name}`"),
        ))
    }
}
