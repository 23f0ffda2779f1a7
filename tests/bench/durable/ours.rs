//! Gantry's side: `gantry server` on a directory of its own, and a worker in a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::process::Process;
use gantry_tests::sse::SseReader;
use gantry_tests::{paths, wait, world};
use rustix::process::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

const START: Duration = Duration::from_secs(30);
/// Longest that work under way is waited for.
const QUIET: Duration = Duration::from_secs(300);
/// Where a directory's key is kept, beside its data.
const KEY_FILE: &str = "key";

/// A server, with a worker once one is attached.
pub(super) struct Gantry {
    root: PathBuf,
    key: String,
    http: String,
    grpc: String,
    client: reqwest::Client,
    server: Process,
    worker: Option<Process>,
}

/// The journal's own count.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Journal {
    pub(super) syncs: u64,
    pub(super) bytes: u64,
}

#[derive(Deserialize)]
struct Endpoints {
    http: String,
    grpc: Option<String>,
    pid: u32,
}

pub(super) fn root_of(name: &str) -> Result<PathBuf> {
    let root = paths::scratch().join(format!("bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&root)?;
    Ok(root)
}

impl Gantry {
    /// Starts a server on an empty directory.
    pub(super) async fn start(name: &str) -> Result<Self> {
        let root = root_of(name)?;
        let key = world::init(&root.join("data"), &root).await?;
        std::fs::write(root.join(KEY_FILE), &key)?;
        Self::start_on(root, key).await
    }

    /// Starts a server on a directory that another one has left; gives the time until it listens, too.
    pub(super) async fn start_again(root: PathBuf) -> Result<(Self, Duration)> {
        let key = std::fs::read_to_string(root.join(KEY_FILE)).context("the key of the directory")?;
        let begun = Instant::now();
        let ours = Self::start_on(root, key).await?;
        Ok((ours, begun.elapsed()))
    }

    async fn start_on(root: PathBuf, key: String) -> Result<Self> {
        let data = root.join("data");
        let arguments = [
            "server",
            "--listen",
            "127.0.0.1:0",
            "--grpc-listen",
            "127.0.0.1:0",
            "--data-dir",
        ];
        let mut arguments: Vec<std::ffi::OsString> = arguments.iter().map(Into::into).collect();
        arguments.push(data.clone().into());
        let environment = [("GANTRY_LOG", "warn".into())];
        let server = Process::start(&paths::gantry()?, &arguments, &environment, &root.join("server.log"))?;
        let pid = u32::try_from(server.pid().as_raw_nonzero().get())?;
        let endpoints: Endpoints = wait::until("the server's endpoints", START, async || {
            let text = std::fs::read(data.join("endpoints.json")).ok();
            let found = text.and_then(|text| serde_json::from_slice::<Endpoints>(&text).ok());
            Ok(found.filter(|found| found.pid == pid))
        })
        .await?;
        Ok(Self {
            root,
            key,
            http: endpoints.http,
            grpc: endpoints.grpc.context("the server has no gRPC")?,
            client: reqwest::Client::new(),
            server,
            worker: None,
        })
    }

    pub(super) fn pid(&self) -> Pid {
        self.server.pid()
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Where workers dial.
    pub(super) fn grpc(&self) -> &str {
        &self.grpc
    }

    pub(super) async fn token(&self) -> Result<String> {
        let answer: Value = self
            .client
            .post(format!("{}/api/v1/node-tokens", self.http))
            .bearer_auth(&self.key)
            .json(&json!({"name": "bench"}))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        Ok(answer["token"].as_str().context("no token in the answer")?.to_owned())
    }

    /// Starts a worker and waits until it has been let in.
    pub(super) async fn attach_worker(&mut self) -> Result<()> {
        let token = self.token().await?;
        self.start_worker(&token)?;
        let log = self.root.join("worker.log");
        wait::until("the worker to be let in", START, async || {
            Ok(std::fs::read_to_string(&log)?.contains("ready").then_some(()))
        })
        .await
    }

    fn start_worker(&mut self, token: &str) -> Result<()> {
        let binary = std::env::current_exe()?.with_file_name("gantry-test-worker");
        ensure!(
            binary.is_file(),
            "{} is missing; cargo build --release -p gantry-test-worker",
            binary.display()
        );
        let arguments = [self.grpc.clone().into(), "128".into()];
        let environment = [("GANTRY_WORKER_TOKEN", token.into())];
        self.worker = Some(Process::start(
            &binary,
            &arguments,
            &environment,
            &self.root.join("worker.log"),
        )?);
        Ok(())
    }

    /// One run to its end.
    pub(super) async fn call(&self, component: &str) -> Result<()> {
        let answer: Value = self
            .client
            .post(format!("{}/api/v1/components/{component}:run", self.http))
            .bearer_auth(&self.key)
            .json(&json!({"input": 1, "wait_ms": 20_000}))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        ensure!(answer["state"] == "completed", "a run did not complete: {answer}");
        Ok(())
    }

    /// A workflow of three tasks of code, one after the other, to its end.
    pub(super) async fn chain(&self) -> Result<()> {
        let definition = json!({"name": "chain", "tasks": {
            "a": {"component": "noop"},
            "b": {"component": "noop", "needs": "a"},
            "c": {"component": "noop", "needs": "b"},
        }});
        let begun: Value = self
            .client
            .post(format!("{}/api/v1/workflows", self.http))
            .bearer_auth(&self.key)
            .json(&json!({"definition": definition}))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        let id = begun["id"].as_str().context("no id in the answer")?;
        let ended: Value = self
            .client
            .get(format!("{}/api/v1/workflows/{id}/result?wait_ms=20000", self.http))
            .bearer_auth(&self.key)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        ensure!(ended["state"] == "completed", "a chain did not complete: {ended}");
        Ok(())
    }

    /// Starts a run that nobody waits for; gives its id.
    pub(super) async fn begin(&self, component: &str, input: u64) -> Result<String> {
        let begun: Value = self
            .client
            .post(format!("{}/api/v1/components/{component}:run", self.http))
            .bearer_auth(&self.key)
            .json(&json!({"input": input}))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        Ok(begun["id"].as_str().context("no id in the answer")?.to_owned())
    }

    /// The records of a workflow, from the first one to its end.
    pub(super) async fn watch(&self, id: &str) -> Result<SseReader> {
        let response = self
            .client
            .get(format!("{}/api/v1/workflows/{id}/events", self.http))
            .bearer_auth(&self.key)
            .header("accept", "text/event-stream")
            .send()
            .await?;
        SseReader::new(response)
    }

    /// Waits until no more records are written.
    pub(super) async fn quiet(&self) -> Result<()> {
        let mut before = self.journal().await?.bytes;
        wait::until("the server to come to rest", QUIET, async || {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.journal().await?.bytes;
            let rests = std::mem::replace(&mut before, now) == now;
            Ok(rests.then_some(()))
        })
        .await
    }

    /// The newest 50, as a list shows them.
    pub(super) async fn newest(&self) -> Result<()> {
        let page: Value = self
            .client
            .get(format!("{}/api/v1/workflows?limit=50", self.http))
            .bearer_auth(&self.key)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        ensure!(
            page["items"].as_array().is_some_and(|items| items.len() == 50),
            "not 50 workflows"
        );
        Ok(())
    }

    /// Stops and starts the server on the same data; gives the time until it listens.
    pub(super) async fn restarted(mut self) -> Result<(Self, Duration)> {
        if let Some(worker) = self.worker.take() {
            worker.kill().await?;
        }
        self.server.stop().await?;
        let begun = Instant::now();
        let again = Self::start_on(self.root, self.key).await?;
        Ok((again, begun.elapsed()))
    }

    pub(super) async fn journal(&self) -> Result<Journal> {
        let status: Value = self
            .client
            .get(format!("{}/api/v1/status", self.http))
            .bearer_auth(&self.key)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        Ok(serde_json::from_value(status["journal"].clone())?)
    }

    /// Stops it; gives its directory.
    pub(super) async fn stop_and_keep(mut self) -> Result<PathBuf> {
        if let Some(worker) = self.worker.take() {
            worker.kill().await?;
        }
        self.server.stop().await?;
        Ok(self.root)
    }

    pub(super) async fn stop(self) -> Result<()> {
        let root = self.stop_and_keep().await?;
        std::fs::remove_dir_all(root)?;
        Ok(())
    }
}

/// From the start of a server's process on a directory with a key and a token to the end of its first run. The worker dials meanwhile.
pub(super) async fn first_run() -> Result<Duration> {
    let prepared = Gantry::start("durable-first").await?;
    let token = prepared.token().await?;
    prepared.server.stop().await?;
    let begun = Instant::now();
    let mut ours = Gantry::start_on(prepared.root, prepared.key).await?;
    ours.start_worker(&token)?;
    ours.call("noop").await?;
    let elapsed = begun.elapsed();
    ours.stop().await?;
    Ok(elapsed)
}
