//! Workflows: submit, validate, list, look at, cancel.

use std::collections::BTreeMap;

use axum::response::Response;
use bytes::Bytes;
use gantry_engine::api::{PlaybookPin, Submit, SubmitReceipt, TimeRange, WorkflowQuery, WorkflowState};
use gantry_engine::spec;
use gantry_proto::limits::{DEFINITION_BYTES_MAX, IDEMPOTENCY_KEY_BYTES_MAX, NAME_BYTES_MAX, PARAMETERS_BYTES_MAX};
use gantry_proto::{ErrorCode, WorkflowId};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use super::playbooks::{resolve, source_of};
use super::{has, json, typed};
use crate::call::{GuardedCall, SMALL_BODY_BYTES_MAX, from_json, unsupported};
use crate::dto::{CancelAnswer, CancelBody, Paged, SubmitAnswer, SubmitBody, ValidateAnswer};
use crate::problem::Problem;

/// Text of a definition inside JSON grows by escaping; twice is ample for anything that a person wrote.
pub(super) const SUBMIT_BODY_BYTES_MAX: usize = 2 * (DEFINITION_BYTES_MAX + PARAMETERS_BYTES_MAX);

/// Labels of one workflow: what a list can show.
const LABELS_MAX: usize = 32;

/// `traceparent` has 55 characters; later versions may append.
pub(super) const TRACEPARENT_BYTES_MAX: usize = 128;

const YAML: [&str; 4] = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

/// What a submission says, however it was sent.
struct Submission {
    source: Bytes,
    playbook: Option<PlaybookPin>,
    parameters: Option<Map<String, Value>>,
    labels: BTreeMap<String, String>,
    priority: Option<u32>,
    attributes: Map<String, Value>,
}

async fn read_submission(call: &mut GuardedCall) -> Result<Submission, Problem> {
    let media = call.content_type().unwrap_or_default();
    let submission = if YAML.contains(&media.as_str()) {
        let source = call.call.bytes(SUBMIT_BODY_BYTES_MAX).await?;
        Submission {
            source,
            playbook: None,
            parameters: Some(values_of_query(call, "p")?).filter(|map| !map.is_empty()),
            labels: labels_of_query(call)?,
            priority: call.query_as("priority", "a number")?,
            attributes: values_of_query(call, "attribute")?,
        }
    } else if media == "application/json" {
        if ["p", "label", "attribute"]
            .iter()
            .any(|name| call.query_all(name).next().is_some())
        {
            return Err(Problem::invalid(
                "`p`, `label` and `attribute` go with a YAML body; in JSON use the fields `parameters`, `labels` and `attributes`",
            ));
        }
        let body: SubmitBody = from_json(&call.call.bytes(SUBMIT_BODY_BYTES_MAX).await?)?;
        let (source, playbook) = match (body.definition, body.playbook) {
            (Some(definition), None) => (source_of(definition)?, None),
            (None, Some(reference)) => {
                let (source, pin) = resolve(&call.shared, call.key.tenant, &reference).await?;
                (source, Some(pin))
            }
            _ => {
                return Err(Problem::invalid("give either `definition` or `playbook`"));
            }
        };
        Submission {
            source,
            playbook,
            parameters: body.parameters,
            labels: body.labels,
            priority: body.priority,
            attributes: body.attributes,
        }
    } else {
        return Err(unsupported("application/json or application/yaml"));
    };
    check(&submission)?;
    Ok(submission)
}

fn check(submission: &Submission) -> Result<(), Problem> {
    let too_large = |what: &str, max: usize| {
        Err(Problem::new(
            ErrorCode::TooLarge,
            format!("{what} are larger than {max} bytes"),
        ))
    };
    if submission.source.len() > DEFINITION_BYTES_MAX {
        return too_large("definitions", DEFINITION_BYTES_MAX)
            .map_err(|problem| problem.hint("put large data into the repository or an artifact"));
    }
    let size = submission
        .parameters
        .as_ref()
        .map_or(Ok(0), |map| serde_json::to_vec(map).map(|bytes| bytes.len()));
    if size.map_err(|error| Problem::invalid(error.to_string()))? > PARAMETERS_BYTES_MAX {
        return too_large("parameters", PARAMETERS_BYTES_MAX);
    }
    if submission.labels.len() > LABELS_MAX {
        return Err(Problem::invalid(format!("a workflow has at most {LABELS_MAX} labels")));
    }
    for (key, value) in &submission.labels {
        let fits = |text: &str| text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control);
        if key.is_empty() || !fits(key) || !fits(value) {
            return Err(Problem::invalid(format!(
                "labels are texts of at most {NAME_BYTES_MAX} bytes without control characters, with a name"
            )));
        }
    }
    Ok(())
}

fn pairs<'a>(call: &'a GuardedCall, name: &'static str) -> impl Iterator<Item = Result<(&'a str, &'a str), Problem>> {
    call.query_all(name).map(move |pair| {
        pair.split_once('=')
            .ok_or_else(|| Problem::invalid(format!("`{name}` must be `{name}=<name>=<value>`")))
    })
}

/// `p=name=value`: the value is JSON if it reads as JSON, else text. Quote it (`"1.10"`) to send text that looks like a number.
fn values_of_query(call: &GuardedCall, what: &'static str) -> Result<Map<String, Value>, Problem> {
    let mut map = Map::new();
    for pair in pairs(call, what) {
        let (name, value) = pair?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if map.insert(name.to_owned(), value).is_some() {
            return Err(Problem::invalid(format!("`{what}` gives `{name}` twice")));
        }
    }
    Ok(map)
}

fn labels_of_query(call: &GuardedCall) -> Result<BTreeMap<String, String>, Problem> {
    pairs(call, "label")
        .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
        .collect()
}

