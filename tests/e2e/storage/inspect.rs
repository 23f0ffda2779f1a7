//! `gantry journal`: what it shows, and that it keeps off a directory whose daemon runs.

use anyhow::{Context, Result, ensure};
use gantry_tests::alone::Alone;
use serde_json::Value;

use super::{digest, submit};

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_is_verified_counted_dumped_and_exported() -> Result<()> {
    let mut alone = Alone::new().await?;
    alone.start().await?;
    let first = submit(&alone, "canary-first").await?;
    let second = submit(&alone, "canary-second").await?;
    let data = alone.data().to_string_lossy().into_owned();
    for command in ["verify", "stats", "dump"] {
        let output = alone
            .cli(&["journal", command, "--data-dir", &data])
            .await?
            .expect_code(1)?;
        ensure!(
            output.stderr.contains("in use by process") && output.stderr.contains("data-in-use"),
            "{}",
            output.stderr
        );
    }
    alone.stop().await?;

    let before = digest(&alone, &data).await?;
    assert_eq!(before, digest(&alone, &data).await?, "looking changes nothing");
    let missing = alone.path("nothing-here");
    let output = alone
        .cli(&["journal", "verify", "--data-dir", &missing])
        .await?
        .expect_code(1)?;
    ensure!(output.stderr.contains("no data directory"), "{}", output.stderr);
    ensure!(!std::path::Path::new(&missing).exists(), "looking makes nothing");

    let stats = alone
        .cli(&["journal", "stats", "--data-dir", &data, "-o", "json"])
        .await?
        .expect_code(0)?
        .json()?;
    assert_eq!(stats["records"]["workflow_submitted"]["count"], 2);
    assert_eq!(stats["rows"]["data_key"]["count"], 2);

    let dump = alone
        .cli(&["journal", "dump", "--data-dir", &data])
        .await?
        .expect_code(0)?;
    ensure!(
        !dump.stdout.contains("canary"),
        "the control side has nothing that users wrote"
    );
    let records = lines(&dump.stdout)?;
    ensure!(
        records
            .iter()
            .any(|record| record["kind"] == "node_registered" || record["kind"] == "task_readied")
    );
    let one = alone
        .cli(&[
            "journal",
            "dump",
            "--data-dir",
            &data,
            "--workflow",
            &first,
            "--payloads",
        ])
        .await?
        .expect_code(0)?;
    ensure!(one.stdout.contains("canary-first") && !one.stdout.contains("canary-second"));
    for record in lines(&one.stdout)? {
        assert_eq!(record["workflow"], first.as_str());
        let from = record["seq"].as_u64().context("seq")?.to_string();
        let rest = [
            "journal",
            "dump",
            "--data-dir",
            &data,
            "--workflow",
            &first,
            "--from",
            &from,
        ];
        let rest = lines(&alone.cli(&rest).await?.expect_code(0)?.stdout)?;
        assert_eq!(rest[0]["seq"], record["seq"]);
    }

    let file = alone.path("export.jsonl");
    alone
        .cli(&["journal", "export", "--data-dir", &data, &file])
        .await?
        .expect_code(0)?;
    let exported = lines(&std::fs::read_to_string(&file)?)?;
    assert_eq!(exported[0]["type"], "header");
    let last = exported.last().context("a last line")?;
    assert_eq!(
        (last["type"].as_str(), last["lines"].as_u64()),
        (Some("end"), Some(exported.len() as u64 - 1))
    );
    ensure!(
        [&first, &second]
            .iter()
            .all(|id| exported.iter().any(|line| line["workflow"] == id.as_str()))
    );
    let again = alone
        .cli(&["journal", "export", "--data-dir", &data, &file])
        .await?
        .expect_code(1)?;
    ensure!(again.stderr.contains("exists"), "{}", again.stderr);
    Ok(())
}
