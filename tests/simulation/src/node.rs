//! A model node. It follows the protocol as the shipped node does (runtime-node/src/{session,board,step}): claims before it starts, keeps results until
//! they are acknowledged, says what it holds when it dials again. What it executes takes time and has an outcome, nothing more.

use std::collections::BTreeMap;

use gantry_proto::v1::node_to_server::Kind;
use gantry_proto::v1::{
    Assignee, Assignment, AssignmentRefused, Credits, EndCause, Fault, Heartbeat, HeldState, HeldStep, LeaseDropped,
    NodeHealth, Register, StepFinished, StepResult, StepStarted, server_to_node,
};
use gantry_proto::{ErrorCode, NODE_PROTOCOL, NodeId, PartitionId, SandboxId, TaskId};

use crate::dice::Dice;
use crate::names::{self, AttemptKey};
use crate::oracle::{Broken, Told};
use crate::outcome;
use crate::world::{Event, World};

pub(crate) struct Node {
    pub(crate) id: NodeId,
    slots: u32,
    capabilities: Vec<String>,
    /// Counts losses of everything it knew: what was planned before one does not happen.
    pub(crate) life: u64,
    pub(crate) link: Option<u64>,
    registered: bool,
    seen: u64,
    answered_ms: u64,
    pub(crate) held: BTreeMap<AttemptKey, Held>,
    pub(crate) down: bool,
    /// Never comes back.
    pub(crate) gone: bool,
    /// Stands still until then.
    pub(crate) stopped_until_ms: u64,
    /// Its network passes nothing until then.
    pub(crate) partitioned_until_ms: u64,
    pub(crate) fault: Option<Fault>,
    /// A message that lets one about another task pass.
    kept: Option<(u64, Kind)>,
}

pub(crate) struct Held {
    assignment: Box<Assignment>,
    state: HeldState,
    occupies: bool,
    result: Option<StepResult>,
    cancel: Option<EndCause>,
}

fn task_of(kind: &Kind) -> Option<TaskId> {
    match kind {
        Kind::StepStarted(message) => Some(message.assignee.task),
        Kind::StepFinished(message) => Some(message.assignee.task),
        Kind::AssignmentRefused(message) => Some(message.assignee.task),
        Kind::LeaseDropped(message) => Some(message.assignee.task),
        _ => None,
    }
}

impl Node {
    pub(crate) fn draw(number: u64, dice: &Dice) -> Self {
        Self {
            id: names::node(number + 1),
            slots: u32::try_from(dice.between(1, 4)).unwrap_or(1),
            capabilities: if dice.chance(500) {
                vec!["gpu".to_owned()]
            } else {
                Vec::new()
            },
            life: 0,
            link: None,
            registered: false,
            seen: 0,
            answered_ms: 0,
            held: BTreeMap::new(),
            down: false,
            gone: false,
            stopped_until_ms: 0,
            partitioned_until_ms: 0,
            fault: None,
            kept: None,
        }
    }

    pub(crate) fn has_gpu(&self) -> bool {
        !self.gone && !self.capabilities.is_empty()
    }

    fn occupied(&self) -> u32 {
        u32::try_from(self.held.values().filter(|held| held.occupies).count()).unwrap_or(u32::MAX)
    }

    fn health(&self) -> NodeHealth {
        NodeHealth {
            docker_ok: self.fault.is_none(),
            fault: self.fault.clone(),
            running: Some(self.occupied()),
            ..NodeHealth::default()
        }
    }

    fn register(&self) -> Register {
        let holding = self.held.values().map(|held| HeldStep {
            assignee: held.assignment.assignee.clone(),
            state: held.state.into(),
            sandbox: None,
        });
        Register {
            protocol: NODE_PROTOCOL,
            node: self.id,
            name: "model".to_owned(),
            version: "0".to_owned(),
            slots: self.slots,
            cpu_millis: 64_000,
            memory_bytes: 64 << 30,
            capabilities: self.capabilities.clone(),
            arch: "x86_64".to_owned(),
            os: "linux".to_owned(),
            holding: holding.collect(),
            health: Some(self.health()),
            ..Register::default()
        }
    }
}