pub(super) fn idempotency_key(call: &GuardedCall) -> Result<Option<String>, Problem> {
    let Some(value) = call.headers().get("idempotency-key") else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .ok()
        .map(str::trim)
        .filter(|text| !text.is_empty() && text.len() <= IDEMPOTENCY_KEY_BYTES_MAX);
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        Problem::invalid(format!(
            "`Idempotency-Key` must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
        ))
    })
}

fn idempotency_ttl_ms(call: &GuardedCall) -> Result<Option<u64>, Problem> {
    let Some(value) = call.headers().get("idempotency-ttl-ms") else {
        return Ok(None);
    };
    let ttl_ms = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    ttl_ms
        .map(Some)
        .ok_or_else(|| Problem::invalid("`Idempotency-TTL-Ms` is a number of milliseconds"))
}

pub(crate) async fn submit(mut call: GuardedCall) -> Result<Response, Problem> {
    let idempotency_key = idempotency_key(&call)?;
    let idempotency_ttl_ms = idempotency_ttl_ms(&call)?;
    let traceparent = call
        .header("traceparent")
        .filter(|text| text.len() <= TRACEPARENT_BYTES_MAX)
        .map(ToOwned::to_owned);
    let submission = read_submission(&mut call).await?;
    let submit = Submit {
        caller: call.caller(),
        source: submission.source,
        parameters: submission.parameters.unwrap_or_default(),
        idempotency_key,
        idempotency_ttl_ms,
        labels: submission.labels.into_iter().collect(),
        traceparent,
        playbook: submission.playbook,
        priority: submission.priority,
        attributes: submission.attributes,
    };
    submitted(call.shared.backend.submit(submit).await?)
}

/// The answer to whatever starts a workflow.
pub(super) fn submitted(receipt: SubmitReceipt) -> Result<Response, Problem> {
    let status = if receipt.replayed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let mut response = json(
        status,
        &SubmitAnswer {
            id: receipt.workflow.to_string(),
            replayed: receipt.replayed,
        },
    )?;
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/workflows/{}", receipt.workflow)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(crate) async fn validate(mut call: GuardedCall) -> Result<Response, Problem> {
    let submission = read_submission(&mut call).await?;
    call.shared
        .backend
        .validate(submission.source, submission.parameters)
        .await?;
    json(StatusCode::OK, &ValidateAnswer { valid: true })
}

/// Times in milliseconds since 1970, or as RFC 3339 writes them.
fn time(call: &GuardedCall, name: &str) -> Result<Option<u64>, Problem> {
    let Some(text) = call.query(name)? else {
        return Ok(None);
    };
    let parsed = text.parse::<u64>().ok().or_else(|| spec::time_ms(text).ok());
    let wrong = || {
        Problem::invalid(format!(
            "`{name}` must be a time: milliseconds since 1970, or 2030-01-31T08:00:00Z"
        ))
    };
    parsed.map(Some).ok_or_else(wrong)
}

fn range(call: &GuardedCall, after: &str, before: &str) -> Result<TimeRange, Problem> {
    Ok(TimeRange {
        from_ms: time(call, after)?,
        to_ms: time(call, before)?,
    })
}

pub(crate) async fn list(call: GuardedCall) -> Result<Response, Problem> {
    let states = call
        .query("state")?
        .into_iter()
        .flat_map(|states| states.split(','))
        .map(|state| {
            state
                .trim()
                .parse::<WorkflowState>()
                .map_err(|error| Problem::invalid(error.to_string()))
        })
        .collect::<Result<_, _>>()?;
    let query = WorkflowQuery {
        states,
        name: call.query("name")?.map(ToOwned::to_owned),
        playbook: call.query("playbook")?.map(ToOwned::to_owned),
        schedule: call.query("schedule")?.map(ToOwned::to_owned),
        labels: labels_of_query(&call)?.into_iter().collect(),
        created: range(&call, "created_from", "created_before")?,
        ended: range(&call, "ended_from", "ended_before")?,
        filter: call.query("where")?.map(ToOwned::to_owned),
        parent: call.query_as("parent", "the id of a workflow")?,
        after: call.query_as("cursor", "a cursor of this list")?,
        limit: call.limit()?,
    };
    let page = call.shared.backend.workflows(call.key.tenant, query).await?;
    json(
        StatusCode::OK,
        &Paged {
            items: page.items,
            next_cursor: page.next_cursor,
            searched_to_ms: page.searched_to_ms,
        },
    )
}

pub(crate) async fn get(call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    let view = call.shared.backend.workflow(call.key.tenant, id).await?;
    let etag = format!("W/\"{}\"", view.position);
    let mut response = if has(call.header("if-none-match"), &etag) {
        typed(StatusCode::NOT_MODIFIED, "application/json", Bytes::new())
    } else {
        json(StatusCode::OK, &view)?
    };
    if let Ok(value) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    Ok(response)
}

pub(crate) async fn definition(call: GuardedCall) -> Result<Response, Problem> {
    let source = call
        .shared
        .backend
        .source(call.key.tenant, call.id(0, "workflow")?)
        .await?;
    Ok(typed(StatusCode::OK, "text/plain; charset=utf-8", source))
}

pub(crate) async fn cancel(mut call: GuardedCall) -> Result<Response, Problem> {
    let id: WorkflowId = call.id(0, "workflow")?;
    let body: CancelBody = call.call.json_or_default(SMALL_BODY_BYTES_MAX).await?;
    let state = call.shared.backend.cancel(call.caller(), id, body.grace_ms).await?;
    json(StatusCode::ACCEPTED, &CancelAnswer { state })
}
