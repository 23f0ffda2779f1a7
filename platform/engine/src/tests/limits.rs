//! Concurrency keys and rates over several partitions, letter by letter.

use gantry_proto::v1::Assignment;
use gantry_proto::{ErrorCode, NodeId, PartitionId, WorkflowId, limits};

use super::pauses::{pause, resume};
use super::table::{Fate, Table, cancel, submission};
use super::world::{candidate, ended, ok, tenant};
use crate::api::TaskState;
use crate::core::commands::{Acknowledged, Receive, TimerDue};
use crate::core::limits::{LimitedKey, key_hash};
use crate::core::{Command, Reply};
use crate::lifecycle::workflow::WorkflowState;
use crate::processor::courier;

const PARTITIONS: u16 = 3;

/// Partitions whose letters all arrive.
pub(super) struct Town {
    pub(super) offices: Vec<Table>,
}

impl Town {
    pub(super) fn new() -> Self {
        let offices = (0..PARTITIONS).map(|index| {
            let mut table = Table::at(PartitionId::new(index).unwrap(), PARTITIONS);
            table.entropy = u64::from(index) + 1;
            table
        });
        Self {
            offices: offices.collect(),
        }
    }

    fn home(&mut self, id: WorkflowId) -> &mut Table {
        &mut self.offices[usize::from(id.partition().index())]
    }

    pub(super) fn order(&mut self, office: usize, command: impl Into<Command>) -> Reply {
        let replies = self.offices[office].batch(vec![command.into()], &[candidate(1, 50)], Fate::Done);
        replies.into_iter().next().unwrap().unwrap()
    }

    /// Starts a workflow, and carries what follows.
    pub(super) fn start(&mut self, office: usize, source: &str) -> WorkflowId {
        let Reply::Submitted(receipt) = self.order(office, submission(source)) else {
            panic!("not submitted");
        };
        self.carry();
        receipt.workflow
    }

    /// Carries letters until none is left.
    pub(super) fn carry(&mut self) {
        for _ in 0..100 {
            let mut carried = false;
            for from in 0..self.offices.len() {
                let letters: Vec<_> = self.offices[from].state.mail.open.clone().into_iter().collect();
                for to in 0..self.offices.len() {
                    let receiver = self.offices[to].partition;
                    let own: Vec<(u64, u64)> = letters
                        .iter()
                        .filter(|((each, _), _)| *each == receiver)
                        .map(|((_, number), row)| (*number, row.seq))
                        .collect();
                    if own.is_empty() {
                        continue;
                    }
                    carried = true;
                    let sender = &self.offices[from];
                    let letters = courier::open(&sender.storage, sender.partition, &own).unwrap();
                    let from_partition = sender.partition;
                    let receive = Receive {
                        from: from_partition,
                        letters,
                    };
                    let Reply::Received { through } = self.order(to, receive) else {
                        panic!("not received");
                    };
                    self.order(from, Acknowledged { to: receiver, through });
                }
            }
            if !carried {
                return;
            }
        }
        panic!("letters without end");
    }

    /// Lets time pass everywhere.
    pub(super) fn pass(&mut self, ms: u64) {
        for office in 0..self.offices.len() {
            self.offices[office].now_ms += ms;
            self.order(office, TimerDue);
        }
        self.carry();
    }

