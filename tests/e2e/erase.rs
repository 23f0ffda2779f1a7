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
            let backup = world.root().join("old").to_string_lossy().into_owned();
            world.cli(&["backup", &backup, "--artifacts"]).await?.expect_code(0)?;

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

            // The backup of before: nothing in the clear; and with its keys and the list, neither output nor artifacts nor anything that opens.
            assert_eq!(holding(&world.root().join("old"), CANARY)?, Vec::<String>::new());
            let held = |dir: &Path| holding(dir, &id).map(|found| found.iter().any(|path| path.contains(&id)));
            assert!(
                held(&world.root().join("old"))?,
                "its output and artifacts are in the backup"
            );
            let text = |path: &Path| path.to_string_lossy().into_owned();
            let (restored, export) = (world.root().join("restored"), world.root().join("export.jsonl"));
            let (target, file) = (text(&restored), text(&export));
            let (master, known) = (text(&data.join("master.key")), text(&data.join("erasures.jsonl")));
            let mut restore = vec![
                "restore",
                backup.as_str(),
                "--data-dir",
                &target,
                "--master-key",
                &master,
            ];
            restore.extend(["--erasures", &known]);
            world.cli(&restore).await?.expect_code(0)?;
            assert!(!held(&restored)?, "they are not restored");
            let opened = ["journal", "export", "--data-dir", &target, &file, "--payloads"];
            world.cli(&opened).await?.expect_code(0)?;
            let exported = std::fs::read_to_string(&export)?;
            assert!(exported.contains(&id) && !exported.contains(CANARY));
            assert_eq!(holding(&restored, CANARY)?, Vec::<String>::new());
            Ok(())
        })
        .await
}
