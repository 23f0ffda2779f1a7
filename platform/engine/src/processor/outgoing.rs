//! Letters of a partition that are durable and on their way, as its courier sees them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gantry_proto::PartitionId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::core::mail::Mail;

/// A letter: its number, and the position of its record.
pub(super) type Pending = (u64, u64);

/// What the courier of a partition has to deliver. The rows in the store are the truth; this only says where to look.
#[derive(Debug, Default)]
pub struct Outgoing {
    letters: Mutex<BTreeMap<PartitionId, VecDeque<Pending>>>,
    new: Notify,
    arrived: Notify,
}

impl Outgoing {
    /// The partition was recovered: what is open is sent again.
    pub(super) fn reset(&self, mail: &Mail) {
        let mut letters: BTreeMap<PartitionId, VecDeque<Pending>> = BTreeMap::new();
        for ((to, number), row) in &mail.open {
            letters.entry(*to).or_default().push_back((*number, row.seq));
        }
        *self.letters.lock() = letters;
        self.new.notify_one();
    }

    /// A batch with these letters became durable; in the order of their records.
    pub(super) fn add(&self, letters: Vec<(PartitionId, Pending)>) {
        if letters.is_empty() {
            return;
        }
        let mut open = self.letters.lock();
        for (to, letter) in letters {
            open.entry(to).or_default().push_back(letter);
        }
        drop(open);
        self.new.notify_one();
    }

    /// The oldest letters for each receiver that is not `busy`, at most `limit` each.
    pub(super) fn next(&self, busy: &BTreeSet<PartitionId>, limit: usize) -> Vec<(PartitionId, Vec<Pending>)> {
        let letters = self.letters.lock();
        let idle = letters.iter().filter(|(to, _)| !busy.contains(to));
        idle.map(|(to, queue)| (*to, queue.iter().take(limit).copied().collect()))
            .collect()
    }

    /// The receiver has everything up to a number.
    pub(super) fn arrived(&self, to: PartitionId, through: u64) {
        let mut letters = self.letters.lock();
        let Some(queue) = letters.get_mut(&to) else { return };
        while queue.front().is_some_and(|(number, _)| *number <= through) {
            queue.pop_front();
        }
        if queue.is_empty() {
            letters.remove(&to);
        }
        drop(letters);
        self.arrived.notify_waiters();
    }

    /// Waits until each receiver has everything up to a number. Cancel safe.
    pub(crate) async fn delivered(&self, sent: &[(PartitionId, u64)]) {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            // Whatever arrives from here on is noticed.
            arrived.as_mut().enable();
            let under_way = {
                let letters = self.letters.lock();
                let open = |(to, number): &(PartitionId, u64)| {
                    let first = letters.get(to).and_then(|queue| queue.front());
                    first.is_some_and(|(first, _)| first <= number)
                };
                sent.iter().any(open)
            };
            if !under_way {
                return;
            }
            arrived.await;
        }
    }

    /// Waits until there may be something new. Cancel safe.
    pub(super) async fn changed(&self) {
        self.new.notified().await;
    }
}
