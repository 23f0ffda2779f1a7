//! One schedule, `deploy`, of the script's tenant.

use gantry_engine::api::*;
use gantry_proto::{ErrorCode, PartitionId, TenantId};
use serde_json::json;

use super::{Engine, not_found};

fn schedule(name: &str, spec: ScheduleSpec) -> ScheduleView {
    ScheduleView {
        id: gantry_proto::ScheduleId::new(1, PartitionId::default(), 9),
        name: name.into(),
        spec,
        paused_by: None,
        next_ms: vec![60_000],
        running: Vec::new(),
        queued_ms: Vec::new(),
        last_run: None,
        last_due_ms: None,
        started: 0,
        missed_times: 0,
        overlapped: 0,
        failed: 0,
        failure: None,
        created_at_ms: 1,
        changed_at_ms: 1,
        changed_by: gantry_proto::PrincipalId::nil(),
    }
}

impl Engine {
    fn deploy(&self, tenant: TenantId, name: &str) -> Result<ScheduleView, Refusal> {
        if tenant != self.0.lock().tenant || name != "deploy" {
            return Err(not_found());
        }
        let spec = serde_json::from_value(json!({ "playbook": "deploy", "cron": "0 6 * * *" })).unwrap();
        Ok(schedule(name, spec))
    }
}

#[async_trait::async_trait]
impl Schedules for Engine {
    async fn set_schedule(
        &self,
        caller: Caller,
        name: &str,
        spec: ScheduleSpec,
        new: bool,
    ) -> Result<ScheduleView, Refusal> {
        let known = self.deploy(caller.tenant, name)?;
        if new {
            return Err(Refusal::new(ErrorCode::Conflict, "there is one"));
        }
        Ok(schedule(&known.name, spec))
    }

    async fn schedules(&self, tenant: TenantId, _: Option<&str>, _: usize) -> Result<Vec<ScheduleView>, Refusal> {
        Ok(self.deploy(tenant, "deploy").into_iter().collect())
    }

    async fn schedule(&self, tenant: TenantId, name: &str) -> Result<ScheduleView, Refusal> {
        self.deploy(tenant, name)
    }

    async fn delete_schedule(&self, caller: Caller, name: &str) -> Result<(), Refusal> {
        self.deploy(caller.tenant, name).map(drop)
    }

    async fn pause_schedule(&self, caller: Caller, name: &str, _: bool) -> Result<ScheduleView, Refusal> {
        self.deploy(caller.tenant, name)
    }

    async fn owe_runs(
        &self,
        caller: Caller,
        name: &str,
        range: Option<(u64, u64)>,
        _: Option<Overlap>,
    ) -> Result<ScheduleView, Refusal> {
        let mut view = self.deploy(caller.tenant, name)?;
        view.queued_ms = range.map_or(vec![7], |(from, to)| (from..=to).collect());
        Ok(view)
    }
}
