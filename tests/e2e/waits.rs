//! Workflows that wait, over `kill -9` of the daemon: one in each waiting state, all of which go on. None of them needs a container.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::world::Scenario;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::SOON;

/// A workflow that waits for one thing and then, by its outcome, shows that it went on.
fn waiting(name: &str, task: Value) -> String {
    json!({
        "name": name,
        "tasks": { "wait": task, "then": { "needs": "wait", "when": "tasks.wait.state == 'completed'", "sleep": 0 } },
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_waiting_state_survives_the_death_of_the_daemon() -> Result<()> {
    Scenario::dev("waits")
        .run(async |world| {
            let api = &world.api;
            let sleep = waiting("sleep", json!({"sleep": "4s"}));
            let signal = waiting("signal", json!({"signal": {"name": "go"}}));
            let approval = waiting("approval", json!({"approval": {"message": "Go on?"}}));
            let escalated = waiting(
                "escalated",
                json!({"signal": {"name": "go", "timeout": 0, "on_timeout": "escalate"}}),
            );
            let deadline = json!({"name": "late", "deadline": "4s", "tasks": {"wait": {"signal": {"name": "go"}}}});
            // Waits for what comes first, so that its own signal is early.
            let early = json!({
                "name": "early",
                "tasks": {"hold": {"approval": {"message": "?"}}, "wait": {"needs": "hold", "signal": {"name": "go"}}},
            });
            let mut ids = Vec::new();
            for (source, reason) in [
                (sleep, "sleep"),
                (signal, "signal"),
                (approval.clone(), "approval"),
                (escalated, "escalated"),
                (deadline.to_string(), "signal"),
                (early.to_string(), "approval"),
                (approval, "approval"),
            ] {
                let id = api.submit(&source, json!({})).await?;
                let seen = api.workflow_when(&id, "the wait", SOON, |workflow| {
                    workflow.tasks.iter().any(|task| task.waiting_reason() == Some(reason))
                });
                seen.await?;
                ids.push(id);
            }
            let [sleep, signal, approval, escalated, late, early, paused] = ids.as_slice() else {
                anyhow::bail!("seven workflows were started");
            };
            let signalled = json!({"name": "go", "payload": {"n": 1}, "id": "one"});
            let path = |id: &str, action: &str| format!("/api/v1/workflows/{id}:{action}");
            let reply = api.post(&path(early, "signal"), &signalled).await?;
            ensure!(reply.status == StatusCode::ACCEPTED, "{}", reply.status);
            let reply = api
                .post(&path(paused, "pause"), &json!({"comment": "look first"}))
                .await?;
            ensure!(reply.status == StatusCode::OK, "{}", reply.status);

            world.kill_server().await?;
            world.restart_server().await?;

            let task = |id: &str, task: &str, action: &str| format!("/api/v1/workflows/{id}/tasks/{task}:{action}");
            for (path, body) in [
                (path(signal, "signal"), signalled.clone()),
                (task(approval, "wait", "approve"), json!({"comment": "fine"})),
                (task(escalated, "wait", "resolve"), json!({"outputs": {"n": 2}})),
                (task(early, "hold", "approve"), json!({})),
                (task(paused, "wait", "approve"), json!({})),
            ] {
                let reply = api.post(&path, &body).await?;
                ensure!(
                    reply.status.is_success(),
                    "{path}: {} {}",
                    reply.status,
                    String::from_utf8_lossy(&reply.body)
                );
            }
            // Sent again, with the answer of before lost: it counts once.
            let again = api.post(&path(early, "signal"), &signalled).await?;
            if again.status.is_success() {
                ensure!(again.json()?["duplicate"] == true, "a repeated signal counts once");
            }
            let held = api.workflow(paused).await?;
            ensure!(held.state == "paused", "it is {} after its approval", held.state);
            let reply = api.post(&path(paused, "resume"), &json!({})).await?;
            ensure!(reply.status == StatusCode::OK, "{}", reply.status);

            for id in [sleep, signal, approval, escalated, early, paused] {
                let ended = api.ended(id, SOON).await?;
                ensure!(ended.state == "completed", "{} ended as {}", ended.name, ended.state);
            }
            let late = api.ended(late, SOON).await?;
            let failure = late.failure.context("a workflow past its deadline fails")?;
            ensure!(failure.code == "deadline-exceeded", "{}", failure.code);
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_release_example_waits_for_its_signal_and_its_approval() -> Result<()> {
    Scenario::dev("release")
        .run(async |world| {
            let file = gantry_tests::paths::repository().join("examples/release.yaml");
            let file = file.to_string_lossy();
            let run = world
                .cli(&["run", &file, "-p", "version=1.2.0", "--detach"])
                .await?
                .expect_code(0)?;
            let id = run.stdout.trim().to_owned();
            let waits = |task: &'static str, reason: &'static str| {
                let api = &world.api;
                let id = id.clone();
                async move {
                    let fits = |workflow: &gantry_tests::views::Workflow| {
                        let mut tasks = workflow.tasks.iter();
                        tasks.any(|each| each.name == task && each.waiting_reason() == Some(reason))
                    };
                    api.workflow_when(&id, task, Duration::from_secs(120), fits).await
                }
            };
            waits("scan", "signal").await?;
            let refused = world.cli(&["workflow", "signal", &id, "scam"]).await?;
            ensure!(refused.code == 2, "an unknown signal is refused: {refused:?}");
            let payload = r#"{"findings": 0}"#;
            world
                .cli(&[
                    "workflow",
                    "signal",
                    &id,
                    "scanned",
                    "--payload",
                    payload,
                    "--id",
                    "scan-1",
                ])
                .await?
                .expect_code(0)?;
            waits("release", "approval").await?;
            let shown = world.cli(&["workflow", "show", &id]).await?.expect_code(0)?;
            ensure!(shown.stdout.contains("Release 1.2.0?"), "{}", shown.stdout);
            world
                .cli(&["task", "approve", &id, "release", "-m", "looks good"])
                .await?
                .expect_code(0)?;
            let ended = world.api.ended(&id, SOON).await?;
            ensure!(ended.state == "completed", "{ended:#?}");
            ensure!(ended.outputs["note"] == "looks good", "{}", ended.outputs);
            world.all_given_back().await
        })
        .await
}
