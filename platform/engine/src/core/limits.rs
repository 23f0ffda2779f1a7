//! Limited keys that a partition owns: concurrency keys, which so many may hold at once, and rates, of which so many may start in a period. All of it is a
//! fold over the log.
//!
//! Who wants to start under a key asks its owner by a letter, and starts when the owner's letter comes. Those that wait go by rank, like ready tasks
//! ([`super::queue::rank`]): each is judged by the number that it brings itself, and who is first lets nobody pass, so that nobody waits for ever.
//!
//! A rate is a theoretical arrival time (GCRA): a start moves it on by period over number, and there is room while it is ahead of now by less than the burst.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::v1::{LimitPolicy, LimitTerms};
use gantry_proto::{TaskId, TenantId, WorkflowId, limits};

use super::queue::rank;

/// A key of a tenant: its hash.
pub type LimitRef = (TenantId, [u8; 16]);

/// Who asks: a task, or with the nil id the workflow as a whole.
pub type Claimant = (WorkflowId, TaskId);

/// The hash that a key is known by. A concurrency key and a rate of the same name are two.
#[must_use]
pub fn key_hash(is_rate: bool, text: &str) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(if is_rate { b"rate" } else { b"hold" });
    hasher.update(text.as_bytes());
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// Somebody who waits for a key, or holds it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ClaimRow {
    /// Position of the record that asked.
    #[prost(uint64, required, tag = "1")]
    pub seq: u64,
    /// When.
    #[prost(uint64, required, tag = "2")]
    pub asked_at_ms: u64,
    /// Of its workflow.
    #[prost(uint32, optional, tag = "3")]
    pub priority: Option<u32>,
    /// How much it lets the key be used.
    #[prost(message, required, tag = "4")]
    pub terms: LimitTerms,
    /// Since when it holds; absent: it waits.
    #[prost(uint64, optional, tag = "5")]
    pub taken_at_ms: Option<u64>,
    /// It was asked to end, for one that is newer.
    #[prost(bool, required, tag = "6")]
    pub evicted: bool,
    /// When it was asked whether it still holds.
    #[prost(uint64, optional, tag = "7")]
    pub probed_at_ms: Option<u64>,
}

impl ClaimRow {
    fn rank(&self) -> (u64, u64) {
        let priority = self.priority.unwrap_or(limits::PRIORITY_DEFAULT);
        (rank(self.asked_at_ms, priority), self.seq)
    }

    /// When it was last known to hold; `None`: it waits.
    fn known_ms(&self) -> Option<u64> {
        self.taken_at_ms.map(|taken| self.probed_at_ms.unwrap_or(taken))
    }
}

/// How much of a rate is used up.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct RateRow {
    /// Theoretical arrival time of the next start.
    #[prost(uint64, required, tag = "1")]
    pub arrival_us: u64,
}

/// When a rate with these terms lets one more start, and the arrival time that is then the next: from `arrival_us`, at `now_ms`.
#[must_use]
pub fn next_start(terms: &LimitTerms, arrival_us: u64, now_ms: u64) -> (u64, u64) {
    let period_us = terms.per_ms().saturating_mul(1_000);
    let interval_us = (period_us / u64::from(terms.limit.max(1))).max(1);
    let burst = u64::from(terms.burst.unwrap_or(terms.limit).max(1));
    let earliest_us = arrival_us.saturating_sub(interval_us.saturating_mul(burst - 1));
    let at_ms = earliest_us.div_ceil(1_000);
    let next_us = arrival_us.max(now_ms.saturating_mul(1_000)).saturating_add(interval_us);
    (at_ms, next_us)
}

/// What is known of one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitedKey {
    /// Of a rate that is used.
    pub rate: Option<RateRow>,
    claims: BTreeMap<Claimant, ClaimRow>,
    waiting: BTreeSet<((u64, u64), Claimant)>,
    /// By when they were last known to hold.
    holding: BTreeSet<(u64, Claimant)>,
    /// Its timer.
    pub(super) due_ms: Option<u64>,
}