impl World {
    pub(crate) fn dial(&mut self, index: usize, life: u64) {
        let node = &self.nodes[index];
        if node.down || node.link.is_some() || node.life != life {
            return;
        }
        let later = node.stopped_until_ms.max(node.partitioned_until_ms);
        if self.now < later {
            return self.at(later, Event::Dial(index, life));
        }
        match self.open_link(index) {
            Some(link) => {
                let register = self.nodes[index].register();
                let now = self.now;
                let node = &mut self.nodes[index];
                (node.link, node.registered, node.seen, node.answered_ms) = (Some(link), false, 0, now);
                self.send(link, Kind::Register(register));
                self.after(self.climate.heartbeat_ms, Event::Beat(index, link));
            }
            None => self.dial_later(index),
        }
    }

    fn dial_later(&mut self, index: usize) {
        let life = self.nodes[index].life;
        let pause_ms = self.dice.between(20, 2_000);
        self.after(pause_ms, Event::Dial(index, life));
    }

    /// The node's stream is gone.
    pub(crate) fn lose_link(&mut self, index: usize, link: u64) {
        let node = &mut self.nodes[index];
        if node.link == Some(link) {
            node.link = None;
            node.kept = None;
            self.dial_later(index);
        }
    }

    fn say_to_server(&mut self, index: usize, kind: Kind) {
        let Some(link) = self.nodes[index].link else { return };
        let task = task_of(&kind);
        if let Some((of, kept)) = self.nodes[index].kept.take() {
            if task.is_none() || task == task_of(&kept) {
                self.send(of, kept);
            } else {
                self.send(link, kind);
                return self.send(of, kept);
            }
        }
        if task.is_some() {
            if self.dice.chance(self.climate.repeat) {
                self.send(link, kind.clone());
            }
            if self.dice.chance(self.climate.overtake) {
                self.nodes[index].kept = Some((link, kind));
                return;
            }
        }
        self.send(link, kind);
    }

    fn say_credits(&mut self, index: usize) {
        let node = &self.nodes[index];
        if !node.registered || node.link.is_none() {
            return;
        }
        let slots = if node.fault.is_none() {
            node.slots.saturating_sub(node.occupied())
        } else {
            0
        };
        let credits = Credits { slots, seen: node.seen };
        self.say_to_server(index, Kind::Credits(credits));
    }

    pub(crate) fn beat(&mut self, index: usize, link: u64) {
        let node = &self.nodes[index];
        if node.link != Some(link) {
            return;
        }
        if self.now < node.stopped_until_ms {
            let at_ms = node.stopped_until_ms;
            return self.at(at_ms, Event::Beat(index, link));
        }
        if self.now > node.answered_ms + self.climate.lease_ms {
            self.hang_up(link);
            return self.lose_link(index, link);
        }
        if node.registered {
            let heartbeat = Heartbeat {
                holding: node
                    .held
                    .values()
                    .map(|held| held.assignment.assignee.clone())
                    .collect(),
                health: Some(node.health()),
            };
            self.say_to_server(index, Kind::Heartbeat(heartbeat));
        }
        self.after(self.climate.heartbeat_ms, Event::Beat(index, link));
    }

