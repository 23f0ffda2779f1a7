//! Restarting and forking workflows: what the old one did is read from storage, and becomes the beginning of a new one.

mod chosen;
mod results;

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_proto::v1::{self, Label, Payload};
use gantry_proto::{ArtifactId, ErrorCode, TenantId, limits};
use serde_json::{Value, json};

use super::uploads::Copied;
use super::{Engine, erased, not_found, unexpected, unreadable};
use crate::api::{Again, AgainRequest, Refusal, SubmitReceipt};
use crate::core::carried::Carried;
use crate::core::commands::Submit;
use crate::core::state::Workflow;
use crate::core::{Body, Reply};
use crate::processor::load::{Records, open_body, workflow_rows};
use crate::processor::storage::Storage;
use crate::read;
use crate::spec;

/// A new workflow as far as the old one says it.
struct Beginning {
    /// The old one.
    old: Workflow,
    /// What it was submitted with.
    submitted: Payload,
    /// What is done already.
    carried: Vec<Carried>,
    /// Where it begins, for the record.
    task: Option<String>,
    step: Option<u32>,
}

fn refused(code: ErrorCode, message: impl Into<String>) -> Refusal {
    Refusal::new(code, message)
}

/// Reads the old workflow, and decides what is carried over. Blocks.
fn begin(storage: &Storage, tenant: TenantId, request: &AgainRequest) -> Result<Beginning, Refusal> {
    let id = request.workflow;
    let rows = workflow_rows(storage.store().as_ref(), tenant, id).map_err(unreadable)?;
    let mut old = rows.ok_or_else(not_found)?;
    if request.again == Again::Restart && !old.row.is_ended() {
        let message = format!("the workflow is {}; what has ended can be restarted", old.row.state());
        return Err(refused(ErrorCode::Conflict, message).with_hint("Cancel it first, or fork it."));
    }
    let mut records = Records::new(storage, id.partition());
    open_body(&mut old, &mut records).map_err(read::content)?;
    let submitted = records.payload(old.row.submit_seq).map_err(read::content)?;
    let (Some(body), Some(submitted)) = (old.body.clone(), submitted) else {
        return Err(erased());
    };
    if body.input.is_some() {
        let message = "this is a run of a worker's code, which decides itself what it has done already; run it again";
        return Err(refused(ErrorCode::Conflict, message));
    }
    let from = request
        .from
        .as_ref()
        .map(|from| chosen::place(&old, &body, from))
        .transpose()?;
    let redo = chosen::redo(&old, &body, from.map(|(task, _)| task))?;
    chosen::check_workspaces(&old, &body, &redo)?;
    let carried = results::carried(&old, &redo, &mut records)?;
    Ok(Beginning {
        task: from.and_then(|(task, _)| old.tasks.get(task).map(|task| task.row.name.clone())),
        step: from.and_then(|(_, step)| u32::try_from(step).ok()),
        old,
        submitted,
        carried,
    })
}

fn request_hash(request: &AgainRequest) -> [u8; 32] {
    let from = request.from.as_ref().map(|from| (&from.task, &from.step));
    let again = match &request.again {
        Again::Restart => Value::Null,
        Again::Fork {
            parameters,
            attributes,
            labels,
            priority,
        } => json!([parameters, attributes, labels, priority]),
    };
    let asked = json!(["again", request.workflow.to_string(), from, again]);
    blake3::hash(asked.to_string().as_bytes()).into()
}

/// The labels of the old one, with those that were given.
fn labels(old: &[Label], given: &[(String, String)]) -> Vec<Label> {
    let mut labels: BTreeMap<String, String> = old
        .iter()
        .map(|label| (label.key.clone(), label.value.clone()))
        .collect();
    labels.extend(given.iter().cloned());
    labels.into_iter().map(|(key, value)| Label { key, value }).collect()
}

