//! The list of erasures: what must stay erased, whatever old backup is restored. It is kept outside of backups, and applied by every restore.
//!
//! One JSON object per line, `{"tenant": "ten_...", "workflow": "wf_...", "at_ms": ...}`; without `workflow` the whole tenant. Unknown fields are ignored.

use std::collections::BTreeSet;
use std::path::Path;

use gantry_proto::{TenantId, WorkflowId};
use serde::Deserialize;

/// What was erased.
#[derive(Debug, Default)]
pub(crate) struct Erasures {
    tenants: BTreeSet<TenantId>,
    workflows: BTreeSet<(TenantId, WorkflowId)>,
}

#[derive(Deserialize)]
struct Line {
    tenant: String,
    workflow: Option<String>,
}

impl Erasures {
    /// Reads a list. A line that cannot be read is no line to skip: it may be the one that matters.
    ///
    /// # Errors
    /// Which line, and what is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let mut list = Self::default();
        for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: String| format!("line {number}: {what}");
            let line: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            let tenant = line
                .tenant
                .parse()
                .map_err(|_| wrong(format!("`{}` is no tenant", line.tenant)))?;
            match line.workflow {
                None => {
                    list.tenants.insert(tenant);
                }
                Some(workflow) => {
                    let id = workflow
                        .parse()
                        .map_err(|_| wrong(format!("`{workflow}` is no workflow")))?;
                    list.workflows.insert((tenant, id));
                }
            }
        }
        Ok(list)
    }

    /// Whether the content of a workflow is erased.
    pub(crate) fn covers(&self, tenant: TenantId, workflow: WorkflowId) -> bool {
        self.tenants.contains(&tenant) || self.workflows.contains(&(tenant, workflow))
    }

    /// The same for a path `<tenant>/<workflow>/...`.
    pub(crate) fn covers_path(&self, path: &str) -> bool {
        let mut parts = path.split('/');
        let tenant = parts.next().and_then(|part| part.parse().ok());
        let workflow = parts.next().and_then(|part| part.parse().ok());
        match (tenant, workflow) {
            (Some(tenant), Some(workflow)) => self.covers(tenant, workflow),
            (Some(tenant), None) => self.tenants.contains(&tenant),
            _ => false,
        }
    }

    /// How many lines count.
    pub(crate) fn len(&self) -> usize {
        self.tenants.len() + self.workflows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_and_workflows_are_covered_and_a_bad_line_stops() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("erasures.jsonl");
        let (a, b) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let (x, y) = (WorkflowId::from_bytes([3; 16]), WorkflowId::from_bytes([4; 16]));
        let text = format!(
            "{{\"tenant\": \"{a}\", \"workflow\": \"{x}\", \"at_ms\": 5, \"later\": 1}}\n\n{{\"tenant\": \"{b}\"}}\n"
        );
        std::fs::write(&path, &text).unwrap();
        let list = Erasures::read(&path).unwrap();
        assert_eq!(list.len(), 2);
        assert!(list.covers(a, x) && !list.covers(a, y) && list.covers(b, y));
        assert!(list.covers_path(&format!("{a}/{x}/00000001.seg")) && list.covers_path(&format!("{b}/{y}/f")));
        assert!(!list.covers_path(&format!("{a}/{y}/f")) && !list.covers_path("rubbish"));

        std::fs::write(&path, text + "{\"tenant\": \"nobody\"}\n").unwrap();
        assert!(Erasures::read(&path).unwrap_err().starts_with("line 4"));
    }
}
