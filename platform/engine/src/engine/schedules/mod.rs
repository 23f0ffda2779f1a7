//! Schedules: what gateways call, and the task that starts their runs.

mod starter;

use bytes::Bytes;
use gantry_journal::keys::{self, Parsed};
use gantry_proto::v1::{Label, Payload};
use gantry_proto::{ErrorCode, PartitionId, ScheduleId, TenantId, limits};
use serde_json::{Map, Value};

use super::{Engine, not_found, unreadable};
use crate::api::{Caller, FailureView, Issue, Missed, Overlap, Refusal, ScheduleSpec, ScheduleView, Schedules};
use crate::core::commands::{DeleteSchedule, OweRuns, PauseSchedule, SetSchedule};
use crate::core::rows::ScheduleRow;
use crate::core::schedule::{Calendar, id_of};
use crate::processor::load::{Records, decode, walk};
use crate::processor::storage::Storage;
use crate::read;
use crate::spec;

pub(super) use starter::Starter;
pub(crate) use starter::Waker;

/// Times that a view shows ahead.
const NEXT_SHOWN: usize = 5;

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::InvalidRequest, message)
}

/// `name` or `name@version`.
fn reference(text: &str) -> Result<(String, Option<u32>), Refusal> {
    let Some((name, number)) = text.rsplit_once('@') else {
        return Ok((text.to_owned(), None));
    };
    let number = number.parse::<u32>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| invalid("`playbook` is `name` or `name@version`, such as `release@3`"))?;
    Ok((name.to_owned(), Some(number)))
}

fn check(name: &str, spec: &ScheduleSpec) -> Result<Vec<u8>, Refusal> {
    if name.trim().is_empty() || name.len() > limits::NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(invalid(format!(
            "the name of a schedule has 1 to {} bytes and no control characters",
            limits::NAME_BYTES_MAX
        )));
    }
    if spec.jitter_ms > limits::SCHEDULE_JITTER_MS_MAX {
        return Err(invalid(format!(
            "`jitter_ms` is at most {}, which is a day",
            limits::SCHEDULE_JITTER_MS_MAX
        )));
    }
    let calendar = Calendar::new(&spec.cron, &spec.time_zone).map_err(|error| invalid(error.to_string()))?;
    let now = jiff::Timestamp::now().as_millisecond();
    if calendar.next(u64::try_from(now).unwrap_or(0)).is_none() {
        return Err(invalid(format!("`{}` names no time that will ever come", spec.cron)));
    }
    let json = serde_json::to_vec(&spec.parameters).map_err(|error| invalid(error.to_string()))?;
    if json.len() > limits::PARAMETERS_BYTES_MAX {
        return Err(Refusal::new(
            ErrorCode::TooLarge,
            format!("the parameters are larger than {} bytes", limits::PARAMETERS_BYTES_MAX),
        ));
    }
    Ok(json)
}

impl Engine {
    fn schedule_id(&self, tenant: TenantId, name: &str) -> ScheduleId {
        id_of(tenant, name, self.partition_count())
    }

    /// Whether the playbook exists and takes these parameters now.
    async fn check_run(&self, tenant: TenantId, spec: &ScheduleSpec) -> Result<(String, Option<u32>), Refusal> {
        let (name, version) = reference(&spec.playbook)?;
        let (source, _) = self.playbooks.playbook(tenant, &name, version).await?;
        let parameters = spec.parameters.clone();
        self.blocking(move |_| compiled(&source, parameters)).await?;
        Ok((name, version))
    }

    async fn view(&self, tenant: TenantId, id: ScheduleId) -> Result<ScheduleView, Refusal> {
        let clock = self.parts.clock.now_ms();
        self.blocking(move |storage| {
            let key = keys::schedule(id.partition(), tenant, id);
            let value = storage.store().get(&key).map_err(unreadable)?.ok_or_else(not_found)?;
            let row: ScheduleRow = decode("a schedule row", &value).map_err(unreadable)?;
            view(storage, &row, clock, true)
        })
        .await
    }
}

fn parameters(storage: &Storage, row: &ScheduleRow) -> Result<Map<String, Value>, Refusal> {
    let payload = Records::new(storage, row.id.partition())
        .payload(row.set_seq)
        .map_err(read::content)?;
    let json = payload.and_then(|payload| payload.parameters_json);
    json.map_or(Ok(Map::new()), |json| serde_json::from_slice(&json).map_err(unreadable))
}

