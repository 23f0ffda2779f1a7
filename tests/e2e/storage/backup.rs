//! One cut while work goes on, and the way back.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use gantry_tests::alone::{Alone, Start};
use gantry_tests::world::Scenario;
use serde_json::{Value, json};

use super::{digest, submit};
use crate::SOON;

/// Copies a tree of plain files.
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

/// Every file below, deepest names included.
fn files(root: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

async fn ids(alone: &Alone) -> Result<Vec<String>> {
    let list: Value = alone.api.read("/api/v1/workflows?limit=500").await?;
    let items = list["items"].as_array().context("no items")?;
    let mut ids: Vec<String> = items
        .iter()
        .filter_map(|item| item["id"].as_str().map(str::to_owned))
        .collect();
    ids.sort();
    Ok(ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_reaches_the_digest_of_the_cut_and_serves_exactly_what_was_in_it() -> Result<()> {
    let mut alone = Alone::new().await?;
    alone.start().await?;
    let mut before = Vec::new();
    for number in 0..10 {
        before.push(submit(&alone, &format!("canary-{number}")).await?);
    }
    // Submissions go on while both backups are made.
    let (made, during) = tokio::join!(
        async {
            let plain = alone.path("plain");
            let tar = alone.path("one.tar");
            alone.cli(&["backup", &plain, "-o", "json"]).await?.expect_code(0)?;
            alone.cli(&["backup", &tar, "-o", "json"]).await?.expect_code(0)?.json()
        },
        async {
            let mut ids = Vec::new();
            for _ in 0..30 {
                ids.push(submit(&alone, "canary-later").await?);
            }
            Ok::<_, anyhow::Error>(ids)
        }
    );
    let (made, during) = (made?, during?);
    ensure!(
        made["held_ms"].as_u64().context("held_ms")? < 1_000,
        "commits were held for long: {made}"
    );
    alone.stop().await?;
    let master = alone.data().join("master.key").to_string_lossy().into_owned();
    ensure!(
        !files(&alone.root().join("plain"))?
            .iter()
            .any(|path| path.ends_with("master.key"))
    );

    for (backup, wanted) in [("plain", None), ("one.tar", made["verify_digest"].as_str())] {
        let restored = alone.path(&format!("restored-{backup}"));
        let restore = [
            "restore",
            &alone.path(backup),
            "--data-dir",
            &restored,
            "--master-key",
            &master,
            "--no-erasures",
            "-o",
            "json",
        ];
        let answer = alone.cli(&restore).await?.expect_code(0)?.json()?;
        let found = digest(&alone, &restored).await?;
        assert_eq!(answer["verify_digest"], json!(found));
        if let Some(wanted) = wanted {
            assert_eq!(found, wanted);
        }
        assert!(matches!(alone.start_on(Path::new(&restored)).await?, Start::Ready));
        let there = ids(&alone).await?;
        ensure!(
            before.iter().all(|id| there.contains(id)),
            "what was acknowledged before the backup"
        );
        // Submitted in order, so what is in the cut is what came first.
        let expected: Vec<&String> = before.iter().chain(&during).take(there.len()).collect();
        let mut expected: Vec<String> = expected.into_iter().cloned().collect();
        expected.sort();
        assert_eq!(there, expected, "a cut has no holes");
        let definition = alone
            .api
            .get(&format!("/api/v1/workflows/{}/definition", before[3]))
            .await?;
        ensure!(
            String::from_utf8_lossy(&definition.body).contains("canary-3"),
            "sealed content opens"
        );
        // It goes on from there.
        submit(&alone, "after").await?;
        alone.stop().await?;
        digest(&alone, &restored).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_foreign_and_incomplete_backups_restore_nothing_that_starts() -> Result<()> {
    let mut alone = Alone::new().await?;
    alone.start().await?;
    let erased = submit(&alone, "forget-me").await?;
    submit(&alone, "keep-me").await?;
    let whole = alone.path("whole");
    alone.cli(&["backup", &whole]).await?.expect_code(0)?;
    let again = alone.cli(&["backup", &whole]).await?.expect_code(1)?;
    ensure!(again.stderr.contains("never replaces"), "{}", again.stderr);
    let tenant = alone.api.read::<Value>("/api/v1/whoami").await?["tenant"]
        .as_str()
        .context("tenant")?
        .to_owned();
    alone.stop().await?;

    let master = alone.data().join("master.key").to_string_lossy().into_owned();
    let mut number = 0;
    let mut fails = async |backup: &str, keys: &str, key: &str, words: &[&str]| -> Result<()> {
        number += 1;
        let target = alone.path(&format!("never-{number}"));
        let arguments = [
            "restore",
            backup,
            "--keys",
            keys,
            "--data-dir",
            &target,
            "--master-key",
            key,
            "--no-erasures",
        ];
        let output = alone.cli(&arguments).await?.expect_code(1)?;
        for word in words {
            ensure!(output.stderr.contains(word), "`{word}` is not in: {}", output.stderr);
        }
        ensure!(!Path::new(&target).exists(), "something is left of a failed restore");
        Ok(())
    };
    let keys = format!("{whole}.keys");
    // Every file of the backup: changed, cut, gone.
    for file in files(Path::new(&whole))? {
        let name = file.strip_prefix(&whole)?.to_owned();
        let content = std::fs::read(&file)?;
        let mut flipped = content.clone();
        let middle = content.len() / 2;
        flipped[middle] ^= 1;
        for damaged in [Some(flipped), Some(content[..content.len() - 1].to_vec()), None] {
            let copied = alone.path("copied");
            copy(Path::new(&whole), Path::new(&copied))?;
            match damaged {
                Some(damaged) => std::fs::write(Path::new(&copied).join(&name), damaged)?,
                None => std::fs::remove_file(Path::new(&copied).join(&name))?,
            }
            let output = fails(&copied, &keys, &master, &["gantry: "]).await;
            output.with_context(|| format!("{} of the backup was damaged", name.display()))?;
            std::fs::remove_dir_all(&copied)?;
        }
    }
    let mut damaged = std::fs::read(&keys)?;
    let middle = damaged.len() / 4;
    damaged[middle] ^= 1;
    std::fs::write(alone.path("bad.keys"), damaged)?;
    fails(&whole, &alone.path("bad.keys"), &master, &["gantry: "]).await?;
    fails(&whole, &alone.path("no.keys"), &master, &["no.keys"]).await?;

    let other = Alone::new().await?;
    let foreign = other.data().join("master.key").to_string_lossy().into_owned();
    fails(&whole, &keys, &foreign, &["was made under master key"]).await?;

    // A newer format names the version to use.
    let newer = alone.path("newer");
    copy(Path::new(&whole), Path::new(&newer))?;
    std::fs::write(
        Path::new(&newer).join("gantry-backup.json"),
        r#"{"format": 9, "gantry": "7.7.7"}"#,
    )?;
    fails(&newer, &keys, &master, &["Gantry 7.7.7", "data-format"]).await?;

    // A list of erasures that cannot be read restores nothing; one that can keeps what it names away, and the digest as it is.
    let list = alone.path("erasures.jsonl");
    std::fs::write(&list, "{\"tenant\": 5}\n")?;
    let target = alone.path("erased");
    let arguments = [
        "restore",
        &whole,
        "--data-dir",
        &target,
        "--master-key",
        &master,
        "--erasures",
        &list,
        "-o",
        "json",
    ];
    let refused = alone.cli(&arguments).await?.expect_code(1)?;
    ensure!(refused.stderr.contains("line 1"), "{}", refused.stderr);
    let unsaid = alone.cli(&arguments[..6]).await?.expect_code(2)?;
    ensure!(unsaid.stderr.contains("--erasures"), "{}", unsaid.stderr);
    std::fs::write(
        &list,
        json!({"tenant": tenant, "workflow": erased, "at_ms": 1}).to_string(),
    )?;
    let answer = alone.cli(&arguments).await?.expect_code(0)?.json()?;
    assert_eq!(answer["erasures"], 1);
    assert_eq!(
        digest(&alone, &target).await?,
        answer["verify_digest"].as_str().unwrap_or_default()
    );
    let dump = alone
        .cli(&["journal", "dump", "--data-dir", &target, "--payloads"])
        .await?
        .expect_code(0)?;
    ensure!(
        dump.stdout.contains("keep-me") && !dump.stdout.contains("forget-me"),
        "{}",
        dump.stdout
    );
    ensure!(dump.stdout.contains("\"erased\":true"), "{}", dump.stdout);
    assert_eq!(
        std::fs::read(Path::new(&target).join("erasures.jsonl"))?,
        std::fs::read(&list)?,
        "the next restore is given it too"
    );

    // What a killed restore leaves does not start.
    std::fs::create_dir(alone.path("half"))?;
    std::fs::write(
        Path::new(&alone.path("half")).join("format.json"),
        r#"{"format": 1, "gantry": "0.1.0", "restoring": true}"#,
    )?;
    let half = alone.path("half");
    match alone.start_on(Path::new(&half)).await? {
        Start::Refused(said) => ensure!(
            said.contains("restore again") && said.contains("data-damaged"),
            "{said}"
        ),
        Start::Ready => anyhow::bail!("a half-restored directory started"),
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn output_and_artifacts_come_back() -> Result<()> {
    Scenario::dev("backup")
        .run(async |world| {
            let definition = json!({
                "name": "printed",
                "tasks": {"t": {"steps": [{"key": "s", "run": "echo printed-words; echo made > made.txt", "artifacts": ["made.txt"]}]}},
            });
            let workflow = world.api.complete(&definition.to_string(), json!({}), SOON).await?;
            let backup = world.root().join("kept.tar").to_string_lossy().into_owned();
            let made = world.cli(&["backup", &backup, "--artifacts", "-o", "json"]).await?.expect_code(0)?.json()?;
            assert_eq!(made["artifacts"], 1);

            let mut alone = Alone::new().await?;
            alone.api.key.clone_from(&world.api.key);
            let master = world.root().join("data/master.key").to_string_lossy().into_owned();
            let restored = alone.path("restored");
            let arguments = ["restore", &backup, "--data-dir", &restored, "--master-key", &master, "--no-erasures"];
            alone.cli(&arguments).await?.expect_code(0)?;
            assert_eq!(digest(&alone, &restored).await?, made["verify_digest"].as_str().unwrap_or_default());
            let file = alone.path("export.jsonl");
            let export = ["journal", "export", "--data-dir", &restored, &file, "--workflow", &workflow.id, "--payloads"];
            alone.cli(&export).await?.expect_code(0)?;
            let text = std::fs::read_to_string(&file)?;
            ensure!(text.contains("printed-words\\n"), "{text}");

            assert!(matches!(alone.start_on(Path::new(&restored)).await?, Start::Ready));
            assert_eq!(alone.api.log(&workflow.id, "t", "s", 1, "stdout").await?, "printed-words\n");
            let artifacts: Value = alone.api.read(&format!("/api/v1/workflows/{}/artifacts", workflow.id)).await?;
            let id = artifacts["items"][0]["id"].as_str().context("an artifact")?;
            let reply = alone.api.get(&format!("/api/v1/workflows/{}/artifacts/{id}", workflow.id)).await?;
            assert_eq!(reply.body, b"made\n");
            alone.stop().await
        })
        .await
}
