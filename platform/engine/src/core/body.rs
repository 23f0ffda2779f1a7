//! What users wrote, opened: the definition with its derived graph, parameters, and the results of completed steps. Kept beside the rows, because
//! folding never needs it; deciding does.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_proto::UploadId;
use gantry_proto::v1::{Artifact, Payload, UploadTaken};
use serde_json::{Map, Value};

use crate::spec::definition::{Definition, Requires, WorkspaceSourceDef};

/// Definition and parameters of a workflow, pinned at submission.
#[derive(Debug)]
pub struct Body {
    /// The compiled definition.
    pub definition: Definition,
    /// Parameters, defaults filled in.
    pub parameters: Map<String, Value>,
    /// Positions of needed tasks, per task.
    pub needs: Vec<Vec<usize>>,
    /// Tasks that hand their workspaces over form a group, which one node runs; by task the group's number.
    pub groups: Vec<Option<usize>>,
    /// The workflow's own copies of the uploads that it takes.
    pub uploads: BTreeMap<UploadId, Artifact>,
    /// Of one task of code: its input, JSON.
    pub input: Option<Bytes>,
}

/// What a completed step left.
#[derive(Debug, Default, PartialEq)]
pub struct StepResultBody {
    /// `$GANTRY_OUTPUT`.
    pub outputs: Map<String, Value>,
    /// Stored files.
    pub artifacts: Vec<Artifact>,
}

/// Input of a task that a person changed when deciding to try again.
#[derive(Debug, Default, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Changes {
    /// Environment of its steps; wins over the definition's.
    #[serde(default)]
    pub env: indexmap::IndexMap<String, String>,
    /// Values that win over the workflow's parameters, in this task only.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// What a node must offer, instead of what the definition says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<Requires>,
}

impl StepResultBody {
    /// What code returned: an object's members are outputs; anything else is the output `result`.
    #[must_use]
    pub fn of_code(payload: &Payload) -> Self {
        let json = payload.outputs_json.as_deref().unwrap_or(b"null");
        let outputs = match serde_json::from_slice(json).unwrap_or(Value::Null) {
            Value::Object(outputs) => outputs,
            Value::Null => Map::new(),
            other => Map::from_iter([("result".to_owned(), other)]),
        };
        Self {
            outputs,
            artifacts: Vec::new(),
        }
    }
}

impl Body {
    /// Derives the graph.
    #[must_use]
    pub fn new(definition: Definition, parameters: Map<String, Value>) -> Self {
        let position: BTreeMap<&str, usize> = definition
            .tasks
            .keys()
            .enumerate()
            .map(|(index, name)| (name.as_str(), index))
            .collect();
        let needs = definition
            .tasks
            .values()
            .map(|task| {
                if task.handles.is_some() {
                    // All others have ended by then.
                    let others = definition.tasks.values().enumerate();
                    return others
                        .filter(|(_, other)| other.handles.is_none())
                        .map(|(index, _)| index)
                        .collect();
                }
                task.needs
                    .iter()
                    .filter_map(|name| position.get(name.as_str()).copied())
                    .collect()
            })
            .collect();
        let groups = groups(&definition, &position);
        Self {
            definition,
            parameters,
            needs,
            groups,
            uploads: BTreeMap::new(),
            input: None,
        }
    }

    /// One task of code: `input` is JSON.
    #[must_use]
    pub fn code(component: &str, input: Bytes) -> Self {
        Self {
            input: Some(input),
            ..Self::new(Definition::code(component), Map::new())
        }
    }

    /// With the copies of the uploads that the workflow takes.
    #[must_use]
    pub fn with_uploads(mut self, taken: &[UploadTaken]) -> Self {
        let copies = taken.iter().map(|taken| (taken.upload, taken.artifact.clone()));
        self.uploads = copies.collect();
        self
    }

    /// Tasks that `task` needs, directly or not.
    #[must_use]
    pub fn ancestors(&self, task: usize) -> Vec<usize> {
        let mut found = vec![false; self.needs.len()];
        let mut todo = self.needs.get(task).cloned().unwrap_or_default();
        while let Some(next) = todo.pop() {
            if !std::mem::replace(&mut found[next], true) {
                todo.extend_from_slice(&self.needs[next]);
            }
        }
        found
            .iter()
            .enumerate()
            .filter_map(|(index, found)| found.then_some(index))
            .collect()
    }
}

/// Union of tasks along `from:`; a group is named by its least member.
fn groups(definition: &Definition, position: &BTreeMap<&str, usize>) -> Vec<Option<usize>> {
    let mut parent: Vec<usize> = (0..definition.tasks.len()).collect();
    let mut joined = vec![false; definition.tasks.len()];
    fn root(parent: &[usize], mut at: usize) -> usize {
        while parent[at] != at {
            at = parent[at];
        }
        at
    }
    for (index, task) in definition.tasks.values().enumerate() {
        for workspace in &task.workspace {
            let WorkspaceSourceDef::From(name) = &workspace.source else {
                continue;
            };
            let Some(&source) = position.get(name.as_str()) else {
                continue;
            };
            (joined[index], joined[source]) = (true, true);
            let (a, b) = (root(&parent, index), root(&parent, source));
            parent[a.max(b)] = a.min(b);
        }
    }
    (0..parent.len())
        .map(|index| joined[index].then(|| root(&parent, index)))
        .collect()
}
