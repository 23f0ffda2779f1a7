//! Random walks over several partitions: letters are lost, repeated and late, owners die before and after their commits, and in the end every workflow and
//! child has ended, each child was born once, and every outbox is empty. `GANTRY_SEED=n` replays one seed.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::v1::Assignment;
use gantry_proto::{NodeId, PartitionId, WorkflowId};

use super::random::Dice;
use super::table::{Fate, Table, cancel, failed, submission};
use super::world::{candidate, with_outputs};
use crate::core::Reply;
use crate::core::commands::{Acknowledged, Receive, StepFinished, TimerDue};
use crate::processor::courier;

const PARTITIONS: u16 = 3;
const SEEDS: u64 = 12;
const OPERATIONS: u32 = 150;

const DEFINITIONS: &[&str] = &[
    "{name: plain, tasks: {t: {run: 'true'}}}",
    "{name: one, tasks: {c: {workflow: {definition: {name: kid, tasks: {t: {run: 'true'}}, outputs: {n: '{{ tasks.t.outputs.n }}'}}}}, t: {needs: c, run: 'echo {{ tasks.c.outputs.n }}'}}}",
    "{name: many, tasks: {c: {for_each: [1, 2, 3], max_parallel: 2, on_item_failure: continue, tolerated_failures: 2, workflow: {definition: {name: kid, parameters: {i: {type: integer}}, tasks: {t: {run: 'echo {{ params.i }}'}}}, parameters: {i: '{{ item }}'}}}}}",
    "{name: deep, tasks: {c: {workflow: {definition: {name: kid, tasks: {g: {workflow: {definition: {name: grandkid, tasks: {t: {run: 'true'}}}}}}}}}, t: {run: 'true'}}}",
    "{name: alone, tasks: {c: {workflow: {detached: true, definition: {name: kid, tasks: {t: {run: 'true'}}}}}, t: {needs: c, run: 'true'}}}",
];

struct Post {
    dice: Dice,
    offices: Vec<Table>,
    roots: Vec<WorkflowId>,
    held: Vec<(usize, NodeId, Assignment)>,
    unique: u64,
}

impl Post {
    fn new(seed: u64) -> Self {
        let offices = (0..PARTITIONS).map(|index| {
            let mut table = Table::at(PartitionId::new(index).unwrap(), PARTITIONS);
            table.entropy = seed.wrapping_mul(31).wrapping_add(u64::from(index)) | 1;
            table
        });
        Self {
            dice: Dice::new(seed),
            offices: offices.collect(),
            roots: Vec::new(),
            held: Vec::new(),
            unique: 0,
        }
    }

    fn fate(&mut self) -> Fate {
        match self.dice.below(12) {
            0 => Fate::DiesBefore,
            1 => Fate::DiesAfter,
            _ => Fate::Done,
        }
    }

    /// Takes up what was sent out to nodes.
    fn take(&mut self, office: usize) {
        let assigned = self.offices[office].assigned();
        self.held.extend(
            assigned
                .into_iter()
                .map(|(node, assignment)| (office, node, assignment)),
        );
    }

    /// Carries some of the oldest letters from one office to another; they, or the answer, may be lost.
    fn deliver(&mut self, from: usize, to: usize, fate: Fate) {
        let receiver = self.offices[to].partition;
        let sender = &self.offices[from];
        let open = sender.state.mail.open.iter().filter(|((each, _), _)| *each == receiver);
        let mut letters: Vec<(u64, u64)> = open.map(|((_, number), row)| (*number, row.seq)).collect();
        letters.truncate(1 + self.dice.below(4));
        if letters.is_empty() {
            return;
        }
        let mut letters = courier::open(&sender.storage, sender.partition, &letters).unwrap();
        if self.dice.chance(15) && letters.len() > 1 {
            // Out of order: the receiver refuses what it cannot place.
            letters.remove(0);
        }
        let from_partition = sender.partition;
        let command = Receive {
            from: from_partition,
            letters,
        };
        let replies = self.offices[to].batch(vec![command.into()], &[candidate(1, 2)], fate);
        self.take(to);
        let Some(Ok(Reply::Received { through })) = replies.into_iter().next() else {
            return;
        };
        if through > 0 && self.dice.chance(70) {
            let acknowledged = Acknowledged { to: receiver, through };
            let fate = self.fate();
            self.offices[from].batch(vec![acknowledged.into()], &[], fate);
        }
    }

    fn finish(&mut self, index: usize, well: bool, fate: Fate) {
        let (office, node, assignment) = self.held[index].clone();
        self.unique += 1;
        let result = if well {
            with_outputs(&format!("{{\"n\": {}}}", self.unique))
        } else {
            failed()
        };
        let command = StepFinished {
            node,
            assignee: assignment.assignee,
            result,
        };
        let replies = self.offices[office].batch(vec![command.into()], &[candidate(1, 2)], fate);
        if !replies.is_empty() {
            self.held.remove(index);
        }
        self.take(office);
    }

