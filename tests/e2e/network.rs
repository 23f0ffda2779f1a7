//! Lines that lose and break, nodes and servers that are away for a while. Nobody's work pays for it.
//!
//! `GANTRY_NETWORK_SEED` repeats a run, `GANTRY_NETWORK_ROUNDS` sets the number of cut lines.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use gantry_tests::seed::Seed;
use gantry_tests::views::Workflow;
use gantry_tests::wait;
use gantry_tests::world::{Scenario, World};
use serde_json::json;
use tokio::time::Instant;

use crate::attempts::{every_container_served_once, no_step_ran_again};
use crate::{SOON, steps};

const ROUNDS: u32 = 3;
/// Workflows whose first steps end together.
const ABREAST: usize = 6;
/// Of those, the ones whose last output comes some seconds before the end.
const QUIET: usize = 4;
/// "Within seconds": far below a lease, which ends a step as well.
const AT_ONCE: Duration = Duration::from_secs(15);

fn begun(workflow: &Workflow) -> bool {
    workflow
        .attempts()
        .any(|attempt| matches!(attempt.state.as_str(), "running" | "completed"))
}

fn first_step_completed(workflow: &Workflow) -> bool {
    workflow.tasks[0].steps[0].state == "completed"
}

/// Fails unless each step had one attempt.
fn one_attempt_each(workflow: &Workflow) -> Result<()> {
    for (task, step) in workflow.steps() {
        ensure!(
            step.attempts.len() == 1,
            "{}/{} had more than one attempt: {:#?}",
            task.name,
            step.key,
            step.attempts
        );
    }
    Ok(())
}

/// The answer to the result of the first step, the assignment of the second, or both are lost with the line.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_loses_orders_and_breaks_costs_no_completed_step() -> Result<()> {
    let mut seed = Seed::from_env("GANTRY_NETWORK_SEED", 2);
    let rounds = std::env::var("GANTRY_NETWORK_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(ROUNDS);
    Scenario::apart("network-cut")
        .relayed()
        .slots(ABREAST.try_into()?)
        .run(async |world| {
            let mut workflows = Vec::new();
            for round in 1..=rounds {
                workflows.extend(
                    cut_while_first_steps_end(world, &mut seed)
                        .await
                        .with_context(|| format!("round {round}"))?,
                );
            }
            world.docker_events().all_destroyed(SOON).await?;
            every_container_served_once(&workflows, &world.docker_events().all())
        })
        .await
}

/// Two steps, of which the second needs what the first one made. The first one's last output comes before its last seconds, or after them: a result is
/// reported once the output is known to be stored, so on a line that loses everything the former is recorded and the latter is not.
fn two_steps(number: usize) -> String {
    let (before, after) = if number < QUIET {
        ("echo \"end $GANTRY_ATTEMPT\"", "true")
    } else {
        ("true", "echo \"end $GANTRY_ATTEMPT\"")
    };
    // One after the other, so that a cut finds some at work and others done.
    let seconds = 3 + number % QUIET;
    steps(&[
        &format!(
            "echo \"begin $GANTRY_ATTEMPT\"; test ! -e made; echo layer > made; {before}; sleep {seconds}; {after}"
        ),
        "echo \"begin $GANTRY_ATTEMPT\"; test \"$(cat made)\" = layer; rm made; echo \"end $GANTRY_ATTEMPT\"",
    ])
}

