//! Erasure: what users wrote is in no file of the data directory afterwards, and stays away when the daemon is killed.

use std::path::Path;

use anyhow::{Context, Result};
use gantry_tests::world::Scenario;
use serde_json::json;

use crate::SOON;

const CANARY: &str = "canary-5b1f0c6de7";

/// Files below `dir` that hold the word, in their content or name. The node's own directory is left out: its workspaces are the containers' business, and end with them.
pub(crate) fn holding(dir: &Path, word: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "node") {
                found.extend(holding(&path, word)?);
            }
        } else if path.is_file() {
            let bytes = std::fs::read(&path)?;
            let named = path.to_string_lossy().contains(word);
            if named || bytes.windows(word.len()).any(|window| window == word.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_is_in_no_file_and_says_so() -> Result<()> {
    Scenario::dev("erase")
        .run(async |world| {
            let definition = json!({
                "name": "erased",
                "parameters": { "word": { "type": "string" } },
                "tasks": { "work": { "steps": [{
                    "run": "echo {{ params.word }}; echo {{ params.word }} > report.txt",
                    "artifacts": ["report.txt"],
                }] } },
            });
            let done = world
                .api
                .complete(&definition.to_string(), json!({ "word": CANARY }), SOON)
                .await?;
            let id = done.id;
            assert!(
                world
                    .api
                    .log(&id, "work", "step-1", 1, "stdout")
                    .await?
                    .contains(CANARY)
            );
            let one = format!("/api/v1/workflows/{id}");

            let held = world.cli(&["workflow", "hold", &id, "--reason", "case 17"]).await?;
            held.expect_code(0)?;
            let refused = world.api.post(&format!("{one}:erase"), &json!({})).await?;
            assert_eq!(
                (refused.status.as_u16(), refused.problem_code()?.as_str()),
                (409, "legal-hold")
            );
            world.cli(&["workflow", "release", &id]).await?.expect_code(0)?;
            world.cli(&["workflow", "erase", &id]).await?.expect_code(2)?;
            world.cli(&["workflow", "erase", &id, "--yes"]).await?.expect_code(0)?;

            world.kill_server().await?;
            world.restart_server().await?;
            for path in [
                format!("{one}/definition"),
                format!("{one}/tasks/work/steps/step-1/logs"),
            ] {
                let gone = world.api.get(&path).await?;
                assert_eq!(
                    (gone.status.as_u16(), gone.problem_code()?.as_str()),
                    (410, "content-erased"),
                    "{path}"
                );
            }
            let view = world.api.get(&one).await?.json()?;
            assert_eq!(view["state"], "completed");
            assert!(view["erased_at_ms"].is_u64());
            let data = world.root().join("data");
            assert_eq!(holding(&data, CANARY)?, Vec::<String>::new());
            let list = std::fs::read_to_string(data.join("erasures.jsonl"))?;
            assert!(list.contains(&id), "{list}");
            Ok(())
        })
        .await
}