    /// What was sent to nodes, by workflow.
    pub(super) fn assigned(&mut self) -> Vec<(WorkflowId, (NodeId, Assignment))> {
        let all = self.offices.iter_mut().flat_map(|office| office.assigned());
        let mut all: Vec<_> = all.map(|each| (each.1.assignee.workflow, each)).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    fn running(&mut self) -> Vec<WorkflowId> {
        self.assigned().into_iter().map(|(id, _)| id).collect()
    }

    fn finish(&mut self, (id, assignment): &(WorkflowId, (NodeId, Assignment))) {
        self.home(*id).finish(assignment, ok(), &[candidate(1, 50)]);
        self.carry();
    }

    pub(super) fn state(&mut self, id: WorkflowId) -> WorkflowState {
        self.home(id).workflow(id).row.state()
    }

    fn key(&self, is_rate: bool, text: &str) -> Option<&LimitedKey> {
        let key = (tenant(), key_hash(is_rate, text));
        self.offices.iter().find_map(|office| office.state.limits.key(&key))
    }

    /// Everybody dies and comes back; rows are what the logs say.
    pub(super) fn crash(&mut self) {
        for office in &mut self.offices {
            office.crash();
            office.verify();
        }
    }

    fn empty(&self) -> bool {
        self.offices.iter().all(|office| office.state.limits.claims() == 0)
    }
}

fn with_key(name: &str, extra: &str) -> String {
    format!(
        "{{name: {name}, tasks: {{t: {{run: 'true', concurrency: {{key: 'repo-{{{{ workflow.name[:1] }}}}', limit: 1{extra}}}}}}}}}"
    )
}

#[test]
fn a_key_lets_one_after_the_other_run_across_workflows_and_partitions() {
    let mut town = Town::new();
    let ids: Vec<_> = (0..3)
        .map(|office| town.start(office, &with_key(&format!("k{office}"), "")))
        .collect();
    let mut ran = Vec::new();
    for round in 0..3 {
        let running = town.assigned();
        assert_eq!(running.len(), 1, "round {round}");
        let limited = town.key(false, "repo-k").unwrap();
        assert_eq!((limited.holders(), limited.waiters()), (1, 2 - round));
        town.crash();
        ran.push(running[0].0);
        town.finish(&running[0]);
    }
    assert_eq!(ran, ids, "by age");
    assert!(ids.iter().all(|id| town.state(*id) == WorkflowState::Completed));
    assert!(town.empty());
    town.crash();
}

#[test]
fn priority_goes_first_and_age_outweighs_it() {
    let mut town = Town::new();
    let source =
        |name: &str, priority: u32| with_key(name, "").replacen("name:", &format!("priority: {priority}, name:"), 1);
    let first = town.start(0, &source("ka", 4));
    let old = town.start(1, &source("kb", 2));
    town.pass(limits::PRIORITY_STEP_MS * 2 + 1);
    let (low, high) = (town.start(2, &source("kc", 4)), town.start(0, &source("kd", 9)));
    let mut ran = Vec::new();
    for _ in 0..4 {
        let running = town.assigned();
        ran.push(running[0].0);
        town.finish(&running[0]);
    }
    assert_eq!(ran, [first, high, old, low]);
}

#[test]
fn a_workflow_waits_for_its_key_before_anything_begins_and_can_be_held_and_ended() {
    let source = |name: &str| {
        format!(
            "{{name: {name}, concurrency: [{{key: deploy, limit: 1}}, {{key: other, limit: 5}}], tasks: {{a: {{run: 'true'}}, b: {{needs: a, run: 'true'}}}}}}"
        )
    };
    let mut town = Town::new();
    let first = town.start(0, &source("a"));
    let second = town.start(1, &source("b"));
    let third = town.start(2, &source("c"));
    assert_eq!(town.running().len(), 1);
    assert_eq!(town.state(first), WorkflowState::Active);
    assert_eq!(town.state(second), WorkflowState::Pending);
    town.crash();
    town.order(1, pause(second, false));
    assert_eq!(town.state(second), WorkflowState::Paused);
    town.order(2, cancel(third));
    assert_eq!(town.state(third), WorkflowState::Cancelled);
    // The first one was assigned before the crash; it is cancelled as well.
    town.order(0, cancel(first));
    let held = town.home(first).task(first, "a").row.holder;
    assert!(held.is_some());
    town.pass(1);
    assert!(town.running().is_empty());
    let assignee = {
        let row = town.home(first).task(first, "a").row;
        gantry_proto::v1::Assignee {
            tenant: tenant(),
            workflow: first,
            task: row.id,
            fence: row.fence,
            step: 0,
            attempt: 1,
        }
    };
    let assignment = (
        held.unwrap(),
        Assignment {
            assignee,
            ..Assignment::default()
        },
    );
    let cancelled = ended(gantry_proto::v1::EndCause::Cancelled, None);
    town.home(first).finish(&assignment, cancelled, &[]);
    town.carry();
    assert_eq!(town.state(first), WorkflowState::Cancelled);
    // It has its keys now, and begins when it may.
    assert!(town.running().is_empty());
    town.order(1, resume(second));
    for _ in 0..2 {
        let running = town.assigned();
        assert_eq!(running[0].0, second);
        town.finish(&running[0]);
    }
    assert_eq!(town.state(second), WorkflowState::Completed);
    assert!(town.empty());
    town.crash();
}

#[test]
fn one_that_does_not_wait_fails_and_says_why() {
    let mut town = Town::new();
    let first = town.start(0, &with_key("ka", ", on_limit: refuse"));
    let second = town.start(1, &with_key("kb", ", on_limit: refuse"));
    assert_eq!(town.running(), [first]);
    assert_eq!(town.state(second), WorkflowState::Failed);
    let task = town.home(second).task(second, "t");
    assert_eq!(task.row.end_code.as_deref(), Some(ErrorCode::LimitReached.as_str()));
    let whole = "{name: w, concurrency: {key: repo-k, limit: 1, on_limit: refuse}, tasks: {t: {run: 'true'}}}";
    let third = town.start(2, whole);
    assert_eq!(town.state(third), WorkflowState::Failed);
    let row = town.home(third).workflow(third).row;
    assert_eq!(row.end_code.as_deref(), Some(ErrorCode::LimitReached.as_str()));
    town.crash();
}

#[test]
fn the_newest_one_takes_the_place_of_the_oldest() {
    let mut town = Town::new();
    let first = town.start(0, &with_key("ka", ", on_limit: cancel_running"));
    let running = town.assigned();
    let second = town.start(1, &with_key("kb", ", on_limit: cancel_running"));
    let third = town.start(2, &with_key("kc", ", on_limit: cancel_running"));
    // The second one waited for the first, and is overtaken while it does.
    assert_eq!(town.state(second), WorkflowState::Failed);
    let code = town.home(second).task(second, "t").row.end_code;
    assert_eq!(code.as_deref(), Some(ErrorCode::LimitOvertaken.as_str()));
    assert!(town.running().is_empty(), "the first one runs still");
    town.crash();
    let cancelled = ended(gantry_proto::v1::EndCause::Cancelled, None);
    town.home(first).finish(&running[0].1, cancelled, &[]);
    town.carry();
    let task = town.home(first).task(first, "t");
    assert_eq!(
        (task.row.state(), task.row.end_code.as_deref()),
        (TaskState::Failed, Some("limit-overtaken"))
    );
    let running = town.assigned();
    assert_eq!(running[0].0, third);
    town.finish(&running[0]);
    assert_eq!(town.state(third), WorkflowState::Completed);
    assert!(town.empty());
    town.crash();
}

#[test]
fn a_rate_lets_so_many_start_and_the_next_when_its_time_has_come() {
    let source = |name: &str| {
        format!("{{name: {name}, tasks: {{t: {{run: 'true', rate_limit: {{key: api, limit: 2, per: 1m}}}}}}}}")
    };
    let mut town = Town::new();
    let ids: Vec<_> = (0..5)
        .map(|number| town.start(number % 3, &source(&format!("r{number}"))))
        .collect();
    let mut first = town.running();
    first.sort_unstable();
    assert_eq!(first.len(), 2, "the burst");
    let next = town.key(true, "api").unwrap().next_ms(0).unwrap();
    assert_eq!(next - town.offices[0].now_ms, 30_000);
    town.crash();
    town.pass(29_999);
    assert!(town.running().is_empty(), "never early");
    town.pass(1);
    assert_eq!(town.running(), [ids[2]]);
    town.pass(30_000);
    assert_eq!(town.running(), [ids[3]]);
    town.order(1, cancel(ids[4]));
    town.carry();
    town.pass(600_000);
    assert!(town.running().is_empty());
    assert!(
        town.key(true, "api").is_none(),
        "forgotten when nothing of it is used up"
    );
    town.crash();
}

#[test]
fn items_wait_one_by_one_and_a_cancelled_task_gives_back_what_it_asked_for() {
    let source = "{name: list, tasks: {t: {for_each: [1, 2, 3], run: 'true', concurrency: {key: 'shard-{{ item % 2 }}', limit: 1}}}}";
    let mut town = Town::new();
    let id = town.start(0, source);
    assert_eq!(town.running().len(), 2, "1 and 2; 3 waits for 1");
    town.order(0, cancel(id));
    town.carry();
    assert_eq!(town.key(false, "shard-1").unwrap().waiters(), 0);
    assert_eq!(town.key(false, "shard-1").unwrap().holders(), 1, "what runs holds it");
}

#[test]
fn an_owner_asks_old_holders_and_hears_when_they_are_gone() {
    let mut town = Town::new();
    let first = town.start(0, &with_key("ka", ""));
    town.pass(limits::LIMIT_PROBE_MS);
    let limited = town.key(false, "repo-k").unwrap();
    let (_, row) = limited.claims().next().unwrap();
    assert!(
        row.probed_at_ms.is_some() && row.taken_at_ms.is_some(),
        "asked, and it holds still"
    );
    assert_eq!(town.running(), [first]);
    // A fault of ours: its partition forgot that it holds it.
    let (_, id) = (0, first);
    let index = 0usize;
    let office = town.home(id);
    office.state.workflows.get_mut(&id).unwrap().tasks[index]
        .row
        .limits
        .clear();
    town.pass(limits::LIMIT_PROBE_MS);
    assert!(town.empty());
}