    fn step(&mut self) {
        let office = self.dice.below(self.offices.len());
        let fate = self.fate();
        match self.dice.below(10) {
            0 | 1 => {
                let source = self.dice.pick(DEFINITIONS).unwrap();
                let replies = self.offices[office].batch(vec![submission(source).into()], &[candidate(1, 2)], fate);
                if let Some(Ok(Reply::Submitted(receipt))) = replies.into_iter().next() {
                    self.roots.push(receipt.workflow);
                }
                self.take(office);
            }
            2 => {
                if let Some(root) = self.dice.pick(&self.roots)
                    && self.dice.chance(30)
                {
                    let home = usize::from(root.partition().index());
                    self.offices[home].batch(vec![cancel(root).into()], &[], fate);
                }
            }
            3..=5 if !self.held.is_empty() => {
                let index = self.dice.below(self.held.len());
                let well = self.dice.chance(80);
                self.finish(index, well, fate);
            }
            _ => {
                let to = self.dice.below(self.offices.len());
                self.deliver(office, to, fate);
            }
        }
    }

    /// Everything arrives and everything is finished, until nothing is left to do.
    fn quiesce(&mut self) {
        for _ in 0..2_000 {
            for table in &mut self.offices {
                table.now_ms += 1_000;
                table.batch(vec![TimerDue.into()], &[candidate(1, 50)], Fate::Done);
            }
            for office in 0..self.offices.len() {
                self.take(office);
                // What was assigned by an owner that died is known to its node all the same.
                for (id, workflow) in self.offices[office].state.workflows.clone() {
                    for task in workflow.tasks.iter().filter(|task| task.row.holder.is_some()) {
                        let assignee = task.row.open().map(|(step, open)| gantry_proto::v1::Assignee {
                            tenant: workflow.row.tenant,
                            workflow: id,
                            task: task.row.id,
                            fence: task.row.fence,
                            step: u32::try_from(step).unwrap(),
                            attempt: open.attempt,
                        });
                        let known = |held: &(usize, NodeId, Assignment)| Some(&held.2.assignee) == assignee.as_ref();
                        if let Some(assignee) = assignee.clone().filter(|_| !self.held.iter().any(known)) {
                            let assignment = Assignment {
                                assignee,
                                ..Assignment::default()
                            };
                            self.held.push((office, task.row.holder.unwrap(), assignment));
                        }
                    }
                }
            }
            while !self.held.is_empty() {
                self.finish(0, true, Fate::Done);
            }
            for from in 0..self.offices.len() {
                for to in 0..self.offices.len() {
                    self.deliver(from, to, Fate::Done);
                }
            }
            let done = |table: &Table| table.state.workflows.is_empty() && table.state.mail.open.is_empty();
            if self.offices.iter().all(done) {
                return;
            }
        }
        let left: Vec<_> = self
            .offices
            .iter()
            .map(|table| (&table.state.workflows, &table.state.mail))
            .collect();
        panic!("these neither end nor arrive: {left:#?}");
    }

    /// Every child that a task asked for was born once, in the partition that its id says, and knows its parent; nobody else was born.
    fn check(&self) {
        let mut asked = BTreeMap::new();
        let mut born = BTreeSet::new();
        for table in &self.offices {
            table.verify();
            for id in table.all_workflows() {
                let workflow = table.workflow(id);
                assert!(workflow.row.is_ended());
                assert_eq!(id.partition(), table.partition);
                assert!(born.insert(id));
                for task in &workflow.tasks {
                    if let Some(child) = task.row.child {
                        assert_eq!(asked.insert(child, (id, task.row.id)), None, "asked for twice");
                    }
                }
            }
        }
        for table in &self.offices {
            for id in table.all_workflows() {
                let lineage = table
                    .workflow(id)
                    .row
                    .lineage
                    .map(|lineage| (lineage.parent, lineage.task));
                assert_eq!(asked.remove(&id), lineage);
            }
        }
        assert!(asked.is_empty(), "never born: {asked:?}");
    }
}

#[test]
fn letters_have_their_effect_once_whatever_happens() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("GANTRY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("GANTRY_SEEDS").unwrap_or(SEEDS).min(SEEDS * 10),
    };
    for seed in seeds {
        let walk = std::panic::catch_unwind(|| {
            let mut post = Post::new(seed);
            for _ in 0..OPERATIONS {
                post.step();
            }
            post.quiesce();
            post.check();
        });
        if let Err(panic) = walk {
            eprintln!("replay with: GANTRY_SEED={seed} cargo nextest run -p gantry-engine letters_have");
            std::panic::resume_unwind(panic);
        }
    }
}
