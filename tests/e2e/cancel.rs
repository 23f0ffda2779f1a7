//! Cancelling: politely first, then by force.

use std::time::Duration;

use anyhow::Result;
use gantry_tests::world::Scenario;
use serde_json::json;
use tokio::time::Instant;

use crate::{SOON, steps};

fn running(workflow: &gantry_tests::views::Workflow) -> bool {
    workflow.attempts().any(|attempt| attempt.state == "running")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_may_tidy_up_and_one_that_will_not_end_is_killed() -> Result<()> {
    Scenario::dev("cancel")
        .run(async |world| {
            let polite = steps(&[
                "trap 'echo tidied up; exit 0' TERM\necho ready\nwhile :; do sleep 0.1; done",
                "echo never",
            ]);
            let stubborn = steps(&["trap '' TERM\necho ready\nwhile :; do sleep 1; done"]);
            let polite = world.api.submit(&polite, json!({})).await?;
            let stubborn = world.api.submit(&stubborn, json!({})).await?;
            for id in [&polite, &stubborn] {
                world.api.workflow_when(id, "a running step", SOON, running).await?;
                // The trap is set once `ready` is printed.
                gantry_tests::wait::until("the step to be ready", SOON, async || {
                    Ok(world
                        .api
                        .log(id, "work", "step-1", 1, "stdout")
                        .await?
                        .contains("ready")
                        .then_some(()))
                })
                .await?;
            }

            assert_eq!(world.api.cancel(&polite, 20_000).await?.status, 202);
            let started = Instant::now();
            let workflow = world.api.ended(&polite, SOON).await?;
            assert_eq!(workflow.state, "cancelled");
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "a polite step is not waited for until the grace ends"
            );
            assert!(
                world
                    .api
                    .log(&polite, "work", "step-1", 1, "stdout")
                    .await?
                    .ends_with("tidied up\n")
            );
            assert!(
                workflow.tasks[0].steps[1].attempts.is_empty(),
                "the next step never starts"
            );

            let started = Instant::now();
            assert_eq!(world.api.cancel(&stubborn, 1_000).await?.status, 202);
            assert_eq!(
                world.api.cancel(&stubborn, 1_000).await?.status,
                202,
                "cancelling twice is fine"
            );
            let workflow = world.api.ended(&stubborn, SOON).await?;
            assert_eq!(workflow.state, "cancelled");
            assert!(started.elapsed() >= Duration::from_secs(1), "it had its grace");

            let late = world.api.cancel(&stubborn, 0).await?;
            assert!(late.status == 202 || late.problem_code()? == "conflict");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_that_waits_is_cancelled_at_once_and_run_says_so() -> Result<()> {
    Scenario::dev("cancel-waiting")
        .run(async |world| {
            let definition = r#"{"name":"waits","tasks":{"t":{"requires":{"capabilities":["quantum"]},"run":"true"}}}"#;
            let file = world.file("waits.yaml", definition)?;
            let run = async { world.cli(&["run", &file]).await };
            let cancel = async {
                let id = gantry_tests::wait::until("the workflow", SOON, async || {
                    let page: gantry_tests::views::Page<serde_json::Value> =
                        world.api.read("/api/v1/workflows?state=active,pending").await?;
                    Ok(page
                        .items
                        .first()
                        .and_then(|workflow| workflow["id"].as_str().map(str::to_owned)))
                })
                .await?;
                world.cli(&["workflow", "cancel", &id]).await?.expect_code(0)
            };
            let (run, cancelled) = tokio::join!(run, cancel);
            cancelled?;
            run?.expect_code(3)?;
            Ok(())
        })
        .await
}
