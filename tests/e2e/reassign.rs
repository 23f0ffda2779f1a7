//! A task that is taken from its node, with the daemon killed while it has none.

use anyhow::{Result, ensure};
use gantry_tests::views::Workflow;
use gantry_tests::world::Scenario;
use serde_json::json;

use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_task_taken_from_its_node_waits_for_another_over_the_death_of_the_daemon() -> Result<()> {
    Scenario::dev("reassign")
        .run(async |world| {
            let api = &world.api;
            let definition = json!({
                "name": "moved",
                "tasks": {"work": {"steps": [
                    {"run": "echo first > made"},
                    {"run": "test $GANTRY_ATTEMPT -gt 1 || sleep 600; cat made", "grace": "1s"},
                ]}},
            });
            let id = api.submit(&definition.to_string(), json!({})).await?;
            let second = |workflow: &Workflow| {
                let step = workflow.tasks[0].steps.get(1);
                step.is_some_and(|step| step.state == "running")
            };
            api.workflow_when(&id, "its second step", SOON, second).await?;
            // What the first step did is there and nowhere else.
            let refused = world.cli(&["task", "reassign", &id, "work", "--away"]).await?;
            ensure!(
                refused.code != 0 && refused.stderr.contains("restart"),
                "it is refused, with the way out: {refused:?}"
            );
            let moved = world
                .cli(&["task", "reassign", &id, "work", "--away", "--restart", "-m", "too slow"])
                .await?;
            moved.expect_code(0)?;
            let waits = |workflow: &Workflow| workflow.tasks[0].waiting_reason() == Some("unplaceable");
            api.workflow_when(&id, "that it waits for another node", SOON, waits)
                .await?;

            world.kill_server().await?;
            world.restart_server().await?;

            let seen = api.workflow_when(&id, "that it still waits", SOON, waits).await?;
            let waiting = seen.tasks[0].waiting.clone().unwrap_or_default();
            ensure!(waiting.to_string().contains("a node other than node_"), "{waiting}");
            // To any node that fits: the same one takes it, from its first step.
            world.cli(&["task", "reassign", &id, "work"]).await?.expect_code(0)?;
            let ended = api.ended(&id, SOON).await?;
            ensure!(ended.state == "completed", "{ended:#?}");
            let attempts: Vec<usize> = ended.tasks[0].steps.iter().map(|step| step.attempts.len()).collect();
            ensure!(attempts == [2, 2], "{ended:#?}");
            let log = api.log(&id, "work", "step-2", 2, "stdout").await?;
            ensure!(log == "first\n", "it printed {log:?}");
            world.all_given_back().await
        })
        .await
}
