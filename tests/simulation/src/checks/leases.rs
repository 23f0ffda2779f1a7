//! A lease is not taken from a holder before its time.

use std::collections::BTreeMap;

use gantry_proto::TaskId;
use gantry_proto::v1::LeaseEnd;
use gantry_proto::v1::event::Kind;

use super::Check;
use crate::oracle::{Facts, Seen, Told, Verdict};

pub(crate) struct Leases {
    lease_ms: u64,
    /// Newest fence, and the last moment at which its holder was surely heard.
    heard: BTreeMap<TaskId, (u64, u64)>,
    /// Since when the server serves: whoever takes over starts every lease anew.
    since_ms: Option<u64>,
    /// It stood still: since when it had served before, and when that ended. What it had decided then becomes durable afterwards.
    stood_still: Option<(u64, u64)>,
}

/// How long a commit may take that was under way when the server stood still.
const UNDER_WAY_MS: u64 = 10_000;

impl Leases {
    pub(crate) fn new(lease_ms: u64) -> Self {
        Self {
            lease_ms,
            heard: BTreeMap::new(),
            since_ms: None,
            stood_still: None,
        }
    }
}

impl Check for Leases {
    fn invariant(&self) -> &'static str {
        "no lease expires before its time"
    }

    fn before(&mut self, seen: &Seen<'_>) -> Verdict {
        match seen.kind {
            Kind::TaskClaimed(event) => {
                self.heard.insert(event.task, (event.fence, seen.at_ms));
            }
            Kind::LeaseEnded(event) if event.end == i32::from(LeaseEnd::Expired) => {
                let Some((fence, heard_ms)) = self.heard.get(&event.task).copied() else {
                    return Err(format!("a lease of {} expires that nobody saw begin", event.task));
                };
                let from_ms = heard_ms.max(self.since_ms.unwrap_or(0));
                let before = self.stood_still.is_some_and(|(since_ms, until_ms)| {
                    heard_ms.max(since_ms) + self.lease_ms <= until_ms && seen.at_ms <= from_ms + UNDER_WAY_MS
                });
                if fence == event.fence && !before && seen.at_ms < from_ms + self.lease_ms {
                    return Err(format!(
                        "the lease of {} under fence {fence} expired at {} ms; its holder was heard at {heard_ms} ms, the server serves since {:?} ms, and a lease is {} ms",
                        event.task, seen.at_ms, self.since_ms, self.lease_ms
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn told(&mut self, _: &Facts, _: u64, told: &Told<'_>) -> Verdict {
        if let Told::Renewed(assignee, heard_ms) = told
            && let Some((fence, heard)) = self.heard.get_mut(&assignee.task)
            && *fence == assignee.fence
        {
            *heard = (*heard).max(*heard_ms);
        }
        Ok(())
    }

    fn serving(&mut self, at_ms: u64, since_ms: Option<u64>) {
        let stood_still = since_ms.is_some_and(|since_ms| since_ms > at_ms);
        self.stood_still = self
            .since_ms
            .filter(|_| stood_still)
            .map(|before_ms| (before_ms, at_ms));
        self.since_ms = since_ms;
    }
}
