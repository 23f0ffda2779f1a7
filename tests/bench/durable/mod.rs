//! `durable`: what a durable step costs, beside the peer where one is named. The executor is a worker of tests/worker, so that no sandbox takes part.
//!
//! The peer is Restate, one node, with one partition (what it is at its best with: see `peer::PARTITIONS`), its log on the same disk, synced before it
//! acknowledges, telemetry off and warnings only; the service is the same three steps on its SDK for Rust. Rounds of both are interleaved, and medians
//! compared. Settings of its own may be tried by its environment variables: `RESTATE_... tests/run bench peer`.

mod cost;
mod crowd;
mod history;
mod load;
mod ours;
mod peer;
mod process;

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::report::Report;
use crowd::Pace;
use load::Round;
use ours::Gantry;
use peer::Restate;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Extent {
    rounds: usize,
    busy: Duration,
    alone: usize,
}

pub(crate) async fn run(quick: bool) -> Result<()> {
    let mut report = Report::create("durable")?;
    let extent = if quick {
        Extent {
            rounds: 3,
            busy: Duration::from_millis(1_500),
            alone: 40,
        }
    } else {
        Extent {
            rounds: 5,
            busy: Duration::from_secs(6),
            alone: 200,
        }
    };
    starts(&mut report, extent.rounds).await?;
    idle(
        &mut report,
        if quick {
            Duration::from_secs(4)
        } else {
            Duration::from_secs(20)
        },
    )
    .await?;
    let mut ours = Gantry::start("durable").await?;
    ours.attach_worker().await?;
    fsyncs(&mut report, &ours).await?;
    match Restate::start().await? {
        Some(peer) => {
            against(&mut report, &ours, &peer, extent).await?;
            peer.stop().await?;
        }
        None => {
            println!(
                "the peer is not there (npm install and tests/bench-peer, which tests/run bench durable builds): comparisons are left out"
            );
            alone(&mut report, &ours, extent).await?;
        }
    }
    ours.stop().await?;
    history::measure(&mut report, 100_000, "100k").await?;
    let pace = if quick {
        Pace {
            steps: 2,
            pause: Duration::from_secs(4),
        }
    } else {
        Pace {
            steps: 5,
            pause: Duration::from_secs(5),
        }
    };
    crowd::watched(&mut report, pace).await?;
    crowd::sleepers(&mut report).await?;
    if !quick {
        history::measure(&mut report, 1_000_000, "1m").await?;
    }
    report.finish();
    Ok(())
}

/// From the start of the process to the first completed run.
async fn starts(report: &mut Report, rounds: usize) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..rounds {
        samples.push(ours::first_run().await?.as_secs_f64());
    }
    report.measure("durable.first_run_s", "s", &samples)
}

/// A daemon that has nothing to do, and its data directory.
async fn idle(report: &mut Report, watched: Duration) -> Result<()> {
    let ours = Gantry::start("durable-idle").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pid = ours.pid();
    let before = process::cpu_seconds(pid)?;
    tokio::time::sleep(watched).await;
    let spent = process::cpu_seconds(pid)? - before;
    report.measure("durable.idle_rss_mb", "MB", &[process::rss_bytes(pid)? / 1e6])?;
    report.measure("durable.idle_cpu_pct", "%", &[100.0 * spent / watched.as_secs_f64()])?;
    report.measure(
        "durable.idle_disk_mb",
        "MB",
        &[process::disk_bytes(&ours.data())? / 1e6],
    )?;
    ours.stop().await
}

/// Syncs of one run alone: by RocksDB's count, and as the kernel sees them.
async fn fsyncs(report: &mut Report, ours: &Gantry) -> Result<()> {
    const RUNS: u32 = 20;
    for name in ["noop", "three", "chained"] {
        let once = async || match name {
            "chained" => ours.chain().await,
            component => ours.call(component).await,
        };
        once().await?;
        let before = ours.journal().await?;
        for _ in 0..RUNS {
            once().await?;
        }
        let after = ours.journal().await?;
        #[allow(clippy::cast_precision_loss, reason = "a few syncs")]
        let counted = (after.syncs - before.syncs) as f64 / f64::from(RUNS);
        report.measure(&format!("durable.fsyncs_{name}"), "fsyncs/run", &[counted])?;
        let work = async {
            for _ in 0..RUNS {
                once().await?;
            }
            Ok(())
        };
        if let Some(seen) = cost::syscalls(ours.pid(), work).await? {
            let seen = seen / f64::from(RUNS);
            report.measure(&format!("durable.fsyncs_{name}_outside"), "fsyncs/run", &[seen])?;
        }
    }
    Ok(())
}

