//! Journal records of one workflow, as readers see them.

use gantry_journal::keys::{self, Parsed};
use gantry_journal::{Direction, ReadError};
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload, Record};
use gantry_proto::{TenantId, WorkflowId, limits};
use serde_json::{Map, Value, json};

use super::content;
use super::workflow::cause_text;
use crate::api::{EventView, Refusal};
use crate::core::state::Workflow;
use crate::engine::{not_found, unreadable};
use crate::processor::load::{Records, walk, workflow_rows};
use crate::processor::storage::Storage;
use crate::spec::attribute_json;

/// Entries that one scan of the timeline takes.
const PAGE_ENTRIES: usize = 256;

/// Records after position `after`, in order.
pub(crate) fn events(
    storage: &Storage,
    tenant: TenantId,
    id: WorkflowId,
    after: u64,
    limit: usize,
) -> Result<Vec<EventView>, Refusal> {
    let partition = id.partition();
    let store = storage.store().as_ref();
    let limit = limit.clamp(1, limits::PAGE_ITEMS_MAX as usize);
    if store
        .get(&keys::workflow(partition, tenant, id))
        .map_err(unreadable)?
        .is_none()
    {
        return Err(not_found());
    }
    // The entry that `after` is in may hold more: begin at the last entry that starts at or before it.
    let start = keys::timeline_from(partition, tenant, id, 0);
    let through = keys::timeline(partition, tenant, id, after.saturating_add(1));
    let holding = store
        .scan(&start.from, &through, Direction::Reverse, 1)
        .map_err(unreadable)?;
    let mut from = holding
        .into_iter()
        .next()
        .map_or_else(|| start.from.to_vec(), |(key, _)| key.to_vec());
    let mut records = Records::new(storage, partition);
    let names = Names::read(storage, tenant, id)?;
    let mut found = Vec::new();
    loop {
        let page = store
            .scan(&from, &start.to, Direction::Forward, PAGE_ENTRIES)
            .map_err(unreadable)?;
        for (key, value) in &page {
            let (Some(Parsed::Timeline { first_seq, .. }), Some(offsets)) =
                (keys::parse(key), keys::timeline_offsets(value))
            else {
                continue;
            };
            for offset in offsets {
                let position = first_seq + offset as u64;
                if position <= after {
                    continue;
                }
                if found.len() == limit {
                    return Ok(found);
                }
                let entry = records.entry(position).map_err(unreadable)?;
                let at_ms = entry.at_ms;
                let record = entry.records.get(offset).cloned().unwrap_or_default();
                let payload = if record.payload.is_some() {
                    records.payload(position).map_err(content)?
                } else {
                    None
                };
                found.extend(view(position, at_ms, &record, payload.as_ref(), &names));
            }
        }
        let Some((last, _)) = page.last().filter(|_| page.len() == PAGE_ENTRIES) else {
            return Ok(found);
        };
        from = last.to_vec();
        from.push(0);
    }
}

