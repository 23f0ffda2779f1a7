//! What owners of limited keys know, from their memory to views.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use gantry_proto::v1::LimitTerms;
use gantry_proto::{ErrorCode, PartitionId, TaskId, TenantId, limits};
use tokio::sync::oneshot;

use super::{Engine, not_found, stopped};
use crate::api::{ClaimView, LimitDetail, LimitKind, LimitView, Limits, Refusal};
use crate::core::limits::{ClaimRow, Claimant, LimitedKey, key_hash};
use crate::processor::Message;
use crate::read::{Standing, Standings};

/// A key by its hash.
type KeyHash = [u8; 16];

fn view(key: &KeyHash, limited: &LimitedKey) -> LimitView {
    let terms = limited.claims().next().map(|(_, row)| row.terms);
    let is_rate = limited.rate.is_some() || terms.is_some_and(|terms: LimitTerms| terms.per_ms.is_some());
    LimitView {
        id: hex::encode(key),
        kind: if is_rate {
            LimitKind::Rate
        } else {
            LimitKind::Concurrency
        },
        holders: u32::try_from(limited.holders()).unwrap_or(u32::MAX),
        waiters: u32::try_from(limited.waiters()).unwrap_or(u32::MAX),
        next_ms: limited.next_ms(0),
    }
}

fn claim((workflow, task): &Claimant, row: &ClaimRow) -> ClaimView {
    ClaimView {
        workflow: *workflow,
        task: Some(*task).filter(|task| *task != TaskId::nil()),
        asked_at_ms: row.asked_at_ms,
        since_ms: row.taken_at_ms,
        evicted: row.evicted,
    }
}

/// All that a view of one limit shows.
pub(crate) fn detail(key: &KeyHash, limited: &LimitedKey) -> LimitDetail {
    let most = limits::PAGE_ITEMS_MAX as usize;
    let mut holding: Vec<ClaimView> = limited
        .claims()
        .filter(|(_, row)| row.taken_at_ms.is_some())
        .map(|(who, row)| claim(who, row))
        .collect();
    holding.sort_by_key(|claim| (claim.since_ms, claim.workflow, claim.task));
    holding.truncate(most);
    let waiting = limited.waiting().take(most);
    LimitDetail {
        limit: view(key, limited),
        holding,
        waiting: waiting
            .filter_map(|who| Some(claim(who, limited.claim(who)?)))
            .collect(),
    }
}

/// A page of the limits of a tenant in one partition.
pub(crate) fn page(
    limits: &crate::core::limits::Limits,
    tenant: TenantId,
    after: Option<KeyHash>,
    most: usize,
) -> Vec<LimitView> {
    let own = limits.of_tenant(tenant);
    let rest = own.filter(|(key, _)| after.is_none_or(|after| **key > after));
    rest.take(most).map(|(key, limited)| view(key, limited)).collect()
}

/// Where each of those who ask stands.
pub(crate) fn standings(
    limits: &crate::core::limits::Limits,
    tenant: TenantId,
    asked: &[(KeyHash, Claimant)],
) -> Standings {
    let mut by_key: BTreeMap<KeyHash, Vec<Claimant>> = BTreeMap::new();
    for (key, who) in asked {
        by_key.entry(*key).or_default().push(*who);
    }
    let mut standings = Standings::new();
    for (key, asked) in by_key {
        let Some(limited) = limits.key(&(tenant, key)) else {
            continue;
        };
        // One walk for all that ask.
        let mut positions: BTreeMap<Claimant, u32> =
            (0u32..).zip(limited.waiting()).map(|(at, who)| (*who, at)).collect();
        for who in asked {
            let standing = Standing {
                queue_position: positions.remove(&who),
                holders: u32::try_from(limited.holders()).unwrap_or(u32::MAX),
                next_ms: limited.next_ms(0),
            };
            standings.insert((key, who), standing);
        }
    }
    standings
}

fn parse(id: &str) -> Option<KeyHash> {
    hex::decode(id).ok()?.try_into().ok()
}

impl Engine {
    fn limit_owner(&self, tenant: TenantId, key: &KeyHash) -> PartitionId {
        PartitionId::of(tenant, "limit", key, self.partition_count())
    }

    /// Where tasks and workflows stand that wait for limits. A partition that does not answer has nothing to say.
    pub(super) async fn standings(&self, tenant: TenantId, asked: Vec<(KeyHash, Claimant)>) -> Standings {
        let mut by_owner: BTreeMap<PartitionId, Vec<(KeyHash, Claimant)>> = BTreeMap::new();
        for (key, who) in asked {
            by_owner
                .entry(self.limit_owner(tenant, &key))
                .or_default()
                .push((key, who));
        }
        let answers = by_owner.into_iter().map(|(owner, asked)| async move {
            let (reply, answer) = oneshot::channel();
            self.post(owner, Message::Standings { tenant, asked, reply }).ok()?;
            answer.await.ok()
        });
        join_all(answers).await.into_iter().flatten().flatten().collect()
    }

    async fn detail(&self, tenant: TenantId, key: KeyHash) -> Result<Option<LimitDetail>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.post(self.limit_owner(tenant, &key), Message::Limit { tenant, key, reply })?;
        answer.await.map_err(|_| stopped())
    }
}

#[async_trait::async_trait]
impl Limits for Engine {
    async fn limits(
        &self,
        tenant: TenantId,
        key: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<LimitView>, Refusal> {
        let after = match after.map(parse) {
            Some(None) => {
                return Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "the cursor is not one of this list",
                ));
            }
            Some(Some(after)) => Some(after),
            None => None,
        };
        let mut found = Vec::new();
        if let Some(text) = key {
            for is_rate in [false, true] {
                let detail = self.detail(tenant, key_hash(is_rate, text)).await?;
                found.extend(detail.map(|detail| detail.limit));
            }
        } else {
            let pages = self.all_partitions().map(|partition| async move {
                let (reply, answer) = oneshot::channel();
                let message = Message::LimitPage {
                    tenant,
                    after,
                    most: limit,
                    reply,
                };
                self.post(partition, message)?;
                answer.await.map_err(|_| stopped())
            });
            for page in join_all(pages).await {
                found.extend(page?);
            }
        }
        found.sort_by(|one, other| one.id.cmp(&other.id));
        found.truncate(limit);
        Ok(found)
    }

    fn weigh_tenant(&self, tenant: TenantId, weight: u32) {
        {
            let mut weights = self.parts.weights.write();
            let mut all = weights.as_ref().clone();
            all.insert(tenant, weight);
            *weights = Arc::new(all);
        }
        self.wake_all();
    }

    async fn limit(&self, tenant: TenantId, id: &str) -> Result<LimitDetail, Refusal> {
        let key = parse(id).ok_or_else(not_found)?;
        self.detail(tenant, key).await?.ok_or_else(not_found)
    }
}
