//! The HTTP API as any program would use it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::sse::SseReader;
use crate::views::{Artifact, Event, Node, Page, Workflow};
use crate::wait;

/// A request may take this long, streams apart.
const REQUEST_DEADLINE: Duration = Duration::from_secs(60);

/// A client with one key.
#[derive(Debug, Clone)]
pub struct Api {
    http: reqwest::Client,
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// `ab_...`; empty: no credential is sent.
    pub key: String,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: reqwest::header::HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{}: {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    /// The error code of a problem document; its media type and status are checked on the way.
    pub fn problem_code(&self) -> Result<String> {
        let content_type = self
            .headers
            .get("content-type")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        if !content_type.starts_with("application/problem+json") {
            bail!(
                "{} is {content_type}, not a problem document: {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            );
        }
        let problem = self.json()?;
        if problem["status"] != json!(self.status.as_u16()) {
            bail!("status {} in a {} answer", problem["status"], self.status);
        }
        Ok(problem["code"].as_str().context("problem has no code")?.to_owned())
    }
}

impl Api {
    /// A client of the daemon at `url`.
    pub fn new(url: impl Into<String>, key: impl Into<String>) -> Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()?;
        Ok(Self {
            http,
            url: url.into(),
            key: key.into(),
        })
    }

    /// The same daemon with another key.
    #[must_use]
    pub fn with_key(&self, key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..self.clone()
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        if self.key.is_empty() {
            request
        } else {
            request.bearer_auth(&self.key)
        }
    }

    /// Sends a request and takes any answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Reply> {
        let mut request = self.request(method, path).timeout(REQUEST_DEADLINE);
        if let Some(body) = body {
            request = request.json(body);
        }
        reply(request).await
    }

    /// GET, any answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.call(Method::GET, path, None).await
    }

    /// GET of JSON that must succeed.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let reply = self.get(path).await?;
        if !reply.status.is_success() {
            bail!("GET {path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        serde_json::from_slice(&reply.body)
            .with_context(|| format!("GET {path}: {}", String::from_utf8_lossy(&reply.body)))
    }

    /// POST of JSON, any answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Reply> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Submits a definition, any answer.
    pub async fn try_submit(
        &self,
        definition: &str,
        parameters: Value,
        idempotency_key: Option<&str>,
    ) -> Result<Reply> {
        let body = json!({ "definition": definition, "parameters": parameters });
        let mut request = self
            .request(Method::POST, "/api/v1/workflows")
            .timeout(REQUEST_DEADLINE)
            .json(&body);
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        reply(request).await
    }

    /// Submits a definition that must be accepted; the workflow's id.
    pub async fn submit(&self, definition: &str, parameters: Value) -> Result<String> {
        accepted(&self.try_submit(definition, parameters, None).await?)
    }

    /// One workflow.
    pub async fn workflow(&self, id: &str) -> Result<Workflow> {
        self.read(&format!("/api/v1/workflows/{id}")).await
    }

    /// Waits until the workflow fits; a daemon that is being restarted meanwhile is waited out.
    pub async fn workflow_when(
        &self,
        id: &str,
        what: &str,
        deadline: Duration,
        fits: impl Fn(&Workflow) -> bool,
    ) -> Result<Workflow> {
        let mut last = None;
        let found = wait::until(what, deadline, async || {
            let Ok(workflow) = self.workflow(id).await else {
                return Ok(None);
            };
            let done = fits(&workflow);
            last = Some(workflow.clone());
            Ok(done.then_some(workflow))
        })
        .await;
        found.with_context(|| format!("workflow {id} is {last:#?}"))
    }

    /// Waits until the workflow has ended.
    pub async fn ended(&self, id: &str, deadline: Duration) -> Result<Workflow> {
        self.workflow_when(id, "the workflow's end", deadline, Workflow::ended)
            .await
    }

    /// Submits, waits, and fails unless it completed.
    pub async fn complete(&self, definition: &str, parameters: Value, deadline: Duration) -> Result<Workflow> {
        let id = self.submit(definition, parameters).await?;
        let workflow = self.ended(&id, deadline).await?;
        if workflow.state != "completed" {
            bail!("{} instead of completed: {workflow:#?}", workflow.state);
        }
        Ok(workflow)
    }

    /// Asks a workflow to end.
    pub async fn cancel(&self, id: &str, grace_ms: u64) -> Result<Reply> {
        self.post(
            &format!("/api/v1/workflows/{id}:cancel"),
            &json!({ "grace_ms": grace_ms }),
        )
        .await
    }

    /// Stored output of one attempt, one stream, as text.
    pub async fn log(&self, workflow: &str, task: &str, step: &str, attempt: u32, stream: &str) -> Result<String> {
        let path = format!(
            "/api/v1/workflows/{workflow}/tasks/{task}/steps/{step}/logs?attempt={attempt}&stream={stream}&format=text"
        );
        let reply = self.get(&path).await?;
        if !reply.status.is_success() {
            bail!("GET {path}: {} {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        Ok(String::from_utf8_lossy(&reply.body).into_owned())
    }

    /// All journal records of a workflow.
    pub async fn events(&self, workflow: &str) -> Result<Vec<Event>> {
        let mut events: Vec<Event> = Vec::new();
        loop {
            let after = events.last().map_or(0, |event| event.position);
            let page: Page<Event> = self
                .read(&format!("/api/v1/workflows/{workflow}/events?after={after}&limit=500"))
                .await?;
            if page.items.is_empty() {
                return Ok(events);
            }
            events.extend(page.items);
        }
    }

    /// The event stream of a workflow, from the start or after an id.
    pub async fn follow(&self, workflow: &str, last_event_id: Option<&str>) -> Result<SseReader> {
        let mut request = self
            .request(Method::GET, &format!("/api/v1/workflows/{workflow}/events"))
            .header("Accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        SseReader::new(request.send().await?)
    }

    /// Artifacts of a workflow.
    pub async fn artifacts(&self, workflow: &str) -> Result<Vec<Artifact>> {
        Ok(self
            .read::<Page<Artifact>>(&format!("/api/v1/workflows/{workflow}/artifacts"))
            .await?
            .items)
    }

    /// Bytes of the artifact of this name.
    pub async fn artifact(&self, workflow: &str, name: &str) -> Result<(Artifact, Vec<u8>)> {
        let artifacts = self.artifacts(workflow).await?;
        let names: Vec<&str> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        let artifact = artifacts
            .iter()
            .find(|artifact| artifact.name == name)
            .with_context(|| format!("no artifact {name} among {names:?}"))?;
        let reply = self
            .get(&format!("/api/v1/workflows/{workflow}/artifacts/{}", artifact.id))
            .await?;
        if reply.status != StatusCode::OK {
            bail!("download of {name}: {}", reply.status);
        }
        Ok((artifact.clone(), reply.body))
    }

    /// Nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>> {
        Ok(self.read::<Page<Node>>("/api/v1/nodes").await?.items)
    }
}

/// The id in the answer to an accepted submission.
pub fn accepted(reply: &Reply) -> Result<String> {
    if !reply.status.is_success() {
        bail!(
            "submission refused: {} {}",
            reply.status,
            String::from_utf8_lossy(&reply.body)
        );
    }
    Ok(reply.json()?["id"].as_str().context("no id in the answer")?.to_owned())
}

async fn reply(request: reqwest::RequestBuilder) -> Result<Reply> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Reply {
        status,
        headers,
        body: response.bytes().await?.to_vec(),
    })
}
