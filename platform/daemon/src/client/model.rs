//! What the command line reads of the API's answers: only the fields that it shows. Unknown ones are ignored, so that an older client can talk to a newer
//! daemon; with `-o json` the answer is passed on as it came.

use serde::Deserialize;
use serde_json::Value;

/// An error answer (RFC 9457).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) title: String,
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) detail: String,
    pub(crate) hint: Option<String>,
    pub(crate) issues: Vec<Issue>,
    pub(crate) request_id: Option<String>,
}

/// One place that is wrong.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Issue {
    pub(crate) message: String,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    pub(crate) path: Option<String>,
}

impl Problem {
    pub(crate) fn bare(status: u16, text: String) -> Self {
        Self {
            status,
            title: format!("the server answered {status}"),
            detail: text,
            ..Self::default()
        }
    }

    pub(crate) fn in_words(&self) -> String {
        let mut text = if self.detail.is_empty() {
            self.title.clone()
        } else {
            self.detail.clone()
        };
        for issue in &self.issues {
            text.push_str("\n  ");
            match (issue.line, issue.column) {
                (Some(line), Some(column)) => text.push_str(&format!("line {line}, column {column}: ")),
                (Some(line), None) => text.push_str(&format!("line {line}: ")),
                _ => {
                    if let Some(path) = &issue.path {
                        text.push_str(&format!("{path}: "));
                    }
                }
            }
            text.push_str(&issue.message);
        }
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        if !self.code.is_empty() {
            text.push_str(&format!("\ncode: {}", self.code));
        }
        if self.code == "internal"
            && let Some(id) = &self.request_id
        {
            text.push_str(&format!(" (request {id})"));
        }
        text
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Submitted {
    pub(crate) id: String,
    pub(crate) replayed: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    #[serde(default)]
    pub(crate) next_cursor: Option<String>,
    #[serde(default)]
    pub(crate) searched_to_ms: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Failure {
    pub(crate) code: String,
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) hint: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Summary {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) created_at_ms: u64,
    #[serde(default)]
    pub(crate) ended_at_ms: Option<u64>,
    pub(crate) tasks_total: u32,
    pub(crate) tasks_ended: u32,
    #[serde(default)]
    pub(crate) lineage: Option<Lineage>,
    #[serde(default)]
    pub(crate) failure: Option<Failure>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Workflow {
    #[serde(flatten)]
    pub(crate) summary: Summary,
    #[serde(default)]
    pub(crate) outputs: Value,
    #[serde(default)]
    pub(crate) ending: Option<Ending>,
    pub(crate) tasks: Vec<Task>,
}

/// The decided end of a workflow that has not ended.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Ending {
    pub(crate) state: String,
    pub(crate) failure: Failure,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) waiting: Option<Value>,
    #[serde(default)]
    pub(crate) outcome: Option<String>,
    #[serde(default)]
    pub(crate) started_at_ms: Option<u64>,
    #[serde(default)]
    pub(crate) ended_at_ms: Option<u64>,
    #[serde(default)]
    pub(crate) failure: Option<Failure>,
    #[serde(default)]
    pub(crate) child: Option<String>,
    #[serde(default)]
    pub(crate) items: Option<Items>,
    pub(crate) steps: Vec<Step>,
}

/// Where a workflow comes from.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Lineage {
    pub(crate) parent: String,
    pub(crate) depth: u32,
}

/// How far the items of a task are.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Items {
    pub(crate) total: u32,
    pub(crate) completed: u32,
    pub(crate) failed: u32,
    pub(crate) open: u32,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Step {
    pub(crate) key: String,
    pub(crate) state: String,
    pub(crate) attempts: Vec<Attempt>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) attempt: u32,
    pub(crate) state: String,
    pub(crate) assigned_at_ms: u64,
    #[serde(default)]
    pub(crate) started_at_ms: Option<u64>,
    #[serde(default)]
    pub(crate) finished_at_ms: Option<u64>,
    #[serde(default)]
    pub(crate) failure: Option<Failure>,
    #[serde(default)]
    pub(crate) progress: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Artifact {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) task: String,
    pub(crate) step: String,
    pub(crate) size_bytes: u64,
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) expires_at_ms: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) fault: Option<Failure>,
    pub(crate) slots: u32,
    pub(crate) running: u32,
    pub(crate) version: String,
    pub(crate) labels: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) scope: Option<String>,
    #[serde(default)]
    pub(crate) created_at_ms: Option<u64>,
    #[serde(default)]
    pub(crate) last_used_at_ms: Option<u64>,
    #[serde(default)]
    pub(crate) expires_at_ms: Option<u64>,
    #[serde(default)]
    pub(crate) revoked_at_ms: Option<u64>,
}