fn view(storage: &Storage, row: &ScheduleRow, now_ms: u64, whole: bool) -> Result<ScheduleView, Refusal> {
    let failure = match (&row.failed_code, row.failed_seq) {
        (Some(code), Some(seq)) => {
            let payload = Records::new(storage, row.id.partition())
                .payload(seq)
                .map_err(read::content)?;
            Some(FailureView {
                code: code.clone(),
                message: payload.and_then(|payload| payload.message).unwrap_or_default(),
                hint: None,
            })
        }
        _ => None,
    };
    let next_ms = match (&row.next, Calendar::new(&row.cron, &row.time_zone)) {
        (Some(next), Ok(calendar)) => {
            let mut times = vec![next.due_ms];
            while times.len() < NEXT_SHOWN
                && let Some(another) = times.last().and_then(|last| calendar.next((*last).max(now_ms)))
            {
                times.push(another);
            }
            times
        }
        _ => Vec::new(),
    };
    let version = row.version.map(|version| format!("@{version}")).unwrap_or_default();
    Ok(ScheduleView {
        id: row.id,
        name: row.name.clone(),
        spec: ScheduleSpec {
            playbook: format!("{}{version}", row.playbook),
            cron: row.cron.clone(),
            time_zone: row.time_zone.clone(),
            jitter_ms: row.jitter_ms,
            overlap: row.overlap().into(),
            missed: row.missed().into(),
            grace_ms: row.grace_ms,
            parameters: if whole { parameters(storage, row)? } else { Map::new() },
            labels: row
                .labels
                .iter()
                .map(|label| (label.key.clone(), label.value.clone()))
                .collect(),
        },
        paused_by: row.paused_by,
        next_ms,
        running: row.running.clone(),
        queued_ms: row.queue.iter().chain(&row.asked).map(|due| due.due_ms).collect(),
        last_run: row.last_run,
        last_due_ms: row.last_due_ms,
        started: row.started,
        missed_times: row.missed_times,
        overlapped: row.overlapped,
        failed: row.failed,
        failure,
        created_at_ms: row.created_at_ms,
        changed_at_ms: row.changed_at_ms,
        changed_by: row.changed_by,
    })
}

macro_rules! same_names {
    ($api:ident = $record:ident { $($name:ident),* }) => {
        impl From<gantry_proto::v1::$record> for $api {
            fn from(value: gantry_proto::v1::$record) -> Self {
                match value { $(gantry_proto::v1::$record::$name => Self::$name),* }
            }
        }

        impl From<$api> for gantry_proto::v1::$record {
            fn from(value: $api) -> Self {
                match value { $($api::$name => Self::$name),* }
            }
        }
    };
}

same_names!(
    Overlap = ScheduleOverlap {
        Skip,
        Queue,
        Allow,
        Replace
    }
);
same_names!(Missed = ScheduleMissed { Skip, Once, All });

#[async_trait::async_trait]
impl Schedules for Engine {
    async fn set_schedule(
        &self,
        caller: Caller,
        name: &str,
        spec: ScheduleSpec,
        new: bool,
    ) -> Result<ScheduleView, Refusal> {
        let parameters_json = check(name, &spec)?;
        let labels: Vec<(String, String)> = spec.labels.clone().into_iter().collect();
        super::backend::check_labels(&labels)?;
        let playbook = self.check_run(caller.tenant, &spec).await?;
        let schedule = self.schedule_id(caller.tenant, name);
        let command = SetSchedule {
            tenant: caller.tenant,
            by: caller.principal,
            schedule,
            name: name.to_owned(),
            playbook,
            when: (spec.cron, spec.time_zone),
            jitter_ms: spec.jitter_ms,
            overlap: spec.overlap.into(),
            missed: spec.missed.into(),
            grace_ms: spec.grace_ms,
            labels: labels.into_iter().map(|(key, value)| Label { key, value }).collect(),
            payload: Payload {
                parameters_json: Some(Bytes::from(parameters_json)),
                ..Payload::default()
            },
            new,
        };
        self.call(schedule.partition(), command).await?;
        self.view(caller.tenant, schedule).await
    }

