//! `kill -9` of daemon, node, supervisor and container at seeded moments. Whatever dies, every workflow completes, no completed step runs again, and
//! nothing is left.
//!
//! `GANTRY_CRASH_SEED` repeats a run, `GANTRY_CRASH_KILLS` sets the number of moments.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gantry_tests::api::accepted;
use gantry_tests::docker;
use gantry_tests::seed::Seed;
use gantry_tests::views::Workflow;
use gantry_tests::world::{Scenario, World};
use serde_json::json;

use crate::SOON;
use crate::attempts::{every_container_served_once, no_step_ran_again};

const KILLS: usize = 40;
const RUNNING_AT_LEAST: usize = 15;
/// A container may end by itself before its killer comes; then the moment is tried again.
const TRIES_MAX: u32 = 3;

/// Who dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Daemon,
    Node,
    /// PID 1 of the sandbox, from outside.
    Supervisor,
    /// The container, through Docker.
    Container,
}

/// What goes on at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// The submission is being committed.
    Commit,
    /// The node has the task and builds its workspace.
    Clone,
    /// The container has just started.
    Start,
    /// The step's process runs.
    Running,
    /// The container is dead, artifacts are captured, the layer is sealed, the result is committed.
    Capture,
    /// The first container is being removed, and the next step begins.
    Removal,
}

#[derive(Debug, Clone, Copy)]
struct Kill {
    victim: Victim,
    moment: Moment,
    /// After the moment was seen; spreads the kills over all of it.
    after: Duration,
}

/// All kills of a run: half of them while a step runs, shared by the four victims.
fn plan(seed: &mut Seed, count: usize) -> Vec<Kill> {
    use Moment::{Capture, Clone, Commit, Removal, Running, Start};
    use Victim::{Container, Daemon, Node, Supervisor};
    let cycle = [
        (Daemon, Running),
        (Node, Clone),
        (Supervisor, Running),
        (Daemon, Commit),
        (Container, Running),
        (Node, Capture),
        (Node, Running),
        (Daemon, Clone),
        (Daemon, Running),
        (Supervisor, Start),
        (Node, Running),
        (Daemon, Capture),
        (Supervisor, Running),
        (Node, Removal),
        (Container, Running),
        (Node, Start),
        (Container, Start),
        (Daemon, Removal),
        (Node, Running),
        (Daemon, Start),
    ];
    let mut kills: Vec<Kill> = cycle
        .iter()
        .cycle()
        .take(count)
        .map(|&(victim, moment)| {
            let spread = if moment == Running {
                Duration::from_millis(700)
            } else {
                Duration::from_millis(150)
            };
            Kill {
                victim,
                moment,
                after: seed.duration_below(spread),
            }
        })
        .collect();
    seed.shuffle(&mut kills);
    kills
}

/// Each attempt prints that it began and ended. The second step checks the tree that the first one left, corrupts it at once, and stays in that
/// condition until it ends: whoever kills it there leaves a corrupt tree for the next attempt, if layers are not what they should be.
fn definition(tree: &std::path::Path) -> String {
    format!(
        r#"
name: crash
tasks:
  work:
    workspace: {{ path: {tree} }}
    steps:
      - key: first
        run: |
          echo "begin $GANTRY_ATTEMPT"
          sha256sum --check --quiet MANIFEST
          test ! -e made
          echo "$GANTRY_IDEMPOTENCY_KEY" > made
          head -c 2000000 /dev/urandom > data.bin
          sleep 1
          echo "end $GANTRY_ATTEMPT"
        artifacts: [data.bin]
      - key: second
        run: |
          echo "begin $GANTRY_ATTEMPT"
          sha256sum --check --quiet MANIFEST
          test -s made && test ! -e junk
          rm -rf files && echo corrupted > made && echo junk > junk
          sleep 1
          echo "end $GANTRY_ATTEMPT"
"#,
        tree = tree.display()
    )
}

