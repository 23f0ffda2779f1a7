//! A workflow's event stream that survives broken connections and daemon restarts: it dials again with the last id that it has seen.

use std::time::Duration;

use anyhow::Result;
use eventsource_stream::Eventsource as _;
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Client, Refused};

/// Events that wait for the reader before the stream stops reading.
const QUEUE: usize = 256;
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The daemon beats every 15 s; silence for three beats is a broken line.
const SILENCE: Duration = Duration::from_secs(45);

/// What the stream tells.
#[derive(Debug)]
pub(crate) enum Told {
    /// A record or a piece of output.
    Event { kind: String, data: Value },
    /// Everything was sent; the workflow has ended.
    End,
    /// The line broke; it is dialled again.
    Lost(String),
    /// The server refuses for good.
    Refused(anyhow::Error),
}

/// Follows a workflow until its end. Dropping the receiver ends the task.
pub(crate) fn follow(client: Client, workflow: String, output: bool) -> (mpsc::Receiver<Told>, JoinHandle<()>) {
    let (tell, told) = mpsc::channel(QUEUE);
    let task = tokio::spawn(async move {
        let mut last_id = None;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let before = last_id.clone();
            match stream(&client, &workflow, output, &mut last_id, &tell).await {
                Ok(true) => {
                    let _ = tell.send(Told::End).await;
                    return;
                }
                Ok(false) if tell.is_closed() => return,
                Ok(false) => {}
                Err(error)
                    if error
                        .downcast_ref::<Refused>()
                        .is_some_and(|refused| refused.0.status < 500 && refused.0.status != 429) =>
                {
                    let _ = tell.send(Told::Refused(error)).await;
                    return;
                }
                Err(error) => {
                    if tell.send(Told::Lost(error.to_string())).await.is_err() {
                        return;
                    }
                }
            }
            backoff = if last_id == before {
                (backoff * 2).min(BACKOFF_MAX)
            } else {
                BACKOFF_FIRST
            };
            tokio::time::sleep(backoff).await;
        }
    });
    (told, task)
}

/// One connection. `Ok(true)`: the end event came. `Ok(false)`: it broke or the reader left.
async fn stream(
    client: &Client,
    workflow: &str,
    output: bool,
    last_id: &mut Option<String>,
    tell: &mpsc::Sender<Told>,
) -> Result<bool> {
    let mut request = client
        .request(Method::GET, &format!("/workflows/{workflow}/events?output={output}"))
        .header("accept", "text/event-stream");
    if let Some(id) = last_id.as_ref() {
        request = request.header("last-event-id", id);
    }
    let response = client.open(request).await?;
    let mut events = response.bytes_stream().eventsource();
    while let Ok(Some(event)) = tokio::time::timeout(SILENCE, events.next()).await {
        let event = event?;
        if !event.id.is_empty() {
            *last_id = Some(event.id);
        }
        match event.event.as_str() {
            "end" => return Ok(true),
            // The daemon goes down: dial again.
            "shutdown" => return Ok(false),
            _ => {
                let data = serde_json::from_str(&event.data).unwrap_or(Value::Null);
                if tell
                    .send(Told::Event {
                        kind: event.event,
                        data,
                    })
                    .await
                    .is_err()
                {
                    return Ok(false);
                }
            }
        }
    }
    Ok(false)
}
