//! What a person decides on a task: recorded with who and why, and followed at once.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Decision, Payload, TaskEnd, WaitKind};
use gantry_proto::{ErrorCode, PrincipalId, TenantId, WorkflowId, limits};
use serde_json::Value;

use super::{Outcome, Rejection, Reply, reassign};
use crate::api::{Reassignment, TaskDecision};
use crate::core::body::Changes;
use crate::core::decide::{Batching, Inputs};
use crate::core::flow::{RESOLVED, SKIPPED, approved};
use crate::core::rows::TaskRow;
use crate::core::state::{TaskRef, Workflow};
use crate::lifecycle::task::TaskState;
use crate::spec;
use crate::spec::definition::{AssessmentDef, DeciderScope, DecidersDef, TaskKind};

/// What a person decides on a task.
#[derive(Debug, Clone)]
pub struct TaskDecide {
    /// Whose.
    pub tenant: TenantId,
    /// In which workflow.
    pub workflow: WorkflowId,
    /// Name or id of the task.
    pub task: String,
    /// Who decides.
    pub by: PrincipalId,
    /// What the decider may do.
    pub scope: DeciderScope,
    /// What.
    pub decision: TaskDecision,
    /// Why, in words.
    pub comment: Option<String>,
}

/// The journaled form of a decision.
pub(crate) const fn kind_of(decision: &TaskDecision) -> Decision {
    match decision {
        TaskDecision::Approve => Decision::Approve,
        TaskDecision::Reject => Decision::Reject,
        TaskDecision::Accept { .. } => Decision::Accept,
        TaskDecision::Rework { .. } => Decision::Rework,
        TaskDecision::Reassign(_) => Decision::Reassign,
        TaskDecision::Retry { .. } => Decision::Retry,
        TaskDecision::Skip => Decision::Skip,
        TaskDecision::Resolve { .. } => Decision::Resolve,
        TaskDecision::Fail => Decision::Fail,
    }
}

/// Who may decide on a task at all.
fn deciders(workflow: &Workflow, position: usize, decision: Decision) -> Option<&DecidersDef> {
    let definition = workflow.definition(position)?.1;
    match (&definition.kind, &definition.assess) {
        (TaskKind::Approval(approval), _) => Some(&approval.by),
        // Another try of work that is not done is no way round its assessment.
        (TaskKind::Steps, Some(_))
            if matches!(decision, Decision::Retry | Decision::Reassign)
                && !workflow.tasks.get(position)?.row.is_done() =>
        {
            None
        }
        (TaskKind::Steps, Some(assess)) => Some(&assess.by),
        _ => None,
    }
}

/// Waits that a person may cut short by trying again.
fn backs_off(row: &TaskRow) -> bool {
    let kind = row.wait_kind.and_then(|kind| WaitKind::try_from(kind).ok());
    row.state() == TaskState::Pending
        && matches!(
            kind,
            Some(WaitKind::RetryBackoff | WaitKind::NodeRefused | WaitKind::Infrastructure | WaitKind::Exhausted)
        )
}

/// Whether the lifecycle lets a task go on by a decision.
fn legal(row: &TaskRow, decision: Decision) -> bool {
    let state = row.state();
    match decision {
        Decision::Approve => state == TaskState::AwaitingApproval,
        Decision::Reject => matches!(state, TaskState::AwaitingApproval | TaskState::OutputPendingAssessment),
        Decision::Accept => {
            state == TaskState::OutputPendingAssessment || (state == TaskState::Escalated && row.is_done())
        }
        // What has not begun, or not come to an end.
        Decision::Reassign => {
            let steps = !row.steps.is_empty() && row.component.is_none();
            let runs = matches!(state, TaskState::Ready | TaskState::Claimed | TaskState::InProgress);
            steps && (runs || row.is_unbegun() || backs_off(row))
        }
        Decision::Rework => state == TaskState::OutputPendingAssessment,
        Decision::Retry => state == TaskState::Escalated || backs_off(row),
        Decision::Resolve => state == TaskState::Escalated || row.wait_kind == Some(WaitKind::Exhausted.into()),
        // What waits for a child or for items ends with them.
        Decision::Fail if state == TaskState::OutputPendingAssessment => true,
        Decision::Skip | Decision::Fail => {
            let others = row.open_child().is_some() || row.fan_seq.is_some();
            let states = [
                TaskState::Pending,
                TaskState::Ready,
                TaskState::AwaitingApproval,
                TaskState::Escalated,
            ];
            !others && states.contains(&state)
        }
    }
}

