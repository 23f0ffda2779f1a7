//! Credits: what connected nodes would take now, what is lent to a partition, what is spent but not yet sent.

use std::collections::{BTreeMap, BTreeSet};

use gantry_engine::api::Candidate;
use gantry_proto::{NodeId, PartitionId};

/// Credits of all connected nodes.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    nodes: BTreeMap<NodeId, Account>,
    /// Partitions that found credits lent to others: woken as soon as any come back.
    behind_loans: BTreeSet<PartitionId>,
    /// Partitions that may have ready work left: woken when a node offers more.
    hungry: BTreeSet<PartitionId>,
    /// Counts what nodes have offered, so that an offer made during a loan is not missed by the borrower.
    offers: u64,
    /// The count when a partition's loan began.
    lent_at: BTreeMap<PartitionId, u64>,
}

#[derive(Debug)]
struct Account {
    /// What the node is and offers; `credits` is 0 here and filled in for a loan.
    offer: Candidate,
    /// As the node last said.
    slots: u32,
    /// Assignments that the node had received when it said so.
    seen: u64,
    /// Assignments sent in this session.
    sent: u64,
    /// On loan, by partition.
    lent: BTreeMap<PartitionId, u32>,
    /// Spent in a batch that is not durable yet, by partition.
    pending: BTreeMap<PartitionId, u32>,
}

impl Account {
    fn free(&self) -> u32 {
        let flying = u32::try_from(self.sent.saturating_sub(self.seen)).unwrap_or(u32::MAX);
        let taken: u32 = self.lent.values().chain(self.pending.values()).sum();
        self.slots.saturating_sub(flying).saturating_sub(taken)
    }
}

impl Ledger {
    /// A node registered: no credits until it gives some.
    pub(crate) fn connect(&mut self, offer: Candidate) {
        let account = Account {
            slots: 0,
            seen: 0,
            sent: 0,
            lent: BTreeMap::new(),
            pending: BTreeMap::new(),
            offer: Candidate { credits: 0, ..offer },
        };
        self.nodes.insert(account.offer.node, account);
    }

    /// A node's session ended: its credits are void.
    pub(crate) fn disconnect(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }

    /// The node says what it would take. Returns the partitions to wake.
    pub(crate) fn credit(&mut self, node: NodeId, slots: u32, seen: u64) -> Vec<PartitionId> {
        let Some(account) = self.nodes.get_mut(&node) else {
            return Vec::new();
        };
        account.slots = slots;
        account.seen = seen.min(account.sent);
        self.offers += 1;
        self.wake_all()
    }

    pub(crate) fn lend(&mut self, partition: PartitionId) -> Vec<Candidate> {
        self.lent_at.insert(partition, self.offers);
        let mut lent = Vec::new();
        let mut others_hold_some = false;
        for account in self.nodes.values_mut() {
            others_hold_some |= account.lent.keys().any(|holder| *holder != partition);
            let free = account.free();
            if free > 0 {
                *account.lent.entry(partition).or_default() += free;
                lent.push(Candidate {
                    credits: free,
                    ..account.offer.clone()
                });
            }
        }
        if others_hold_some {
            self.behind_loans.insert(partition);
        }
        if lent.is_empty() {
            self.hungry.insert(partition);
        }
        lent
    }

    pub(crate) fn settle(
        &mut self,
        partition: PartitionId,
        lent: &[Candidate],
        spent: &BTreeMap<NodeId, u32>,
    ) -> Vec<PartitionId> {
        for candidate in lent {
            // The node may have reconnected in between: its new account knows nothing of this loan.
            let Some(account) = self.nodes.get_mut(&candidate.node) else {
                continue;
            };
            if account.lent.remove(&partition).is_none() {
                continue;
            }
            let used = spent.get(&candidate.node).copied().unwrap_or(0).min(candidate.credits);
            if used > 0 {
                *account.pending.entry(partition).or_default() += used;
            }
        }
        // It asked because work was ready, and may have some left.
        let offered_since = self
            .lent_at
            .remove(&partition)
            .is_some_and(|count| count != self.offers);
        self.behind_loans.remove(&partition);
        if !self.any_free() {
            self.hungry.insert(partition);
            return Vec::new();
        }
        let mut woken = std::mem::take(&mut self.behind_loans);
        if offered_since {
            woken.insert(partition);
        } else {
            self.hungry.insert(partition);
        }
        woken.into_iter().collect()
    }

    /// The partition's batch will never be dispatched.
    pub(crate) fn abandon(&mut self, partition: PartitionId) -> Vec<PartitionId> {
        for account in self.nodes.values_mut() {
            account.pending.remove(&partition);
            account.lent.remove(&partition);
        }
        self.wake_all()
    }

    /// An assignment of this partition goes out to the node.
    pub(crate) fn sent(&mut self, partition: PartitionId, node: NodeId) {
        let Some(account) = self.nodes.get_mut(&node) else {
            return;
        };
        account.sent += 1;
        if let Some(pending) = account.pending.get_mut(&partition) {
            *pending -= 1;
            if *pending == 0 {
                account.pending.remove(&partition);
            }
        }
    }

    /// An assignment that counts as sent will not reach the node after all.
    pub(crate) fn unsent(&mut self, node: NodeId) {
        if let Some(account) = self.nodes.get_mut(&node) {
            account.sent = account.sent.saturating_sub(1);
        }
    }

