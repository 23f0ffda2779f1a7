//! A seeded random walk over commands, messages and crashes, on the model store. `GANTRY_SEED=n` replays one seed, `GANTRY_SEEDS=n` sets how many.

use std::collections::{BTreeMap, BTreeSet};

use gantry_proto::v1::{Assignment, EndCause};
use gantry_proto::{NodeId, TaskId, WorkflowId};

use super::pauses::{pause, resume};
use super::table::{Fate, Table, cancel, dropped, failed, lost, reconcile, refuse, submission};
use super::waits::{decision, retry, signal};
use super::world::{candidate, ended, node_id, with_outputs};
use crate::api::{Candidate, Order, Reassignment, StepState, TaskDecision, TaskState, Verdict, WorkflowState};
use crate::core::commands::{LeaseExpired, StepFinished, StepStarted, TimerDue};
use crate::core::state::Timer;
use crate::core::{Command, Reply};

const SEEDS: u64 = 24;
const OPERATIONS: u32 = 120;
const NODES: u64 = 3;

/// A finished attempt that the answer is about: where, what, and whether it went well.
type About = Option<(NodeId, Assignment, bool)>;

const DEFINITIONS: &[&str] = &[
    "{name: one, tasks: {t: {steps: [{run: 'true'}, {run: 'true'}, {run: 'true'}]}}}",
    "{name: retry, tasks: {t: {steps: [{run: 'true', retry: {attempts: 3, backoff: 1s}}, {run: 'true'}]}}}",
    "{name: diamond, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], steps: [{run: 'true'}]}, c: {needs: [a], steps: [{run: 'true'}]}, d: {needs: [b, c], run_on: always, steps: [{run: 'true'}]}}}",
    "{name: go-on, on_task_failure: continue, tasks: {a: {steps: [{run: 'true'}]}, b: {steps: [{run: 'true'}]}, c: {needs: [b], steps: [{run: 'true'}, {run: 'echo {{ steps[\"step-1\"].outputs.n }}'}]}}}",
    "{name: waits, tasks: {n: {sleep: 2s}, s: {needs: n, signal: {name: go, timeout: 20s, on_timeout: continue}}, a: {needs: s, approval: {message: ok, deadline: 20s, on_deadline: approve}}, z: {needs: a, when: \"tasks.s.code != 'timed_out'\", steps: [{run: 'true', retry: {attempts: 2, backoff: 1s, jitter: 0.5, exhausted: escalate}}]}}}",
    "{name: late, deadline: 60s, tasks: {a: {steps: [{run: 'true', retry: {attempts: 2, backoff: 1s, exhausted: pause}}]}, b: {needs: a, deadline: 10s, steps: [{run: 'true'}, {run: 'true'}]}, e: {signal: {name: go, timeout: 3s, on_timeout: escalate}}}}",
    "{name: ends, on_failure: {run: 'echo {{ failure.message }}', deadline: 30s}, on_cancel: {retry: {attempts: 2, backoff: 1s, exhausted: pause}, steps: [{run: 'true'}, {run: 'true'}]}, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], steps: [{run: 'true'}]}}}",
    "{name: judged, tasks: {a: {assess: {deadline: 30s, on_deadline: escalate, max_reworks: 1, exhausted: escalate}, steps: [{run: 'true'}, {run: 'echo {{ rework.feedback }}'}]}, b: {needs: [a], steps: [{run: 'true'}]}}}",
    "{name: hand, tasks: {a: {steps: [{run: 'true'}]}, b: {needs: [a], workspace: {from: a}, steps: [{run: 'true'}, {run: 'true'}]}}}",
    "{name: items, tasks: {a: {for_each: [1, 2, 3], max_parallel: 2, run: 'echo {{ item }}', retry: 2, tolerated_failures: 1}, b: {needs: a, run: 'echo {{ tasks.a.items[2].state }}'}}}",
];

/// splitmix64: small, and the same everywhere.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())].clone())
    }
}

