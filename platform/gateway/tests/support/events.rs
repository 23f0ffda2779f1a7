//! A client of event streams.

use http_body_util::BodyExt as _;

use super::*;

/// A server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub id: Option<String>,
    pub event: String,
    pub data: String,
}

/// Reads a stream of events as a client does.
pub struct Events {
    body: Body,
    buffer: String,
}

impl Events {
    pub fn new(response: Response<Body>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            buffer: String::new(),
        }
    }

    /// The next event with data; `None` at the end. Fails the test when nothing comes.
    pub async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name).map(|value| value.trim_start().to_owned()))
                };
                if let Some(data) = field("data:") {
                    return Some(Sent {
                        id: field("id:"),
                        event: field("event:").unwrap_or_default(),
                        data,
                    });
                }
                continue;
            }
            let frame = tokio::time::timeout(Duration::from_secs(20), self.body.frame())
                .await
                .expect("the stream is silent")?;
            self.buffer
                .push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    }

    pub async fn all(mut self) -> Vec<Sent> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}
