//! What has ended: sealed while the daemon is killed, asked by SQL wherever it lies, and erased from all of it, old backups included.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gantry_tests::alone::{Alone, Start};
use gantry_tests::wait;
use serde_json::{Value, json};

use crate::SOON;
use crate::erase::holding;

const CANARY: &str = "canary-77c1e09b52";

/// Needs no node: it waits for a moment and ends.
async fn complete(alone: &Alone, word: &str) -> Result<String> {
    let definition = json!({
        "name": "history",
        "parameters": { "word": { "type": "string" } },
        "outputs": { "said": "{{ params.word }}" },
        "tasks": { "wait": { "sleep": "1ms" } },
    });
    let done = alone
        .api
        .complete(&definition.to_string(), json!({ "word": word }), SOON)
        .await?;
    Ok(done.id)
}

async fn ask(alone: &Alone, sql: &str) -> Result<Value> {
    alone.api.post("/api/v1/query", &json!({ "sql": sql })).await?.json()
}

/// Waits until queries find nothing that is not sealed.
async fn sealed(alone: &Alone) -> Result<()> {
    wait::until("a history that is sealed", SOON, async || {
        let answer = ask(alone, "SELECT count(*) FROM workflows").await?;
        Ok((answer["stats"]["tail_rows"] == 0).then_some(()))
    })
    .await
}

