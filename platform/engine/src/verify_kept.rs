//! What verification remembers of ended workflows: which are there, which were erased, which are gone.

use std::collections::{BTreeMap, BTreeSet};

use gantry_journal::Store;
use gantry_journal::keys::{self, Kind, Parsed};
use gantry_proto::{TenantId, WorkflowId};

use crate::core::PartitionState;
use crate::core::keep::{ErasedRow, HoldRow};
use crate::core::rows::WorkflowRow;
use crate::core::state::WorkflowRef;
use crate::processor::batch::closed_state;
use crate::processor::load::{decode, walk};
use crate::verify::{VerifyError, differs};

/// Ended workflows, as far as the log was folded.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Ended, with rows that are right.
    there: BTreeMap<WorkflowId, (TenantId, u8)>,
    /// Ended, without rows: the log must yet say why.
    gone: BTreeSet<WorkflowId>,
    /// Erased, and not removed since.
    pub(crate) erased: BTreeMap<WorkflowRef, ErasedRow>,
}

impl Kept {
    /// A workflow ended, and its rows were found or not.
    pub(crate) fn ended(&mut self, row: &WorkflowRow, found: bool) {
        if found {
            self.there.insert(row.id, (row.tenant, closed_state(row)));
        } else {
            self.gone.insert(row.id);
        }
    }

    /// The log says that a workflow was removed.
    pub(crate) fn removed(&mut self, tenant: TenantId, id: WorkflowId) -> Result<(), VerifyError> {
        self.erased.remove(&(tenant, id));
        if self.gone.remove(&id) {
            return Ok(());
        }
        Err(differs(
            format!("workflow {id}"),
            "it was removed and has rows, or never ended",
        ))
    }

    /// Compares the rows that are about ended workflows; returns the ended workflows that are there.
    pub(crate) fn check(self, store: &dyn Store, state: &PartitionState) -> Result<BTreeSet<WorkflowId>, VerifyError> {
        if let Some(id) = self.gone.first() {
            return Err(differs(format!("workflow {id}"), "it has no row"));
        }
        let mut listed = BTreeSet::new();
        walk(store, &keys::all_of(Kind::Ended, state.partition), |key, _| {
            if let Some(Parsed::Ended { workflow, .. }) = keys::parse(key) {
                listed.insert(workflow);
            }
            Ok(())
        })?;
        let there: BTreeSet<WorkflowId> = self.there.keys().copied().collect();
        if let Some(id) = listed.symmetric_difference(&there).next() {
            return Err(differs(format!("workflow {id}"), "the index of ends is wrong about it"));
        }
        let mut closed = BTreeMap::new();
        walk(store, &keys::all_of(Kind::Closed, state.partition), |key, _| {
            if let Some(Parsed::Closed {
                tenant,
                state,
                workflow,
                ..
            }) = keys::parse(key)
            {
                closed.insert(workflow, (tenant, state));
            }
            Ok(())
        })?;
        if closed != self.there {
            return Err(differs("the index of ended workflows", "it is not what the log says"));
        }
        let mut holds: BTreeMap<WorkflowRef, HoldRow> = BTreeMap::new();
        walk(store, &keys::all_of(Kind::Hold, state.partition), |key, value| {
            if let Some(Parsed::Hold { tenant, workflow, .. }) = keys::parse(key) {
                holds.insert((tenant, workflow), decode("a hold", value)?);
            }
            Ok(())
        })?;
        if holds != state.holds {
            return Err(differs("the legal holds", "rows and log disagree"));
        }
        let mut erased: BTreeMap<WorkflowRef, ErasedRow> = BTreeMap::new();
        walk(store, &keys::all_of(Kind::Erased, state.partition), |key, value| {
            if let Some(Parsed::Erased { tenant, workflow, .. }) = keys::parse(key) {
                erased.insert((tenant, workflow), decode("an erasure", value)?);
            }
            Ok(())
        })?;
        if erased != self.erased {
            return Err(differs("the erasures", "rows and log disagree"));
        }
        for (tenant, id) in erased.keys() {
            if store.get(&keys::data_key(state.partition, *tenant, *id))?.is_some() {
                return Err(differs(format!("workflow {id}"), "it was erased and has a data key"));
            }
        }
        Ok(there)
    }
}
