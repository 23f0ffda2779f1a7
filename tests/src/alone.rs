//! A server without a node: no containers, started in a second, for what is about storage alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::api::Api;
use crate::process::{self, Process};
use crate::{cli, paths, wait, world};

/// A debug build on a busy machine starts, or gives up, within this.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A data directory, and a server on it when it is started.
pub struct Alone {
    /// The API, with the admin key; its address changes with each start.
    pub api: Api,
    /// What a server is started with besides, from the next start on.
    pub environment: Vec<(&'static str, OsString)>,
    root: TempDir,
    data: PathBuf,
    server: Mutex<Option<Process>>,
}

/// How a start went.
#[derive(Debug)]
pub enum Start {
    /// It serves.
    Ready,
    /// It ended, with these last words.
    Refused(String),
}

impl Alone {
    /// A new installation, not started.
    pub async fn new() -> Result<Self> {
        std::fs::create_dir_all(paths::scratch())?;
        let root = TempDir::new_in(paths::scratch())?;
        let data = root.path().join("data");
        let key = world::init(&data, root.path()).await?;
        Ok(Self {
            api: Api::new("", key)?,
            environment: Vec::new(),
            root,
            data,
            server: Mutex::new(None),
        })
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The scenario's own directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Starts the server on `data`; the admin key is the same for a restored copy.
    pub async fn start_on(&mut self, data: &Path) -> Result<Start> {
        let endpoints = data.join("endpoints.json");
        if endpoints.exists() {
            std::fs::remove_file(&endpoints)?;
        }
        let log = self.root.path().join("server.log");
        if log.exists() {
            std::fs::remove_file(&log)?;
        }
        let mut arguments: Vec<OsString> = vec!["server".into(), "--data-dir".into(), data.into()];
        arguments.extend(["--listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"].map(OsString::from));
        let mut environment = vec![("GANTRY_LOG", "info".into())];
        environment.extend(self.environment.iter().cloned());
        let mut process = Process::start(&paths::gantry()?, &arguments, &environment, &log)?;
        let ready = wait::until("a server that serves or gives up", START_DEADLINE, async || {
            if process.check_alive().is_err() {
                return Ok(Some(false));
            }
            Ok(endpoints.exists().then_some(true))
        })
        .await?;
        if !ready {
            return Ok(Start::Refused(process::tail(&log)));
        }
        let text = std::fs::read_to_string(&endpoints)?;
        let document: Value = serde_json::from_str(&text)?;
        self.api.url = document["http"].as_str().context("no http endpoint")?.to_owned();
        *self.server.lock().await = Some(process);
        Ok(Start::Ready)
    }

    /// Starts the server on its own directory.
    pub async fn start(&mut self) -> Result<()> {
        let data = self.data.clone();
        match self.start_on(&data).await? {
            Start::Ready => Ok(()),
            Start::Refused(said) => bail!("the server did not start: {said}"),
        }
    }

    /// `kill -9`.
    pub async fn kill(&self) -> Result<()> {
        let server = self.server.lock().await.take();
        server.context("the server does not run")?.kill().await
    }

    /// SIGTERM, and waits for an orderly end.
    pub async fn stop(&self) -> Result<()> {
        let server = self.server.lock().await.take();
        let status = server.context("the server does not run")?.stop().await?;
        if !status.success() {
            bail!("the server ended with {status} after SIGTERM");
        }
        Ok(())
    }

    /// Runs the command line client, with the admin key and the address of the server that runs.
    pub async fn cli(&self, arguments: &[&str]) -> Result<cli::Output> {
        cli::gantry(Some((&self.api.url, &self.api.key)), self.root.path(), arguments).await
    }

    /// A path in the scenario's directory, as text for the command line.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_string_lossy().into_owned()
    }
}