async fn cut_while_first_steps_end(world: &World, seed: &mut Seed) -> Result<Vec<Workflow>> {
    let mut ids = Vec::new();
    for number in 0..ABREAST {
        ids.push(world.api.submit(&two_steps(number), json!({})).await?);
    }
    for (number, id) in ids.iter().enumerate() {
        printed(world, id, if number < QUIET { "end 1\n" } else { "begin 1\n" }).await?;
    }
    world.relay().swallow();
    let completed = async || -> Result<usize> {
        let workflows = try_join_all(ids.iter().map(|id| world.api.workflow(id))).await?;
        Ok(workflows
            .iter()
            .filter(|workflow| first_step_completed(workflow))
            .count())
    };
    let before = completed().await?;
    ensure!(before < QUIET, "all first steps ended before the line began to lose");
    wait::until("a first step to complete", SOON, async || {
        Ok((completed().await? > before).then_some(()))
    })
    .await?;
    // Not a wait for something to be done: the random part of the moment, in which the others end or do not.
    tokio::time::sleep(seed.duration_below(Duration::from_secs(3))).await;
    let lost = completed().await? - before;
    world.relay().swallowed(SOON).await?;
    world.relay().cut();
    eprintln!("cut when {lost} steps had ended unanswered");

    let mut workflows = Vec::new();
    for id in &ids {
        let workflow = world.api.ended(id, SOON).await?;
        ensure!(workflow.state == "completed", "it {}: {workflow:#?}", workflow.state);
        no_step_ran_again(world, &workflow)
            .await
            .with_context(|| format!("workflow {id}"))?;
        let first = &workflow.tasks[0].steps[0];
        ensure!(
            first.attempts.len() == 1,
            "the node held the first step all the time: {first:#?}"
        );
        workflows.push(workflow);
    }
    Ok(workflows)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_its_step_although_the_node_was_away_when_it_was_asked_for() -> Result<()> {
    Scenario::apart("network-cancel")
        .relayed()
        .run(async |world| {
            let script = "trap 'echo told to end; exit 0' TERM\necho ready\nwhile :; do sleep 0.1; done";

            // The node is dead when the order is given; its step goes on without it.
            let id = ready(world, script).await?;
            world.kill_node().await?;
            world.node_in_state(&["disconnected", "offline"]).await?;
            assert_eq!(world.api.cancel(&id, 5_000).await?.status, 202);
            world.start_node().await?;
            world.node_in_state(&["online", "busy"]).await?;
            told_to_end(world, &id).await?;

            // The node lives, but the order is lost on its way.
            let id = ready(world, script).await?;
            world.relay().swallow();
            assert_eq!(world.api.cancel(&id, 5_000).await?.status, 202);
            world.relay().swallowed(SOON).await?;
            world.relay().cut();
            told_to_end(world, &id).await
        })
        .await
}

/// Submits a step and waits until it has printed `ready`.
async fn ready(world: &World, script: &str) -> Result<String> {
    let id = world.api.submit(&steps(&[script]), json!({})).await?;
    printed(world, &id, "ready\n").await?;
    Ok(id)
}

/// Waits until this stands in the stored output of the first attempt of the first step.
async fn printed(world: &World, id: &str, text: &str) -> Result<()> {
    world.api.workflow_when(id, "a running step", SOON, begun).await?;
    wait::until(&format!("{text:?} in the output"), SOON, async || {
        let log = world.api.log(id, "work", "step-1", 1, "stdout").await?;
        Ok(log.contains(text).then_some(()))
    })
    .await
}

/// The step ends by the order, at once, and the workflow with it.
async fn told_to_end(world: &World, id: &str) -> Result<()> {
    let asked = Instant::now();
    let workflow = world.api.ended(id, AT_ONCE).await?;
    eprintln!("cancelled {:?} after the node was back", asked.elapsed());
    assert_eq!(workflow.state, "cancelled");
    one_attempt_each(&workflow)?;
    let log = world.api.log(id, "work", "step-1", 1, "stdout").await?;
    assert_eq!(log, "ready\ntold to end\n");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_with_its_inputs_until_the_server_is_back() -> Result<()> {
    /// The line breaks after so much: in the middle of the first input.
    const LET_THROUGH: u64 = 1 << 20;
    /// Longer than a node repeats one request on its own, shorter than a lease.
    const ABSENCE: Duration = Duration::from_secs(15);

    let producer = |name: &str| {
        json!({
            "run": format!("echo \"begin $GANTRY_ATTEMPT\"; mkdir {name}; head -c 3000000 /dev/urandom > {name}/data
        sha256sum {name}/data > {name}/SUM; echo \"end $GANTRY_ATTEMPT\""),
            "artifacts": [format!("{name}/*")],
        })
    };
    let consumer = json!({
        "needs": ["left", "right"],
        "inputs": [
            { "task": "left", "artifact": "left/*", "path": "in/" },
            { "task": "right", "artifact": "right/*", "path": "in/" },
        ],
        "run": "echo \"begin $GANTRY_ATTEMPT\"; cd in; sha256sum --check --quiet left/SUM right/SUM; echo \"end $GANTRY_ATTEMPT\"",
    });
    let tasks = json!({ "left": producer("left"), "right": producer("right"), "join": consumer });
    let definition = json!({ "name": "fan-in", "tasks": tasks }).to_string();
    Scenario::apart("network-inputs")
        .relayed()
        .run(async |world| {
            world.relay().swallow_after(LET_THROUGH);
            let id = world.api.submit(&definition, json!({})).await?;
            world.relay().swallowed(SOON).await?;
            let join = &world.api.workflow(&id).await?.tasks[2];
            assert_eq!(join.steps[0].attempts.len(), 1, "its inputs are under way: {join:#?}");

            world.kill_server().await?;
            world.relay().cut();
            // The absence itself.
            tokio::time::sleep(ABSENCE).await;
            world.restart_server().await?;
            let workflow = world.api.ended(&id, SOON).await?;
            assert_eq!(workflow.state, "completed", "{workflow:#?}");
            // One that failed would be among the attempts, and there is no `retry` that it could be counted against.
            no_step_ran_again(world, &workflow).await?;
            world.docker_events().all_destroyed(SOON).await?;
            every_container_served_once(&[workflow], &world.docker_events().all())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_share_one_slot_lose_no_attempt() -> Result<()> {
    const STEPS: usize = 6;
    Scenario::apart("network-one-slot")
        .slots(1)
        .run(async |world| {
            let script = "echo \"attempt $GANTRY_ATTEMPT\"";
            // The second one wants the slot whenever the first one is between two steps.
            let ids = [
                world.api.submit(&steps(&[script; STEPS]), json!({})).await?,
                world.api.submit(&steps(&[script; STEPS / 2]), json!({})).await?,
            ];
            for id in &ids {
                let workflow = world.api.ended(id, SOON).await?;
                assert_eq!(workflow.state, "completed", "{workflow:#?}");
                one_attempt_each(&workflow)?;
                for (task, step) in workflow.steps() {
                    let log = world.api.log(id, &task.name, &step.key, 1, "stdout").await?;
                    assert_eq!(log, "attempt 1\n", "{}", step.key);
                }
                let events = world.api.events(id).await?;
                let assigned = events.iter().filter(|event| event.kind == "step_assigned").count();
                assert_eq!(assigned, workflow.steps().count(), "assignments in the journal");
            }
            Ok(())
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_stored_is_one_workflows_trouble() -> Result<()> {
    /// Longer than a lease: whoever is not renewed meanwhile is lost.
    const LINES: u32 = 15;
    /// A disk that is full for some seconds need not be told of; one that stays so must be.
    const REASON: Duration = Duration::from_secs(60);
    Scenario::apart("network-storage")
        .lease(Duration::from_secs(10))
        .run(async |world| {
            let script = format!("echo ready; for i in $(seq {LINES}); do sleep 1; echo $i; done");
            let healthy = ready(world, &script).await?;
            let sick = world
                .api
                .submit(&steps(&["echo hear me; sleep 1; echo the end"]), json!({}))
                .await?;
            // Where the directory of its output would be made, once it prints.
            let obstacle = output_directory(world, &healthy)?.with_file_name(&sick);
            File::create_new(&obstacle).with_context(|| format!("it has already printed: {}", obstacle.display()))?;

            let decided = |workflow: &Workflow| workflow.ended() || workflow.attempts().count() > 1;
            let workflow = world
                .api
                .workflow_when(&healthy, "the healthy one's end", SOON, decided)
                .await?;
            one_attempt_each(&workflow)?;
            assert_eq!(workflow.state, "completed", "{workflow:#?}");
            let log = world.api.log(&healthy, "work", "step-1", 1, "stdout").await?;
            let expected: String = (1..=LINES).map(|i| format!("{i}\n")).collect();
            assert_eq!(log, format!("ready\n{expected}"));

            // The sick one says why, by its end, an attempt's end, or what it waits for.
            let says_why =
                |workflow: &Workflow| !workflow.codes().is_empty() || workflow.tasks[0].waiting_reason().is_some();
            let workflow = world
                .api
                .workflow_when(&sick, "a stated reason", REASON, says_why)
                .await?;
            eprintln!(
                "the sick workflow says {:?}, {:?}",
                workflow.codes(),
                workflow.tasks[0].waiting
            );
            // Mended, it ends, one way or the other.
            std::fs::remove_file(&obstacle)?;
            let workflow = world.api.ended(&sick, SOON).await?;
            if workflow.state == "completed" {
                let last = workflow
                    .attempts()
                    .last()
                    .context("a completed step has attempts")?
                    .attempt;
                let log = world.api.log(&sick, "work", "step-1", last, "stdout").await?;
                assert_eq!(log, "hear me\nthe end\n");
            }
            Ok(())
        })
        .await
}

/// Where the server stores the output of a workflow that has printed.
fn output_directory(world: &World, id: &str) -> Result<PathBuf> {
    let segments = world.root().join("data/segments");
    for tenant in std::fs::read_dir(&segments)? {
        let directory = tenant?.path().join(id);
        if directory.is_dir() {
            return Ok(directory);
        }
    }
    anyhow::bail!("no output of {id} below {}", segments.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_went_with_the_server_is_not_shown_as_there() -> Result<()> {
    Scenario::apart("network-gone")
        .run(async |world| {
            // In this order the server never sees the node go.
            world.kill_server().await?;
            world.kill_node().await?;
            world.restart_server().await?;
            world.node_in_state(&["disconnected", "offline"]).await?;
            world.start_node().await?;
            world.node_in_state(&["online", "busy"]).await?;
            Ok(())
        })
        .await
}
