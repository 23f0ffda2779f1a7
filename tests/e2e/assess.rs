//! A result that is assessed, with the daemon killed while it waits and while it is reworked.

use anyhow::{Context as _, Result, ensure};
use gantry_tests::views::Workflow;
use gantry_tests::world::Scenario;
use serde_json::json;

use crate::SOON;

/// The second step finds what the first one did in this round, and nothing of the round before.
const WRITE: &str = r#"
name: judged
tasks:
  write:
    workspace: {path: "SOURCE"}
    assess: {message: "Read {{ steps.draft.outputs.said }}", max_reworks: 1}
    steps:
      - key: draft
        run: |
          test ! -e draft && test "$(cat given)" = given
          test "$GANTRY_REWORK" = "{{ rework.round }}"
          echo "$GANTRY_FEEDBACK" > draft
          echo changed > given
          sleep 3
          echo "said=round $GANTRY_REWORK $(cat draft)" > "$GANTRY_OUTPUT"
      - {key: check, run: "test -e draft"}
  print: {needs: write, workspace: {from: write}, run: 'test "$(cat draft)" = "be brief"'}
"#;

fn waits(workflow: &Workflow, reason: &str) -> bool {
    let mut tasks = workflow.tasks.iter();
    tasks.any(|task| task.name == "write" && task.waiting_reason() == Some(reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_is_reworked_over_the_death_of_the_daemon() -> Result<()> {
    Scenario::dev("assess")
        .run(async |world| {
            let api = &world.api;
            let given = world.sources();
            tokio::fs::write(given.join("given"), "given\n").await?;
            let source = WRITE.replace("SOURCE", &given.to_string_lossy());
            let id = api.submit(&source, json!({})).await?;
            let seen = api
                .workflow_when(&id, "its result", SOON, |workflow| waits(workflow, "assessment"))
                .await?;
            let task = &seen.tasks[0];
            ensure!(task.state == "output_pending_assessment", "{task:#?}");
            let waiting = task.waiting.as_ref().context("it waits")?;
            ensure!(waiting["message"] == "Read round 0 ", "{waiting}");
            ensure!(waiting["reworks_left"] == 1, "{waiting}");

            world.kill_server().await?;
            world.restart_server().await?;

            let again = world
                .cli(&["task", "rework", &id, "write", "--round", "0", "-m", "be brief"])
                .await?;
            again.expect_code(0)?;
            let runs = |workflow: &Workflow| {
                workflow
                    .attempts()
                    .any(|each| each.attempt == 2 && each.state == "running")
            };
            api.workflow_when(&id, "its second round", SOON, runs).await?;

            world.kill_server().await?;
            world.restart_server().await?;

            // The answer was lost, so it is asked again; it counts once.
            let rework = format!("/api/v1/workflows/{id}/tasks/write:rework");
            let reply = api.post(&rework, &json!({"comment": "be brief", "round": 0})).await?;
            ensure!(reply.status.is_success(), "{}", reply.status);
            let seen = api
                .workflow_when(&id, "its second result", SOON, |workflow| waits(workflow, "assessment"))
                .await?;
            let waiting = seen.tasks[0].waiting.as_ref().context("it waits")?;
            ensure!(waiting["message"] == "Read round 1 be brief", "{waiting}");
            ensure!(waiting["reworks_left"] == 0 && waiting["round"] == 1, "{waiting}");
            let accept = format!("/api/v1/workflows/{id}/tasks/write:accept");
            let stale = api.post(&accept, &json!({"round": 0})).await?;
            ensure!(stale.problem_code()? == "conflict", "a stale judgement is refused");
            let reply = api.post(&accept, &json!({"round": 1})).await?;
            ensure!(reply.status.is_success(), "{}", reply.status);
            let ended = api.ended(&id, SOON).await?;
            ensure!(ended.state == "completed", "{ended:#?}");
            world.all_given_back().await
        })
        .await
}