/// What decisions a task takes now, for a sentence.
fn possible(row: &TaskRow) -> String {
    let all = [
        (Decision::Approve, "approve"),
        (Decision::Reject, "reject"),
        (Decision::Accept, "accept"),
        (Decision::Rework, "rework"),
        (Decision::Reassign, "reassign"),
        (Decision::Retry, "retry"),
        (Decision::Skip, "skip"),
        (Decision::Resolve, "resolve"),
        (Decision::Fail, "fail"),
    ];
    let names: Vec<&str> = all
        .into_iter()
        .filter(|(decision, _)| legal(row, *decision))
        .map(|(_, name)| name)
        .collect();
    match names.as_slice() {
        [] => "nothing can be decided on it now".to_owned(),
        names => format!("now it takes {}", names.join(", ")),
    }
}

pub(super) fn refused(code: ErrorCode, message: impl Into<String>) -> Rejection {
    Rejection::Refused {
        code,
        message: message.into(),
    }
}

impl TaskDecide {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let task = match self.find(batch) {
            Ok(task) => task,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let decision = kind_of(&self.decision);
        let Some(row) = batch.state.task(task).map(|task| &task.row) else {
            return Ok(Err(Rejection::NotFound));
        };
        // Said again, it is what was said.
        let said = row.decision.as_ref().is_some_and(|made| made.decision() == decision);
        if let TaskDecision::Accept { round: Some(round) } | TaskDecision::Rework { round: Some(round) } = self.decision
            && round != row.round
        {
            if said && round + 1 == row.round {
                return Ok(Ok(Reply::Task(row.state())));
            }
            let message = format!(
                "it is about round {round} of task `{}`, which is in round {}; look at its result first",
                row.name, row.round
            );
            return Ok(Err(refused(ErrorCode::Conflict, message)));
        }
        if !legal(row, decision) {
            if said {
                return Ok(Ok(Reply::Task(row.state())));
            }
            let message = format!("task `{}` is {}; {}", row.name, row.state(), possible(row));
            return Ok(Err(refused(ErrorCode::Conflict, message)));
        }
        let feedback = self.comment.as_ref().is_some_and(|comment| !comment.trim().is_empty());
        if decision == Decision::Rework && !feedback {
            let message = "a rework needs a comment: what is to be done otherwise".to_owned();
            return Ok(Err(refused(ErrorCode::InvalidRequest, message)));
        }
        let over = decision == Decision::Rework
            && self
                .assessment(batch, task)
                .is_none_or(|assess| row.reworks >= assess.reworks_max);
        let assessed = row.state() == TaskState::OutputPendingAssessment;
        let changes = match self.changes(batch, task) {
            Ok(changes) => changes,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let event = v1::TaskDecided {
            task: row.id,
            decision: decision.into(),
            by: self.by,
            changed: changes.is_some().then_some(true),
            over: over.then_some(true),
            ..v1::TaskDecided::default()
        };
        let event = match &self.decision {
            TaskDecision::Reassign(to) => match reassign::event(batch, task, to, event) {
                Ok(event) => event,
                Err(rejection) => return Ok(Err(rejection)),
            },
            _ => event,
        };
        let payload = Payload {
            message: self.comment.clone(),
            changes_json: changes.map(Into::into),
            ..Payload::default()
        };
        let payload = (payload != Payload::default()).then_some(payload);
        batch.record(task.0, Kind::TaskDecided(event), payload)?;
        match self.assessment(batch, task).filter(|_| over) {
            Some(assess) => batch.reworks_exhausted(task, &assess, self.comment.as_deref().unwrap_or_default())?,
            None => self.follow(batch, task, assessed)?,
        }
        batch.settle(task.0)?;
        let state = batch.state.task(task).map(|task| task.row.state());
        Ok(state.map(Reply::Task).ok_or(Rejection::NotFound))
    }

    fn find(&self, batch: &Batching<'_>) -> Result<TaskRef, Rejection> {
        let found = batch.workflow(self.workflow);
        let open = |workflow: &&Workflow| workflow.row.tenant == self.tenant && !workflow.row.is_ended();
        let workflow = found.filter(open).ok_or(Rejection::NotFound)?;
        let named = |row: &TaskRow| row.name == self.task || row.id.to_string() == self.task;
        let position = workflow.tasks.iter().position(|task| named(&task.row));
        let position = position.ok_or(Rejection::NotFound)?;
        let by = deciders(workflow, position, kind_of(&self.decision));
        if let Some(by) = by.filter(|by| **by != DecidersDef::default()) {
            let key = self.by.to_string();
            if !by.scopes.contains(&self.scope) && !by.keys.contains(&key) {
                let message = format!("the definition does not let {key} decide on task `{}`", self.task);
                return Err(refused(ErrorCode::DecisionForbidden, message));
            }
        }
        Ok((self.workflow, workflow.tasks[position].row.index))
    }

