//! When leases expire, on the owner's monotonic clock. In memory only: whoever takes over starts every lease anew at full length.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::core::state::TaskRef;

/// Deadlines of live leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    deadlines: BTreeMap<TaskRef, (u64, Instant)>,
    order: BTreeSet<(Instant, TaskRef)>,
}

impl Leases {
    /// Starts or renews a lease.
    pub(super) fn set(&mut self, task: TaskRef, fence: u64, deadline: Instant) {
        self.remove(task);
        self.deadlines.insert(task, (fence, deadline));
        self.order.insert((deadline, task));
    }

    /// Forgets a lease.
    pub(super) fn remove(&mut self, task: TaskRef) {
        if let Some((_, deadline)) = self.deadlines.remove(&task) {
            self.order.remove(&(deadline, task));
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// Leases past their deadline.
    pub(super) fn expired(&self, now: Instant) -> Vec<(TaskRef, u64)> {
        let due = self.order.iter().take_while(|(deadline, _)| *deadline <= now);
        due.filter_map(|(_, task)| self.deadlines.get(task).map(|(fence, _)| (*task, *fence)))
            .collect()
    }

    /// Gives every lease its full length from `now`: time in which we could not listen does not count against holders.
    pub(super) fn restart(&mut self, now: Instant, length: Duration) {
        let deadline = now + length;
        self.order = self.deadlines.keys().map(|task| (deadline, *task)).collect();
        self.deadlines.values_mut().for_each(|(_, each)| *each = deadline);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }
}
