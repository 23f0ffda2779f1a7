//! Which edges of which lifecycle were taken, and that none was taken that is not in its table.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gantry_engine::lifecycle::Lifecycle;
use gantry_engine::lifecycle::node::NodeState;
use gantry_engine::lifecycle::task::TaskState;
use gantry_engine::lifecycle::workflow::WorkflowState;
use gantry_proto::v1::event::Kind;

use crate::oracle::{Seen, Verdict};

/// Edges that no command of the engine takes yet, each with what it waits for. One that is taken must leave this list.
const UNBUILT: &[(&str, &str, &str, &str)] = &include!("unbuilt.in");

type Edge = (&'static str, &'static str, &'static str);

/// Edges taken, with how often.
#[derive(Debug, Default, Clone)]
pub(crate) struct Coverage {
    taken: BTreeMap<Edge, u64>,
    tasks: Vec<TaskState>,
    workflow: Option<WorkflowState>,
    node: Option<NodeState>,
}

fn node_of(kind: &Kind) -> Option<gantry_proto::NodeId> {
    match kind {
        Kind::NodeChanged(event) => Some(event.node),
        _ => None,
    }
}

impl Coverage {
    pub(crate) fn before(&mut self, seen: &Seen<'_>) {
        self.tasks.clear();
        let workflow = seen.place.workflow.and_then(|id| seen.state.workflows.get(&id));
        self.workflow = workflow.map(|workflow| workflow.row.state());
        self.tasks.extend(
            workflow
                .into_iter()
                .flat_map(|workflow| &workflow.tasks)
                .map(|task| task.row.state()),
        );
        self.node = node_of(seen.kind)
            .and_then(|node| seen.state.nodes.get(&node))
            .map(|row| row.state());
    }

    pub(crate) fn after(&mut self, seen: &Seen<'_>) -> Verdict {
        if let Some((before, node)) = self
            .node
            .zip(node_of(seen.kind).and_then(|node| seen.state.nodes.get(&node)))
        {
            self.edge(before, node.state(), true)?;
        }
        let Some(workflow) = seen.place.workflow.and_then(|id| seen.state.workflows.get(&id)) else {
            return Ok(());
        };
        if let Some(before) = self.workflow {
            self.edge(before, workflow.row.state(), false)?;
        }
        for (before, task) in std::mem::take(&mut self.tasks).into_iter().zip(&workflow.tasks) {
            self.edge(before, task.row.state(), false)?;
        }
        Ok(())
    }

    fn edge<L: Lifecycle>(&mut self, from: L, to: L, loops: bool) -> Verdict {
        if from == to && !loops {
            return Ok(());
        }
        if !L::EDGES.iter().any(|(a, _, b)| *a == from && *b == to) {
            return Err(format!(
                "a {} went from {} to {}",
                L::ENTITY,
                from.as_str(),
                to.as_str()
            ));
        }
        *self.taken.entry((L::ENTITY, from.as_str(), to.as_str())).or_default() += 1;
        Ok(())
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (edge, times) in &other.taken {
            *self.taken.entry(*edge).or_default() += times;
        }
    }

    /// Legal edges, without those that wait for later work.
    fn built() -> BTreeSet<Edge> {
        fn all<L: Lifecycle>() -> impl Iterator<Item = Edge> {
            L::EDGES
                .iter()
                .map(|(from, _, to)| (L::ENTITY, from.as_str(), to.as_str()))
        }
        let unbuilt = |edge: &Edge| {
            UNBUILT
                .iter()
                .any(|(entity, from, to, _)| *edge == (*entity, *from, *to))
        };
        all::<TaskState>()
            .chain(all::<WorkflowState>())
            .chain(all::<NodeState>())
            .filter(|edge| !unbuilt(edge))
            .collect()
    }

    /// Edges that should have been taken and were not.
    pub(crate) fn missing(&self) -> Vec<Edge> {
        Self::built()
            .into_iter()
            .filter(|edge| !self.taken.contains_key(edge))
            .collect()
    }

    /// Edges that were taken though the list says that nothing takes them.
    pub(crate) fn surprising(&self) -> Vec<Edge> {
        let built = Self::built();
        self.taken
            .keys()
            .filter(|edge| !built.contains(*edge))
            .copied()
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let built = Self::built();
        let mut entity = "";
        for (edge, times) in &self.taken {
            if edge.0 != entity {
                entity = edge.0;
                let of = built.iter().filter(|each| each.0 == entity).count();
                let taken = self.taken.keys().filter(|each| each.0 == entity).count();
                let later = UNBUILT.iter().filter(|each| each.0 == entity).count();
                writeln!(
                    f,
                    "edges of {entity}: {taken} of {of} taken, {later} wait for later work"
                )?;
            }
            writeln!(f, "  {:<28} {times}", format!("{} -> {}", edge.1, edge.2))?;
        }
        for (entity, from, to, why) in UNBUILT {
            writeln!(f, "  not built: {entity} {from} -> {to}: {why}")?;
        }
        Ok(())
    }
}