/// The peer alone, as the environment sets it up: to find what it is at its best with.
pub(crate) async fn tune() -> Result<()> {
    let mut report = Report::create("peer")?;
    let peer = Restate::start().await?.context("the peer is not there")?;
    peer.busy(64, Duration::from_millis(1_000)).await?;
    let (mut rates, mut cpu, mut singles) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        let round = peer.busy(64, Duration::from_millis(1_500)).await?;
        rates.push(round.per_second);
        cpu.push(round.cpu_ms);
        singles.push(load::alone(40, || peer.call()).await?);
    }
    report.measure("peer.three_step_64_per_s", "runs/s", &rates)?;
    report.measure("peer.cpu_ms", "ms/run", &cpu)?;
    report.measure("peer.three_step_1_p50_ms", "ms", &singles)?;
    peer.stop().await?;
    report.finish();
    Ok(())
}

/// Medians of interleaved rounds.
async fn against(report: &mut Report, ours: &Gantry, peer: &Restate, extent: Extent) -> Result<()> {
    let mut rounds: Vec<(Round, Round)> = Vec::new();
    let (mut bytes, mut singles, mut peer_singles) = (Vec::new(), Vec::new(), Vec::new());
    // Warm: connections, caches, the key's check.
    busy(ours, Duration::from_millis(500)).await?;
    peer.busy(64, Duration::from_millis(500)).await?;
    for round in 0..extent.rounds {
        let before = ours.journal().await?.bytes;
        let mine = busy(ours, extent.busy).await?;
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        bytes.push((ours.journal().await?.bytes - before) as f64 / mine.runs as f64);
        let theirs = peer.busy(64, extent.busy).await?;
        println!(
            "round {round}: ours {:.0}/s {:.2} ms CPU p50 {:.1} ms, peer {:.0}/s {:.2} ms CPU p50 {:.1} ms",
            mine.per_second, mine.cpu_ms, mine.p50_ms, theirs.per_second, theirs.cpu_ms, theirs.p50_ms
        );
        rounds.push((mine, theirs));
        singles.push(load::alone(extent.alone, || ours.call("three")).await?);
        peer_singles.push(load::alone(extent.alone, || peer.call()).await?);
    }
    let ours_of = |of: fn(&Round) -> f64| rounds.iter().map(|(mine, _)| of(mine)).collect::<Vec<_>>();
    let peer_of = |of: fn(&Round) -> f64| rounds.iter().map(|(_, theirs)| of(theirs)).collect::<Vec<_>>();
    let (rate, peer_rate) = (ours_of(|round| round.per_second), peer_of(|round| round.per_second));
    let (cpu, peer_cpu) = (ours_of(|round| round.cpu_ms), peer_of(|round| round.cpu_ms));
    report.measure("durable.three_step_64_per_s", "runs/s", &rate)?;
    report.measure("durable.three_step_64_per_s_restate", "runs/s", &peer_rate)?;
    report.ratio("durable.three_step_64_vs_restate", &rate, &peer_rate)?;
    report.measure("durable.cpu_ms", "ms/run", &cpu)?;
    report.measure("durable.cpu_ms_restate", "ms/run", &peer_cpu)?;
    report.ratio("durable.cpu_vs_restate", &cpu, &peer_cpu)?;
    report.measure("durable.three_step_1_p50_ms", "ms", &singles)?;
    report.measure("durable.three_step_1_p50_ms_restate", "ms", &peer_singles)?;
    report.ratio("durable.three_step_1_p50_vs_restate", &singles, &peer_singles)?;
    report.measure("durable.bytes_three", "B/run", &bytes)
}

/// Without the peer: our side alone.
async fn alone(report: &mut Report, ours: &Gantry, extent: Extent) -> Result<()> {
    busy(ours, Duration::from_millis(500)).await?;
    let (mut rates, mut cpu, mut bytes, mut singles) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..extent.rounds {
        let before = ours.journal().await?.bytes;
        let round = busy(ours, extent.busy).await?;
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        bytes.push((ours.journal().await?.bytes - before) as f64 / round.runs as f64);
        rates.push(round.per_second);
        cpu.push(round.cpu_ms);
        singles.push(load::alone(extent.alone, || ours.call("three")).await?);
    }
    report.measure("durable.three_step_64_per_s", "runs/s", &rates)?;
    report.measure("durable.cpu_ms", "ms/run", &cpu)?;
    report.measure("durable.three_step_1_p50_ms", "ms", &singles)?;
    report.measure("durable.bytes_three", "B/run", &bytes)
}

async fn busy(ours: &Gantry, length: Duration) -> Result<Round> {
    load::busy(64, length, ours.pid(), || ours.call("three")).await
}