impl LimitedKey {
    /// Everybody, with what is known of them.
    pub fn claims(&self) -> impl Iterator<Item = (&Claimant, &ClaimRow)> {
        self.claims.iter()
    }

    /// One of them.
    #[must_use]
    pub fn claim(&self, who: &Claimant) -> Option<&ClaimRow> {
        self.claims.get(who)
    }

    /// Those that wait, the next one first.
    pub fn waiting(&self) -> impl Iterator<Item = &Claimant> {
        self.waiting.iter().map(|(_, who)| who)
    }

    /// How many wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.waiting.len()
    }

    /// How many hold it.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.holding.len()
    }

    /// Those that hold it and were not known to since `before_ms`.
    pub fn unknown_since(&self, before_ms: u64) -> impl Iterator<Item = &Claimant> {
        let long = self.holding.iter().take_while(move |(known, _)| *known <= before_ms);
        long.map(|(_, who)| who)
    }

    /// When the next one that waits may start; `None`: when a holder ends, or nobody waits.
    #[must_use]
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let terms = &self.claims.get(self.waiting().next()?)?.terms;
        terms.per_ms?;
        let arrival_us = self.rate.map_or(0, |rate| rate.arrival_us);
        Some(next_start(terms, arrival_us, now_ms).0)
    }

    /// The next one that waits, if it may start now; of a rate with its next arrival time.
    #[must_use]
    pub fn startable(&self, now_ms: u64) -> Option<(Claimant, Option<u64>)> {
        let who = self.waiting().next()?;
        let terms = &self.claims.get(who)?.terms;
        if terms.per_ms.is_none() {
            return (self.holding.len() < terms.limit as usize).then_some((*who, None));
        }
        let arrival_us = self.rate.map_or(0, |rate| rate.arrival_us);
        let (at_ms, next_us) = next_start(terms, arrival_us, now_ms);
        (at_ms <= now_ms).then_some((*who, Some(next_us)))
    }

    /// Of those that hold it or would have others end for them, the oldest ones beyond `limit` that were not asked to end.
    #[must_use]
    pub fn overtaken(&self, limit: u32) -> Vec<Claimant> {
        let stays = |row: &ClaimRow| {
            !row.evicted && (row.taken_at_ms.is_some() || row.terms.policy() == LimitPolicy::CancelRunning)
        };
        let mut all: Vec<(u64, Claimant)> = self
            .claims
            .iter()
            .filter(|(_, row)| stays(row))
            .map(|(who, row)| (row.seq, *who))
            .collect();
        all.sort_unstable();
        let excess = all.len().saturating_sub(limit as usize);
        all.into_iter().take(excess).map(|(_, who)| who).collect()
    }

    fn remove(&mut self, who: &Claimant) -> Option<ClaimRow> {
        let row = self.claims.remove(who)?;
        self.waiting.remove(&(row.rank(), *who));
        if let Some(known) = row.known_ms() {
            self.holding.remove(&(known, *who));
        }
        Some(row)
    }

    fn insert(&mut self, who: Claimant, row: ClaimRow) {
        self.remove(&who);
        match row.known_ms() {
            Some(known) => self.holding.insert((known, who)),
            None => self.waiting.insert((row.rank(), who)),
        };
        self.claims.insert(who, row);
    }

    /// When something of it is to be done unasked.
    fn due(&self) -> Option<u64> {
        let next = match self.waiting.is_empty() {
            false => self.next_ms(0),
            // By then it is as if it had never been used.
            true => self.rate.map(|rate| rate.arrival_us.div_ceil(1_000)),
        };
        let probe = self
            .holding
            .first()
            .map(|(known, _)| known.saturating_add(limits::LIMIT_PROBE_MS));
        next.into_iter().chain(probe).min()
    }
}

/// Limited keys of a partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    keys: BTreeMap<LimitRef, LimitedKey>,
    claims: usize,
}

impl Limits {
    /// A key that somebody uses.
    #[must_use]
    pub fn key(&self, key: &LimitRef) -> Option<&LimitedKey> {
        self.keys.get(key)
    }

