//! Reading rows and payloads back: for recovery, for views, for verification. All of it blocks.

use std::sync::Arc;

use gantry_journal::keys::{self, Kind, Parsed};
use gantry_journal::{Direction, LogPosition, ReadError, SealError, Store, chain};
use gantry_proto::limits::TASKS_PER_WORKFLOW_MAX;
use gantry_proto::v1::{LogEntry, Payload, Record, Row};
use gantry_proto::{JOURNAL_FORMAT, PartitionId, TenantId, WorkflowId};
use prost::Message;
use serde_json::Map;

use super::storage::{ContentError, Storage, content_owner};
use crate::core::apply::{changes_of, item_values, result_body};
use crate::core::limits::{LimitRef, Limits};
use crate::core::mail::Mail;
use crate::core::rows::{IdempotencyRow, NodeRow, TaskRow, WorkflowRow};
use crate::core::scopes::Scopes;
use crate::core::state::{Task, Workflow};
use crate::core::{Body, PartitionState, Settings};
use crate::lifecycle::task::TaskState;

/// Rows that one scan takes: bounds memory while a large index is walked.
const PAGE_ROWS: usize = 512;

fn damaged(what: impl Into<String>, detail: impl Into<String>) -> ReadError {
    ReadError::Damaged {
        what: what.into(),
        detail: detail.into(),
    }
}

/// Decodes a stored row.
///
/// # Errors
/// [`ReadError::Damaged`], also for rows of a newer version.
pub fn decode<M: Message + Default>(what: &str, value: &[u8]) -> Result<M, ReadError> {
    let row = Row::decode(value).map_err(|error| damaged(what, error.to_string()))?;
    if row.format == 0 || row.format > JOURNAL_FORMAT {
        let detail = format!(
            "it has format {}, this version reads up to {JOURNAL_FORMAT}: use a newer Gantry",
            row.format
        );
        return Err(damaged(what, detail));
    }
    M::decode(row.clear).map_err(|error| damaged(what, error.to_string()))
}

/// Every pair in a range, page by page.
///
/// # Errors
/// What the store or `each` says.
pub fn walk(
    store: &dyn Store,
    range: &keys::KeyRange,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut from = range.from.to_vec();
    loop {
        let page = store.scan(&from, &range.to, Direction::Forward, PAGE_ROWS)?;
        for (key, value) in &page {
            each(key, value)?;
        }
        let Some((last, _)) = page.last().filter(|_| page.len() == PAGE_ROWS) else {
            return Ok(());
        };
        from = last.to_vec();
        from.push(0);
    }
}

/// Reads records by position. The last entry is kept: neighbours are often asked for together.
#[derive(Debug)]
pub struct Records<'a> {
    storage: &'a Storage,
    partition: PartitionId,
    last: Option<LogEntry>,
}

impl<'a> Records<'a> {
    /// Of one partition.
    #[must_use]
    pub fn new(storage: &'a Storage, partition: PartitionId) -> Self {
        Self {
            storage,
            partition,
            last: None,
        }
    }

