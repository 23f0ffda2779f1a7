//! Tasks that are ready, in the order in which they get nodes.
//!
//! **Between tenants** a share each: the tenant whose pass is least goes next, and each task that it places moves its pass on by one over its weight. A
//! tenant that was away comes back at the pass of those that are here: it gets its share from now on, not what it did not use.
//!
//! **Within a tenant** by rank: since when it is ready, moved ahead by [`limits::PRIORITY_STEP_MS`] for each level of priority. A task of a lower level
//! goes before one of a higher level that came so much later, so that nothing waits for ever, and no order has to be made anew as time passes.
//!
//! Tasks of a tenant that ask for the same of a node form a class. When no node fits one task of it, none fits the others: the class is passed over as
//! one, so that placing costs a logarithm of what is ready, however much of it cannot run.
//!
//! Nothing of it is stored: ranks follow from rows, and passes begin anew with each owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_proto::{NodeId, TenantId, limits};

use super::placement::Wants;
use super::state::TaskRef;

/// Weights of tenants; absent: 1.
pub type Weights = Arc<BTreeMap<TenantId, u32>>;

/// What a tenant of weight 1 pays for a placed task. Divisible by small weights.
const PASS: u64 = 5_040;

/// What tasks ask of a node, as one number, and the node that they are bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Class {
    wants: [u8; 16],
    bound: Option<NodeId>,
}

impl Class {
    /// Of a task.
    #[must_use]
    pub fn of(wants: &Wants<'_>, bound: Option<NodeId>) -> Self {
        let definition = wants.definition;
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        let requires = wants.requires;
        let mut capabilities: Vec<&str> = requires.capabilities.iter().map(String::as_str).collect();
        capabilities.sort_unstable();
        capabilities
            .into_iter()
            .for_each(|capability| part(capability.as_bytes()));
        part(b"labels");
        let labels: BTreeMap<&str, &str> = requires.labels.iter().map(|(key, value)| (&**key, &**value)).collect();
        for (key, value) in labels {
            part(key.as_bytes());
            part(value.as_bytes());
        }
        part(requires.arch.as_deref().unwrap_or_default().as_bytes());
        part(b"excluded");
        wants.excluded.iter().for_each(|node| part(node.as_bytes()));
        // Code goes to workers that have it, and to nothing else.
        if let Some(code) = definition.code() {
            part(b"component");
            part(code.component.as_bytes());
        }
        let greatest = |size: fn(&crate::spec::definition::ResourcesDef) -> u64| {
            definition
                .steps
                .iter()
                .map(|step| size(&step.resources))
                .max()
                .unwrap_or(0)
        };
        part(&greatest(|resources| resources.cpu_millis).to_be_bytes());
        part(&greatest(|resources| resources.memory_bytes).to_be_bytes());
        let mut wants = [0; 16];
        wants.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self { wants, bound }
    }

    /// The node that its tasks are bound to.
    #[must_use]
    pub const fn bound(&self) -> Option<NodeId> {
        self.bound
    }
}

/// Where a task stands: the less, the sooner.
#[must_use]
pub fn rank(queued_at_ms: u64, priority: u32) -> u64 {
    let levels = u64::from(limits::PRIORITY_MAX.saturating_sub(priority));
    queued_at_ms.saturating_add(levels * limits::PRIORITY_STEP_MS)
}

/// A task with its rank.
type Ranked = (u64, TaskRef);

/// Ready tasks of one tenant.
#[derive(Debug, Clone, Default)]
struct Line {
    pass: u64,
    classes: BTreeMap<Class, BTreeSet<Ranked>>,
    /// The first of each class.
    heads: BTreeSet<(Ranked, Class)>,
    len: usize,
}

impl Line {
    fn insert(&mut self, class: Class, ranked: Ranked) {
        let tasks = self.classes.entry(class).or_default();
        let before = tasks.first().copied();
        if tasks.insert(ranked) {
            self.len += 1;
        }
        if before.is_none_or(|before| ranked < before) {
            if let Some(before) = before {
                self.heads.remove(&(before, class));
            }
            self.heads.insert((ranked, class));
        }
    }

    fn remove(&mut self, class: Class, ranked: Ranked) {
        let Some(tasks) = self.classes.get_mut(&class) else {
            return;
        };
        if !tasks.remove(&ranked) {
            return;
        }
        self.len -= 1;
        self.heads.remove(&(ranked, class));
        match tasks.first() {
            Some(first) => {
                self.heads.insert((*first, class));
            }
            None => {
                self.classes.remove(&class);
            }
        }
    }
}

/// Where a task is kept.
#[derive(Debug, Clone, Copy)]
struct Place {
    tenant: TenantId,
    class: Class,
    rank: u64,
}

/// Ready tasks of a partition.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    lines: BTreeMap<TenantId, Line>,
    /// Tenants with ready tasks, the next one first.
    turns: BTreeSet<(u64, TenantId)>,
    places: BTreeMap<TaskRef, Place>,
    weights: Weights,
    /// Pass of the newest turn: where tenants come in.
    now: u64,
}

