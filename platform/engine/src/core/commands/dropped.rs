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
}

impl Dropped {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let Some(task) = live(batch.state, self.node, &self.assignee) else {
            return verdict(Verdict::Stale);
        };
        batch.lose(task, LeaseEnd::Lost, "the node lost its sandbox")?;
        verdict(Verdict::Accepted)
    }
}
