//! Restarts and forks over `kill -9` of the daemon.

use anyhow::{Context, Result, ensure};
use gantry_tests::world::Scenario;
use reqwest::Method;
use serde_json::{Value, json};

use crate::SOON;

const FILES: &str = r#"
name: files
parameters: {word: {type: string, default: first}}
tasks:
  make:
    steps:
      - run: echo "made {{ params.word }}" > out.txt; echo "n=7" >> "$GANTRY_OUTPUT"
        artifacts: [out.txt]
  wait: {needs: make, approval: {message: "Go on?"}}
  take:
    needs: [make, wait]
    inputs: [{task: make, artifact: out.txt, path: in.txt}]
    run: test "$(cat in.txt)" = "made first"; echo "n={{ tasks.make.outputs.n }} {{ params.word }}" >> "$GANTRY_OUTPUT"
outputs: {n: "{{ tasks.take.outputs.n }}"}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_fork_have_earlier_results_and_survive_the_daemon() -> Result<()> {
    Scenario::dev("again")
        .run(async |world| {
            let api = &world.api;
            let old = api.submit(FILES, json!({})).await?;
            let asked = |workflow: &gantry_tests::views::Workflow| {
                workflow
                    .tasks
                    .iter()
                    .any(|task| task.waiting_reason() == Some("approval"))
            };
            api.workflow_when(&old, "the question", SOON, asked).await?;
            let reply = api
                .post(&format!("/api/v1/workflows/{old}/tasks/wait:reject"), &json!({}))
                .await?;
            ensure!(reply.status.is_success(), "{}", reply.status);
            ensure!(
                api.ended(&old, SOON).await?.state == "failed",
                "a rejected approval fails"
            );

            // The answer may be lost with the daemon; the key finds what was started.
            let restart = [
                "-o",
                "json",
                "workflow",
                "restart",
                &old,
                "--idempotency-key",
                "again-1",
            ];
            let first = world.cli(&restart).await?.expect_code(0)?;
            world.kill_server().await?;
            world.restart_server().await?;
            let second = world.cli(&restart).await?.expect_code(0)?;
            let id = |text: &str| -> Result<String> {
                let answer: Value = serde_json::from_str(text)?;
                Ok(answer["id"].as_str().context("it has an id")?.to_owned())
            };
            let new = id(&first.stdout)?;
            ensure!(new == id(&second.stdout)? && new != old, "{first:?} {second:?}");
            let fork = world
                .cli(&["workflow", "fork", &old, "--from", "wait", "-p", "word=second"])
                .await?;
            let fork = fork.expect_code(0)?.stdout.trim().to_owned();

            for (workflow, n) in [(&new, "7 first"), (&fork, "7 second")] {
                api.workflow_when(workflow, "the question", SOON, asked).await?;
                world.kill_server().await?;
                world.restart_server().await?;
                let approve = format!("/api/v1/workflows/{workflow}/tasks/wait:approve");
                let reply = api.call(Method::POST, &approve, Some(&json!({}))).await?;
                ensure!(reply.status.is_success(), "{}", reply.status);
                let ended = api.ended(workflow, SOON).await?;
                ensure!(ended.state == "completed" && ended.outputs["n"] == n, "{ended:#?}");
                let view: Value = api.read(&format!("/api/v1/workflows/{workflow}")).await?;
                ensure!(view["origin"]["workflow"] == *old, "{view}");
                let make = &view["tasks"][0];
                let ran = make["steps"][0]["attempts"].as_array().map_or(0, Vec::len);
                ensure!(make["carried"] == true && ran == 0, "it did not run again: {make}");
            }
            let refused = world.cli(&["workflow", "restart", &old, "--from", "nothing"]).await?;
            ensure!(
                refused.code == 2 && refused.stderr.contains("there is no task"),
                "{refused:?}"
            );
            world.all_given_back().await
        })
        .await
}
