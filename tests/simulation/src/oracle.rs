//! What must hold, checked against every record as it becomes durable: the journal is folded beside the engine, and each check sees each record before
//! and after it is applied.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use gantry_engine::core::apply::{Place, apply};
use gantry_engine::core::rows::{TaskRow, WorkflowRow};
use gantry_engine::core::{PartitionState, Settings};
use gantry_journal::keys::{self, Parsed};
use gantry_journal::{Write, chain};
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{Assignee, Assignment, StepResult};
use gantry_proto::{PartitionId, WorkflowId};
use prost::Message as _;

use crate::checks::{self, Check};
use crate::coverage::Coverage;
use crate::disk::{Disk, Durable};
use crate::projection;

/// What did not hold.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    /// Which invariant.
    pub(crate) invariant: &'static str,
    /// How that shows.
    pub(crate) what: String,
}

pub(crate) type Verdict = Result<(), String>;

/// A record that is durable, with the fold of its partition: before it is applied, or after.
pub(crate) struct Seen<'a> {
    /// When it became durable, on the monotonic clock.
    pub(crate) at_ms: u64,
    pub(crate) place: Place,
    pub(crate) kind: &'a Kind,
    pub(crate) state: &'a PartitionState,
}

/// What somebody outside was told, and may rely on from then on.
#[derive(Debug)]
pub(crate) enum Told<'a> {
    /// A client: the workflow is started.
    Submitted(WorkflowId),
    /// A client: the workflow will end as cancelled.
    Cancelled(WorkflowId),
    /// A node is sent work.
    Assigned(&'a Assignment),
    /// A node's result counts.
    Accepted(&'a Assignee, &'a StepResult),
    /// A node's lease was renewed by a heartbeat that the server had at `heard_ms`.
    Renewed(&'a Assignee, u64),
}

/// What became of a workflow that has ended.
#[derive(Debug)]
pub(crate) struct EndedWorkflow {
    pub(crate) row: WorkflowRow,
    pub(crate) tasks: Vec<TaskRow>,
}

/// What the journal says.
#[derive(Default)]
pub(crate) struct Facts {
    /// The fold of each partition's log, the ended workflows taken out.
    pub(crate) folds: BTreeMap<PartitionId, PartitionState>,
    pub(crate) ended: BTreeMap<WorkflowId, EndedWorkflow>,
}

impl Facts {
    /// Whether the journal knows the workflow.
    pub(crate) fn knows(&self, workflow: WorkflowId) -> bool {
        self.ended.contains_key(&workflow) || self.active(workflow).is_some()
    }

    pub(crate) fn active(&self, workflow: WorkflowId) -> Option<&gantry_engine::core::state::Workflow> {
        self.folds.get(&workflow.partition())?.workflows.get(&workflow)
    }

    /// The name of a workflow, from its definition.
    pub(crate) fn name(&self, workflow: WorkflowId) -> Option<&str> {
        match self.active(workflow) {
            Some(active) => Some(&active.row.name),
            None => self.ended.get(&workflow).map(|ended| ended.row.name.as_str()),
        }
    }

    /// A task's row, of an active workflow or an ended one.
    pub(crate) fn task(&self, assignee: &Assignee) -> Option<&TaskRow> {
        let find = |row: &&TaskRow| row.id == assignee.task;
        match self.active(assignee.workflow) {
            Some(workflow) => workflow.tasks.iter().map(|task| &task.row).find(find),
            None => self.ended.get(&assignee.workflow)?.tasks.iter().find(find),
        }
    }

    /// Workflows that have not ended.
    pub(crate) fn active_all(&self) -> impl Iterator<Item = &gantry_engine::core::state::Workflow> {
        self.folds.values().flat_map(|fold| fold.workflows.values())
    }
}

pub(crate) struct Oracle {
    pub(crate) facts: Facts,
    checks: Vec<Box<dyn Check>>,
    pub(crate) coverage: Coverage,
    pub(crate) records: u64,
    pub(crate) batches: u64,
    settings: Settings,
    digest: DefaultHasher,
}

impl Oracle {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            facts: Facts::default(),
            checks: checks::all(settings),
            coverage: Coverage::default(),
            records: 0,
            batches: 0,
            settings,
            digest: DefaultHasher::new(),
        }
    }

    /// Equal runs have equal digests.
    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// Takes in what became durable since the last call. Returns the records, for the operations' own checks.
    pub(crate) fn take(&mut self, durable: &Durable) -> Result<Vec<(Place, Kind)>, Broken> {
        self.batches += 1;
        let partition = durable.batch.partition;
        let mut taken = Vec::new();
        for write in &durable.batch.writes {
            let Write::Put(key, value) = write else { continue };
            if !matches!(keys::parse(key), Some(Parsed::Log { .. })) {
                continue;
            }
            let entry = chain::decode_entry(partition, key, value.clone());
            let entry = entry.map_err(|error| broken("durable batches can be read", error.to_string()))?;
            self.digest.write_u64(entry.at_ms);
            for (seq, record) in (entry.first_seq..).zip(entry.records) {
                let Some(kind) = record.event.kind else {
                    return Err(broken(
                        "durable batches can be read",
                        format!("record {seq} has no kind"),
                    ));
                };
                let place = Place {
                    seq,
                    at_ms: entry.at_ms,
                    tenant: entry.tenant,
                    workflow: record.workflow,
                };
                self.record(durable, place, &kind)?;
                taken.push((place, kind));
            }
        }
        let settings = self.settings;
        let fold = self
            .facts
            .folds
            .entry(partition)
            .or_insert_with(|| PartitionState::new(partition, settings));
        projection::compare(fold, &durable.batch).map_err(|what| broken("the stored rows are the fold", what))?;
        for id in std::mem::take(&mut fold.dirty).ended {
            if let Some(workflow) = fold.forget(id) {
                let tasks = workflow.tasks.into_iter().map(|task| task.row).collect();
                let row = workflow.row;
                self.facts.ended.insert(id, EndedWorkflow { row, tasks });
            }
        }
        Ok(taken)
    }

    fn record(&mut self, durable: &Durable, place: Place, kind: &Kind) -> Result<(), Broken> {
        let partition = durable.batch.partition;
        let settings = self.settings;
        let state = self
            .facts
            .folds
            .entry(partition)
            .or_insert_with(|| PartitionState::new(partition, settings));
        self.records += 1;
        self.digest.write(
            &gantry_proto::v1::Event {
                kind: Some(kind.clone()),
            }
            .encode_to_vec(),
        );
        let at_ms = durable.at_ms;
        let seen = Seen {
            at_ms,
            place,
            kind,
            state,
        };
        self.coverage.before(&seen);
        for check in &mut self.checks {
            check.before(&seen).map_err(|what| broken(check.invariant(), what))?;
        }
        apply(state, place, kind, None)
            .map_err(|error| broken("every record follows from those before it", error.to_string()))?;
        let seen = Seen {
            at_ms,
            place,
            kind,
            state,
        };
        self.coverage
            .after(&seen)
            .map_err(|what| broken("every change of state is an edge of its table", what))?;
        for check in &mut self.checks {
            check.after(&seen).map_err(|what| broken(check.invariant(), what))?;
        }
        Ok(())
    }

    /// Somebody outside was told something.
    pub(crate) fn told(&mut self, at_ms: u64, told: &Told<'_>) -> Result<(), Broken> {
        for check in &mut self.checks {
            check
                .told(&self.facts, at_ms, told)
                .map_err(|what| broken(check.invariant(), what))?;
        }
        Ok(())
    }

    /// A server process begins to serve, or has died or stood still.
    pub(crate) fn serving(&mut self, at_ms: u64, since_ms: Option<u64>) {
        for check in &mut self.checks {
            check.serving(at_ms, since_ms);
        }
    }

    /// Time passes.
    pub(crate) fn passes(&mut self, at_ms: u64, wall_ms: u64) -> Result<(), Broken> {
        for check in &mut self.checks {
            check
                .passes(&self.facts, at_ms, wall_ms)
                .map_err(|what| broken(check.invariant(), what))?;
        }
        Ok(())
    }

    /// Folds every log from its first record and compares with every stored row.
    pub(crate) fn verify(&self, disk: &Disk) -> Result<(), Broken> {
        for (partition, fold) in &self.facts.folds {
            let report = gantry_engine::verify::verify(disk.durable(), *partition).map_err(|error| {
                broken(
                    "the fold of the journal equals the stored projections",
                    error.to_string(),
                )
            })?;
            if report.records + 1 != fold.next_seq {
                let what = format!(
                    "partition {partition} has {} records, {} became durable",
                    report.records,
                    fold.next_seq - 1
                );
                return Err(broken("nothing durable is lost", what));
            }
        }
        Ok(())
    }

    /// Everything has come to rest.
    pub(crate) fn quiet(&mut self, disk: &Disk) -> Result<(), Broken> {
        self.verify(disk)?;
        for check in &mut self.checks {
            check
                .quiet(&self.facts, disk)
                .map_err(|what| broken(check.invariant(), what))?;
        }
        Ok(())
    }
}

pub(crate) fn broken(invariant: &'static str, what: impl Into<String>) -> Broken {
    let what = what.into();
    Broken { invariant, what }
}