    pub(crate) fn node_hears(&mut self, index: usize, link: u64, kind: server_to_node::Kind) -> Result<(), Broken> {
        use server_to_node::Kind as From;
        match kind {
            From::Registered(registered) => {
                let now = self.now;
                self.nodes[index].registered = true;
                self.nodes[index].answered_ms = now;
                for verdict in registered.verdicts.iter().filter(|verdict| !verdict.keep) {
                    self.forget(index, &verdict.assignee);
                }
                self.say_credits(index);
                let finished: Vec<Assignee> = self.nodes[index]
                    .held
                    .values()
                    .filter(|held| held.result.is_some())
                    .map(|held| held.assignment.assignee.clone())
                    .collect();
                finished.iter().for_each(|assignee| self.report(index, assignee));
            }
            From::Refused(_) => {
                self.hang_up(link);
                self.lose_link(index, link);
            }
            From::Assign(assignment) => self.take_up(index, assignment),
            From::Cancel(cancel) => {
                let life = self.nodes[index].life;
                match self.nodes[index].held.get_mut(&names::attempt(&cancel.assignee)) {
                    Some(held) => {
                        held.cancel = Some(cancel.cause());
                        let grace_ms = self.dice.between(0, cancel.grace_ms.min(3_000));
                        self.after(grace_ms, Event::Work(index, life, Box::new(cancel.assignee)));
                    }
                    None => {
                        let assignee = cancel.assignee;
                        self.say_to_server(index, Kind::LeaseDropped(LeaseDropped { assignee }));
                    }
                }
            }
            From::ResultAccepted(accepted) => {
                let held = self.nodes[index].held.get(&names::attempt(&accepted.assignee));
                if let Some(result) = held.and_then(|held| held.result.as_ref())
                    && !accepted.stale
                {
                    self.oracle
                        .told(self.now, &Told::Accepted(&accepted.assignee, result))?;
                }
                self.forget(index, &accepted.assignee);
                self.say_credits(index);
            }
            From::Renewed(renewed) => {
                self.nodes[index].answered_ms = self.now;
                for assignee in &renewed.refused {
                    self.forget(index, assignee);
                }
                if !renewed.refused.is_empty() {
                    self.say_credits(index);
                }
            }
            From::OutputAccepted(_) | From::Release(_) | From::Drain(_) => {}
        }
        Ok(())
    }

    fn forget(&mut self, index: usize, assignee: &Assignee) {
        self.nodes[index].held.remove(&names::attempt(assignee));
    }

    fn take_up(&mut self, index: usize, assignment: Assignment) {
        let refuse = if self.healed { 0 } else { 30 };
        let node = &mut self.nodes[index];
        node.seen += 1;
        let assignee = assignment.assignee.clone();
        let key = names::attempt(&assignee);
        if node.held.contains_key(&key) {
            return;
        }
        let room = node.occupied() < node.slots;
        let predecessor = node.held.values_mut().find(|held| {
            held.assignment.assignee.task == assignee.task && held.state == HeldState::Finished && held.occupies
        });
        let fits = match predecessor {
            Some(held) => {
                held.occupies = false;
                true
            }
            None => room,
        };
        if !fits || node.fault.is_some() || self.dice.chance(refuse) {
            let fault = Fault::new(ErrorCode::Overloaded, "no room");
            self.say_credits(index);
            return self.say_to_server(index, Kind::AssignmentRefused(AssignmentRefused { assignee, fault }));
        }
        // A newer lease ends what an older one of the same task left unfinished.
        node.held
            .retain(|_, held| held.assignment.assignee.task != assignee.task || held.state == HeldState::Finished);
        node.held.insert(
            key,
            Held {
                assignment: Box::new(assignment),
                state: HeldState::Claimed,
                occupies: true,
                result: None,
                cancel: None,
            },
        );
        let life = self.nodes[index].life;
        let prepare_ms = self.dice.between(1, if self.healed { 100 } else { 1_500 });
        self.after(prepare_ms, Event::Work(index, life, Box::new(assignee)));
    }

