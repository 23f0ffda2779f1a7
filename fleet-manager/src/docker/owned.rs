//! Which containers are ours. Labels are for discovery and for this guard; what a container is for stands in the node's claim files.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum};
use gantry_proto::{NodeId, SandboxId};

use super::Trouble;

/// What all of our labels begin with. An image may not carry such a label: its containers would look like ours.
pub(crate) const LABEL_PREFIX: &str = "io.gantry.";
const INSTALLATION: &str = "io.gantry.installation";
const NODE: &str = "io.gantry.node";
const SANDBOX: &str = "io.gantry.sandbox";
const PROFILE: &str = "io.gantry.profile";
const GENERATION: &str = "io.gantry.generation";

/// Name of a sandbox's container: found again without knowing Docker's id, and two tries at one sandbox collide.
pub(crate) fn container_name(sandbox: SandboxId) -> String {
    format!("gantry-{sandbox}")
}

/// What our containers are labelled with.
#[derive(Debug, Clone)]
pub(crate) struct Labels {
    pub(crate) installation: String,
    pub(crate) node: NodeId,
    pub(crate) sandbox: SandboxId,
    pub(crate) profile: String,
    pub(crate) generation: u64,
}

impl Labels {
    pub(crate) fn to_map(&self) -> HashMap<String, String> {
        HashMap::from([
            (INSTALLATION.to_owned(), self.installation.clone()),
            (NODE.to_owned(), self.node.to_string()),
            (SANDBOX.to_owned(), self.sandbox.to_string()),
            (PROFILE.to_owned(), self.profile.clone()),
            (GENERATION.to_owned(), self.generation.to_string()),
        ])
    }
}

/// A container that carried our labels when it was last looked at. Its fields are private and only this module makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    id: String,
    sandbox: SandboxId,
}

impl Owned {
    /// Docker's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn sandbox(&self) -> SandboxId {
        self.sandbox
    }
}

/// One of our containers in a list.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) owned: Owned,
    /// Running, paused or restarting: there are processes.
    pub(crate) live: bool,
}

pub(super) fn discovery_labels(installation: &str, node: NodeId) -> Vec<String> {
    vec![format!("{INSTALLATION}={installation}"), format!("{NODE}={node}")]
}

fn sandbox_of(labels: &HashMap<String, String>, installation: &str, node: NodeId) -> Option<SandboxId> {
    let is_ours = labels.get(INSTALLATION).is_some_and(|value| value == installation)
        && labels.get(NODE).is_some_and(|value| *value == node.to_string());
    if !is_ours {
        return None;
    }
    labels.get(SANDBOX)?.parse().ok()
}

/// Checks labels and name of an inspected container.
pub(super) fn verify(
    seen: &ContainerInspectResponse,
    sandbox: SandboxId,
    installation: &str,
    node: NodeId,
) -> Result<Owned, Trouble> {
    let name = container_name(sandbox);
    let labels = seen.config.as_ref().and_then(|config| config.labels.as_ref());
    let is_ours = labels.and_then(|labels| sandbox_of(labels, installation, node)) == Some(sandbox)
        && seen.name.as_deref().map(|name| name.trim_start_matches('/')) == Some(name.as_str());
    match &seen.id {
        Some(id) if is_ours => Ok(Owned {
            id: id.clone(),
            sandbox,
        }),
        _ => Err(Trouble::NotOurs(name)),
    }
}

/// Checks labels and name of a listed container: Docker has filtered already, and a label alone could come from an image.
pub(super) fn listed(summary: &ContainerSummary, installation: &str, node: NodeId) -> Option<Listed> {
    let sandbox = sandbox_of(summary.labels.as_ref()?, installation, node)?;
    let name = container_name(sandbox);
    let is_named = summary
        .names
        .iter()
        .flatten()
        .any(|other| other.trim_start_matches('/') == name);
    let id = summary.id.clone().filter(|_| is_named)?;
    let live = matches!(
        summary.state,
        Some(
            ContainerSummaryStateEnum::RUNNING
                | ContainerSummaryStateEnum::PAUSED
                | ContainerSummaryStateEnum::RESTARTING
        )
    );
    Some(Listed {
        owned: Owned { id, sandbox },
        live,
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerConfig;
    use gantry_proto::PartitionId;

    use super::*;

    fn labels(sandbox: SandboxId, node: NodeId) -> HashMap<String, String> {
        Labels {
            installation: "here".to_owned(),
            node,
            sandbox,
            profile: String::new(),
            generation: 1,
        }
        .to_map()
    }

    #[test]
    fn only_our_labels_with_our_name_are_ours() {
        let partition = PartitionId::new(0).unwrap();
        let (node, sandbox) = (NodeId::new(1, partition, 1), SandboxId::new(1, partition, 2));
        let seen = |labels: HashMap<String, String>, name: &str| ContainerInspectResponse {
            id: Some("cid".to_owned()),
            name: Some(format!("/{name}")),
            config: Some(ContainerConfig {
                labels: Some(labels),
                ..Default::default()
            }),
            ..Default::default()
        };
        let name = container_name(sandbox);
        assert!(verify(&seen(labels(sandbox, node), &name), sandbox, "here", node).is_ok());
        assert!(verify(&seen(labels(sandbox, node), &name), sandbox, "elsewhere", node).is_err());
        assert!(verify(&seen(labels(sandbox, node), "web"), sandbox, "here", node).is_err());
        assert!(verify(&seen(HashMap::new(), &name), sandbox, "here", node).is_err());
        let other = NodeId::new(1, partition, 9);
        assert!(verify(&seen(labels(sandbox, other), &name), sandbox, "here", node).is_err());
    }
}
