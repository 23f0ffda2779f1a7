//! `main`: what a person feels. Time from submission to the first byte of output, memory of an idle daemon, time of a second `deploy/up`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::paths;
use gantry_tests::world::{Scenario, World};
use serde_json::json;
use tokio::process::Command;
use tokio::time::Instant;

use crate::report::Report;

const DEADLINE: Duration = Duration::from_secs(60);
const UP_DEADLINE: Duration = Duration::from_secs(300);

pub(crate) async fn run(quick: bool) -> Result<()> {
    let mut report = Report::create("main")?;
    let (submissions, ups) = if quick { (10, 1) } else { (50, 3) };
    Scenario::dev("bench-main")
        .run(async |world| daemon(world, submissions, &mut report).await)
        .await?;
    up(ups, &mut report).await?;
    report.finish();
    Ok(())
}

async fn daemon(world: &World, submissions: usize, report: &mut Report) -> Result<()> {
    // The first container of an image pays for caches that are warm from then on.
    first_byte(world).await?;
    let mut samples = Vec::new();
    for _ in 0..submissions {
        samples.push(first_byte(world).await?.as_secs_f64() * 1_000.0);
    }
    report.measure("main.submit_to_first_byte_ms", "ms", &samples)?;

    world.all_given_back().await?;
    let memory = world.server_memory_bytes("VmRSS").await?;
    #[allow(clippy::cast_precision_loss, reason = "a daemon's memory fits 53 bits")]
    report.measure("main.idle_rss_mb", "MB", &[memory as f64 / 1e6])
}

/// From sending the submission to having the first byte that the step printed, over SSE.
async fn first_byte(world: &World) -> Result<Duration> {
    let definition = r#"{"name":"bench","tasks":{"t":{"run":["echo","x"]}}}"#;
    let started = Instant::now();
    let id = world.api.submit(definition, json!({})).await?;
    let mut events = world.api.follow(&id, None).await?;
    let elapsed = loop {
        let event = events
            .next(DEADLINE)
            .await?
            .context("the stream ended without output")?;
        if event.name == "output" {
            break started.elapsed();
        }
    };
    ensure!(
        world.api.ended(&id, DEADLINE).await?.state == "completed",
        "the workflow failed"
    );
    Ok(elapsed)
}

/// `deploy/up` on a built tree with a data directory that exists and no daemon running, from start to the sample's result.
async fn up(count: usize, report: &mut Report) -> Result<()> {
    let data = paths::scratch().join(format!("bench-up-{}", std::process::id()));
    let result = timed_ups(&data, count).await;
    // Whatever happened, the daemon of this bench ends; the first error is what is reported.
    let down = deploy_up(&data, &["--down"]).await;
    let samples = result?;
    down?;
    std::fs::remove_dir_all(&data)?;
    report.measure("main.up_warm_s", "s", &samples)
}

async fn timed_ups(data: &Path, count: usize) -> Result<Vec<f64>> {
    deploy_up(data, &["-y"]).await?;
    let mut samples = Vec::new();
    for _ in 0..count {
        deploy_up(data, &["--down"]).await?;
        let started = Instant::now();
        deploy_up(data, &["-y"]).await?;
        samples.push(started.elapsed().as_secs_f64());
    }
    Ok(samples)
}

async fn deploy_up(data: &Path, arguments: &[&str]) -> Result<()> {
    let run = Command::new(paths::repository().join("deploy/up"))
        .args(arguments)
        .env("GANTRY_DATA_DIR", data)
        .env("HOME", data.parent().context("the data directory has a parent")?)
        .env("GANTRY_LISTEN", "127.0.0.1:7510")
        .env("GANTRY_GRPC_LISTEN", "127.0.0.1:7511")
        .envs(caches())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(UP_DEADLINE, run)
        .await
        .context("deploy/up hangs")??;
    ensure!(
        output.status.success(),
        "deploy/up {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// HOME is another one for the client's configuration; toolchain and caches stay where they are.
fn caches() -> Vec<(&'static str, std::ffi::OsString)> {
    let Some(home) = std::env::var_os("HOME").map(std::path::PathBuf::from) else {
        return Vec::new();
    };
    [
        ("CARGO_HOME", ".cargo"),
        ("RUSTUP_HOME", ".rustup"),
        ("GANTRY_CACHE", ".cache/gantry"),
    ]
    .into_iter()
    .map(|(variable, default)| {
        (
            variable,
            std::env::var_os(variable).unwrap_or_else(|| home.join(default).into()),
        )
    })
    .collect()
}