    /// The entry that holds `seq`.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub fn entry(&mut self, seq: u64) -> Result<&LogEntry, ReadError> {
        let holds = |entry: &LogEntry| (entry.first_seq..entry.first_seq + entry.records.len() as u64).contains(&seq);
        if !self.last.as_ref().is_some_and(holds) {
            let range = keys::log_through(self.partition, seq);
            let found = self
                .storage
                .store()
                .scan(&range.from, &range.to, Direction::Reverse, 1)?;
            let entry = found
                .into_iter()
                .next()
                .map(|(key, value)| chain::decode_entry(self.partition, &key, value));
            self.last = entry.transpose()?.filter(holds);
        }
        self.last
            .as_ref()
            .ok_or_else(|| damaged(format!("record {seq} of partition {}", self.partition), "it is missing"))
    }

    fn record(&mut self, seq: u64) -> Result<(TenantId, &Record), ReadError> {
        let entry = self.entry(seq)?;
        let offset = usize::try_from(seq - entry.first_seq).unwrap_or(usize::MAX);
        // `entry` holds `seq`, so the offset is in range.
        Ok((entry.tenant, &entry.records[offset]))
    }

    /// The opened payload of a record; `None` when it has none, or was erased.
    ///
    /// # Errors
    /// When it cannot be read or opened.
    pub fn payload(&mut self, seq: u64) -> Result<Option<Payload>, ContentError> {
        let storage = self.storage;
        let (tenant, record) = self.record(seq)?;
        let owner = content_owner(record.event.kind.as_ref(), record.workflow);
        let (Some(owner), Some(sealed)) = (owner, &record.payload) else {
            return Ok(None);
        };
        match storage.unseal(tenant, owner, seq, sealed) {
            Ok(payload) => Ok(Some(payload)),
            Err(ContentError::Seal(SealError::Erased)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The rows of a workflow, without what users wrote.
///
/// # Errors
/// When they cannot be read.
pub fn workflow_rows(store: &dyn Store, tenant: TenantId, id: WorkflowId) -> Result<Option<Workflow>, ReadError> {
    let partition = id.partition();
    let Some(value) = store.get(&keys::workflow(partition, tenant, id))? else {
        return Ok(None);
    };
    let row: WorkflowRow = decode(&format!("the row of {id}"), &value)?;
    let range = keys::tasks_of(partition, tenant, id);
    let pairs = store.scan(&range.from, &range.to, Direction::Forward, TASKS_PER_WORKFLOW_MAX + 1)?;
    let mut tasks = Vec::with_capacity(pairs.len());
    for (_, value) in &pairs {
        let row: TaskRow = decode(&format!("a task row of {id}"), value)?;
        tasks.push(Task::of(row));
    }
    tasks.sort_by_key(|task| task.row.index);
    let complete = (0u32..).zip(&tasks).all(|(index, task)| task.row.index == index);
    if !complete || tasks.len() != row.tasks_total as usize {
        return Err(damaged(
            format!("workflow {id}"),
            format!("{} of {} task rows are there", tasks.len(), row.tasks_total),
        ));
    }
    Ok(Some(Workflow::of(row, tasks)))
}

/// Opens what users wrote: definition, parameters, results of completed steps. Erased workflows stay without.
///
/// # Errors
/// When it cannot be read or opened.
pub fn open_body(workflow: &mut Workflow, records: &mut Records<'_>) -> Result<(), ContentError> {
    let id = workflow.row.id;
    let Some(payload) = records.payload(workflow.row.submit_seq)? else {
        return Ok(());
    };
    if workflow.row.code.unwrap_or(false) {
        let component = workflow.tasks.first().and_then(|task| task.row.component.as_deref());
        let input = payload.parameters_json.unwrap_or_default();
        workflow.body = Some(Arc::new(Body::code(component.unwrap_or_default(), input)));
        return super::code::open_results(workflow, records);
    }
    let unreadable =
        |error: serde_json::Error| ContentError::Read(damaged(format!("the definition of {id}"), error.to_string()));
    let definition =
        serde_json::from_slice(payload.definition_json.as_deref().unwrap_or_default()).map_err(unreadable)?;
    let parameters = match payload.parameters_json.as_deref() {
        Some(json) => serde_json::from_slice(json).map_err(unreadable)?,
        None => Map::new(),
    };
    workflow.body = Some(Arc::new(
        Body::new(definition, parameters).with_uploads(&payload.uploads),
    ));
    for signal in &workflow.row.signals {
        let content = records.payload(signal.seq)?.as_ref().map(result_body);
        workflow
            .signals
            .insert(signal.seq, Arc::new(content.unwrap_or_default()));
    }
    if let Some(ending) = &workflow.row.ending {
        let said = records.payload(ending.seq)?.and_then(|payload| payload.message);
        workflow.ending = said.map(Arc::from);
    }
    let handled = workflow.tasks.iter().any(|task| task.row.handles.is_some());
    for task in &mut workflow.tasks {
        if let Some(seq) = task
            .row
            .end_seq
            .filter(|_| handled && task.row.state() == TaskState::Failed)
        {
            let said = records.payload(seq)?.and_then(|payload| payload.message);
            task.failure = said.map(Arc::from);
        }
        if let Some(seq) = task.row.feedback_seq {
            let said = records.payload(seq)?.and_then(|payload| payload.message);
            task.feedback = said.map(Arc::from);
        }
        if let Some(seq) = task.row.changes_seq {
            task.changes = records.payload(seq)?.as_ref().map(changes_of).map(Arc::new);
        }
        for (step, result) in task.row.steps.iter().zip(&mut task.results) {
            let Some(seq) = step.result_seq else { continue };
            *result = Some(Arc::new(
                records.payload(seq)?.as_ref().map(result_body).unwrap_or_default(),
            ));
        }
        if let Some(seq) = task.row.result_seq {
            let result = records.payload(seq)?.as_ref().map(result_body);
            task.result = Some(Arc::new(result.unwrap_or_default()));
        }
        if let Some(seq) = task.row.fan_seq {
            let items = records.payload(seq)?.as_ref().map(item_values);
            task.items = Some(Arc::new(items.unwrap_or_default()));
        }
    }
    super::code::open_results(workflow, records)
}

/// Everything that a new owner needs: the state of a partition, and where its log ends.
///
/// # Errors
/// When it cannot be read.
pub fn recover(
    storage: &Storage,
    partition: PartitionId,
    settings: Settings,
) -> Result<(PartitionState, LogPosition), ContentError> {
    let store = storage.store().as_ref();
    let end = chain::log_end(store, partition)?;
    let mut state = PartitionState::new(partition, settings);
    state.next_seq = end.next_seq;
    let mut records = Records::new(storage, partition);
    if end.next_seq > chain::FIRST_SEQ {
        state.last_at_ms = records.entry(end.next_seq - 1)?.at_ms;
    }
    state.scopes = scopes(store, partition)?;
    let mut active = Vec::new();
    walk(store, &keys::all_of(Kind::Active, partition), |key, _| {
        if let Some(Parsed::Active { tenant, workflow, .. }) = keys::parse(key) {
            active.push((tenant, workflow));
        }
        Ok(())
    })?;
    for (tenant, id) in active {
        let found = workflow_rows(store, tenant, id)?;
        let mut workflow = found.ok_or_else(|| damaged(format!("workflow {id}"), "it is active and has no row"))?;
        open_body(&mut workflow, &mut records)?;
        super::code::load(store, &workflow, &mut state)?;
        state.insert(workflow);
    }
    walk(store, &keys::all_of(Kind::Idempotency, partition), |key, value| {
        if let Some(Parsed::Idempotency { tenant, key_hash, .. }) = keys::parse(key) {
            let row: IdempotencyRow = decode("an idempotency row", value)?;
            state.insert_idempotency((tenant, key_hash), row);
        }
        Ok(())
    })?;
    walk(store, &keys::all_of(Kind::Upload, partition), |_, value| {
        state.insert_upload(decode("an upload row", value)?);
        Ok(())
    })?;
    walk(store, &keys::all_of(Kind::Schedule, partition), |_, value| {
        state.insert_schedule(decode("a schedule row", value)?);
        Ok(())
    })?;
    walk(store, &keys::all_of(Kind::Bulk, partition), |_, value| {
        state.insert_bulk(decode("the row of a bulk operation", value)?);
        Ok(())
    })?;
    walk(store, &keys::all_of(Kind::Node, partition), |_, value| {
        let row: NodeRow = decode("a node row", value)?;
        state.nodes.insert(row.id, row);
        Ok(())
    })?;
    walk(store, &keys::all_of(Kind::Hold, partition), |key, value| {
        if let Some(Parsed::Hold { tenant, workflow, .. }) = keys::parse(key) {
            state.holds.insert((tenant, workflow), decode("a hold", value)?);
        }
        Ok(())
    })?;
    state.mail = mail(store, partition)?;
    state.limits = limits(store, partition)?;
    let limited: Vec<LimitRef> = state.limits.all().map(|(key, _)| *key).collect();
    limited.into_iter().for_each(|key| state.rearm_limit(key));
    Ok((state, end))
}

/// Paused definitions and tenants of a partition as they are stored.
///
/// # Errors
/// When they cannot be read.
pub fn scopes(store: &dyn Store, partition: PartitionId) -> Result<Scopes, ReadError> {
    let mut scopes = Scopes::default();
    walk(store, &keys::all_of(Kind::PausedScope, partition), |key, value| {
        if let Some(Parsed::PausedScope { tenant, scope, .. }) = keys::parse(key) {
            scopes.0.insert((tenant, scope), decode("a pause", value)?);
        }
        Ok(())
    })?;
    Ok(scopes)
}

/// Limited keys of a partition as they are stored; without timers.
///
/// # Errors
/// When they cannot be read.
pub fn limits(store: &dyn Store, partition: PartitionId) -> Result<Limits, ReadError> {
    let mut limits = Limits::default();
    walk(store, &keys::all_of(Kind::LimitClaim, partition), |key, value| {
        if let Some(Parsed::LimitClaim {
            tenant,
            limit,
            workflow,
            task,
            ..
        }) = keys::parse(key)
        {
            limits.put((tenant, limit), (workflow, task), decode("a claim on a limit", value)?);
        }
        Ok(())
    })?;
    walk(store, &keys::all_of(Kind::LimitRate, partition), |key, value| {
        if let Some(Parsed::LimitRate { tenant, limit, .. }) = keys::parse(key) {
            limits.set_rate((tenant, limit), Some(decode("a rate", value)?));
        }
        Ok(())
    })?;
    Ok(limits)
}

/// Letters of a partition as they are stored.
///
/// # Errors
/// When they cannot be read.
pub fn mail(store: &dyn Store, partition: PartitionId) -> Result<Mail, ReadError> {
    let mut mail = Mail::default();
    walk(store, &keys::all_of(Kind::Outbox, partition), |key, value| {
        if let Some(Parsed::Outbox { to, number, .. }) = keys::parse(key) {
            mail.open.insert((to, number), decode("a letter in the outbox", value)?);
        }
        Ok(())
    })?;
    walk(store, &keys::all_of(Kind::Sent, partition), |key, value| {
        if let Some(Parsed::Sent { to, .. }) = keys::parse(key) {
            mail.sent.insert(to, decode("a row of sent letters", value)?);
        }
        Ok(())
    })?;
    walk(store, &keys::all_of(Kind::Received, partition), |key, value| {
        if let Some(Parsed::Received { from, .. }) = keys::parse(key) {
            mail.received.insert(from, decode("a row of received letters", value)?);
        }
        Ok(())
    })?;
    Ok(mail)
}
