//! The sample workflow: on this very repository, and on one in which something is planted that each part of the report must name.

use anyhow::{Context, Result, ensure};
use gantry_tests::repositories;
use gantry_tests::world::{Scenario, World};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::SOON;

fn sample() -> String {
    gantry_tests::paths::repository()
        .join("examples/repo-check.yaml")
        .to_string_lossy()
        .into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn sample_runs_on_this_repository_from_the_command_line() -> Result<()> {
    Scenario::dev("sample-cli")
        .run(async |world| {
            let repository = world.sources().join("this");
            repositories::clone_of_this(&repository).await?;
            let repo = format!("repo={}", repository.display());

            let run = world.cli(&["run", &sample(), "-p", &repo]).await?.expect_code(0)?;
            let id = run
                .stdout
                .split_whitespace()
                .chain(run.stderr.split_whitespace())
                .find(|word| word.starts_with("wf_"));
            let id = id
                .context("the command names no workflow")?
                .trim_end_matches([':', ',', '.']);

            let shown = world
                .cli(&["workflow", "show", id, "-o", "json"])
                .await?
                .expect_code(0)?
                .json()?;
            assert_eq!(shown["state"], "completed");
            let listed = world.cli(&["workflow", "ls", "-o", "json"]).await?.expect_code(0)?;
            assert!(listed.stdout.contains(id), "{}", listed.stdout);
            let artifacts = world.cli(&["artifact", "ls", id]).await?.expect_code(0)?;
            assert!(
                artifacts.stdout.contains("report.md") && artifacts.stdout.contains("report.json"),
                "{}",
                artifacts.stdout
            );

            let file = world.root().join("fetched.json");
            world
                .cli(&["artifact", "get", id, "report.json", "--file", &file.to_string_lossy()])
                .await?
                .expect_code(0)?;
            let report: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
            assert!(
                report.to_string().contains("Rust"),
                "a count by language names Rust: {report}"
            );

            let log = world.cli(&["logs", id]).await?.expect_code(0)?;
            assert!(!log.stdout.is_empty(), "the steps printed something");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn sample_report_names_every_planted_fault() -> Result<()> {
    Scenario::dev("sample-planted")
        .run(async |world| planted(world).await)
        .await
}

async fn planted(world: &World) -> Result<()> {
    let repository = world.sources().join("planted");
    plant(&repository).await?;
    let parameters = json!({ "repo": repository, "test_command": "sh test.sh" });
    let definition = std::fs::read_to_string(sample())?;
    let id = world.api.submit(&definition, parameters).await?;
    let workflow = world.api.ended(&id, SOON * 2).await?;
    assert_eq!(
        workflow.state, "completed",
        "a failing test of the repository is a finding, not a failure of the check: {workflow:#?}"
    );

    let (artifact, markdown) = world.api.artifact(&id, "report.md").await?;
    assert_eq!(
        artifact.sha256,
        hex::encode(Sha256::digest(&markdown)),
        "the listed hash is the content's"
    );
    assert_eq!(artifact.size_bytes, markdown.len() as u64);
    let (_, json) = world.api.artifact(&id, "report.json").await?;
    serde_json::from_slice::<Value>(&json)?;
    for report in [String::from_utf8(markdown)?, String::from_utf8(json)?] {
        ensure!(
            report.contains("deploy.env"),
            "the file with the secret is named:\n{report}"
        );
        ensure!(
            !report.contains(&planted_secret()),
            "the secret itself is not repeated:\n{report}"
        );
        ensure!(report.contains("model.bin"), "the 20 MB file is named:\n{report}");
        ensure!(report.contains("GPL"), "the licence is named:\n{report}");
        ensure!(report.contains("copied.c"), "the GPL file is named:\n{report}");
        ensure!(report.contains("test_addition"), "the failing test is named:\n{report}");
    }

    // A part of an artifact, as a browser or a resumed download asks for it.
    let path = format!("{}/api/v1/workflows/{id}/artifacts/{}", world.api.url, artifact.id);
    let part = reqwest::Client::new()
        .get(path)
        .bearer_auth(&world.api.key)
        .header("Range", "bytes=0-1")
        .send()
        .await?;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["x-content-type-options"], "nosniff");
    assert_eq!(part.bytes().await?.len(), 2);
    Ok(())
}

/// Looks like an access key. Put together here so that the scan of our own repository does not find one.
fn planted_secret() -> String {
    format!("AKIA{}", "Q3EGRDO5NPLANTED")
}

async fn plant(repository: &std::path::Path) -> Result<()> {
    let secret = format!("AWS_ACCESS_KEY_ID={}\n", planted_secret());
    // Not compressible, so that it is large in git too.
    let mut seed = gantry_tests::seed::Seed::from_env("GANTRY_TEST_SEED", 7);
    let large: Vec<u8> = std::iter::repeat_with(|| seed.draw().to_le_bytes())
        .take(20_000_000 / 8)
        .flatten()
        .collect();
    let gpl = "/* This program is free software: you can redistribute it and/or modify it under the terms of the GNU General Public License as\n \
               * published by the Free Software Foundation, either version 3 of the License, or (at your option) any later version.\n \
               * SPDX-License-Identifier: GPL-3.0-or-later */\nint copied(void) { return 1; }\n";
    let test = "echo 'test_addition ... FAILED: 1 + 1 is not 3'\nexit 1\n";
    let files: [(&str, &[u8]); 5] = [
        ("config/deploy.env", secret.as_bytes()),
        ("data/model.bin", &large),
        ("vendor/copied.c", gpl.as_bytes()),
        ("test.sh", test.as_bytes()),
        ("src/main.py", b"print('hello')\n"),
    ];
    repositories::create(repository, &files).await
}
