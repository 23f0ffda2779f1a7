//! A reader of server-sent events, to the letter of the format as far as the API uses it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// Id to resume after.
    pub id: Option<String>,
    /// Event name; `message` when the server gave none.
    pub name: String,
    /// Data lines, joined.
    pub data: String,
}

/// An open stream of events.
pub struct SseReader {
    body: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    buffered: Vec<u8>,
}

impl SseReader {
    /// Reads events from a response.
    pub fn new(response: reqwest::Response) -> Result<Self> {
        let content_type = response
            .headers()
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if !response.status().is_success() || !content_type.starts_with("text/event-stream") {
            bail!("not an event stream: {} {content_type}", response.status());
        }
        let body = response
            .bytes_stream()
            .map(|chunk| chunk.map(|bytes| bytes.to_vec()))
            .boxed();
        Ok(Self {
            body,
            buffered: Vec::new(),
        })
    }

    /// The next event; `None` when the server ended the stream. Comments are skipped.
    pub async fn next(&mut self, deadline: Duration) -> Result<Option<SseEvent>> {
        tokio::time::timeout(deadline, self.read())
            .await
            .with_context(|| format!("no event in {deadline:?}"))?
    }

    /// All events up to and including the one of this name, or up to the end of the stream.
    pub async fn until(&mut self, name: &str, deadline: Duration) -> Result<Vec<SseEvent>> {
        let mut events = Vec::new();
        while let Some(event) = self.next(deadline).await? {
            let last = event.name == name;
            events.push(event);
            if last {
                break;
            }
        }
        Ok(events)
    }

    async fn read(&mut self) -> Result<Option<SseEvent>> {
        loop {
            while let Some(end) = find(&self.buffered, b"\n\n") {
                let block: Vec<u8> = self.buffered.drain(..end + 2).collect();
                if let Some(event) = parse(&String::from_utf8(block).context("events are UTF-8")?) {
                    return Ok(Some(event));
                }
            }
            match self.body.next().await {
                Some(chunk) => self.buffered.extend(chunk?),
                None => return Ok(None),
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse(block: &str) -> Option<SseEvent> {
    let (mut id, mut name, mut data) = (None, None, Vec::new());
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => id = Some(value.to_owned()),
            "event" => name = Some(value.to_owned()),
            "data" => data.push(value),
            _ => {}
        }
    }
    if name.is_none() && data.is_empty() {
        return None;
    }
    Some(SseEvent {
        id,
        name: name.unwrap_or_else(|| "message".to_owned()),
        data: data.join("\n"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_and_skips_comments() {
        assert_eq!(parse(": heartbeat\n\n"), None);
        let event = parse("id: abc\nevent: output\ndata: {\"a\":1}\ndata: 2\n\n").expect("an event");
        assert_eq!(
            event,
            SseEvent {
                id: Some("abc".into()),
                name: "output".into(),
                data: "{\"a\":1}\n2".into()
            }
        );
    }
}