struct Walk {
    dice: Dice,
    table: Table,
    workflows: Vec<WorkflowId>,
    /// What nodes hold, as they know it.
    held: Vec<(NodeId, Assignment)>,
    /// Results that were acknowledged as accepted.
    acknowledged: Vec<(NodeId, Assignment)>,
    /// Steps whose completion was acknowledged, by the key that services know them by, with the attempt that did it.
    completed: BTreeMap<String, u32>,
    /// Newest fence that was handed out, by task.
    fences: BTreeMap<TaskId, u64>,
    unique: u64,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut table = Table::new();
        table.entropy = seed | 1;
        Self {
            dice: Dice(seed),
            table,
            workflows: Vec::new(),
            held: Vec::new(),
            acknowledged: Vec::new(),
            completed: BTreeMap::new(),
            fences: BTreeMap::new(),
            unique: 0,
        }
    }

    fn credits(&mut self) -> Vec<Candidate> {
        let mut credits = Vec::new();
        for number in 1..=NODES {
            if self.dice.chance(70) {
                credits.push(candidate(number, u32::try_from(self.dice.below(4)).unwrap()));
            }
        }
        credits
    }

    fn fate(&mut self) -> Fate {
        match self.dice.below(20) {
            0 => Fate::DiesBefore,
            1 => Fate::DiesAfter,
            _ => Fate::Done,
        }
    }

    fn command(&mut self) -> Option<(Command, About)> {
        let plain = |command: Command| Some((command, None));
        match self.dice.below(18) {
            0 | 1 => plain(submission(self.dice.pick(DEFINITIONS)?).into()),
            2..=5 => {
                let held = self.dice.pick(&self.held)?;
                self.unique += 1;
                let result = match self.dice.below(10) {
                    0 => failed(),
                    1 => lost(),
                    2 => ended(EndCause::Cancelled, None),
                    3 => ended(EndCause::Timeout, None),
                    _ => with_outputs(&format!("{{\"n\": {}}}", self.unique)),
                };
                let good = result.exit_code == Some(0);
                let command = StepFinished {
                    node: held.0,
                    assignee: held.1.assignee.clone(),
                    result,
                };
                Some((command.into(), Some((held.0, held.1, good))))
            }
            6 => {
                let (node, assignment) = self.dice.pick(&self.acknowledged)?;
                // A repeat; that it now says something else must not matter.
                let command = StepFinished {
                    node,
                    assignee: assignment.assignee.clone(),
                    result: failed(),
                };
                Some((command.into(), Some((node, assignment, false))))
            }
            7 => {
                let (node, assignment) = self.dice.pick(&self.held)?;
                plain(
                    StepStarted {
                        node,
                        started: super::world::started(&assignment.assignee),
                    }
                    .into(),
                )
            }
            8 => plain(refuse(&self.dice.pick(&self.held)?).into()),
            9 => plain(dropped(&self.dice.pick(&self.held)?).into()),
            10 => {
                let (_, assignment) = self.dice.pick(&self.held)?;
                let assignee = &assignment.assignee;
                let task = self.table.state.find(assignee.workflow, assignee.task)?;
                plain(
                    LeaseExpired {
                        task,
                        fence: assignee.fence,
                    }
                    .into(),
                )
            }
            11 => {
                let chosen = self.dice.pick(&self.workflows)?;
                self.dice.chance(30).then(|| (cancel(chosen).into(), None))
            }
            12 => {
                self.table.now_ms += 500 * self.dice.below(8) as u64;
                plain(TimerDue.into())
            }
            13 => {
                let chosen = self.dice.pick(&self.workflows)?;
                let id = self.dice.chance(50).then(|| u8::try_from(self.dice.below(4)).unwrap());
                plain(signal(chosen, "go", id, &serde_json::json!({"n": 1})).into())
            }
            14 => {
                let chosen = self.dice.pick(&self.workflows)?;
                let task = self.dice.pick(&["a", "b", "e", "n", "s", "t", "z"])?;
                let what = self.dice.pick(&[
                    TaskDecision::Approve,
                    TaskDecision::Reject,
                    TaskDecision::Accept { round: None },
                    TaskDecision::Rework { round: None },
                    TaskDecision::Reassign(Reassignment {
                        away: true,
                        restart: true,
                        ..Reassignment::default()
                    }),
                    TaskDecision::Reassign(Reassignment::default()),
                    TaskDecision::Skip,
                    TaskDecision::Fail,
                    TaskDecision::Resolve {
                        outputs: serde_json::Map::new(),
                    },
                    retry(),
                    retry(),
                ])?;
                plain(decision(chosen, task, what).into())
            }
            15 => {
                let chosen = self.dice.pick(&self.workflows)?;
                let interrupt = self.dice.chance(50);
                self.dice.chance(50).then(|| (pause(chosen, interrupt).into(), None))
            }
            16 => plain(resume(self.dice.pick(&self.workflows)?).into()),
            _ => {
                let node = node_id(1 + self.dice.next() % NODES);
                let known = self.held.iter().filter(|(holder, _)| *holder == node);
                let mut holding: Vec<_> = known.map(|(_, assignment)| assignment.assignee.clone()).collect();
                if self.dice.chance(30) && !holding.is_empty() {
                    holding.remove(0);
                }
                plain(reconcile(node, holding).into())
            }
        }
    }

    fn step(&mut self) {
        let mut commands = Vec::new();
        let mut about = Vec::new();
        for _ in 0..1 + self.dice.below(3) {
            if let Some((command, finished)) = self.command() {
                commands.push(command);
                about.push(finished);
            }
        }
        let credits = self.credits();
        let fate = self.fate();
        let replies = self.table.batch(commands, &credits, fate);
        for (reply, about) in replies.iter().zip(about) {
            match (reply, about) {
                (Ok(Reply::Submitted(receipt)), _) => self.workflows.push(receipt.workflow),
                (Ok(Reply::Verdict(verdict)), Some((node, assignment, good))) => {
                    self.heard(*verdict, node, assignment, good)
                }
                _ => {}
            }
        }
        self.deliver();
        self.check();
        if fate != Fate::Done || self.dice.chance(5) {
            self.table.verify();
        }
    }

    fn heard(&mut self, verdict: Verdict, node: NodeId, assignment: Assignment, good: bool) {
        let assignee = &assignment.assignee;
        let before = self.acknowledged.iter().any(|(_, each)| each.assignee == *assignee);
        let active = self.table.state.workflows.contains_key(&assignee.workflow);
        if before && active {
            assert_eq!(verdict, Verdict::Accepted, "an acknowledged result stays acknowledged");
        }
        if verdict == Verdict::Accepted && !before {
            // Only what is journaled may be acknowledged: it must be there for whoever reads the store.
            let row = self
                .table
                .workflow(assignee.workflow)
                .tasks
                .into_iter()
                .find(|task| task.row.id == assignee.task);
            let step = row.unwrap().row.steps[assignee.step as usize].clone();
            let attempt = step
                .attempts
                .iter()
                .find(|each| each.attempt == assignee.attempt)
                .unwrap();
            assert!(!attempt.is_open());
            if good && attempt.state() == StepState::Completed {
                let key = assignment.plan.idempotency_key.clone();
                self.completed.insert(key, assignee.attempt);
                // Its submission may have been answered by a process that died.
                if !self.workflows.contains(&assignee.workflow) {
                    self.workflows.push(assignee.workflow);
                }
            }
            if attempt.state() != StepState::Lost {
                self.acknowledged.push((node, assignment.clone()));
            }
        }
        self.held.retain(|(_, each)| each.assignee != assignment.assignee);
    }

    /// Orders reach nodes, except that some are lost on the way.
    fn deliver(&mut self) {
        for order in std::mem::take(&mut self.table.orders) {
            let Order::Assign(node, assignment) = order else {
                continue;
            };
            let assignee = &assignment.assignee;
            let newest = self.fences.entry(assignee.task).or_default();
            assert!(assignee.fence >= *newest, "fences only grow");
            *newest = assignee.fence;
            assert!(
                !self.completed.contains_key(&assignment.plan.idempotency_key),
                "a completed step was assigned again"
            );
            if !self.dice.chance(10) {
                self.held.push((node, *assignment));
            }
        }
    }

    fn check(&self) {
        let state = &self.table.state;
        for (_, timer) in &state.timers {
            if let Timer::Task((id, _)) | Timer::TaskDeadline((id, _)) | Timer::WorkflowDeadline(id) = timer {
                assert!(!state.is_paused(*id), "a timer of a held workflow would fire");
            }
        }
        for workflow in state.workflows.values() {
            for task in &workflow.tasks {
                let queued = state.ready.position((workflow.row.id, task.row.index)).is_some();
                let wanted = task.row.state() == TaskState::Ready && !state.is_paused(workflow.row.id);
                assert_eq!(queued, wanted, "what is ready is queued, unless its workflow is held");
            }
        }
        for workflow in self.table.state.workflows.values() {
            for task in &workflow.tasks {
                let row = &task.row;
                let open: usize = row
                    .steps
                    .iter()
                    .flat_map(|step| &step.attempts)
                    .filter(|each| each.is_open())
                    .count();
                assert_eq!(
                    open,
                    usize::from(row.holder.is_some()),
                    "one live fence means one open attempt: {row:?}"
                );
                let queued = row.queued_at_ms.is_some();
                assert_eq!(
                    queued,
                    row.state() == TaskState::Ready,
                    "ready is queued, and nothing else is: {row:?}"
                );
            }
        }
    }

    /// Completed steps are what they were when they were acknowledged.
    fn check_completed(&self) {
        let mut seen = BTreeSet::new();
        for id in &self.workflows {
            for task in self.table.workflow(*id).tasks {
                for (index, step) in (0u32..).zip(&task.row.steps) {
                    let key = |round: u32| match round {
                        0 => format!("{}.{index}", task.row.id),
                        round => format!("{}.{index}.{round}", task.row.id),
                    };
                    // What was done in earlier rounds is no result any more.
                    seen.extend(
                        (0..task.row.round)
                            .map(key)
                            .filter(|key| self.completed.contains_key(key)),
                    );
                    if let Some(attempt) = self.completed.get(&key(task.row.round)) {
                        assert_eq!(step.state(), StepState::Completed);
                        assert_eq!(
                            step.attempts.last().unwrap().attempt,
                            *attempt,
                            "nothing ran after its completion"
                        );
                        seen.insert(key(task.row.round));
                    }
                }
            }
        }
        assert_eq!(seen.len(), self.completed.len());
    }

    /// With capacity and time, everything ends.
    fn quiesce(&mut self) {
        for _ in 0..400 {
            if self.table.state.workflows.is_empty() {
                break;
            }
            let mut commands: Vec<Command> = vec![TimerDue.into()];
            for (node, assignment) in std::mem::take(&mut self.held) {
                let result = with_outputs("{\"n\": 0}");
                commands.push(
                    StepFinished {
                        node,
                        assignee: assignment.assignee,
                        result,
                    }
                    .into(),
                );
            }
            for workflow in self.table.state.workflows.values() {
                let id = workflow.row.id;
                commands.extend((workflow.row.state() == WorkflowState::Paused).then(|| resume(id).into()));
                let given = workflow.tasks.iter().map(|task| &task.row);
                let given = given.filter(|row| row.state() == TaskState::Escalated);
                commands.extend(given.map(|row| decision(id, &row.name, TaskDecision::Skip).into()));
            }
            // What the nodes do not hold, they say they do not hold.
            commands.extend((1..=NODES).map(|number| reconcile(node_id(number), Vec::new()).into()));
            let credits: Vec<Candidate> = (1..=NODES).map(|number| candidate(number, 64)).collect();
            self.table.now_ms += 10_000;
            self.table.batch(commands, &credits, Fate::Done);
            for order in std::mem::take(&mut self.table.orders) {
                if let Order::Assign(node, assignment) = order {
                    self.held.push((node, *assignment));
                }
            }
        }
        let left: Vec<_> = self
            .table
            .state
            .workflows
            .values()
            .flat_map(|each| &each.tasks)
            .map(|task| &task.row)
            .collect();
        assert!(left.is_empty(), "these neither end nor say why they wait: {left:#?}");
        assert!(
            self.table.state.ready.is_empty() && self.table.state.timers.is_empty() && self.table.state.held.is_empty()
        );
    }
}

fn walk(seed: u64) {
    let mut walk = Walk::new(seed);
    for _ in 0..OPERATIONS {
        walk.step();
    }
    walk.check_completed();
    walk.quiesce();
    walk.check_completed();
    walk.table.verify();
    walk.table.crash();
    assert!(
        walk.table.state.workflows.is_empty(),
        "recovery finds nothing left to do"
    );
}

#[test]
fn random_walks_keep_the_promises() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("GANTRY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("GANTRY_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| walk(seed)) {
            eprintln!("replay with: GANTRY_SEED={seed} cargo nextest run -p gantry-engine random_walks");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_same_seed_walks_the_same_way() {
    let digest = |seed| {
        let mut walk = Walk::new(seed);
        (0..60).for_each(|_| walk.step());
        let rows: Vec<_> = walk
            .workflows
            .iter()
            .map(|id| format!("{:?}", walk.table.workflow(*id).row))
            .collect();
        (walk.table.state.next_seq, rows)
    };
    assert_eq!(digest(11), digest(11));
    assert_ne!(digest(11).0, digest(12).0);
}
