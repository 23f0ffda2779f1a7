//! What runs before a workflow ends, with the daemon killed while it runs.

use anyhow::{Context as _, Result, ensure};
use gantry_tests::views::Workflow;
use gantry_tests::world::Scenario;
use serde_json::json;

use crate::SOON;

/// Either handler says what it was told, and holds until its file is there or a while has passed.
fn definition() -> String {
    let handler = json!({
        "workspace": {"from": "make"},
        "run": "echo \"begin $GANTRY_ATTEMPT\"\nsleep 4\necho \"why=$GANTRY_FAILURE_CODE {{ failure.task }} $GANTRY_FAILURE_TASK_CODE $(cat made)\" > \"$GANTRY_OUTPUT\"\necho \"end $GANTRY_ATTEMPT\"",
        "outputs": "why",
    });
    json!({
        "name": "ends",
        "on_failure": handler,
        "on_cancel": handler,
        "tasks": {
            "make": {"run": "echo yes > made"},
            "ask": {"needs": "make", "approval": {"message": "Go on?"}},
            "break": {"needs": "ask", "run": "exit 3"},
        },
    })
    .to_string()
}

fn runs(workflow: &Workflow, task: &str) -> bool {
    let mut tasks = workflow.tasks.iter();
    tasks.any(|each| each.name == task && each.steps.iter().any(|step| step.state == "running"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_handles_the_end_survives_the_death_of_the_daemon() -> Result<()> {
    Scenario::dev("endings")
        .slots(2)
        .run(async |world| {
            let api = &world.api;
            let failing = api.submit(&definition(), json!({})).await?;
            let cancelled = api.submit(&definition(), json!({})).await?;
            for id in [&failing, &cancelled] {
                let asked = |workflow: &Workflow| {
                    let mut tasks = workflow.tasks.iter();
                    tasks.any(|task| task.waiting_reason() == Some("approval"))
                };
                let seen = api.workflow_when(id, "its question", SOON, asked).await?;
                let standby = seen
                    .tasks
                    .iter()
                    .filter(|task| task.waiting_reason() == Some("standby"));
                ensure!(standby.count() == 2, "{seen:#?}");
            }
            let approve = format!("/api/v1/workflows/{failing}/tasks/ask:approve");
            let reply = api.post(&approve, &json!({})).await?;
            ensure!(reply.status.is_success(), "{}", reply.status);
            api.cancel(&cancelled, 100).await?;
            for (id, task) in [(&failing, "on_failure"), (&cancelled, "on_cancel")] {
                api.workflow_when(id, task, SOON, |workflow| runs(workflow, task))
                    .await?;
            }
            let shown = world.cli(&["workflow", "show", &failing]).await?.expect_code(0)?;
            ensure!(shown.stdout.contains("ends as failed"), "{}", shown.stdout);
            // Said again, as by a client that did not hear the answer: it costs nothing.
            api.cancel(&cancelled, 100).await?;

            world.kill_server().await?;
            world.restart_server().await?;

            for (id, state, task, why) in [
                (&failing, "failed", "on_failure", "task-failed break step-exit yes"),
                (&cancelled, "cancelled", "on_cancel", "workflow-cancelled   yes"),
            ] {
                let ended = api.ended(id, SOON).await?;
                ensure!(ended.state == state, "{ended:#?}");
                let mut tasks = ended.tasks.iter();
                let handler = tasks.find(|each| each.name == task).context("what handles the end")?;
                ensure!(handler.state == "completed", "{handler:#?}");
                ensure!(handler.steps[0].outputs["why"] == why, "{handler:#?}");
                ensure!(handler.steps[0].attempts.len() == 1, "{handler:#?}");
                let log = api.log(id, task, "step-1", 1, "stdout").await?;
                ensure!(log == "begin 1\nend 1\n", "it printed {log:?}");
            }
            world.all_given_back().await
        })
        .await
}
