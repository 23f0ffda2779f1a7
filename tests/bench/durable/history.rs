//! What a long history costs. The history is made once, by a server and a worker through the same path as any other run, and kept: it is made anew when
//! what is stored changes its form.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::load;
use super::ours::Gantry;
use crate::report::Report;

/// Calls of one sample.
const CALLS: usize = 100;
const AT_ONCE: usize = 512;

/// Form of what is stored: a fixture of another form is of no use.
const FORM: [&[u8]; 3] = [
    include_bytes!("../../../proto/proto/gantry/v1/journal.proto"),
    include_bytes!("../../../platform/engine/src/core/rows.rs"),
    include_bytes!("../../../platform/journal/src/keys.rs"),
];

fn kept(runs: usize) -> PathBuf {
    let mut form = Sha256::new();
    for part in FORM {
        form.update(part);
    }
    let cache =
        std::env::var_os("GANTRY_CACHE").map_or_else(|| gantry_tests::paths::scratch().join("cache"), PathBuf::from);
    cache.join(format!("bench/history-{runs}-{}", &hex::encode(form.finalize())[..16]))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target).with_context(|| format!("copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Makes the history, unless it is there.
async fn make(runs: usize) -> Result<PathBuf> {
    let kept = kept(runs);
    if kept.is_dir() {
        return Ok(kept);
    }
    println!("making a history of {runs} runs, once");
    let mut ours = Gantry::start("durable-history-made").await?;
    ours.attach_worker().await?;
    load::each(runs, AT_ONCE, async || ours.begin("noop", 1).await.map(|_| ())).await?;
    ours.quiet().await?;
    let root = ours.stop_and_keep().await?;
    let parent = kept.parent().context("the cache has a directory")?;
    let half = parent.join(format!("half-{}", std::process::id()));
    copy(&root, &half)?;
    std::fs::remove_dir_all(&root)?;
    std::fs::rename(&half, &kept)?;
    Ok(kept)
}

/// Lists, submissions and starts with a long history, beside an empty installation.
pub(super) async fn measure(report: &mut Report, runs: usize, name: &str) -> Result<()> {
    let kept = make(runs).await?;
    let root = super::ours::root_of("durable-history")?;
    copy(&kept, &root)?;
    // What was just written is not to be flushed while something is measured.
    rustix::fs::sync();
    let mut starts = Vec::new();
    let (mut full, first) = Gantry::start_again(root).await?;
    starts.push(first.as_secs_f64());
    for _ in 0..2 {
        let (again, time) = full.restarted().await?;
        full = again;
        starts.push(time.as_secs_f64());
    }
    let mut empty = Gantry::start("durable-empty").await?;
    empty.attach_worker().await?;
    full.attach_worker().await?;
    let (mut lists, mut with, mut without) = (Vec::new(), Vec::new(), Vec::new());
    let submit = async |ours: &Gantry| load::alone(CALLS, async || ours.begin("noop", 1).await.map(|_| ())).await;
    // Warm: connections, the key's check.
    submit(&empty).await?;
    submit(&full).await?;
    for _ in 0..3 {
        without.push(submit(&empty).await?);
        with.push(submit(&full).await?);
        tokio::time::sleep(Duration::from_millis(50)).await;
        lists.push(load::alone(CALLS, || full.newest()).await?);
    }
    report.measure(&format!("durable.newest50_{name}_ms"), "ms", &lists)?;
    let tail = if name == "100k" {
        String::new()
    } else {
        format!("_{name}")
    };
    report.ratio(&format!("durable.history_submit_ratio{tail}"), &with, &without)?;
    report.measure(&format!("durable.history_start_s{tail}"), "s", &starts)?;
    empty.stop().await?;
    full.stop().await
}
