//! A node lost what it held.

use gantry_proto::NodeId;
use gantry_proto::v1::{Assignee, LeaseEnd};

use super::{Outcome, live, verdict};
use crate::api::Verdict;
use crate::core::decide::{Batching, Inputs};

/// A node lost what it held: the sandbox died with its supervisor.
#[derive(Debug, Clone)]
pub struct Dropped {
    /// Who.
    pub node: NodeId,
    /// What.
    pub assignee: Assignee,
    /// Why, where it is not the sandbox.
    pub why: Option<String>,
}

impl Dropped {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let Some(task) = live(batch.state, self.node, &self.assignee) else {
            return verdict(Verdict::Stale);
        };
        let why = self.why.as_deref().unwrap_or("the node lost its sandbox");
        batch.lose(task, LeaseEnd::Lost, why)?;
        verdict(Verdict::Accepted)
    }
}
