//! A worker process for tests and benches: `gantry-test-worker ENDPOINT [SLOTS [ARTIFACT]]`, token in `GANTRY_WORKER_TOKEN`. Says `ready` once it is let in,
//! and runs until it is killed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use gantry_test_worker::{Settings, Worker, components};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments
        .next()
        .context("where is the server? gantry-test-worker http://host:port")?;
    let slots = arguments
        .next()
        .map_or(Ok(64), |slots| slots.parse())
        .context("slots")?;
    let artifact = arguments
        .next()
        .map_or(Ok(7), |byte| byte.parse())
        .context("artifact")?;
    let token = std::env::var("GANTRY_WORKER_TOKEN").context("GANTRY_WORKER_TOKEN")?;
    let mut settings = components::all(Settings::new(endpoint, token));
    settings.slots = slots;
    settings.artifact = [artifact; 32];
    let worker = Worker::start(settings)?;
    worker.ready(Duration::from_secs(60)).await?;
    println!("ready");
    tokio::signal::ctrl_c().await?;
    drop(worker);
    Ok(())
}
