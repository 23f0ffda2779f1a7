//! What a step printed: bytes, NDJSON or server-sent events.

use axum::body::Body;
use axum::response::Response;
use axum::response::sse::Event;
use bytes::Bytes;
use futures_util::stream;
use gantry_engine::api::{Chunk, StreamKey};
use gantry_proto::v1::OutputStream;
use http::StatusCode;

use super::tasks::{find_step, find_task, workflow};
use super::typed;
use crate::call::{GuardedCall, short};
use crate::problem::Problem;
use crate::sse::line::line;
use crate::sse::output::OutputReader;
use crate::sse::{self, Stop, Watch};

#[derive(Clone, Copy)]
enum Format {
    Text,
    Json,
}

fn format(call: &GuardedCall) -> Result<Format, Problem> {
    match call.query("format")? {
        None | Some("text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        Some(other) => Err(Problem::invalid(format!(
            "`format` must be text or json, not `{}`",
            short(other)
        ))),
    }
}

fn only(call: &GuardedCall) -> Result<Option<OutputStream>, Problem> {
    match call.query("stream")? {
        None => Ok(None),
        Some("stdout") => Ok(Some(OutputStream::Stdout)),
        Some("stderr") => Ok(Some(OutputStream::Stderr)),
        Some(other) => Err(Problem::invalid(format!(
            "`stream` must be stdout or stderr, not `{}`",
            short(other)
        ))),
    }
}

pub(crate) async fn logs(call: GuardedCall) -> Result<Response, Problem> {
    let (format, only) = (format(&call)?, only(&call)?);
    let events = call.wants_events();
    let follow = call.query_as("follow", "true or false")?.unwrap_or(events);
    let after = match call.header("last-event-id").filter(|_| events) {
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| Problem::invalid("`Last-Event-ID` must be a sequence number of this output"))?,
        None => 0,
    };

    let watch = Watch::open(call.shared.clone(), call.key.clone(), call.id(0, "workflow")?)?;
    let (workflow, view) = workflow(&call).await?;
    let task = find_task(view, call.text(1))?;
    let task_id = task.id;
    let step = find_step(task, call.text(2))?;
    let attempt = match call.query_as::<u32>("attempt", "a number from 1")? {
        Some(attempt) if step.attempts.iter().any(|known| known.attempt == attempt) => attempt,
        Some(attempt) => return Err(Problem::not_found(&format!("attempt {attempt} of this step"))),
        None => step.attempts.last().map(|attempt| attempt.attempt).ok_or_else(|| {
            Problem::not_found("output of this step: it has not begun")
                .hint("follow the workflow's events to see it begin")
        })?,
    };
    let key = StreamKey {
        tenant: call.key.tenant,
        workflow,
        task: task_id,
        step: step.index,
        attempt,
    };
    let mut reader = OutputReader::new(watch, key, only, follow, after);
    reader.begin().await?;

    if events {
        return Ok(sse::response(&call.shared, as_events(reader)));
    }
    Ok(match format {
        Format::Text => typed(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            as_body(reader, |chunk| chunk.data),
        ),
        Format::Json => typed(StatusCode::OK, "application/x-ndjson", as_body(reader, ndjson)),
    })
}

#[allow(clippy::needless_pass_by_value)] // it stands where a function over chunks is wanted
fn ndjson(chunk: Chunk) -> Bytes {
    let mut bytes = serde_json::to_vec(&line(&chunk)).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

/// A body that ends with the output. When it is cut short the connection breaks instead, so that a part never looks like the whole.
fn as_body(reader: OutputReader, encode: fn(Chunk) -> Bytes) -> Body {
    Body::from_stream(stream::unfold(Some(reader), move |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(chunk) => chunk.map(|chunk| (Ok(encode(chunk)), Some(reader))),
            Err(Stop::Shutdown) => Some((Err(std::io::Error::other("the server shuts down")), None)),
            Err(Stop::Problem(problem)) => Some((Err(std::io::Error::other(problem.detail().to_owned())), None)),
        }
    }))
}

enum Phase {
    Opening(OutputReader),
    Reading(OutputReader),
    Over,
}

fn as_events(reader: OutputReader) -> impl futures_util::Stream<Item = Event> + Send {
    stream::unfold(Phase::Opening(reader), |phase| async move {
        let mut reader = match phase {
            Phase::Opening(reader) => return Some((sse::opening_event(), Phase::Reading(reader))),
            Phase::Reading(reader) => reader,
            Phase::Over => return None,
        };
        Some(match reader.next().await {
            Ok(Some(chunk)) => {
                let id = chunk.seq.to_string();
                let data = serde_json::to_string(&line(&chunk)).unwrap_or_default();
                (
                    Event::default().id(id).event("output").data(data),
                    Phase::Reading(reader),
                )
            }
            Ok(None) => (Event::default().event("end").data("{}"), Phase::Over),
            Err(stop) => (sse::stop_event(stop), Phase::Over),
        })
    })
}
