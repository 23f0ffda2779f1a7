//! History by SQL, and where a workflow's time went: against the journal of a real daemon.

use anyhow::{Context as _, Result};
use gantry_tests::world::Scenario;
use serde_json::{Value, json};

use crate::{SOON, steps};

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_is_asked_by_sql_and_traced() -> Result<()> {
    Scenario::dev("query")
        .run(async |world| {
            let first = world.api.complete(&steps(&["echo one", "echo two"]), json!({}), SOON).await?;
            let failed = world.api.submit(&steps(&["exit 3"]), json!({})).await?;
            world.api.ended(&failed, SOON).await?;

            let ask = async |sql: &str| world.api.post("/api/v1/query", &json!({"sql": sql})).await;
            let rows = async |sql: &str| anyhow::Ok(ask(sql).await?.json()?["rows"].clone());
            assert_eq!(
                rows("SELECT state, count(*) FROM workflows GROUP BY state ORDER BY state").await?,
                json!([["completed", 1], ["failed", 1]])
            );
            assert_eq!(
                rows("SELECT a.step, a.state, a.exit_code FROM attempts a JOIN workflows w ON w.id = a.workflow_id WHERE w.state = 'failed'").await?,
                json!([[0, "failed", 3]])
            );
            assert_eq!(
                rows("SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM steps), (SELECT count(DISTINCT id) FROM sandboxes), (SELECT count(*) FROM usage)").await?,
                json!([[2, 3, 3, 3]])
            );
            let kinds = rows(&format!("SELECT kind FROM events WHERE workflow_id = '{}' ORDER BY position", first.id)).await?;
            let kinds: Vec<&str> = kinds.as_array().context("rows")?.iter().filter_map(|row| row[0].as_str()).collect();
            assert_eq!((kinds.first(), kinds.last()), (Some(&"workflow_submitted"), Some(&"workflow_ended")));

            for (sql, code) in [
                ("SELECT * FROM read_text('/etc/passwd')", "query-refused"),
                ("COPY workflows TO '/tmp/x.csv'", "query-refused"),
                ("SELECT nothing FROM workflows", "invalid-query"),
            ] {
                assert_eq!(ask(sql).await?.problem_code()?, code, "{sql}");
            }

            let csv = world
                .cli(&["query", "--csv", "-p", "state=failed", "SELECT id, state FROM workflows WHERE state = $state"])
                .await?
                .expect_code(0)?;
            assert_eq!(csv.stdout, format!("id,state\r\n{failed},failed\r\n"));
            let table = world.cli(&["query", "SELECT name, 1 AS n FROM workflows LIMIT 1"]).await?.expect_code(0)?;
            assert_eq!(table.stdout, "name      n\nscenario  1\n");
            world.cli(&["query", "DROP VIEW workflows"]).await?.expect_code(2)?;

            let trace: Value = world.api.get(&format!("/api/v1/workflows/{}/trace", first.id)).await?.json()?;
            let spans = trace["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().context("spans")?;
            let count = |kind: &str| spans.iter().filter(|span| span["attributes"][0]["value"]["stringValue"] == kind).count();
            assert_eq!(["workflow", "task", "step", "attempt", "prepare", "run"].map(count), [1, 1, 2, 2, 2, 2]);
            assert!(spans.iter().all(|span| span["endTimeUnixNano"].is_string()), "all have ended");
            let shown = world.cli(&["workflow", "trace", &first.id]).await?.expect_code(0)?;
            assert!(shown.stdout.contains("step-2 #1"), "{}", shown.stdout);
            Ok(())
        })
        .await
}