    /// How the task's result is judged.
    fn assessment(&self, batch: &Batching<'_>, task: TaskRef) -> Option<AssessmentDef> {
        let workflow = batch.workflow(task.0)?;
        workflow.definition(task.1 as usize)?.1.assess.clone()
    }

    /// Changed input as it is journaled, checked.
    fn changes(&self, batch: &Batching<'_>, task: TaskRef) -> Result<Option<Vec<u8>>, Rejection> {
        let (env, params) = match &self.decision {
            TaskDecision::Retry { env, params } => (env, params),
            TaskDecision::Reassign(to) => return self.changed_requires(batch, task, to),
            _ => return Ok(None),
        };
        if env.is_empty() && params.is_empty() {
            return Ok(None);
        }
        for name in env.keys() {
            spec::env_name(name).map_err(|message| refused(ErrorCode::InvalidRequest, message))?;
        }
        let workflow = batch.workflow(task.0).ok_or(Rejection::NotFound)?;
        if let Some(body) = &workflow.body {
            let mut all = body.parameters.clone();
            all.extend(params.clone());
            spec::check_parameters(&body.definition, all).map_err(|issues| {
                let said = issues
                    .into_iter()
                    .next()
                    .map_or_else(String::new, |issue| issue.message);
                refused(ErrorCode::InvalidParameters, said)
            })?;
        }
        // What an earlier decision changed stays changed.
        let before = batch.state.task(task).and_then(|task| task.changes.as_deref());
        let mut changes: Changes = before.cloned().unwrap_or_default();
        changes.env.extend(env.clone());
        changes.params.extend(params.clone());
        journaled(&changes).map(Some)
    }

    /// What a node must offer from now on, as it is journaled.
    fn changed_requires(
        &self,
        batch: &Batching<'_>,
        task: TaskRef,
        to: &Reassignment,
    ) -> Result<Option<Vec<u8>>, Rejection> {
        let before = batch.state.task(task).and_then(|task| task.changes.as_deref());
        let mut changes: Changes = before.cloned().unwrap_or_default();
        if changes.requires == to.requires {
            return Ok(None);
        }
        changes.requires.clone_from(&to.requires);
        journaled(&changes).map(Some)
    }

    /// `assessed`: its result was there to be judged.
    fn follow(&self, batch: &mut Batching<'_>, task: TaskRef, assessed: bool) -> Result<(), crate::core::ApplyError> {
        let fail = |batch: &mut Batching<'_>, code: ErrorCode, what: &str| {
            let why = self.comment.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            let message = Payload {
                message: Some(format!("{what} by {}{why}", self.by)),
                ..Payload::default()
            };
            batch.end_task(task, TaskEnd::Failed, Some(code.as_str()), Some(message))
        };
        match &self.decision {
            TaskDecision::Approve => {
                let outputs = approved(&self.by.to_string(), self.comment.as_deref());
                batch.complete(task, None, Some(&outputs))
            }
            TaskDecision::Accept { .. } => batch.complete(task, None, None),
            TaskDecision::Rework { .. } => batch.start(task),
            TaskDecision::Reject if assessed => fail(batch, ErrorCode::AssessmentRejected, "rejected"),
            TaskDecision::Reject => fail(batch, ErrorCode::ApprovalRejected, "rejected"),
            TaskDecision::Reassign(_) => reassign::follow(batch, task),
            TaskDecision::Retry { .. } => batch.start(task),
            TaskDecision::Skip => batch.complete(task, Some(SKIPPED), None),
            TaskDecision::Resolve { outputs } => batch.complete(task, Some(RESOLVED), Some(outputs)),
            TaskDecision::Fail => fail(batch, ErrorCode::FailedOnRequest, "failed"),
        }
    }
}

/// Changed input for the sealed side of a record.
fn journaled(changes: &Changes) -> Result<Vec<u8>, Rejection> {
    let json = serde_json::to_vec(changes).map_err(|error| refused(ErrorCode::InvalidRequest, error.to_string()))?;
    if json.len() > limits::CHANGES_BYTES_MAX {
        let message = format!(
            "the changed input has {} bytes; the limit is {}",
            json.len(),
            limits::CHANGES_BYTES_MAX
        );
        return Err(refused(ErrorCode::TooLarge, message));
    }
    Ok(json)
}

/// Whether a decision that comes after a workflow's end was made before it.
pub(crate) fn was_made(row: &TaskRow, decision: &TaskDecision) -> bool {
    let made = row.decision.as_ref();
    made.is_some_and(|made| made.decision() == kind_of(decision))
}

/// Whether a value can be outputs: an object, small enough.
pub(crate) fn outputs_of(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        Value::Null => serde_json::Map::new(),
        other => serde_json::Map::from_iter([("value".to_owned(), other)]),
    }
}
