//! A batch writes exactly the rows that its records change, as the fold has them.

use std::collections::BTreeMap;

use gantry_engine::core::PartitionState;
use gantry_engine::core::limits::{ClaimRow, RateRow};
use gantry_engine::core::rows::{IdempotencyRow, NodeRow, TaskRow, WorkflowRow};
use gantry_engine::processor::load::decode;
use gantry_journal::{Batch, Write, keys};
use gantry_proto::TenantId;

use crate::oracle::Verdict;

type Written<'a> = BTreeMap<&'a [u8], Option<&'a [u8]>>;

fn same<M: prost::Message + Default + PartialEq + std::fmt::Debug>(
    written: &Written<'_>,
    what: &str,
    key: &[u8],
    fold: &M,
) -> Verdict {
    match written.get(key) {
        Some(Some(value)) => {
            let row: M = decode(what, value).map_err(|error| error.to_string())?;
            if row == *fold {
                Ok(())
            } else {
                Err(format!("{what}: written {row:?}, folded {fold:?}"))
            }
        }
        Some(None) => Err(format!("{what}: its row was deleted")),
        None => Err(format!("{what} changed, and its row was not written")),
    }
}

/// Compares what the batch wrote with the fold, of which `dirty` says what changed.
pub(crate) fn compare(fold: &PartitionState, batch: &Batch) -> Verdict {
    let partition = batch.partition;
    let written: Written<'_> = batch
        .writes
        .iter()
        .map(|write| match write {
            Write::Put(key, value) => (&key[..], Some(&value[..])),
            Write::Delete(key) => (&key[..], None),
        })
        .collect();
    for id in &fold.dirty.workflows {
        let Some(workflow) = fold.workflows.get(id) else {
            continue;
        };
        let key = keys::workflow(partition, workflow.row.tenant, *id);
        same::<WorkflowRow>(&written, &format!("workflow {id}"), &key, &workflow.row)?;
    }
    for reference in &fold.dirty.tasks {
        let Some((workflow, task)) = fold.workflows.get(&reference.0).zip(fold.task(*reference)) else {
            continue;
        };
        let key = keys::task(partition, workflow.row.tenant, reference.0, task.row.id);
        same::<TaskRow>(&written, &format!("task {}", task.row.id), &key, &task.row)?;
    }
    for id in &fold.dirty.nodes {
        let Some(node) = fold.nodes.get(id) else { continue };
        let key = keys::node(partition, TenantId::nil(), *id);
        same::<NodeRow>(&written, &format!("node {id}"), &key, node)?;
    }
    for (limit, who) in &fold.dirty.limits.claims {
        let key = keys::limit_claim(partition, limit.0, &limit.1, who.0, who.1);
        match fold.limits.key(limit).and_then(|limited| limited.claim(who)) {
            Some(row) => same::<ClaimRow>(&written, "a claim on a limit", &key, row)?,
            None if written.get(&key[..]) == Some(&None) => {}
            None => return Err("a claim on a limit ended, and its row stays".to_owned()),
        }
    }
    for limit in &fold.dirty.limits.rates {
        let key = keys::limit_rate(partition, limit.0, &limit.1);
        match fold.limits.key(limit).and_then(|limited| limited.rate) {
            Some(row) => same::<RateRow>(&written, "a rate", &key, &row)?,
            None if written.get(&key[..]) == Some(&None) => {}
            None => return Err("a rate was forgotten, and its row stays".to_owned()),
        }
    }
    for reference in &fold.dirty.idempotency {
        let key = keys::idempotency(partition, reference.0, &reference.1);
        match fold.idempotency.get(reference) {
            Some(row) => same::<IdempotencyRow>(&written, "an idempotency key", &key, row)?,
            None if written.get(&key[..]) == Some(&None) => {}
            None => return Err("an idempotency key was forgotten, and its row stays".to_owned()),
        }
    }
    Ok(())
}
