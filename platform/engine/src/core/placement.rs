//! Which node a ready task goes to, and why none when none.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self};
use gantry_proto::{NodeId, TenantId};

use super::apply::ApplyError;
use super::code;
use super::decide::Batching;
use super::plan;
use super::queue::{Class, Passed};
use super::state::{TaskRef, Workflow};
use crate::api::{Candidate, Serves, Work};
use crate::spec::definition::{Requires, TaskDef};

/// Classes of tasks that one batch finds no node for before it goes on without placing: bounds a batch when there are very many. The rest is looked at
/// again with the next credits.
const MISSES_MAX: usize = 4_096;

/// What a task asks of a node: as its definition says, or as a person decided.
#[derive(Debug, Clone, Copy)]
pub struct Wants<'a> {
    /// Its definition.
    pub definition: &'a TaskDef,
    /// What a node must offer.
    pub requires: &'a Requires,
    /// Nodes that may not run it.
    pub excluded: &'a [NodeId],
}

/// What a node lacks for a task, each in words; empty: it fits.
#[must_use]
pub fn missing(tenant: TenantId, wants: &Wants<'_>, candidate: &Candidate) -> Vec<String> {
    let task = wants.definition;
    let mut missing = Vec::new();
    if wants.excluded.contains(&candidate.node) {
        missing.push(format!("a node other than {}", candidate.node));
    }
    if candidate.serves != Serves::All && candidate.serves != Serves::Tenant(tenant) {
        missing.push("a node that serves this tenant".to_owned());
    }
    match (task.code(), &candidate.work) {
        (Some(code), Work::Code(components)) if !components.contains(&code.component) => {
            missing.push(format!("a worker with component `{}`", code.component));
        }
        (Some(code), Work::Sandboxes) => missing.push(format!("a worker with component `{}`", code.component)),
        (None, Work::Code(_)) => missing.push("a node that runs sandboxes".to_owned()),
        _ => {}
    }
    for capability in &wants.requires.capabilities {
        if !candidate.capabilities.contains(capability) {
            missing.push(format!("capability `{capability}`"));
        }
    }
    for (key, value) in &wants.requires.labels {
        if candidate.labels.get(key) != Some(value) {
            missing.push(format!("label `{key}={value}`"));
        }
    }
    if let Some(arch) = wants.requires.arch.as_ref().filter(|arch| **arch != candidate.arch) {
        missing.push(format!("architecture `{arch}`"));
    }
    let cpu = task
        .steps
        .iter()
        .map(|step| step.resources.cpu_millis)
        .max()
        .unwrap_or(0);
    if cpu > candidate.cpu_millis {
        missing.push(format!(
            "{cpu} thousandths of a core (the node has {})",
            candidate.cpu_millis
        ));
    }
    let memory = task
        .steps
        .iter()
        .map(|step| step.resources.memory_bytes)
        .max()
        .unwrap_or(0);
    if memory > candidate.memory_bytes {
        missing.push(format!(
            "{memory} bytes of memory (the node has {})",
            candidate.memory_bytes
        ));
    }
    missing
}

/// The node that a task must run on: where its workspace is, or where the tasks are that it shares a workspace with. `None`: any.
#[must_use]
pub fn bound_to(workflow: &Workflow, task: usize) -> Option<NodeId> {
    let row = &workflow.tasks.get(task)?.row;
    // Nobody is assigned to a node that its workspace would keep it from.
    row.assigned_to.or(row.home).or_else(|| bound_by_mates(workflow, task))
}

/// The node where tasks are that a task shares a workspace with.
#[must_use]
pub fn bound_by_mates(workflow: &Workflow, task: usize) -> Option<NodeId> {
    let group = (*workflow.body.as_ref()?.groups.get(workflow.origin(task))?)?;
    let groups = &workflow.body.as_ref()?.groups;
    let mates = || {
        workflow
            .tasks
            .iter()
            .zip(groups)
            .filter(|(_, g)| **g == Some(group))
            .map(|(task, _)| &task.row)
    };
    mates()
        .find_map(|mate| mate.home)
        .or_else(|| mates().find_map(|mate| mate.holder))
}

/// The best of `candidates` for a task: it fits, has credit, and has most credit left; equal ones by id.
fn choose(workflow: &Workflow, task: usize, candidates: &[Candidate]) -> Option<usize> {
    let wants = workflow.wants(task)?;
    let bound = bound_to(workflow, task);
    candidates
        .iter()
        .enumerate()
        .filter(|(_, candidate)| candidate.credits > 0 && bound.is_none_or(|node| node == candidate.node))
        .filter(|(_, candidate)| missing(workflow.row.tenant, &wants, candidate).is_empty())
        .max_by_key(|(_, candidate)| (candidate.credits, std::cmp::Reverse(candidate.node)))
        .map(|(index, _)| index)
}

/// Claims ready tasks with the credits at hand, in the order of the queue.
///
/// # Errors
/// A fault of ours; the state must be discarded.
pub fn place(batch: &mut Batching<'_>, candidates: &mut [Candidate]) -> Result<(), ApplyError> {
    let mut passed = Passed::default();
    let mut misses = 0;
    while misses < MISSES_MAX && candidates.iter().any(|candidate| candidate.credits > 0) {
        let Some((task, tenant, class)) = batch.state.ready.next(&passed) else {
            break;
        };
        let position = task.1 as usize;
        let Some(workflow) = batch.state.workflows.get(&task.0) else {
            batch.state.ready.remove(task);
            continue;
        };
        let bound = bound_to(workflow, position);
        if bound != class.bound()
            && let Some(wants) = workflow.wants(position)
        {
            let class = Class::of(&wants, bound);
            batch.state.ready.refile(task, class);
            misses += 1;
            continue;
        }
        let Some(chosen) = choose(workflow, position, candidates) else {
            batch.state.ready.pass_over(&mut passed, tenant, class);
            misses += 1;
            continue;
        };
        if batch.is_code(task) {
            match code::input(batch.state, task) {
                Err(fault) => batch.fail_unmade(task, fault)?,
                Ok(input) => {
                    let worker = candidates[chosen].node;
                    candidates[chosen].credits -= 1;
                    *batch.spent.entry(worker).or_default() += 1;
                    batch.claim_code(task, worker, input)?;
                }
            }
            continue;
        }
        match plan::build(batch.state, task) {
            Err(fault) => batch.fail_unplanned(task, fault)?,
            Ok(plan) => {
                let node = candidates[chosen].node;
                candidates[chosen].credits -= 1;
                *batch.spent.entry(node).or_default() += 1;
                claim(batch, task, node, plan)?;
            }
        }
    }
    Ok(())
}

fn claim(batch: &mut Batching<'_>, task: TaskRef, node: NodeId, plan: v1::Plan) -> Result<(), ApplyError> {
    let Some(row) = batch.state.task(task).map(|task| &task.row) else {
        return Ok(());
    };
    let event = v1::TaskClaimed {
        task: row.id,
        attempt: row.attempt + 1,
        fence: row.fence + 1,
        holder: node,
        lease_ms: batch.state.settings.lease_ms,
    };
    batch.record(task.0, Kind::TaskClaimed(event), None)?;
    batch.assign(task, plan)
}
