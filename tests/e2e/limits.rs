//! Concurrency keys and rates, over `kill -9` of the daemon: who holds holds on, who waits waits in its turn. None of it needs a container.

use anyhow::{Context, Result, ensure};
use gantry_tests::views::Workflow;
use gantry_tests::world::Scenario;
use serde_json::{Value, json};

use crate::SOON;

fn waits_for(workflow: &Workflow) -> Option<&str> {
    workflow.tasks.iter().find_map(|task| task.waiting_reason())
}

#[tokio::test(flavor = "multi_thread")]
async fn holders_and_waiters_of_a_key_and_a_rate_survive_the_death_of_the_daemon() -> Result<()> {
    Scenario::dev("limits")
        .run(async |world| {
            let api = &world.api;
            let held = |name: &str, on_limit: &str| {
                json!({
                    "name": name,
                    "parameters": {"repo": {"type": "string"}},
                    "tasks": {"t": {
                        "concurrency": {"key": "repo-{{ params.repo }}", "limit": 1, "on_limit": on_limit},
                        "signal": {"name": "go"},
                    }},
                })
                .to_string()
            };
            let whole = json!({
                "name": "whole",
                "concurrency": {"key": "repo-a", "limit": 1},
                "tasks": {"t": {"sleep": 0}},
            });
            let rated = json!({
                "name": "rated",
                "tasks": {"t": {"rate_limit": {"key": "api", "limit": 1, "per": "6s"}, "sleep": 0}},
            });
            let repo = |name: &str| json!({ "repo": name });
            let signal = async |id: &str| -> Result<()> {
                let reply = api
                    .post(&format!("/api/v1/workflows/{id}:signal"), &json!({"name": "go"}))
                    .await?;
                ensure!(reply.status.is_success(), "{}", reply.status);
                Ok(())
            };

            let holder = api.submit(&held("holder", "wait"), repo("a")).await?;
            api.workflow_when(&holder, "it to hold the key", SOON, |workflow| {
                waits_for(workflow) == Some("signal")
            })
            .await?;
            let waiter = api.submit(&held("waiter", "wait"), repo("a")).await?;
            let other = api.submit(&held("other", "wait"), repo("b")).await?;
            api.workflow_when(&waiter, "it to wait for the key", SOON, |workflow| {
                waits_for(workflow) == Some("limit")
            })
            .await?;
            let whole = api.submit(&whole.to_string(), json!({})).await?;
            let refused = api.submit(&held("refused", "refuse"), repo("a")).await?;
            let refused = api.ended(&refused, SOON).await?;
            let codes = refused.codes();
            ensure!(
                refused.state == "failed" && codes.contains(&"limit-reached"),
                "{codes:?}"
            );
            let first = api.submit(&rated.to_string(), json!({})).await?;
            api.ended(&first, SOON).await?;
            let second = api.submit(&rated.to_string(), json!({})).await?;
            let whole_waits = api.workflow_when(&whole, "it to wait behind the other", SOON, |workflow| {
                waits_for(workflow) == Some("limit")
            });
            whole_waits.await?;

            world.kill_server().await?;
            world.restart_server().await?;

            let document: Value = api.read(&format!("/api/v1/workflows/{whole}")).await?;
            let waiting = &document["tasks"][0]["waiting"];
            ensure!(
                waiting["key"] == "repo-a"
                    && waiting["scope"] == "workflow"
                    && waiting["queue_position"] == 1
                    && waiting["holders"] == 1,
                "{waiting}"
            );
            ensure!(document["state"] == "pending", "{}", document["state"]);
            let listed = world.cli(&["limit", "ls", "--of", "repo-a", "-o", "json"]).await?;
            let listed: Value = serde_json::from_str(&listed.expect_code(0)?.stdout)?;
            let id = listed["items"][0]["id"]
                .as_str()
                .context("the key is listed")?
                .to_owned();
            let shown = world.cli(&["limit", "show", &id]).await?.expect_code(0)?;
            ensure!(shown.stdout.contains("1 hold, 2 wait"), "{}", shown.stdout);

            // A newer one ends whoever holds the key of the other repository.
            api.workflow_when(&other, "it to hold its key", SOON, |workflow| {
                waits_for(workflow) == Some("signal")
            })
            .await?;
            let newest = api.submit(&held("newest", "cancel_running"), repo("b")).await?;
            let overtaken = api.ended(&other, SOON).await?;
            ensure!(overtaken.state == "failed", "{}", overtaken.state);
            let code = overtaken.tasks[0].failure.as_ref().map(|failure| failure.code.as_str());
            ensure!(code == Some("limit-overtaken"), "{code:?}");

            signal(&holder).await?;
            for id in [&waiter, &newest] {
                api.workflow_when(id, "its turn", SOON, |workflow| waits_for(workflow) == Some("signal"))
                    .await?;
                signal(id).await?;
            }
            for id in [&holder, &waiter, &newest, &whole, &second] {
                let ended = api.ended(id, SOON).await?;
                ensure!(ended.state == "completed", "{} ended as {}", ended.name, ended.state);
            }
            let started = |document: &Value| document["tasks"][0]["ended_at_ms"].as_u64().unwrap_or_default();
            let first: Value = api.read(&format!("/api/v1/workflows/{first}")).await?;
            let second: Value = api.read(&format!("/api/v1/workflows/{second}")).await?;
            // The rate counts from the start, which was a little before its end.
            ensure!(started(&second) >= started(&first) + 5_000, "the rate did not hold");
            Ok(())
        })
        .await
}
