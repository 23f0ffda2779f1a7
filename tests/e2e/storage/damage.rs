//! Damage to each part of a data directory: the daemon comes up with everything that it acknowledged, or says what is damaged and what to do.
//!
//! `GANTRY_DAMAGE_SEED=n` repeats a run, `GANTRY_DAMAGE_STARTS=n` makes it longer.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use gantry_tests::alone::{Alone, Start};
use gantry_tests::seed::Seed;
use serde_json::Value;

use super::submit;

const STARTS: u64 = 24;

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Files of one kind in a data directory.
fn of_kind(data: &Path, kind: &str) -> Result<Vec<PathBuf>> {
    let (directory, part) = kind.split_once('/').unwrap_or((".", kind));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data.join(directory))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.contains(part) && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Does something to a file; what was done, in words.
fn hurt(path: &Path, seed: &mut Seed) -> Result<String> {
    let mut content = std::fs::read(path)?;
    let at = usize::try_from(seed.below(content.len() as u64))?;
    Ok(match seed.below(4) {
        0 => {
            std::fs::remove_file(path)?;
            "removed".to_owned()
        }
        1 => {
            std::fs::write(path, &content[..at])?;
            format!("cut to {at} bytes")
        }
        2 => {
            std::fs::write(path, b"")?;
            "emptied".to_owned()
        }
        _ => {
            if let Some(byte) = content.get_mut(at) {
                *byte ^= 0x10;
            }
            std::fs::write(path, content)?;
            format!("bit flipped at {at}")
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_part_stops_the_start_by_name_or_costs_nothing() -> Result<()> {
    let mut seed = Seed::from_env("GANTRY_DAMAGE_SEED", 7);
    let starts = std::env::var("GANTRY_DAMAGE_STARTS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(STARTS);
    let mut alone = Alone::new().await?;
    alone.start().await?;
    let mut sealed = Vec::new();
    for _ in 0..20 {
        sealed.push(submit(&alone, "kept").await?);
    }
    // What was written before a restart is in tables, noted by the anchor; what comes after it stands in the log's unsealed tail.
    alone.stop().await?;
    alone.start().await?;
    let mut tail = Vec::new();
    for _ in 0..5 {
        tail.push(submit(&alone, "tail").await?);
    }
    alone.kill().await?;

    let kinds = [
        "master.key",
        "directory.db",
        "format.json",
        "journal/CURRENT",
        "journal/MANIFEST",
        "journal/.sst",
        "journal/.log",
        "journal/gantry.anchor",
    ];
    let (mut refused, mut came_up) = (0, 0);
    for case in 0..starts {
        let trial = alone.root().join("trial");
        copy(alone.data(), &trial)?;
        let kind = kinds[usize::try_from(case)? % kinds.len()];
        let found = of_kind(&trial, kind)?;
        let file = &found[usize::try_from(seed.below(found.len() as u64))?];
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let done = hurt(file, &mut seed)?;
        let context = || format!("case {case}: {name} was {done}");
        match alone.start_on(&trial).await.with_context(context)? {
            Start::Refused(said) => {
                ensure!(
                    said.contains("see docs/errors/data-damaged.md") && said.contains("backup"),
                    "{}: {said}",
                    context()
                );
                refused += 1;
            }
            Start::Ready => {
                let list = alone.api.get("/api/v1/workflows?limit=500").await?;
                // A changed hash or key inside of the directory is one that does not let anybody in; its structure holds.
                if list.status.as_u16() == 401 && name.starts_with("directory.db") {
                    alone.kill().await?;
                    std::fs::remove_dir_all(&trial)?;
                    continue;
                }
                let list: Value = list.json()?;
                let there: Vec<&str> = list["items"]
                    .as_array()
                    .context("items")?
                    .iter()
                    .filter_map(|item| item["id"].as_str())
                    .collect();
                let lost: Vec<&String> = sealed
                    .iter()
                    .chain(&tail)
                    .filter(|id| !there.contains(&id.as_str()))
                    .collect();
                if !lost.is_empty() && kind != "journal/.log" {
                    bail!("{}: {} acknowledged workflows are gone", context(), lost.len());
                }
                ensure!(
                    lost.iter().all(|id| tail.contains(id)),
                    "{}: more than the unsealed tail is gone",
                    context()
                );
                came_up += 1;
                alone.kill().await?;
            }
        }
        std::fs::remove_dir_all(&trial)?;
    }
    eprintln!("{refused} refused, {came_up} came up");
    ensure!(refused >= starts / 3, "most damage is found: {refused} of {starts}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_exchanged_part_is_not_replaced_by_a_fresh_one() -> Result<()> {
    let mut alone = Alone::new().await?;
    let other = Alone::new().await?;
    alone.start().await?;
    submit(&alone, "kept").await?;
    alone.stop().await?;
    for part in [
        "master.key",
        "directory.db",
        "journal",
        "segments",
        "blobs",
        "erasures.jsonl",
    ] {
        for exchanged in [false, true] {
            let foreign = other.data().join(part);
            // The list of erasures has nothing that says whose it is.
            if exchanged && (!foreign.is_file() || part == "erasures.jsonl") {
                continue;
            }
            let trial = alone.root().join("trial");
            copy(alone.data(), &trial)?;
            let path = trial.join(part);
            if path.is_dir() {
                std::fs::remove_dir_all(&path)?;
            } else {
                std::fs::remove_file(&path)?;
                for side in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(trial.join(format!("{part}{side}")));
                }
            }
            if exchanged {
                std::fs::copy(&foreign, &path)?;
            }
            match alone.start_on(&trial).await? {
                Start::Refused(said) => ensure!(
                    said.contains(part) && said.contains("data-damaged") && said.contains("backup"),
                    "{part}: {said}"
                ),
                Start::Ready => bail!("it started without its {part} (exchanged: {exchanged})"),
            }
            std::fs::remove_dir_all(&trial)?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_a_newer_version_names_the_version_to_run() -> Result<()> {
    let mut alone = Alone::new().await?;
    alone.start().await?;
    submit(&alone, "kept").await?;
    alone.stop().await?;
    let stamp = alone.data().join("format.json");
    let today = std::fs::read_to_string(&stamp)?;
    std::fs::write(
        &stamp,
        today
            .replace("\"format\": 1", "\"format\": 2")
            .replace("\"0.1.0\"", "\"5.6.7\""),
    )?;
    let data = alone.data().to_owned();
    match alone.start_on(&data).await? {
        Start::Refused(said) => ensure!(
            said.contains("run Gantry 5.6.7 or newer") && said.contains("data-format"),
            "{said}"
        ),
        Start::Ready => bail!("it started on a newer format"),
    }
    // One of before the file is brought up to date.
    std::fs::remove_file(&stamp)?;
    alone.start().await?;
    alone.stop().await?;
    ensure!(std::fs::read_to_string(&stamp)?.contains("\"format\": 1"));
    Ok(())
}