/// Every record of a workflow in order, with the view of its clear side. Nothing is opened.
pub(crate) fn each_record<E: From<ReadError>>(
    storage: &Storage,
    workflow: &Workflow,
    mut each: impl FnMut(&EventView, &Record) -> Result<(), E>,
) -> Result<(), E> {
    let id = workflow.row.id;
    let names = Names::of_rows(workflow);
    let mut records = Records::new(storage, id.partition());
    let range = keys::timeline_from(id.partition(), workflow.row.tenant, id, 0);
    let mut failed = None;
    let walked = walk(storage.store().as_ref(), &range, |key, value| {
        let (Some(Parsed::Timeline { first_seq, .. }), Some(offsets)) =
            (keys::parse(key), keys::timeline_offsets(value))
        else {
            return Ok(());
        };
        for offset in offsets {
            let position = first_seq + offset as u64;
            let entry = records.entry(position)?;
            let Some(record) = entry.records.get(offset) else {
                continue;
            };
            let Some(view) = view(position, entry.at_ms, record, None, &names) else {
                continue;
            };
            if let Err(error) = each(&view, record) {
                failed = Some(error);
                return Err(ReadError::Io("stopped".to_owned()));
            }
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => walked.map_err(E::from),
    }
}

/// Names of tasks by id, for readers that do not hold the definition.
struct Names(Vec<(gantry_proto::TaskId, String)>);

impl Names {
    fn read(storage: &Storage, tenant: TenantId, id: WorkflowId) -> Result<Self, Refusal> {
        let rows = workflow_rows(storage.store().as_ref(), tenant, id).map_err(unreadable)?;
        Ok(rows.as_ref().map_or_else(|| Self(Vec::new()), Self::of_rows))
    }

    fn of_rows(workflow: &Workflow) -> Self {
        let tasks = workflow.tasks.iter();
        Self(tasks.map(|task| (task.row.id, task.row.name.clone())).collect())
    }

    fn at(&self, index: u32) -> (String, String) {
        let found = self.0.get(index as usize);
        found.map_or_else(Default::default, |(id, name)| (id.to_string(), name.clone()))
    }

    fn of(&self, id: gantry_proto::TaskId) -> &str {
        self.0
            .iter()
            .find(|(each, _)| *each == id)
            .map_or("", |(_, name)| name.as_str())
    }
}

/// `STEP_END_FAILED` without its prefix, in lower case.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase()
}

fn labels(labels: &[v1::Label]) -> Value {
    Value::Object(
        labels
            .iter()
            .map(|label| (label.key.clone(), json!(label.value)))
            .collect(),
    )
}

fn attributes(attributes: &[v1::SearchAttribute]) -> Value {
    Value::Object(
        attributes
            .iter()
            .map(|attribute| (attribute.name.clone(), attribute_json(attribute)))
            .collect(),
    )
}

/// `None` for records that are not about a workflow.
fn view(position: u64, at_ms: u64, record: &Record, payload: Option<&Payload>, names: &Names) -> Option<EventView> {
    let task = |id: gantry_proto::TaskId| (id.to_string(), names.of(id).to_owned());
    let (kind, mut data) = match record.event.kind.as_ref()? {
        Kind::WorkflowSubmitted(event) => (
            "workflow_submitted",
            json!({
                "name": event.name,
                "definition_digest": hex::encode(&event.definition_digest),
                "submitted_by": event.submitted_by.to_string(),
                "labels": labels(&event.labels),
                "attributes": attributes(&event.attributes),
                "origin": event.origin.as_ref().map(|origin| origin.workflow.to_string()),
                "parent": event.lineage.as_ref().map(|lineage| lineage.parent.to_string()),
                "tasks": event.tasks.iter().map(|seed| json!({"task": seed.task.to_string(), "task_name": seed.name})).collect::<Vec<_>>(),
            }),
        ),
        Kind::WorkflowActivated(_) => ("workflow_activated", json!({})),
        Kind::WorkflowCancelRequested(event) => (
            "workflow_cancel_requested",
            json!({"by": event.by.to_string(), "grace_ms": event.grace_ms}),
        ),
        Kind::WorkflowEnding(event) => (
            "workflow_ending",
            json!({"end": word(event.end().as_str_name(), "WORKFLOW_END_"), "code": event.code}),
        ),
        Kind::WorkflowEnded(event) => (
            "workflow_ended",
            json!({"end": word(event.end().as_str_name(), "WORKFLOW_END_"), "code": event.code}),
        ),
        Kind::TaskReadied(event) => {
            let (id, name) = task(event.task);
            ("task_readied", json!({"task": id, "task_name": name}))
        }
        Kind::TaskClaimed(event) => {
            let (id, name) = task(event.task);
            (
                "task_claimed",
                json!({"task": id, "task_name": name, "attempt": event.attempt, "fence": event.fence, "node": event.holder.to_string(), "lease_ms": event.lease_ms}),
            )
        }
        Kind::TaskWaiting(event) => {
            let (id, name) = task(event.task);
            (
                "task_waiting",
                json!({"task": id, "task_name": name, "reason": word(event.kind().as_str_name(), "WAIT_KIND_"), "until_ms": event.until_ms}),
            )
        }
        Kind::TaskEnded(event) => {
            let (id, name) = task(event.task);
            (
                "task_ended",
                json!({"task": id, "task_name": name, "end": word(event.end().as_str_name(), "TASK_END_"), "code": event.code}),
            )
        }
        Kind::LeaseEnded(event) => {
            let (id, name) = task(event.task);
            (
                "lease_ended",
                json!({"task": id, "task_name": name, "fence": event.fence, "end": word(event.end().as_str_name(), "LEASE_END_"), "code": event.code}),
            )
        }
        Kind::TaskCancelRequested(event) => {
            let (id, name) = task(event.task);
            (
                "task_cancel_requested",
                json!({"task": id, "task_name": name, "grace_ms": event.grace_ms, "for": word(event.stop_for().as_str_name(), "STOP_FOR_")}),
            )
        }
        Kind::StepAssigned(event) => {
            let (id, name) = task(event.task);
            (
                "step_assigned",
                json!({"task": id, "task_name": name, "fence": event.fence, "step": event.step, "attempt": event.attempt, "plan_digest": hex::encode(&event.plan_digest)}),
            )
        }
        Kind::StepRunning(event) => {
            let (id, name) = task(event.task);
            (
                "step_running",
                json!({"task": id, "task_name": name, "fence": event.fence, "step": event.step, "attempt": event.attempt, "sandbox": event.sandbox.to_string(), "started_at_ms": event.started_at_ms}),
            )
        }
        Kind::StepEnded(event) => {
            let (id, name) = task(event.task);
            (
                "step_ended",
                json!({
                    "task": id, "task_name": name, "fence": event.fence, "step": event.step, "attempt": event.attempt,
                    "end": word(event.end().as_str_name(), "STEP_END_"), "cause": cause_text(event.cause()), "code": event.code,
                    "exit_code": event.exit_code, "signal": event.signal, "oom_seen": event.oom_seen,
                    "started_at_ms": event.started_at_ms, "finished_at_ms": event.finished_at_ms, "last_seq": event.last_seq,
                    "user_cpu_us": event.user_cpu_us, "system_cpu_us": event.system_cpu_us, "max_rss_bytes": event.max_rss_bytes,
                    "sandbox": event.sandbox.map(|id| id.to_string()), "prepare_ms": event.prepare_ms, "capture_ms": event.capture_ms,
                }),
            )
        }
        Kind::StepCarried(event) => {
            let (id, name) = task(event.task);
            (
                "step_carried",
                json!({"task": id, "task_name": name, "step": event.step}),
            )
        }
        Kind::WorkflowHeld(event) => ("workflow_held", json!({"by": event.by.to_string()})),
        Kind::WorkflowReleased(event) => ("workflow_released", json!({"by": event.by.to_string()})),
        Kind::WorkflowErased(event) => ("workflow_erased", json!({"by": event.by.to_string()})),
        Kind::WorkflowRemoved(_) => return None,
        kind @ (Kind::ActivationBegun(_) | Kind::ActivationEnded(_) | Kind::RunFailed(_)) => {
            super::code::event(kind, |index| names.at(index))?
        }
        Kind::ChildRequested(event) => {
            let (id, name) = task(event.task);
            (
                "child_requested",
                json!({"task": id, "task_name": name, "workflow": event.child.to_string(), "detached": event.detached}),
            )
        }
        Kind::ChildEnded(event) => {
            let (id, name) = task(event.task);
            (
                "child_ended",
                json!({"task": id, "task_name": name, "workflow": event.child.to_string(), "end": word(event.end().as_str_name(), "CHILD_END_"), "code": event.code}),
            )
        }
        Kind::ChildOrphaned(event) => {
            let (id, name) = task(event.task);
            (
                "child_orphaned",
                json!({"task": id, "task_name": name, "workflow": event.child.to_string(), "end": word(event.end().as_str_name(), "CHILD_END_")}),
            )
        }
        Kind::TaskFannedOut(event) => {
            let (id, name) = task(event.task);
            let items = event
                .items
                .iter()
                .map(|seed| json!({"task": seed.task.to_string(), "task_name": seed.name}));
            (
                "task_fanned_out",
                json!({"task": id, "task_name": name, "tasks": items.collect::<Vec<_>>()}),
            )
        }
        Kind::SignalReceived(event) => (
            "signal_received",
            json!({"name": event.name, "by": event.by.to_string()}),
        ),
        Kind::SignalDelivered(event) => {
            let (id, name) = task(event.task);
            (
                "signal_delivered",
                json!({"task": id, "task_name": name, "signal": event.signal_seq}),
            )
        }
        Kind::WorkflowPaused(event) => (
            "workflow_paused",
            json!({"by": event.by.map(|by| by.to_string()), "code": event.code}),
        ),
        Kind::WorkflowResumed(event) => ("workflow_resumed", json!({"by": event.by.to_string()})),
        Kind::TaskBegan(event) => {
            let (id, name) = task(event.task);
            (
                "task_began",
                json!({"task": id, "task_name": name, "deadline_ms": event.deadline_ms}),
            )
        }
        Kind::DeadlinePassed(event) => {
            let found = event.task.map(task);
            let (id, name) = found.map_or((None, None), |(id, name)| (Some(id), Some(name)));
            ("deadline_passed", json!({"task": id, "task_name": name}))
        }
        Kind::TaskDecided(event) => {
            let (id, name) = task(event.task);
            let decision = word(event.decision().as_str_name(), "DECISION_");
            (
                "task_decided",
                json!({"task": id, "task_name": name, "decision": decision, "by": event.by.to_string(), "changed": event.changed, "exhausted": event.over,
                    "node": event.node.map(|node| node.to_string()), "restart": event.restart,
                    "excluded": (!event.excluded.is_empty()).then(|| event.excluded.iter().map(ToString::to_string).collect::<Vec<_>>())}),
            )
        }
        Kind::TaskEscalated(event) => {
            let (id, name) = task(event.task);
            (
                "task_escalated",
                json!({"task": id, "task_name": name, "code": event.code}),
            )
        }
        Kind::LimitsRequested(event) => {
            let found = event.task.map(task);
            let (id, name) = found.map_or((None, None), |(id, name)| (Some(id), Some(name)));
            let limits = event.limits.iter().map(|wanted| {
                json!({"key_hash": hex::encode(&wanted.key), "limit": wanted.terms.limit, "per_ms": wanted.terms.per_ms, "on_limit": word(wanted.terms.policy().as_str_name(), "LIMIT_POLICY_")})
            });
            (
                "limits_requested",
                json!({"task": id, "task_name": name, "limits": limits.collect::<Vec<_>>()}),
            )
        }
        Kind::LimitGranted(event) => {
            let found = event.task.map(task);
            let (id, name) = found.map_or((None, None), |(id, name)| (Some(id), Some(name)));
            (
                "limit_granted",
                json!({"task": id, "task_name": name, "key_hash": hex::encode(&event.key)}),
            )
        }
        Kind::LimitLost(event) => {
            let found = event.task.map(task);
            let (id, name) = found.map_or((None, None), |(id, name)| (Some(id), Some(name)));
            ("limit_lost", json!({"task": id, "task_name": name, "code": event.code}))
        }
        // Letters are how it is done, not what happened.
        Kind::MessageSent(_)
        | Kind::MessagesReceived(_)
        | Kind::MessagesAcknowledged(_)
        | Kind::ScopePaused(_)
        | Kind::ScopeResumed(_)
        | Kind::LimitAsked(_)
        | Kind::LimitTaken(_)
        | Kind::LimitLeft(_)
        | Kind::LimitEvicted(_)
        | Kind::LimitProbed(_)
        | Kind::LimitForgotten(_)
        | Kind::ScheduleSet(_)
        | Kind::ScheduleFired(_)
        | Kind::ScheduleAsked(_)
        | Kind::ScheduleFailed(_)
        | Kind::SchedulePaused(_)
        | Kind::ScheduleDeleted(_)
        | Kind::BulkRequested(_)
        | Kind::BulkAdvanced(_)
        | Kind::BulkReported(_)
        | Kind::BulkCancelRequested(_)
        | Kind::BulkEnded(_)
        | Kind::BulkExpired(_)
        | Kind::NodeRegistered(_)
        | Kind::NodeChanged(_)
        | Kind::IdempotencyRecorded(_)
        | Kind::IdempotencyExpired(_)
        | Kind::UploadCreated(_)
        | Kind::UploadDeleted(_)
        | Kind::UploadExpired(_) => {
            return None;
        }
    };
    if let Value::Object(fields) = &mut data {
        fields.retain(|_, value| !value.is_null());
        if let Some(payload) = payload {
            opened(fields, payload);
        }
    }
    Some(EventView {
        position,
        at_ms,
        kind: kind.to_owned(),
        data,
    })
}

/// What users and models wrote, except what has reads of its own (definition and source).
fn opened(fields: &mut Map<String, Value>, payload: &Payload) {
    let documents = [
        ("parameters", &payload.parameters_json),
        ("outputs", &payload.outputs_json),
        ("attrs", &payload.attrs_json),
        ("items", &payload.items_json),
        ("changes", &payload.changes_json),
    ];
    for (name, json) in documents {
        if let Some(value) = json
            .as_ref()
            .and_then(|json| serde_json::from_slice::<Value>(json).ok())
        {
            fields.insert(name.to_owned(), value);
        }
    }
    for (name, text) in [("message", &payload.message), ("hint", &payload.hint)] {
        if let Some(text) = text {
            fields.insert(name.to_owned(), json!(text));
        }
    }
    if !payload.artifacts.is_empty() {
        let artifacts = payload.artifacts.iter().map(|each| {
            json!({"id": each.id.to_string(), "name": each.name, "size_bytes": each.size_bytes, "sha256": hex::encode(&each.sha256), "content_type": each.content_type})
        });
        fields.insert("artifacts".to_owned(), artifacts.collect());
    }
}