/// What was tried in one round of placing, and found no node.
#[derive(Debug, Default)]
pub struct Passed {
    classes: BTreeSet<(TenantId, Class)>,
    tenants: BTreeSet<TenantId>,
}

impl Queue {
    /// Ready tasks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nothing is ready.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Sets what tenants weigh.
    pub fn weigh(&mut self, weights: Weights) {
        self.weights = weights;
    }

    fn price(&self, tenant: TenantId) -> u64 {
        let weight = self.weights.get(&tenant).copied().unwrap_or(1).max(1);
        (PASS / u64::from(weight)).max(1)
    }

    /// Puts a task in.
    pub fn insert(&mut self, tenant: TenantId, class: Class, rank: u64, task: TaskRef) {
        self.remove(task);
        let now = self.now;
        let line = self.lines.entry(tenant).or_default();
        if line.len == 0 {
            line.pass = line.pass.max(now);
            self.turns.insert((line.pass, tenant));
        }
        line.insert(class, (rank, task));
        self.places.insert(task, Place { tenant, class, rank });
    }

    /// Takes a task out, wherever it is.
    pub fn remove(&mut self, task: TaskRef) {
        let Some(place) = self.places.remove(&task) else {
            return;
        };
        let Some(line) = self.lines.get_mut(&place.tenant) else {
            return;
        };
        line.remove(place.class, (place.rank, task));
        if line.len == 0 {
            self.turns.remove(&(line.pass, place.tenant));
        }
        // One that has not used more than its share has nothing to be remembered for.
        if line.len == 0 && line.pass <= self.now {
            self.lines.remove(&place.tenant);
        }
    }

    /// A tenant has had a task placed: its next one comes later.
    pub fn charge(&mut self, tenant: TenantId) {
        let price = self.price(tenant);
        let Some(line) = self.lines.get_mut(&tenant) else {
            return;
        };
        let waits = self.turns.remove(&(line.pass, tenant));
        self.now = self.now.max(line.pass);
        line.pass = line.pass.saturating_add(price);
        if waits {
            self.turns.insert((line.pass, tenant));
        }
    }

    /// The task that is next, with its tenant and class, except for what was passed over.
    #[must_use]
    pub fn next(&self, passed: &Passed) -> Option<(TaskRef, TenantId, Class)> {
        let tenants = self.turns.iter().map(|(_, tenant)| *tenant);
        for tenant in tenants.filter(|tenant| !passed.tenants.contains(tenant)) {
            let line = self.lines.get(&tenant)?;
            let mut heads = line.heads.iter();
            let found = heads.find(|(_, class)| !passed.classes.contains(&(tenant, *class)));
            if let Some(((_, task), class)) = found {
                return Some((*task, tenant, *class));
            }
        }
        None
    }

    /// No node fits the tasks of a class now.
    pub fn pass_over(&self, passed: &mut Passed, tenant: TenantId, class: Class) {
        passed.classes.insert((tenant, class));
        let all = self.lines.get(&tenant).is_none_or(|line| {
            line.classes
                .keys()
                .all(|class| passed.classes.contains(&(tenant, *class)))
        });
        if all {
            passed.tenants.insert(tenant);
        }
    }

    /// A task asks for something else than when it became ready: its workspace has come to be on a node.
    pub fn refile(&mut self, task: TaskRef, class: Class) {
        if let Some(Place { tenant, rank, .. }) = self.places.get(&task).copied() {
            self.insert(tenant, class, rank, task);
        }
    }

    /// How many tasks are placed before this one when slots become free one by one and nothing new comes. `None`: it is not ready.
    #[must_use]
    pub fn position(&self, task: TaskRef) -> Option<u32> {
        let place = self.places.get(&task)?;
        let line = self.lines.get(&place.tenant)?;
        let own = (place.rank, task);
        let ahead = line
            .classes
            .values()
            .map(|tasks| tasks.range(..own).count())
            .sum::<usize>();
        let price = self.price(place.tenant);
        // The pass at which its own turn comes.
        let turn = line.pass.saturating_add(price.saturating_mul(ahead as u64));
        let others = self.turns.iter().filter(|(_, tenant)| *tenant != place.tenant);
        let before = others.map(|(pass, tenant)| {
            let Some(gap) = turn.checked_sub(*pass) else { return 0 };
            // Turns at the same pass go by tenant.
            let tie = u64::from(gap.is_multiple_of(self.price(*tenant)) && *tenant > place.tenant);
            let turns = gap / self.price(*tenant) + 1 - tie;
            let len = self.lines.get(tenant).map_or(0, |line| line.len);
            usize::try_from(turns).unwrap_or(usize::MAX).min(len)
        });
        u32::try_from(before.sum::<usize>().saturating_add(ahead)).ok()
    }
}

#[cfg(test)]
mod tests;