/// Files of the archive.
fn objects(alone: &Alone) -> usize {
    fn count(dir: &Path) -> usize {
        let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
        entries
            .flatten()
            .map(|entry| {
                let path = entry.path();
                if path.is_dir() { count(&path) } else { 1 }
            })
            .sum()
    }
    count(&alone.data().join("archive"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_killed_while_it_seals_loses_nothing_and_seals_nothing_twice() -> Result<()> {
    let mut alone = Alone::new().await?;
    let mut ids = Vec::new();
    alone.start().await?;
    for _ in 0..20 {
        ids.push(complete(&alone, "word").await?);
    }
    alone.kill().await?;
    alone.environment = vec![("GANTRY_SEAL_AFTER_MINUTES", "0".into())];
    for _ in 0..6 {
        let before = objects(&alone);
        alone.start().await?;
        // In the middle of it: files are uploaded one after the other, and count when all are.
        let begun = Instant::now();
        while objects(&alone) <= before {
            ensure!(begun.elapsed() < SOON, "nothing was sealed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        alone.kill().await?;
        alone.environment.clear();
        alone.start().await?;
        for _ in 0..5 {
            ids.push(complete(&alone, "word").await?);
        }
        alone.kill().await?;
        alone.environment = vec![("GANTRY_SEAL_AFTER_MINUTES", "0".into())];
    }
    alone.start().await?;
    sealed(&alone).await?;
    let answer = ask(
        &alone,
        "SELECT count(*), count(DISTINCT id), (SELECT count(*) FROM tasks), (SELECT count(DISTINCT workflow_id) FROM events WHERE kind = 'workflow_ended') FROM workflows",
    )
    .await?;
    let all = ids.len();
    assert_eq!(answer["rows"], json!([[all, all, all, all]]), "{answer}");
    let listed = ask(&alone, "SELECT id FROM workflows").await?;
    for id in &ids {
        ensure!(listed["rows"].to_string().contains(id), "{id} is gone");
    }
    alone.stop().await?;
    let verify = ["journal", "verify", "--data-dir", &alone.path("data")];
    alone.cli(&verify).await?.expect_code(0)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_the_same_sealed_and_unsealed_and_erased_content_is_in_no_file_and_no_backup() -> Result<()> {
    let mut alone = Alone::new().await?;
    alone.start().await?;
    let erased = complete(&alone, CANARY).await?;
    let kept = complete(&alone, "other-words").await?;
    const EVERYTHING: &str = "SELECT w.id, w.state, t.name, t.state, count(e.position) FROM workflows w \
         JOIN tasks t ON t.workflow_id = w.id JOIN events e ON e.workflow_id = w.id GROUP BY ALL ORDER BY ALL";
    let unsealed = ask(&alone, EVERYTHING).await?;
    assert_eq!(unsealed["rows"].as_array().context("rows")?.len(), 2);
    assert_eq!(
        (&unsealed["stats"]["objects"], &unsealed["truncated"]),
        (&json!(0), &Value::Null)
    );
    alone.stop().await?;

    alone.environment = vec![("GANTRY_SEAL_AFTER_MINUTES", "0".into())];
    alone.start().await?;
    sealed(&alone).await?;
    let found = ask(&alone, EVERYTHING).await?;
    assert_eq!(found["rows"], unsealed["rows"], "wherever it lies");
    ensure!(found["stats"]["objects"].as_u64() > Some(0), "{found}");
    let backup = alone.path("before");
    alone.cli(&["backup", &backup, "--artifacts"]).await?.expect_code(0)?;

    let confined = [
        ("SELECT * FROM read_parquet('/etc/passwd')", "query-refused"),
        ("SELECT * FROM read_parquet('../../objects/*/*')", "query-refused"),
        ("SELECT * FROM '/etc/passwd.csv'", "query-refused"),
        ("SELECT * FROM glob('/**')", "query-refused"),
        ("COPY workflows TO '/tmp/stolen.csv'", "query-refused"),
        ("ATTACH '/tmp/other.db'", "query-refused"),
        ("INSTALL httpfs", "query-refused"),
        ("LOAD httpfs", "query-refused"),
        ("SET enable_external_access = true", "query-refused"),
        ("PRAGMA database_list", "query-refused"),
        ("CALL pragma_version()", "query-refused"),
    ];
    for (sql, code) in confined {
        let reply = alone.api.post("/api/v1/query", &json!({ "sql": sql })).await?;
        assert_eq!(reply.problem_code()?, code, "{sql}");
    }

    alone
        .cli(&["workflow", "erase", &erased, "--yes"])
        .await?
        .expect_code(0)?;
    let after = ask(&alone, EVERYTHING).await?;
    assert_eq!(after["rows"], unsealed["rows"], "states, times and ids stay");
    for (id, status) in [(&erased, 410), (&kept, 200)] {
        let reply = alone.api.get(&format!("/api/v1/workflows/{id}/definition")).await?;
        assert_eq!(reply.status.as_u16(), status);
    }
    alone.stop().await?;
    for place in [alone.data().to_owned(), alone.root().join("before")] {
        assert_eq!(holding(&place, CANARY)?, Vec::<String>::new());
    }
    ensure!(
        !std::fs::read(format!("{backup}.keys"))?
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes())
    );

    // The old backup with its keys: it opens what it held, until the list is applied.
    let master = alone.data().join("master.key").to_string_lossy().into_owned();
    let list = alone.data().join("erasures.jsonl").to_string_lossy().into_owned();
    for (choice, comes_back) in [
        (vec!["--no-erasures"], true),
        (vec!["--erasures", list.as_str()], false),
    ] {
        let target = alone.path(&format!("restored-{comes_back}"));
        let mut arguments = vec![
            "restore",
            backup.as_str(),
            "--data-dir",
            &target,
            "--master-key",
            &master,
        ];
        arguments.extend(choice);
        alone.cli(&arguments).await?.expect_code(0)?;
        let export = alone.path(&format!("export-{comes_back}.jsonl"));
        alone
            .cli(&["journal", "export", "--data-dir", &target, &export, "--payloads"])
            .await?
            .expect_code(0)?;
        let text = std::fs::read_to_string(&export)?;
        assert_eq!(text.contains(CANARY), comes_back);
        ensure!(text.contains("other-words"), "what was not erased opens");
        if comes_back {
            continue;
        }
        ensure!(
            matches!(alone.start_on(Path::new(&target)).await?, Start::Ready),
            "it starts"
        );
        sealed(&alone).await?;
        assert_eq!(ask(&alone, EVERYTHING).await?["rows"], unsealed["rows"], "sealed anew");
        let gone = alone.api.get(&format!("/api/v1/workflows/{erased}/definition")).await?;
        assert_eq!(gone.problem_code()?, "content-erased");
        alone.stop().await?;
        assert_eq!(holding(Path::new(&target), CANARY)?, Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removes_is_in_no_answer_and_a_hold_keeps_it() -> Result<()> {
    let mut alone = Alone::new().await?;
    alone.environment = vec![("GANTRY_SEAL_AFTER_MINUTES", "0".into())];
    alone.start().await?;
    let held = complete(&alone, "held").await?;
    let gone = complete(&alone, "gone").await?;
    sealed(&alone).await?;
    alone
        .cli(&["workflow", "hold", &held, "--reason", "case 17"])
        .await?
        .expect_code(0)?;
    alone.kill().await?;
    alone.environment.push(("GANTRY_RETENTION_DAYS", "0".into()));
    alone.start().await?;
    let rows = wait::until("what was kept long enough to go", SOON, async || {
        let answer = ask(&alone, "SELECT id FROM workflows").await?;
        Ok((answer["rows"].as_array().map(Vec::len) == Some(1)).then(|| answer["rows"].clone()))
    })
    .await?;
    assert_eq!(rows, json!([[held]]));
    let reply = alone.api.get(&format!("/api/v1/workflows/{gone}")).await?;
    assert_eq!(reply.status.as_u16(), 404);
    tokio::time::timeout(Duration::from_secs(60), alone.stop()).await??;
    let verify = ["journal", "verify", "--data-dir", &alone.path("data")];
    alone.cli(&verify).await?.expect_code(0)?;
    Ok(())
}
