//! Results of tasks, read back as they were journaled.

use bytes::Bytes;
use gantry_proto::v1::{Artifact, Payload, TaskEnd};
use gantry_proto::{ErrorCode, limits};
use prost::Message as _;

use crate::api::Refusal;
use crate::core::body::StepResultBody;
use crate::core::carried::Carried;
use crate::core::state::{Task, Workflow};
use crate::lifecycle::task::TaskState;
use crate::processor::load::Records;
use crate::read;

/// Everything that is carried over: the tasks of the definition that do not run again, in order.
pub(super) fn carried(old: &Workflow, redo: &[bool], records: &mut Records<'_>) -> Result<Vec<Carried>, Refusal> {
    let mut left = limits::CARRIED_BYTES_MAX;
    let kept = (0u32..).zip(&old.tasks).zip(redo).filter(|(_, redo)| !**redo);
    kept.map(|((position, task), _)| one(old, task, position, records, &mut left))
        .collect()
}

fn one(
    old: &Workflow,
    task: &Task,
    position: u32,
    records: &mut Records<'_>,
    left: &mut usize,
) -> Result<Carried, Refusal> {
    let row = &task.row;
    let mut steps = Vec::with_capacity(row.steps.len());
    for step in &row.steps {
        // Those of a task that was skipped or resolved did not run.
        let Some(seq) = step.result_seq else { break };
        steps.push(results(read_back(records, Some(seq), left)?));
    }
    let payload = match &task.result {
        Some(own) => Payload {
            outputs_json: Some(outputs(own, left)?),
            ..Payload::default()
        },
        None => Payload {
            message: read_back(records, row.end_seq, left)?.message,
            ..Payload::default()
        },
    };
    let items = match row.fan_seq {
        None => None,
        Some(seq) => {
            let list = Payload {
                items_json: Some(
                    read_back(records, Some(seq), left)?
                        .items_json
                        .unwrap_or_else(|| Bytes::from_static(b"[]")),
                ),
                ..Payload::default()
            };
            let items = (0u32..).zip(old.items(row.index));
            let items = items.map(|(number, item)| one(old, item, number, records, left));
            Some((list, items.collect::<Result<Vec<_>, _>>()?))
        }
    };
    Ok(Carried {
        position,
        steps,
        end: match row.state() {
            TaskState::Completed => TaskEnd::Completed,
            TaskState::Cancelled => TaskEnd::Cancelled,
            _ => TaskEnd::Failed,
        },
        code: row.end_code.clone(),
        outputs: payload.outputs_json.is_some(),
        payload: (payload != Payload::default()).then_some(payload),
        items,
    })
}

/// Outputs of a task itself, as JSON.
fn outputs(own: &StepResultBody, left: &mut usize) -> Result<Bytes, Refusal> {
    let json =
        serde_json::to_vec(&own.outputs).map_err(|error| Refusal::new(ErrorCode::Internal, error.to_string()))?;
    take(left, json.len())?;
    Ok(json.into())
}

/// What of a step's end is its result.
fn results(payload: Payload) -> Payload {
    Payload {
        outputs_json: payload.outputs_json,
        attrs_json: payload.attrs_json,
        artifacts: payload.artifacts,
        ..Payload::default()
    }
}

fn read_back(records: &mut Records<'_>, seq: Option<u64>, left: &mut usize) -> Result<Payload, Refusal> {
    let payload = seq.map(|seq| records.payload(seq)).transpose().map_err(read::content)?;
    let payload = payload.flatten().unwrap_or_default();
    take(left, payload.encoded_len())?;
    Ok(payload)
}

/// Counts bytes against what may be carried over.
fn take(left: &mut usize, bytes: usize) -> Result<(), Refusal> {
    let rest = left.checked_sub(bytes);
    *left = rest.ok_or_else(|| {
        let message = format!(
            "the results to be carried over have more than {} bytes",
            limits::CARRIED_BYTES_MAX
        );
        Refusal::new(ErrorCode::TooLarge, message).with_hint("Begin from an earlier task.")
    })?;
    Ok(())
}

/// Stored files among what is carried over.
pub(super) fn artifacts(carried: &[Carried]) -> Vec<Artifact> {
    let mut found = Vec::new();
    let mut carried = carried.to_vec();
    each_artifact(&mut carried, &mut |artifact| found.push(artifact.clone()));
    found
}

pub(super) fn each_artifact(carried: &mut [Carried], each: &mut dyn FnMut(&mut Artifact)) {
    for task in carried {
        for step in &mut task.steps {
            step.artifacts.iter_mut().for_each(&mut *each);
        }
        if let Some((_, items)) = &mut task.items {
            each_artifact(items, each);
        }
    }
}
