//! A lease was not renewed in time. Only the partition's owner decides that, on its monotonic clock.

use gantry_proto::v1::LeaseEnd;

use super::{Outcome, Reply};
use crate::core::decide::{Batching, Inputs};
use crate::core::state::TaskRef;

/// A lease was not renewed in time.
#[derive(Debug, Clone, Copy)]
pub struct LeaseExpired {
    /// Whose.
    pub task: TaskRef,
    /// Which; a newer one is untouched.
    pub fence: u64,
}

impl LeaseExpired {
    pub(super) fn decide(self, batch: &mut Batching<'_>, _: Inputs) -> Outcome {
        let row = batch.state.task(self.task).map(|task| &task.row);
        if row.is_some_and(|row| row.holder.is_some() && row.fence == self.fence) {
            batch.lose(self.task, LeaseEnd::Expired, "its node did not renew the lease in time")?;
        }
        Ok(Ok(Reply::Done))
    }
}
