//! Many at once: runs that work while each is watched by a reader of its own, and runs that sleep.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gantry_test_worker::{Context, Settings, Worker};
use gantry_tests::sse::SseReader;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ours::Gantry;
use super::{load, process};
use crate::report::{Report, percentile};

/// Runs, and readers, at once.
const RUNS: u32 = 5_000;
/// Calls and connections that are opened at a time.
const AT_ONCE: usize = 256;
const PATIENCE: Duration = Duration::from_secs(60);
const SLEEPERS: usize = 10_000;

/// What each run does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) steps: u32,
    /// Between two steps.
    pub(super) pause: Duration,
}

/// A worker in this process, so that it can say how long each step's end took to be durable. Its runs begin when `gate` opens.
async fn worker(ours: &Gantry, pace: Pace, gate: watch::Receiver<bool>, times: Arc<Mutex<Vec<f64>>>) -> Result<Worker> {
    let mut settings = Settings::new(ours.grpc(), ours.token().await?);
    settings.slots = RUNS;
    let settings = settings.component("paced", move |context: Context, input: Bytes| {
        let (mut gate, times) = (gate.clone(), Arc::clone(&times));
        async move {
            // A gate that is gone is open.
            let _ = gate.wait_for(|open| *open).await;
            // Spread over the first pause, always in the same way.
            let number: u32 = serde_json::from_slice(&input).unwrap_or_default();
            tokio::time::sleep(pace.pause * number / RUNS).await;
            for step in 0..pace.steps {
                let done = context.step("beat", || async { Ok(step) }).await?;
                let sent = Instant::now();
                context.durable().await?;
                times.lock().push(sent.elapsed().as_secs_f64() * 1_000.0);
                if done + 1 < pace.steps {
                    tokio::time::sleep(pace.pause).await;
                }
            }
            Ok(Bytes::from_static(b"true"))
        }
    });
    let worker = Worker::start(settings)?;
    worker.ready(PATIENCE).await?;
    Ok(worker)
}

/// Ends of steps that a reader sees until its stream says that this was all.
async fn seen(mut reader: SseReader) -> Result<u32> {
    let mut ends = 0;
    loop {
        let event = reader.next(PATIENCE).await?.context("a stream ended without its end")?;
        match event.name.as_str() {
            "activation_ended" => ends += 1,
            "end" => return Ok(ends),
            _ => {}
        }
    }
}

/// Five thousand runs at work, each with a reader from its first record to its end.
pub(super) async fn watched(report: &mut Report, pace: Pace) -> Result<()> {
    let ours = Gantry::start("durable-crowd").await?;
    let (open, gate) = watch::channel(false);
    let times = Arc::new(Mutex::new(Vec::with_capacity((RUNS * pace.steps) as usize)));
    let worker = worker(&ours, pace, gate, Arc::clone(&times)).await?;
    let ids: Vec<String> = stream::iter(0..RUNS)
        .map(|number| ours.begin("paced", u64::from(number)))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    ensure!(
        worker.holds() == RUNS as usize,
        "{} of {RUNS} runs are at work",
        worker.holds()
    );
    let readers: Vec<SseReader> = stream::iter(&ids)
        .map(|id| ours.watch(id))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let mut reading = JoinSet::new();
    for reader in readers {
        reading.spawn(seen(reader));
    }
    open.send(true)?;
    tokio::time::sleep(pace.pause * pace.steps.saturating_sub(1)).await;
    let rss = process::rss_bytes(ours.pid())? / 1e6;
    let mut lost = 0;
    while let Some(read) = reading.join_next().await {
        lost += pace.steps.saturating_sub(read??);
    }
    drop(worker);
    let times = std::mem::take(&mut *times.lock());
    ensure!(
        times.len() == (RUNS * pace.steps) as usize,
        "{} steps were timed",
        times.len()
    );
    report.single(
        "durable.p99_append_ms_5k",
        "ms",
        "p99",
        percentile(&times, 99).context("no steps")?,
    )?;
    report.single(
        "durable.p50_append_ms_5k",
        "ms",
        "p50",
        percentile(&times, 50).context("no steps")?,
    )?;
    report.single("durable.rss_mb_5k", "MB", "once", rss)?;
    report.single("durable.lost_5k", "records", "sum", f64::from(lost))?;
    ensure!(lost == 0, "readers missed {lost} records");
    ours.stop().await
}

/// Memory with ten thousand runs that sleep.
pub(super) async fn sleepers(report: &mut Report) -> Result<()> {
    let mut ours = Gantry::start("durable-sleepers").await?;
    ours.attach_worker().await?;
    load::each(SLEEPERS, AT_ONCE, async || {
        ours.begin("nap", 3_600_000).await.map(|_| ())
    })
    .await?;
    ours.quiet().await?;
    report.single(
        "durable.sleepers_rss_mb",
        "MB",
        "once",
        process::rss_bytes(ours.pid())? / 1e6,
    )?;
    ours.stop().await
}