    /// The next stage of a step.
    pub(crate) fn work(&mut self, index: usize, life: u64, assignee: Assignee) {
        let node = &self.nodes[index];
        if node.life != life {
            return;
        }
        if self.now < node.stopped_until_ms || node.down {
            let at_ms = node.stopped_until_ms.max(self.now + 500);
            return self.at(at_ms, Event::Work(index, life, Box::new(assignee)));
        }
        let Some(held) = self.nodes[index].held.get_mut(&names::attempt(&assignee)) else {
            return;
        };
        let sandbox = SandboxId::new(1, PartitionId::default(), assignee.fence);
        match (held.state, held.cancel) {
            (HeldState::Finished, _) => {}
            (_, Some(cause)) => {
                let result = outcome::ended(cause, None);
                self.finish(index, &assignee, result);
            }
            (HeldState::Claimed, None) if self.dice.chance(self.climate.stillborn) => {
                self.forget(index, &assignee);
                self.say_to_server(index, Kind::LeaseDropped(LeaseDropped { assignee }));
                self.say_credits(index);
            }
            (HeldState::Claimed, None) => {
                held.state = HeldState::Running;
                let started_at_ms = self.now;
                let started = StepStarted {
                    assignee: assignee.clone(),
                    sandbox,
                    started_at_ms,
                    container: None,
                };
                self.say_to_server(index, Kind::StepStarted(started));
                let run_ms = match self.dice.below(20) {
                    _ if self.healed => self.dice.between(1, 200),
                    0..=14 => self.dice.between(1, 2_000),
                    15..=18 => self.dice.between(2_000, 10_000),
                    _ => self.dice.between(10_000, 40_000),
                };
                self.after(run_ms, Event::Work(index, life, Box::new(assignee)));
            }
            (HeldState::Running, None) => {
                if !self.healed && self.dice.chance(15) {
                    // The sandbox died with its supervisor.
                    self.forget(index, &assignee);
                    self.say_to_server(index, Kind::LeaseDropped(LeaseDropped { assignee }));
                    return self.say_credits(index);
                }
                let result = outcome::draw(&self.dice, self.healed);
                self.finish(index, &assignee, result);
            }
        }
    }

    fn finish(&mut self, index: usize, assignee: &Assignee, mut result: StepResult) {
        result.finished_at_ms = self.now;
        if let Some(held) = self.nodes[index].held.get_mut(&names::attempt(assignee)) {
            if held.state == HeldState::Running {
                result.started_at_ms = Some(self.now);
            }
            held.state = HeldState::Finished;
            held.occupies &= !held.assignment.plan.last;
            held.result = Some(result);
        }
        self.say_credits(index);
        if self.nodes[index].registered {
            self.report(index, assignee);
        }
    }

    fn report(&mut self, index: usize, assignee: &Assignee) {
        let held = self.nodes[index].held.get(&names::attempt(assignee));
        let Some(result) = held.and_then(|held| held.result.clone()) else {
            return;
        };
        let finished = StepFinished {
            assignee: assignee.clone(),
            result,
        };
        self.say_to_server(index, Kind::StepFinished(finished));
    }

    /// The node's process dies. Its sandboxes go on, and it takes them up again by its claims; or its host is gone with everything.
    pub(crate) fn crash_node(&mut self, index: usize, with_claims: bool) {
        let node = &mut self.nodes[index];
        if node.down {
            return;
        }
        node.down = true;
        node.kept = None;
        if !with_claims {
            node.held.clear();
            node.life += 1;
        }
        if let Some(link) = self.nodes[index].link.take() {
            self.hang_up(link);
        }
        let away_ms = self.dice.between(100, self.climate.lease_ms * 2);
        self.after(away_ms, Event::NodeBack(index));
    }

    /// The host burns down.
    pub(crate) fn lose_node(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        (node.down, node.gone, node.kept) = (true, true, None);
        node.held.clear();
        node.life += 1;
        if let Some(link) = node.link.take() {
            self.hang_up(link);
        }
    }

    pub(crate) fn node_back(&mut self, index: usize) {
        if self.nodes[index].gone {
            return;
        }
        self.nodes[index].down = false;
        self.dial_later(index);
    }

    pub(crate) fn node_fit(&mut self, index: usize) {
        self.nodes[index].fault = None;
        self.say_credits(index);
    }

    pub(crate) fn impair_node(&mut self, index: usize) {
        let code = if self.dice.chance(500) {
            ErrorCode::DockerUnavailable
        } else {
            ErrorCode::DiskFull
        };
        self.nodes[index].fault = Some(Fault::new(code, "not now"));
        self.say_credits(index);
        let for_ms = self.dice.between(1_000, 40_000);
        self.after(for_ms, Event::NodeFit(index));
    }
}