    /// What connected nodes offer, free or not.
    pub(crate) fn offers(&self) -> Vec<Candidate> {
        self.nodes
            .values()
            .map(|account| Candidate {
                credits: account.free(),
                ..account.offer.clone()
            })
            .collect()
    }

    fn any_free(&self) -> bool {
        self.nodes.values().any(|account| account.free() > 0)
    }

    fn wake_all(&mut self) -> Vec<PartitionId> {
        if !self.any_free() {
            return Vec::new();
        }
        let mut woken = std::mem::take(&mut self.hungry);
        woken.append(&mut self.behind_loans);
        woken.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use gantry_engine::api::Serves;

    use super::*;

    fn node(n: u64) -> NodeId {
        NodeId::new(1, partition(0), n)
    }

    fn partition(index: u16) -> PartitionId {
        PartitionId::new(index).unwrap()
    }

    fn offer(n: u64) -> Candidate {
        Candidate {
            node: node(n),
            serves: Serves::All,
            work: gantry_engine::api::Work::Sandboxes,
            credits: 0,
            capabilities: BTreeSet::new(),
            labels: BTreeMap::new(),
            arch: "x86_64".to_owned(),
            cpu_millis: 2_000,
            memory_bytes: 1 << 30,
        }
    }

    fn spent(pairs: &[(u64, u32)]) -> BTreeMap<NodeId, u32> {
        pairs.iter().map(|(n, count)| (node(*n), *count)).collect()
    }

    fn credits(lent: &[Candidate]) -> u32 {
        lent.iter().map(|candidate| candidate.credits).sum()
    }

    #[test]
    fn a_credit_is_lent_to_one_partition_at_a_time() {
        let mut ledger = Ledger::default();
        ledger.connect(offer(1));
        ledger.credit(node(1), 3, 0);
        let first = ledger.lend(partition(0));
        assert_eq!(credits(&first), 3);
        assert!(ledger.lend(partition(1)).is_empty());
        let woken = ledger.settle(partition(0), &first, &spent(&[(1, 1)]));
        assert_eq!(
            woken,
            [partition(1)],
            "what was behind the loan is woken when some come back"
        );
        assert_eq!(credits(&ledger.lend(partition(1))), 2);
    }

    #[test]
    fn spent_credits_stay_taken_until_the_node_counts_them_itself() {
        let mut ledger = Ledger::default();
        ledger.connect(offer(1));
        ledger.credit(node(1), 2, 0);
        let lent = ledger.lend(partition(0));
        ledger.settle(partition(0), &lent, &spent(&[(1, 2)]));
        assert!(ledger.lend(partition(1)).is_empty(), "spent, not yet sent");
        ledger.sent(partition(0), node(1));
        ledger.sent(partition(0), node(1));
        ledger.credit(node(1), 2, 0);
        assert!(
            ledger.lend(partition(1)).is_empty(),
            "in flight: the node's word is older than what was sent"
        );
        ledger.credit(node(1), 1, 1);
        assert!(
            ledger.lend(partition(1)).is_empty(),
            "one received and held, one in flight"
        );
        assert_eq!(ledger.credit(node(1), 1, 2), [partition(0), partition(1)]);
        assert_eq!(credits(&ledger.lend(partition(1))), 1);
    }

    #[test]
    fn two_partitions_that_cannot_place_do_not_wake_each_other_for_ever() {
        let mut ledger = Ledger::default();
        ledger.connect(offer(1));
        ledger.credit(node(1), 1, 0);
        let first = ledger.lend(partition(0));
        assert!(ledger.lend(partition(1)).is_empty());
        assert_eq!(ledger.settle(partition(0), &first, &spent(&[])), [partition(1)]);
        let second = ledger.lend(partition(1));
        assert!(ledger.settle(partition(1), &second, &spent(&[])).is_empty());
        assert_eq!(
            ledger.credit(node(1), 2, 0),
            [partition(0), partition(1)],
            "more credits wake both"
        );
    }

    #[test]
    fn an_offer_during_a_loan_is_not_missed_by_the_borrower() {
        let mut ledger = Ledger::default();
        ledger.connect(offer(1));
        ledger.connect(offer(2));
        ledger.credit(node(1), 1, 0);
        let lent = ledger.lend(partition(0));
        assert!(ledger.credit(node(2), 1, 0).is_empty(), "nobody is known to wait yet");
        assert_eq!(ledger.settle(partition(0), &lent, &spent(&[])), [partition(0)]);
    }

    #[test]
    fn an_abandoned_batch_frees_its_credits() {
        let mut ledger = Ledger::default();
        ledger.connect(offer(1));
        ledger.credit(node(1), 1, 0);
        let lent = ledger.lend(partition(0));
        ledger.settle(partition(0), &lent, &spent(&[(1, 1)]));
        assert_eq!(ledger.abandon(partition(0)), [partition(0)]);
        assert_eq!(credits(&ledger.lend(partition(0))), 1);
    }

    #[test]
    fn a_loan_from_before_a_reconnection_is_not_counted_twice() {
        let mut ledger = Ledger::default();
        ledger.connect(offer(1));
        ledger.credit(node(1), 1, 0);
        let lent = ledger.lend(partition(0));
        ledger.disconnect(node(1));
        ledger.connect(offer(1));
        ledger.credit(node(1), 1, 0);
        ledger.settle(partition(0), &lent, &spent(&[(1, 1)]));
        assert_eq!(credits(&ledger.lend(partition(1))), 1);
    }
}
