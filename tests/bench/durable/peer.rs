//! The peer's side: its server from npm, and the service of tests/bench-peer.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use gantry_tests::process::Process;
use gantry_tests::{paths, wait};
use serde_json::json;

use super::load::{self, Round};

const START: Duration = Duration::from_secs(60);
const INGRESS: &str = "127.0.0.1:18080";
const ADMIN: &str = "127.0.0.1:19070";
const NODE: &str = "127.0.0.1:15122";
const SERVICE: &str = "127.0.0.1:19080";

/// Partitions of the peer: on two cores one did nearly twice of what its default of 24 did, with less than half of the CPU per run.
const PARTITIONS: &str = "1";

/// A running peer.
pub(super) struct Restate {
    client: reqwest::Client,
    root: PathBuf,
    server: Process,
    service: Process,
}

impl Restate {
    /// Starts server and service; `None` where they are not there. `GANTRY_PEER` is the server's binary, `GANTRY_PEER_SERVICE` the service's.
    pub(super) async fn start() -> Result<Option<Self>> {
        let binary = |variable| {
            std::env::var_os(variable)
                .map(PathBuf::from)
                .filter(|path| path.is_file())
        };
        let (Some(server), Some(service)) = (binary("GANTRY_PEER"), binary("GANTRY_PEER_SERVICE")) else {
            return Ok(None);
        };
        let root = paths::scratch().join(format!("bench-peer-{}", std::process::id()));
        std::fs::create_dir_all(&root)?;
        let service = Process::start(&service, &[SERVICE.into()], &[], &root.join("service.log"))?;
        let arguments = [
            "--node-name".into(),
            "bench".into(),
            "--base-dir".into(),
            root.join("data").into(),
        ];
        let partitions = std::env::var_os("RESTATE_DEFAULT_NUM_PARTITIONS").unwrap_or_else(|| PARTITIONS.into());
        let environment = [
            ("RESTATE_INGRESS__BIND_ADDRESS", INGRESS.into()),
            ("RESTATE_ADMIN__BIND_ADDRESS", ADMIN.into()),
            ("RESTATE_BIND_ADDRESS", NODE.into()),
            ("RESTATE_ADVERTISED_ADDRESS", format!("http://{NODE}").into()),
            ("RESTATE_DEFAULT_NUM_PARTITIONS", partitions),
            ("RESTATE_LOG_FILTER", "warn".into()),
            ("RESTATE_DISABLE_TELEMETRY", "true".into()),
            ("DO_NOT_TRACK", "1".into()),
        ];
        let server = Process::start(&server, &arguments, &environment, &root.join("server.log"))?;
        let peer = Self {
            client: reqwest::Client::new(),
            root,
            server,
            service,
        };
        wait::until("the peer to take its service", START, async || {
            let asked = peer
                .client
                .post(format!("http://{ADMIN}/deployments"))
                .json(&json!({"uri": format!("http://{SERVICE}"), "force": true}))
                .send()
                .await;
            Ok(asked.ok().filter(|answer| answer.status().is_success()).map(|_| ()))
        })
        .await?;
        wait::until("the peer's first run", START, async || Ok(peer.call().await.ok())).await?;
        Ok(Some(peer))
    }

    /// One run of three steps to its end.
    pub(super) async fn call(&self) -> Result<()> {
        let answer: u32 = self
            .client
            .post(format!("http://{INGRESS}/Bench/three"))
            .json(&1)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?;
        ensure!(answer == 3, "the peer's run came to {answer}");
        Ok(())
    }

    pub(super) async fn busy(&self, callers: usize, length: Duration) -> Result<Round> {
        load::busy(callers, length, self.server.pid(), || self.call()).await
    }

    /// Ends it, and removes its data.
    pub(super) async fn stop(self) -> Result<()> {
        self.server.kill().await?;
        self.service.kill().await?;
        std::fs::remove_dir_all(&self.root)?;
        Ok(())
    }
}
