//! What goes wrong, and the choice between that and what clients do.

use crate::oracle::Broken;
use crate::world::{Event, World};

#[derive(Clone, Copy)]
enum Fault {
    KillServer,
    StopServer,
    RestartServer,
    DiskFull,
    ClockJump,
    Partition,
    Cut,
    NodeCrash,
    NodeStop,
    NodeUnfit,
    NodeGone,
}

impl World {
    /// One random act of a client or of fate.
    pub(crate) async fn act(&mut self) -> Result<(), Broken> {
        let faults = self.climate.faults;
        let choices = [
            (faults.kill_server, Fault::KillServer),
            (faults.stop_server, Fault::StopServer),
            (faults.restart_server, Fault::RestartServer),
            (faults.disk_full, Fault::DiskFull),
            (faults.clock_jump, Fault::ClockJump),
            (faults.partition, Fault::Partition),
            (faults.cut, Fault::Cut),
            (faults.node_crash, Fault::NodeCrash),
            (faults.node_stop, Fault::NodeStop),
            (faults.node_unfit, Fault::NodeUnfit),
            (faults.node_gone, Fault::NodeGone),
        ];
        let weights: Vec<u64> = self
            .operations
            .iter()
            .map(|operation| operation.weight(&self.climate))
            .collect();
        let operations: u64 = weights.iter().sum();
        let all = operations + choices.iter().map(|(weight, _)| weight).sum::<u64>();
        let mut chosen = self.dice.below(all);
        for (index, weight) in weights.into_iter().enumerate() {
            if chosen < weight {
                let mut operations = std::mem::take(&mut self.operations);
                operations[index].act(self);
                self.operations = operations;
                return Ok(());
            }
            chosen -= weight;
        }
        for (weight, fault) in choices {
            if chosen < weight {
                return self.fault(fault).await;
            }
            chosen -= weight;
        }
        Ok(())
    }

    async fn fault(&mut self, fault: Fault) -> Result<(), Broken> {
        let node = self.dice.index(self.nodes.len());
        match fault {
            Fault::KillServer => {
                if self.current().is_some() {
                    self.kill_server()?;
                }
            }
            Fault::StopServer => {
                let ms = if self.dice.chance(500) {
                    self.dice.between(100, 4_000)
                } else {
                    self.dice.between(4_000, self.climate.lease_ms * 2)
                };
                self.say(|| format!("the server stands still for {ms} ms"));
                self.stand_still(ms).await?;
            }
            Fault::RestartServer => self.stop_server().await,
            Fault::DiskFull => {
                self.say(|| "the disk is full".to_owned());
                self.disk.set_full(true);
                let for_ms = self.dice.between(500, 30_000);
                self.after(for_ms, Event::DiskFree);
            }
            Fault::ClockJump => {
                let by_ms = i64::try_from(self.dice.between(1_000, 600_000)).unwrap_or(0);
                let by_ms = if self.dice.chance(500) { by_ms } else { -by_ms };
                self.say(|| format!("the wall clock jumps by {by_ms} ms"));
                self.clock.jump(by_ms);
            }
            Fault::Partition => {
                let for_ms = self.dice.between(500, self.climate.lease_ms * 2);
                let until_ms = self.now + for_ms;
                self.say(|| format!("node {node} is cut off for {for_ms} ms"));
                self.nodes[node].partitioned_until_ms = until_ms;
                for link in self.links.values_mut().filter(|link| link.node == node) {
                    link.blocked_until_ms = until_ms;
                }
            }
            Fault::Cut => {
                if let Some(link) = self.nodes[node].link {
                    self.say(|| format!("the stream of node {node} breaks"));
                    self.hang_up(link);
                    self.lose_link(node, link);
                }
            }
            Fault::NodeCrash => {
                let with_claims = self.dice.chance(600);
                self.say(|| format!("node {node} crashes, claims kept: {with_claims}"));
                self.crash_node(node, with_claims);
            }
            Fault::NodeStop => {
                let for_ms = self.dice.between(1_000, self.climate.lease_ms * 3);
                self.say(|| format!("node {node} stands still for {for_ms} ms"));
                self.nodes[node].stopped_until_ms = self.now + for_ms;
            }
            Fault::NodeGone => {
                // One stays, so that what is bound to no node ends.
                if self.nodes.iter().filter(|each| !each.gone).count() > 1 && !self.nodes[node].gone {
                    self.say(|| format!("node {node} is gone for good"));
                    self.lose_node(node);
                }
            }
            Fault::NodeUnfit => {
                self.say(|| format!("node {node} is unfit"));
                self.impair_node(node);
            }
        }
        Ok(())
    }

    /// No fault from now on, and what was broken is whole again.
    pub(crate) fn heal(&mut self) {
        self.say(|| "faults are over".to_owned());
        self.healed = true;
        self.climate = self.climate.healed();
        self.disk.set_climate(self.climate);
        self.disk.set_full(false);
        self.clock.set_right();
        let now = self.now;
        for link in self.links.values_mut() {
            link.blocked_until_ms = now;
        }
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            (node.stopped_until_ms, node.partitioned_until_ms) = (now, now);
            if node.down && !node.gone {
                self.node_back(index);
            }
            self.node_fit(index);
        }
        if self.current().is_none() {
            self.after(0, Event::StartServer);
        }
        for index in 0..self.operations.len() {
            self.after(1, Event::Operation(index, operations_healed()));
        }
    }
}

/// The mark with which operations are woken when faults are over.
pub(crate) const fn operations_healed() -> u64 {
    u64::MAX
}