impl Beginning {
    /// Parameters, labels, priority and search attributes of the new workflow, before artifacts are copied.
    fn submit(self, request: &AgainRequest, ids: &BTreeMap<ArtifactId, ArtifactId>) -> Result<Submit, Refusal> {
        let Self {
            old,
            submitted,
            mut carried,
            task,
            step,
        } = self;
        let body = old.body.as_ref().ok_or_else(erased)?;
        let invalid = |what: &str, issues: Vec<crate::api::Issue>| {
            let first = issues.first().map(|issue| issue.message.clone()).unwrap_or_default();
            Refusal {
                issues,
                ..refused(ErrorCode::InvalidParameters, format!("{what}: {first}"))
            }
        };
        let mut parameters = body.parameters.clone();
        let mut attributes: BTreeMap<String, v1::SearchAttribute> = old
            .row
            .attributes
            .iter()
            .map(|each| (each.name.clone(), each.clone()))
            .collect();
        let (mut own_labels, mut priority) = (old.row.labels.clone(), old.row.priority);
        let mut kind = v1::OriginKind::Restart;
        if let Again::Fork {
            parameters: changed,
            attributes: given,
            labels: added,
            priority: other,
        } = &request.again
        {
            kind = v1::OriginKind::Fork;
            parameters.extend(changed.clone());
            parameters = spec::check_parameters(&body.definition, parameters)
                .map_err(|issues| invalid("the parameters do not match", issues))?;
            let filled = spec::attributes(&body.definition, &parameters, given)
                .map_err(|issues| invalid("a search attribute is not valid", issues))?;
            attributes.extend(filled.into_iter().map(|each| (each.name.clone(), each)));
            own_labels = labels(&own_labels, added);
            priority = other.or(priority);
        }
        let renamed = |artifact: &mut v1::Artifact| {
            if let Some(id) = ids.get(&artifact.id) {
                artifact.id = *id;
            }
        };
        results::each_artifact(&mut carried, &mut |artifact| renamed(artifact));
        let mut payload = submitted;
        payload
            .uploads
            .iter_mut()
            .for_each(|taken| renamed(&mut taken.artifact));
        let parameters_json =
            serde_json::to_vec(&parameters).map_err(|error| refused(ErrorCode::Internal, error.to_string()))?;
        payload.parameters_json = Some(parameters_json.into());
        Ok(Submit {
            tenant: old.row.tenant,
            by: request.caller.principal,
            digest: old.row.digest.clone(),
            body: Arc::new(Body::new(body.definition.clone(), parameters).with_uploads(&payload.uploads)),
            payload,
            idempotency: None,
            idempotency_ttl_ms: None,
            labels: own_labels,
            attributes: attributes.into_values().collect(),
            traceparent: None,
            priority,
            playbook: old.row.playbook.clone(),
            id: None,
            schedule: None,
            origin: Some(v1::Origin {
                workflow: old.row.id,
                kind: kind.into(),
                task,
                step,
            }),
            carried,
        })
    }
}

impl Engine {
    pub(super) async fn begin_again(&self, request: AgainRequest) -> Result<SubmitReceipt, Refusal> {
        self.partition(request.workflow.partition())?;
        if let Again::Fork { labels, priority, .. } = &request.again {
            super::backend::check_labels(labels)?;
            if priority.is_some_and(|priority| priority > limits::PRIORITY_MAX) {
                let message = format!("the priority is 0 to {}", limits::PRIORITY_MAX);
                return Err(refused(ErrorCode::InvalidRequest, message));
            }
        }
        let tenant = request.caller.tenant;
        let (partition, key_hash) = self.route_key(tenant, request.idempotency_key.as_deref())?;
        let idempotency = key_hash.map(|key| (key, request_hash(&request)));
        if let Some(asked) = idempotency
            && let Some(known) = self.known_submission(tenant, partition, asked).await?
        {
            return Ok(known);
        }
        let asked = request.clone();
        let beginning = self.blocking(move |storage| begin(storage, tenant, &asked)).await?;
        let mut artifacts: Vec<v1::Artifact> = beginning
            .submitted
            .uploads
            .iter()
            .map(|taken| taken.artifact.clone())
            .collect();
        artifacts.extend(results::artifacts(&beginning.carried));
        let copied = match artifacts.is_empty() {
            true => None,
            false => Some(
                self.copy_artifacts(tenant, request.workflow, partition, &artifacts)
                    .await?,
            ),
        };
        let ids = copied.as_ref().map(|copied| copied.ids.clone()).unwrap_or_default();
        let command = Submit {
            idempotency,
            id: copied.as_ref().map(|copied| copied.workflow),
            ..beginning.submit(&request, &ids)?
        };
        let reply = match copied {
            None => self.call(partition, command).await?,
            Some(Copied { workflow, hold, .. }) => {
                let (reply, hold) = self.call_holding(partition, command, hold).await?;
                if matches!(&reply, Reply::Submitted(receipt) if receipt.workflow == workflow) {
                    self.taken(tenant, workflow, hold).await;
                }
                reply
            }
        };
        match reply {
            Reply::Submitted(receipt) => Ok(receipt),
            other => Err(unexpected(&other)),
        }
    }
}
