//! Processes stopped (SIGSTOP) for longer than a lease, in rounds under load, and then let go on. What a stopped node held is done by another one; what it
//! says when it wakes is stale, and nothing that was journaled as completed happens twice. A stopped daemon ends nobody's lease for its own absence.
//!
//! `GANTRY_STALL_SEED=n` repeats a run, `GANTRY_STALL_ROUNDS=n` makes it longer.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gantry_tests::api::accepted;
use gantry_tests::process::Process;
use gantry_tests::seed::Seed;
use gantry_tests::views::Workflow;
use gantry_tests::wait;
use gantry_tests::world::{Scenario, World};
use serde_json::json;

use crate::SOON;
use crate::attempts::no_step_ran_again;

const LEASE: Duration = Duration::from_secs(3);
/// Longer than a lease, and than a lease that was renewed right before.
const STALL: Duration = Duration::from_millis(4_500);
const ROUNDS: usize = 3;
/// Workflows that are under way when a process is stopped.
const LOAD: usize = 4;

fn definition() -> String {
    let script = r#"echo "begin $GANTRY_ATTEMPT"; sleep 1; echo "end $GANTRY_ATTEMPT""#;
    let step = |key: &str| json!({"key": key, "run": script});
    let tasks = json!({"a": {"steps": [step("one")]}, "b": {"steps": [step("one")]}});
    json!({"name": "stalled", "tasks": tasks}).to_string()
}

fn rounds() -> usize {
    let asked = std::env::var("GANTRY_STALL_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    asked.unwrap_or(ROUNDS)
}

async fn load(world: &World) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for _ in 0..LOAD {
        ids.push(accepted(&world.api.try_submit(&definition(), json!({}), None).await?)?);
    }
    Ok(ids)
}

fn runs(workflow: &Workflow) -> bool {
    workflow.attempts().any(|attempt| attempt.state == "running")
}

/// All completed, none of their steps twice.
async fn settled(world: &World, ids: &[String]) -> Result<Vec<Workflow>> {
    let mut ended = Vec::new();
    for id in ids {
        let workflow = world.api.ended(id, SOON).await?;
        ensure!(workflow.state == "completed", "{workflow:#?}");
        no_step_ran_again(world, &workflow)
            .await
            .with_context(|| format!("workflow {id}"))?;
        ended.push(workflow);
    }
    Ok(ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_stopped_beyond_its_lease_speaks_for_nothing_any_more() -> Result<()> {
    let mut seed = Seed::from_env("GANTRY_STALL_SEED", 3);
    Scenario::apart("stalled-node")
        .lease(LEASE)
        .run(async |world| {
            let second = second_node(world).await?;
            let mut taken_over = 0;
            for round in 0..rounds() {
                let ids = load(world).await?;
                world.api.workflow_when(&ids[0], "a running step", SOON, runs).await?;
                // Not a wait for something to be done: the random part of the moment, and then the length of the stall itself.
                tokio::time::sleep(seed.duration_below(Duration::from_millis(800))).await;
                world.pause_node().await?;
                tokio::time::sleep(STALL).await;
                world.resume_node().await?;
                let ended = settled(world, &ids).await.with_context(|| format!("round {round}"))?;
                let lost = ended
                    .iter()
                    .flat_map(Workflow::attempts)
                    .filter(|attempt| attempt.state == "lost")
                    .count();
                taken_over += lost;
                eprintln!("round {round}: {lost} attempts were taken over");
                world.node_named("test-node", &["online", "busy"]).await?;
            }
            ensure!(taken_over > 0, "no lease expired: the stalls came at the wrong time");
            second.stop().await?;
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_stopped_beyond_every_lease_ends_none_for_its_own_absence() -> Result<()> {
    let mut seed = Seed::from_env("GANTRY_STALL_SEED", 3);
    Scenario::apart("stalled-daemon")
        .lease(LEASE)
        .run(async |world| {
            for round in 0..rounds() {
                let ids = load(world).await?;
                world.api.workflow_when(&ids[0], "a running step", SOON, runs).await?;
                tokio::time::sleep(seed.duration_below(Duration::from_millis(800))).await;
                world.pause_server().await?;
                tokio::time::sleep(STALL).await;
                world.resume_server().await?;
                let ended = settled(world, &ids).await.with_context(|| format!("round {round}"))?;
                let lost = ended
                    .iter()
                    .flat_map(Workflow::attempts)
                    .filter(|attempt| attempt.state == "lost")
                    .count();
                ensure!(
                    lost == 0,
                    "round {round}: {lost} attempts were taken from a node that was there all the time"
                );
            }
            Ok(())
        })
        .await
}

/// Another node that takes over; it joins with a token of its own.
async fn second_node(world: &World) -> Result<Process> {
    let answer = world.cli(&["node", "token", "create", "second", "-o", "json"]).await?;
    let document = answer.expect_code(0)?.json()?;
    let token = document["token"].as_str().context("a token")?;
    let process = world.start_intruder(token, &world.root().join("second.log"))?;
    wait::until("two nodes", SOON, async || {
        let nodes = world.api.nodes().await?;
        let online = nodes
            .iter()
            .filter(|node| ["online", "busy"].contains(&node.state.as_str()));
        Ok((online.count() == 2).then_some(()))
    })
    .await?;
    Ok(process)
}
