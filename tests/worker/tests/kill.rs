//! Worker and server as processes, killed with -9 in every state of a run: while a step is executed, while it must not be executed twice, while it sleeps.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_engine::verify::verify;
use gantry_journal::{RocksOptions, RocksStore};
use gantry_proto::PartitionId;
use gantry_tests::process::Process;
use gantry_tests::{paths, wait, world};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
const LEASE_MS: &str = "1500";

struct Installation {
    root: PathBuf,
    key: String,
    token: String,
    http: String,
    grpc: String,
    client: reqwest::Client,
    server: Option<Process>,
    worker: Option<Process>,
}

impl Installation {
    async fn start(name: &str) -> Result<Self> {
        let root = paths::scratch().join(format!("kill-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root)?;
        let key = world::init(&root.join("data"), &root).await?;
        let mut all = Self {
            root,
            key,
            token: String::new(),
            http: "127.0.0.1:0".to_owned(),
            grpc: "127.0.0.1:0".to_owned(),
            client: reqwest::Client::new(),
            server: None,
            worker: None,
        };
        all.start_server().await?;
        let made = all.post("/api/v1/node-tokens", &json!({"name": "worker"})).await?;
        made["token"].as_str().context("a token")?.clone_into(&mut all.token);
        Ok(all)
    }

    async fn start_server(&mut self) -> Result<()> {
        let data = self.root.join("data");
        let address = |url: &str| url.trim_start_matches("http://").to_owned();
        let words = ["server", "--lease-ms", LEASE_MS, "--data-dir", &data.to_string_lossy()].map(OsString::from);
        let mut arguments = Vec::from(words);
        for (option, url) in [("--listen", &self.http), ("--grpc-listen", &self.grpc)] {
            arguments.extend([option.into(), address(url).into()]);
        }
        let server = Process::start(&paths::gantry()?, &arguments, &[], &self.root.join("server.log"))?;
        let pid = server.pid().as_raw_nonzero().get();
        let endpoints: Value = wait::until("the server's endpoints", DEADLINE, async || {
            let text = std::fs::read(data.join("endpoints.json")).ok();
            let found = text.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            Ok(found.filter(|found| found["pid"] == pid))
        })
        .await?;
        let url = |name: &str| endpoints[name].as_str().map(str::to_owned).context("an address");
        (self.http, self.grpc) = (url("http")?, url("grpc")?);
        let _: SocketAddr = address(&self.http).parse()?;
        self.server = Some(server);
        Ok(())
    }

    fn start_worker(&mut self) -> Result<()> {
        let binary = Path::new(env!("CARGO_BIN_EXE_gantry-test-worker"));
        let environment = [("GANTRY_WORKER_TOKEN", self.token.clone().into())];
        let log = self.root.join("worker.log");
        self.worker = Some(Process::start(binary, &[self.grpc.clone().into()], &environment, &log)?);
        Ok(())
    }

    async fn kill_worker(&mut self) -> Result<()> {
        self.worker.take().context("a worker")?.kill().await
    }

    async fn kill_server(&mut self) -> Result<()> {
        self.server.take().context("a server")?.kill().await
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let sent = self
            .client
            .post(format!("{}{path}", self.http))
            .bearer_auth(&self.key)
            .json(body);
        Ok(sent.send().await?.error_for_status()?.json().await?)
    }

    async fn result(&self, id: &str) -> Result<Value> {
        let url = format!("{}/api/v1/workflows/{id}/result", self.http);
        Ok(self
            .client
            .get(url)
            .bearer_auth(&self.key)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    async fn ended(&self, id: &str) -> Result<Value> {
        wait::until("the end of the run", DEADLINE, async || {
            let result = self.result(id).await?;
            Ok((result["state"] != "active").then_some(result))
        })
        .await
    }

    /// Waits until the steps left these lines.
    async fn executed(&self, wanted: &[&str]) -> Result<()> {
        let log = self.root.join("steps");
        wait::until(&format!("steps {wanted:?}"), DEADLINE, async || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            Ok(text.lines().eq(wanted.iter().copied()).then_some(()))
        })
        .await
    }

    async fn hold(&self, wait_in: &str, once: bool, sleep_ms: u64) -> Result<String> {
        let input = json!({
            "log": self.root.join("steps"), "gate": self.root.join("gate"), "wait_in": wait_in, "once": once, "sleep_ms": sleep_ms,
        });
        let run = self
            .post("/api/v1/components/hold:run", &json!({"input": input}))
            .await?;
        Ok(run["id"].as_str().context("an id")?.to_owned())
    }

    fn open_gate(&self) -> Result<()> {
        Ok(std::fs::write(self.root.join("gate"), "")?)
    }

    async fn stop(mut self) -> Result<()> {
        self.kill_worker().await?;
        let status = self.server.take().context("a server")?.stop().await?;
        ensure!(status.success(), "the server ended with {status}");
        let partitions = gantry_proto::limits::PARTITIONS_DEFAULT;
        let store = RocksStore::open(&self.root.join("data/journal"), RocksOptions { partitions })?;
        for partition in (0..partitions).filter_map(PartitionId::new) {
            verify(&store, partition)?;
        }
        drop(store);
        std::fs::remove_dir_all(&self.root)?;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_in_a_step_costs_that_step_alone() -> Result<()> {
    let mut all = Installation::start("step").await?;
    all.start_worker()?;
    let id = all.hold("two", false, 0).await?;
    all.executed(&["one", "two"]).await?;
    all.kill_worker().await?;
    all.open_gate()?;
    all.start_worker()?;
    let ended = all.ended(&id).await?;
    ensure!(ended["result"] == json!({"done": true}), "{ended}");
    all.executed(&["one", "two", "two", "three"]).await?;
    all.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_killed_in_a_step_that_must_not_repeat_leaves_it_unknown() -> Result<()> {
    let mut all = Installation::start("once").await?;
    all.start_worker()?;
    let id = all.hold("two", true, 0).await?;
    all.executed(&["one", "two"]).await?;
    all.kill_worker().await?;
    all.open_gate()?;
    all.start_worker()?;
    let ended = all.ended(&id).await?;
    ensure!(ended["failure"]["code"] == "outcome-unknown", "{ended}");
    all.executed(&["one", "two"]).await?;
    all.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_a_step_finds_the_worker_at_work() -> Result<()> {
    let mut all = Installation::start("server").await?;
    all.start_worker()?;
    let id = all.hold("two", true, 0).await?;
    all.executed(&["one", "two"]).await?;
    all.kill_server().await?;
    all.start_server().await?;
    all.open_gate()?;
    let ended = all.ended(&id).await?;
    ensure!(ended["result"] == json!({"done": true}), "{ended}");
    all.executed(&["one", "two", "three"]).await?;
    all.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_killed_while_a_run_sleeps_go_on_when_its_time_has_come() -> Result<()> {
    let mut all = Installation::start("sleep").await?;
    all.open_gate()?;
    all.start_worker()?;
    let id = all.hold("two", false, 2_000).await?;
    all.executed(&["one"]).await?;
    all.kill_worker().await?;
    all.kill_server().await?;
    all.start_server().await?;
    all.start_worker()?;
    let ended = all.ended(&id).await?;
    ensure!(ended["result"] == json!({"done": true}), "{ended}");
    let text = std::fs::read_to_string(all.root.join("steps"))?;
    // The first step's end may have been on its way.
    ensure!(text.ends_with("two\nthree\n") && text.starts_with("one\n"), "{text}");
    all.stop().await
}
