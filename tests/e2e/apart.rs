//! Server and node as processes of their own.

use anyhow::Result;
use gantry_tests::wait;
use gantry_tests::world::Scenario;
use serde_json::json;

use crate::{SOON, steps};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_joins_with_its_token_works_and_is_missed_when_it_is_gone() -> Result<()> {
    Scenario::apart("apart")
        .run(async |world| {
            let definition = steps(&["echo from afar > note", "cat note"]);
            let workflow = world.api.complete(&definition, json!({}), SOON).await?;
            assert_eq!(
                world.api.log(&workflow.id, "work", "step-2", 1, "stdout").await?,
                "from afar\n"
            );
            world.node_in_state(&["online"]).await?;
            let listed = world.cli(&["node", "ls"]).await?.expect_code(0)?;
            assert!(
                listed.stdout.contains("test-node") && listed.stdout.contains("online"),
                "{}",
                listed.stdout
            );

            world.kill_node().await?;
            world.node_in_state(&["disconnected", "offline"]).await?;
            let id = world.api.submit(&definition, json!({})).await?;
            let waits =
                |workflow: &gantry_tests::views::Workflow| workflow.tasks[0].waiting_reason() == Some("no_node");
            world.api.workflow_when(&id, "the waiting reason", SOON, waits).await?;

            world.start_node().await?;
            assert_eq!(world.api.ended(&id, SOON).await?.state, "completed");
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_token_is_no_api_key_and_an_api_key_no_node_token() -> Result<()> {
    Scenario::apart("apart-tokens")
        .run(async |world| {
            let token = world
                .cli(&["node", "token", "create", "other", "-o", "json"])
                .await?
                .expect_code(0)?
                .json()?;
            let token = token["token"].as_str().unwrap_or_default();
            assert!(token.starts_with("gn_"), "{token}");
            let refused = world.api.with_key(token).get("/api/v1/workflows").await?;
            assert_eq!(
                (refused.status.as_u16(), refused.problem_code()?.as_str()),
                (401, "unauthenticated")
            );

            // It keeps dialling, since a token may be mended on the server; it is told why, and never becomes a node.
            let log = world.root().join("intruder.log");
            let intruder = world.start_intruder(&world.api.key, &log)?;
            wait::until("the refusal in the node's log", SOON, async || {
                Ok(std::fs::read_to_string(&log)?.contains("node token").then_some(()))
            })
            .await?;
            intruder.stop().await?;
            assert_eq!(world.api.nodes().await?.len(), 1);
            Ok(())
        })
        .await
}
