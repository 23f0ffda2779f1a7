//! A signal for a workflow: kept until a task takes it, and at once taken by one that waits.

use bytes::Bytes;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload};
use gantry_proto::{ErrorCode, PrincipalId, TenantId, WorkflowId, limits};

use super::{Outcome, Rejection, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::core::flow::awaited;
use crate::core::state::Workflow;
use crate::spec::definition::TaskKind;

/// A signal for a workflow.
#[derive(Debug, Clone)]
pub struct Signal {
    /// Whose.
    pub tenant: TenantId,
    /// For which.
    pub workflow: WorkflowId,
    /// By whom.
    pub by: PrincipalId,
    /// Its name.
    pub name: String,
    /// Hash of the caller's id for it: the same one counts once.
    pub id: Option<[u8; 16]>,
    /// A JSON object, to be sealed.
    pub outputs_json: Bytes,
}

/// Names that tasks of a workflow wait for, now or later.
fn expected(workflow: &Workflow) -> Vec<&str> {
    let definitions = workflow.body.iter().flat_map(|body| body.definition.tasks.values());
    let mut names: Vec<&str> = definitions
        .filter_map(|task| match &task.kind {
            TaskKind::Signal(signal) => Some(signal.name.as_str()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Signal {
    pub(in crate::core) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let found = batch.workflow(self.workflow);
        let open = |workflow: &&Workflow| workflow.row.tenant == self.tenant && !workflow.row.is_ended();
        let Some(workflow) = found.filter(open) else {
            return Ok(Err(Rejection::NotFound));
        };
        let refused = |code, message| Ok(Err(Rejection::Refused { code, message }));
        let known = |id: [u8; 16]| workflow.row.signal_ids.iter().any(|known| known[..] == id);
        if self.id.is_some_and(known) {
            return Ok(Ok(Reply::Signalled { duplicate: true }));
        }
        let expected = expected(workflow);
        if !expected.contains(&self.name.as_str()) {
            let names = if expected.is_empty() {
                "it waits for none".to_owned()
            } else {
                format!("it waits for {}", expected.join(", "))
            };
            let message = format!("no task of this workflow waits for a signal `{}`; {names}", self.name);
            return refused(ErrorCode::SignalUnknown, message);
        }
        let mut positions = 0..workflow.tasks.len();
        let taken = positions.any(|position| awaited(workflow, position) == Some(self.name.as_str()));
        if !taken && workflow.row.signals.len() >= limits::SIGNALS_KEPT_MAX {
            let message = format!(
                "{} signals wait to be taken by this workflow; it keeps no more",
                limits::SIGNALS_KEPT_MAX
            );
            return refused(ErrorCode::SignalsFull, message);
        }
        let event = v1::SignalReceived {
            name: self.name,
            by: self.by,
            id_hash: self.id.map(|id| Bytes::copy_from_slice(&id)),
        };
        let payload = Payload {
            outputs_json: Some(self.outputs_json),
            ..Payload::default()
        };
        batch.record(self.workflow, Kind::SignalReceived(event), Some(payload))?;
        if batch.state.is_paused(self.workflow) {
            return Ok(Ok(Reply::Signalled { duplicate: false }));
        }
        batch.deliver(self.workflow)?;
        batch.settle(self.workflow)?;
        Ok(Ok(Reply::Signalled { duplicate: false }))
    }
}
