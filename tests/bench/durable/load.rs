//! Closed loops of callers, the same for both systems.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use rustix::process::Pid;
use tokio::time::Instant;

use super::process::cpu_seconds;
use crate::report::median;

/// What one round under load was like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) runs: u64,
    pub(super) per_second: f64,
    /// CPU of the server alone, per run.
    pub(super) cpu_ms: f64,
    pub(super) p50_ms: f64,
}

/// `callers` callers, each with one call at a time, for so long.
pub(super) async fn busy<F>(callers: usize, length: Duration, server: Pid, call: impl Fn() -> F) -> Result<Round>
where
    F: Future<Output = Result<()>>,
{
    let (before, begun) = (cpu_seconds(server)?, Instant::now());
    let until = begun + length;
    let loops = (0..callers).map(|_| async {
        let mut times = Vec::new();
        while Instant::now() < until {
            let sent = Instant::now();
            call().await?;
            times.push(sent.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok::<_, anyhow::Error>(times)
    });
    let times: Vec<f64> = try_join_all(loops).await?.into_iter().flatten().collect();
    let elapsed = begun.elapsed().as_secs_f64();
    let cpu = cpu_seconds(server)? - before;
    #[allow(clippy::cast_precision_loss, reason = "a count of calls")]
    let runs = times.len() as f64;
    Ok(Round {
        runs: times.len() as u64,
        per_second: runs / elapsed,
        cpu_ms: 1_000.0 * cpu / runs,
        p50_ms: median(&times).context("no call ended")?,
    })
}

/// Median time of calls one after the other, in milliseconds.
pub(super) async fn alone<F>(count: usize, call: impl Fn() -> F) -> Result<f64>
where
    F: Future<Output = Result<()>>,
{
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let sent = Instant::now();
        call().await?;
        times.push(sent.elapsed().as_secs_f64() * 1_000.0);
    }
    median(&times).context("no call ended")
}

/// So many calls, at most `at_once` under way.
pub(super) async fn each<F>(count: usize, at_once: usize, call: impl Fn() -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    use futures_util::{StreamExt as _, TryStreamExt as _};
    futures_util::stream::iter(0..count)
        .map(|_| call())
        .buffer_unordered(at_once)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
}