    async fn schedules(
        &self,
        tenant: TenantId,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ScheduleView>, Refusal> {
        let (partitions, now_ms) = (self.partition_count(), self.parts.clock.now_ms());
        let after = after.map(ToOwned::to_owned);
        self.blocking(move |storage| {
            let mut rows: Vec<ScheduleRow> = Vec::new();
            for partition in (0..partitions).filter_map(PartitionId::new) {
                let range = keys::tenant_of(keys::Kind::Schedule, partition, tenant);
                walk(storage.store().as_ref(), &range, |key, value| {
                    if matches!(keys::parse(key), Some(Parsed::Schedule { .. })) {
                        rows.push(decode("a schedule row", value)?);
                    }
                    Ok(())
                })
                .map_err(unreadable)?;
            }
            rows.retain(|row| after.as_ref().is_none_or(|after| row.name > *after));
            rows.sort_by(|a, b| a.name.cmp(&b.name));
            rows.truncate(limit);
            rows.iter().map(|row| view(storage, row, now_ms, false)).collect()
        })
        .await
    }

    async fn schedule(&self, tenant: TenantId, name: &str) -> Result<ScheduleView, Refusal> {
        self.view(tenant, self.schedule_id(tenant, name)).await
    }

    async fn delete_schedule(&self, caller: Caller, name: &str) -> Result<(), Refusal> {
        let schedule = self.schedule_id(caller.tenant, name);
        let command = DeleteSchedule {
            tenant: caller.tenant,
            by: caller.principal,
            schedule,
        };
        self.call(schedule.partition(), command).await?;
        Ok(())
    }

    async fn pause_schedule(&self, caller: Caller, name: &str, paused: bool) -> Result<ScheduleView, Refusal> {
        let schedule = self.schedule_id(caller.tenant, name);
        let command = PauseSchedule {
            tenant: caller.tenant,
            by: caller.principal,
            schedule,
            paused,
        };
        self.call(schedule.partition(), command).await?;
        self.view(caller.tenant, schedule).await
    }

    async fn owe_runs(
        &self,
        caller: Caller,
        name: &str,
        range: Option<(u64, u64)>,
        overlap: Option<Overlap>,
    ) -> Result<ScheduleView, Refusal> {
        if range.is_some_and(|(from, to)| from > to) {
            return Err(invalid("`from_ms` is after `to_ms`"));
        }
        let schedule = self.schedule_id(caller.tenant, name);
        let command = OweRuns {
            tenant: caller.tenant,
            schedule,
            range,
            overlap: overlap.map(Into::into),
        };
        self.call(schedule.partition(), command).await?;
        self.view(caller.tenant, schedule).await
    }
}

type Compiled = (spec::Compiled, Map<String, Value>);

/// What a run of a schedule needs beside its row.
fn run_parameters(storage: &Storage, row: &ScheduleRow, source: &Bytes) -> Result<Compiled, Refusal> {
    compiled(source, parameters(storage, row)?)
}

/// Definition and parameters of a run, if they go together.
fn compiled(source: &Bytes, parameters: Map<String, Value>) -> Result<Compiled, Refusal> {
    let refused = |code, what: &str, issues: Vec<Issue>| {
        let first = issues.first().map(|issue| issue.message.clone()).unwrap_or_default();
        Refusal {
            issues,
            ..Refusal::new(code, format!("{what}: {first}"))
        }
    };
    let compiled = spec::compile(source).map_err(|issues| {
        let what = "the playbook's definition is not valid any more";
        refused(ErrorCode::InvalidDefinition, what, issues)
    })?;
    let mismatch = |issues| {
        let what = "the schedule's parameters do not match the playbook";
        refused(ErrorCode::InvalidParameters, what, issues)
    };
    let parameters = spec::check_parameters(&compiled.definition, parameters).map_err(mismatch)?;
    let uploads = spec::uploads(&compiled.definition, &parameters).map_err(mismatch)?;
    if !uploads.is_empty() {
        let message = "the playbook takes an upload, which is gone by the time that a schedule runs";
        return Err(Refusal::new(ErrorCode::InvalidParameters, message)
            .with_hint("put the file into a repository or an image that the playbook uses"));
    }
    Ok((compiled, parameters))
}
