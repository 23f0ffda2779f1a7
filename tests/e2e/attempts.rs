//! Proof of what ran how often: from the journal, from markers in the stored output, from Docker.
//!
//! Steps that are looked at so print `begin N` first and `end N` last, N being `$GANTRY_ATTEMPT`, and nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result, bail, ensure};
use gantry_tests::docker::ContainerEvent;
use gantry_tests::views::Workflow;
use gantry_tests::world::World;

/// From the journal and from the stored output: one completed attempt for each step, the last one; those before it were lost; each process began once.
pub(crate) async fn no_step_ran_again(world: &World, workflow: &Workflow) -> Result<()> {
    for (task, step) in workflow.steps() {
        let (last, lost) = step.attempts.split_last().context("a completed step has attempts")?;
        ensure!(last.state == "completed", "the last attempt {last:?}");
        ensure!(
            lost.iter().all(|attempt| attempt.state == "lost"),
            "attempts of {}: {:#?}",
            step.key,
            step.attempts
        );
        for attempt in &step.attempts {
            let log = world
                .api
                .log(&workflow.id, &task.name, &step.key, attempt.attempt, "stdout")
                .await?;
            let expected = (
                format!("begin {}\n", attempt.attempt),
                format!("end {}\n", attempt.attempt),
            );
            let whole = format!("{}{}", expected.0, expected.1);
            if attempt.attempt == last.attempt {
                ensure!(log == whole, "the completed attempt printed {log:?}");
            } else {
                ensure!(whole.starts_with(&log), "a lost attempt printed {log:?}");
            }
        }
    }
    let mut completed = BTreeSet::new();
    for event in world.api.events(&workflow.id).await? {
        let step = (event.data["task"].to_string(), event.data["step"].to_string());
        match event.kind.as_str() {
            "step_assigned" => ensure!(
                !completed.contains(&step),
                "assigned again after its completion: {event:?}"
            ),
            "step_ended" if event.data["end"] == "completed" => {
                ensure!(completed.insert(step), "completed twice: {event:?}")
            }
            _ => {}
        }
    }
    ensure!(
        completed.len() == workflow.steps().count(),
        "journaled completions: {completed:?}"
    );
    Ok(())
}

/// From Docker: a sandbox is one container, a container is created once and removed once; from the API: a sandbox belongs to one attempt.
pub(crate) fn every_container_served_once(workflows: &[Workflow], events: &[ContainerEvent]) -> Result<()> {
    let mut attempts_of: HashMap<&str, usize> = HashMap::new();
    for attempt in workflows.iter().flat_map(Workflow::attempts) {
        if let Some(sandbox) = &attempt.sandbox {
            *attempts_of.entry(sandbox).or_default() += 1;
        }
    }
    if let Some(shared) = attempts_of.iter().find(|(_, attempts)| **attempts != 1) {
        bail!("sandbox {shared:?} served several attempts");
    }
    let mut containers: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut container_of: HashMap<&str, &str> = HashMap::new();
    for event in events {
        let seen = containers.entry(&event.actor.id).or_default();
        match event.action.as_str() {
            "create" => {
                seen.0 += 1;
                let sandbox = event.sandbox().context("a container without its sandbox's id")?;
                ensure!(
                    container_of.insert(sandbox, &event.actor.id).is_none(),
                    "sandbox {sandbox} had two containers"
                );
            }
            "destroy" => seen.1 += 1,
            _ => {}
        }
    }
    for (container, seen) in &containers {
        ensure!(
            *seen == (1, 1),
            "container {container} was created {} times and removed {} times",
            seen.0,
            seen.1
        );
    }
    let unknown: Vec<_> = attempts_of
        .keys()
        .filter(|sandbox| !container_of.contains_key(**sandbox))
        .collect();
    ensure!(unknown.is_empty(), "Docker never saw {unknown:?}");
    Ok(())
}
