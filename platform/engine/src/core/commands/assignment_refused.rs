//! A node gave an assignment back unstarted.

use gantry_proto::NodeId;
use gantry_proto::v1::{Assignee, Fault};

use super::{Outcome, live, verdict};
use crate::api::Verdict;
use crate::core::decide::{Batching, Inputs};

/// A node gave an assignment back unstarted.
#[derive(Debug, Clone)]
pub struct AssignmentRefused {
    /// Who.
    pub node: NodeId,
    /// What.
    pub assignee: Assignee,
    /// Why.
    pub fault: Fault,
}

impl AssignmentRefused {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let Some(task) = live(batch.state, self.node, &self.assignee) else {
            return verdict(Verdict::Stale);
        };
        batch.give_back(task, &self.fault)?;
        verdict(Verdict::Accepted)
    }
}