    /// All keys of a tenant.
    pub fn of_tenant(&self, tenant: TenantId) -> impl Iterator<Item = (&[u8; 16], &LimitedKey)> {
        let from = (tenant, [0; 16]);
        let own = self
            .keys
            .range(from..)
            .take_while(move |((each, _), _)| *each == tenant);
        own.map(|((_, key), limited)| (key, limited))
    }

    /// Every key.
    pub fn all(&self) -> impl Iterator<Item = (&LimitRef, &LimitedKey)> {
        self.keys.iter()
    }

    /// How many wait or hold, in all.
    #[must_use]
    pub fn claims(&self) -> usize {
        self.claims
    }

    /// Puts a claim in, or what it is now.
    pub fn put(&mut self, key: LimitRef, who: Claimant, row: ClaimRow) {
        let limited = self.keys.entry(key).or_default();
        let before = limited.claims.len();
        limited.insert(who, row);
        self.claims += limited.claims.len() - before;
    }

    /// Takes a claim out.
    pub fn take(&mut self, key: LimitRef, who: &Claimant) -> Option<ClaimRow> {
        let row = self.keys.get_mut(&key)?.remove(who)?;
        self.claims -= 1;
        self.tidy(key);
        Some(row)
    }

    /// Sets how much of a rate is used up; `None`: nothing.
    pub fn set_rate(&mut self, key: LimitRef, rate: Option<RateRow>) {
        self.keys.entry(key).or_default().rate = rate;
        self.tidy(key);
    }

    /// A key without anything to know is none.
    fn tidy(&mut self, key: LimitRef) {
        let empty =
            |limited: &LimitedKey| limited.claims.is_empty() && limited.rate.is_none() && limited.due_ms.is_none();
        if self.keys.get(&key).is_some_and(empty) {
            self.keys.remove(&key);
        }
    }

    /// Its timer as it was and as it is to be.
    pub(crate) fn rearm(&mut self, key: LimitRef) -> (Option<u64>, Option<u64>) {
        let Some(limited) = self.keys.get_mut(&key) else {
            return (None, None);
        };
        let (before, after) = (limited.due_ms, limited.due());
        limited.due_ms = after;
        self.tidy(key);
        (before, after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_minute(limit: u32, burst: Option<u32>) -> LimitTerms {
        LimitTerms {
            limit,
            per_ms: Some(60_000),
            burst,
            policy: LimitPolicy::Wait.into(),
        }
    }

    /// When each of so many starts comes that all want to start at once.
    fn starts(terms: &LimitTerms, count: usize) -> Vec<u64> {
        let (mut now, mut arrival) = (1_000_000, 0);
        let mut all = Vec::new();
        for _ in 0..count {
            let (at, _) = next_start(terms, arrival, now);
            now = now.max(at);
            arrival = next_start(terms, arrival, now).1;
            all.push(now - 1_000_000);
        }
        all
    }

    #[test]
    fn a_rate_lets_its_burst_start_at_once_and_then_one_for_each_interval() {
        assert_eq!(starts(&per_minute(3, None), 6), [0, 0, 0, 20_000, 40_000, 60_000]);
        assert_eq!(starts(&per_minute(3, Some(1)), 3), [0, 20_000, 40_000]);
        assert_eq!(starts(&per_minute(60, Some(2)), 4), [0, 0, 1_000, 2_000]);
    }

    #[test]
    fn over_any_long_time_a_rate_lets_no_more_start_than_it_says() {
        let terms = per_minute(7, Some(1));
        let starts = starts(&terms, 200);
        for window in starts.windows(8) {
            assert!(window[7] - window[0] >= 59_990, "{window:?}");
        }
    }

    #[test]
    fn a_key_that_nobody_uses_is_forgotten() {
        let mut limits = Limits::default();
        let key = (TenantId::nil(), key_hash(false, "k"));
        let who = (WorkflowId::nil(), TaskId::nil());
        limits.put(key, who, ClaimRow::default());
        limits.rearm(key);
        assert!(limits.take(key, &who).is_some());
        limits.rearm(key);
        assert_eq!(limits, Limits::default());
        assert_ne!(key_hash(false, "k"), key_hash(true, "k"));
    }
}