/// A tree that takes a moment to copy, with the sums of its files.
fn plant_tree(tree: &std::path::Path) -> Result<()> {
    use sha2::{Digest, Sha256};
    let mut manifest = String::new();
    for directory in 0..20 {
        let parent = tree.join(format!("files/{directory}"));
        std::fs::create_dir_all(&parent)?;
        for file in 0..50 {
            let content = format!("{directory} {file}\n").repeat(200);
            std::fs::write(parent.join(file.to_string()), &content)?;
            manifest += &format!("{}  files/{directory}/{file}\n", hex::encode(Sha256::digest(&content)));
        }
    }
    std::fs::write(tree.join("MANIFEST"), manifest)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_workflow_completes_whoever_is_killed_and_whenever() -> Result<()> {
    let mut seed = Seed::from_env("GANTRY_CRASH_SEED", 20);
    let count = std::env::var("GANTRY_CRASH_KILLS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(KILLS);
    let kills = plan(&mut seed, count);
    let running = kills.iter().filter(|kill| kill.moment == Moment::Running).count();
    assert!(
        count < KILLS || running >= RUNNING_AT_LEAST,
        "{running} kills while a step runs"
    );

    Scenario::apart("crash")
        .run(async |world| {
            let tree = world.sources().join("tree");
            plant_tree(&tree)?;
            let definition = definition(&tree);
            let mut workflows = Vec::new();
            for (number, kill) in kills.iter().enumerate() {
                for attempt in 1..=TRIES_MAX {
                    let key = format!("kill-{number}-{attempt}");
                    let (id, hit) = round(world, &definition, &key, *kill)
                        .await
                        .with_context(|| format!("kill {number}: {kill:?}"))?;
                    workflows.push(world.api.workflow(&id).await?);
                    if hit {
                        break;
                    }
                    ensure!(attempt < TRIES_MAX, "kill {number} always came too late: {kill:?}");
                }
            }
            for workflow in &workflows {
                no_step_ran_again(world, workflow)
                    .await
                    .with_context(|| format!("workflow {}", workflow.id))?;
            }
            world.docker_events().all_destroyed(SOON).await?;
            every_container_served_once(&workflows, &world.docker_events().all())
        })
        .await
}

/// One workflow, one kill, and its end: its id, and whether the victim still lived.
async fn round(world: &World, definition: &str, key: &str, kill: Kill) -> Result<(String, bool)> {
    let mark = world.docker_events().mark();
    let submit = async || accepted(&world.api.try_submit(definition, json!({}), Some(key)).await?);

    let (id, hit) = if kill.moment == Moment::Commit {
        // The answer may be lost with the daemon: the key makes it safe to ask again.
        let (first, killed) = tokio::join!(submit(), strike(world, kill, None));
        let hit = killed?;
        match first {
            Ok(id) => {
                ensure!(submit().await? == id, "an acknowledged submission was forgotten");
                (id, hit)
            }
            Err(_) => (submit().await?, hit),
        }
    } else {
        let id = submit().await?;
        let container = moment(world, &id, mark, kill.moment).await?;
        let hit = strike(world, kill, container.as_deref()).await?;
        (id, hit)
    };
    let workflow = world.api.ended(&id, SOON).await?;
    if workflow.state != "completed" {
        bail!("the workflow {} instead of completing: {workflow:#?}", workflow.state);
    }
    Ok((id, hit))
}

/// Waits until the moment is there; the container that it is about.
async fn moment(world: &World, id: &str, mark: usize, moment: Moment) -> Result<Option<String>> {
    let events = world.docker_events();
    let seen =
        async |action: &str| -> Result<Option<String>> { Ok(Some(events.next(action, mark, SOON).await?.actor.id)) };
    match moment {
        Moment::Commit => Ok(None),
        Moment::Clone => {
            let assigned = |workflow: &Workflow| workflow.attempts().next().is_some();
            world
                .api
                .workflow_when(id, "an assigned step", SOON, assigned)
                .await
                .map(|_| None)
        }
        Moment::Start => seen("start").await,
        Moment::Running => {
            let container = seen("start").await?;
            let running = |workflow: &Workflow| workflow.attempts().any(|attempt| attempt.state == "running");
            world.api.workflow_when(id, "a running step", SOON, running).await?;
            Ok(container)
        }
        Moment::Capture => seen("die").await,
        Moment::Removal => seen("destroy").await,
    }
}

/// Kills the victim, and starts again what is ours to start. False: a container had ended by itself before.
async fn strike(world: &World, kill: Kill, container: Option<&str>) -> Result<bool> {
    // Not a wait for something to be done: the random part of the moment.
    tokio::time::sleep(kill.after).await;
    match kill.victim {
        Victim::Daemon => {
            world.kill_server().await?;
            world.restart_server().await?;
        }
        Victim::Node => {
            world.kill_node().await?;
            world.start_node().await?;
        }
        Victim::Supervisor | Victim::Container => {
            let container = container.context("this moment has a container")?;
            let killed = match kill.victim {
                Victim::Supervisor => docker::kill_supervisor(container).await,
                _ => docker::kill_container(container).await,
            };
            if let Err(error) = killed {
                eprintln!("too late, trying again: {kill:?}: {error:#}");
                return Ok(false);
            }
        }
    }
    Ok(true)
}
