//! Docker goes away: the node says so, work waits and goes on when Docker is back.

use anyhow::{Context, Result};
use gantry_tests::proxy::DockerProxy;
use gantry_tests::views::Workflow;
use gantry_tests::world::Scenario;
use serde_json::json;

use crate::{SOON, steps};

const SOCKET: &str = "docker.sock";

#[tokio::test(flavor = "multi_thread")]
async fn work_waits_while_docker_is_unreachable() -> Result<()> {
    Scenario::apart("docker-down")
        .docker_socket(SOCKET)
        .run(async |world| {
            // The daemon started before Docker did.
            let mut docker = DockerProxy::closed(&world.root().join(SOCKET));
            let node = world.node_in_state(&["degraded"]).await?;
            let fault = node.fault.context("a degraded node says why")?;
            assert_eq!(fault.code, "docker-unavailable");
            assert!(fault.hint.is_some(), "and what to do: {fault:?}");

            let id = world.api.submit(&steps(&["echo worth waiting for"]), json!({})).await?;
            let waits = |workflow: &Workflow| workflow.tasks[0].waiting_reason() == Some("nodes_degraded");
            let workflow = world.api.workflow_when(&id, "the waiting reason", SOON, waits).await?;
            let waiting = workflow.tasks[0].waiting.as_ref().context("waits")?;
            assert!(waiting.to_string().contains("docker-unavailable"), "{waiting}");

            docker.open()?;
            assert_eq!(world.api.ended(&id, SOON).await?.state, "completed");
            world.node_in_state(&["online", "busy"]).await?;

            // Docker goes away while a step runs: the step's container and its supervisor go on, and so does the work.
            let id = world
                .api
                .submit(
                    &steps(&["for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 1; done", "echo done"]),
                    json!({}),
                )
                .await?;
            world
                .api
                .workflow_when(&id, "a running step", SOON, |workflow| {
                    workflow.attempts().any(|attempt| attempt.state == "running")
                })
                .await?;
            docker.close().await?;
            world.node_in_state(&["degraded"]).await?;
            docker.open()?;
            let workflow = world.api.ended(&id, SOON).await?;
            assert_eq!(workflow.state, "completed");
            assert_eq!(
                workflow.tasks[0].steps[0].attempts.len(),
                1,
                "the running step was not lost: {workflow:#?}"
            );
            // The proxy ends with this scenario; what is still being removed needs Docker.
            world.all_given_back().await
        })
        .await
}
