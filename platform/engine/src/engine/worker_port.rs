//! What the coordinator calls on behalf of workers.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use gantry_proto::v1::{Assignee, Fault, HeldVerdict};
use gantry_proto::{ErrorCode, NodeId, PartitionId, TenantId};

use super::{CallRefusal, Engine, unexpected};
use crate::api::{NodePort as _, Refusal, RunOp, RunReply, Verdict, WorkerPort};
use crate::core::commands::{Reconcile, RunAnswer, RunSteps};
use crate::core::{Rejection, Reply};
use crate::processor::load::Records;
use crate::read::content;

#[async_trait::async_trait]
impl WorkerPort for Engine {
    async fn reconcile(&self, worker: NodeId, holding: Vec<Assignee>) -> Result<Vec<HeldVerdict>, Refusal> {
        let mut by_partition: BTreeMap<PartitionId, Vec<Assignee>> =
            self.all_partitions().map(|partition| (partition, Vec::new())).collect();
        let mut verdicts = Vec::with_capacity(holding.len());
        for assignee in holding {
            match by_partition.get_mut(&assignee.workflow.partition()) {
                Some(held) => held.push(assignee),
                // Of another installation.
                None => verdicts.push(HeldVerdict {
                    assignee,
                    keep: false,
                    output_seq: None,
                }),
            }
        }
        let asked = by_partition.into_iter().map(|(partition, holding)| async move {
            let command = Reconcile {
                node: worker,
                holding,
                workspaces: Vec::new(),
            };
            match self.call(partition, command).await? {
                Reply::Held { verdicts, .. } => Ok::<_, Refusal>(verdicts),
                other => Err(unexpected(&other)),
            }
        });
        verdicts.extend(try_join_all(asked).await?.into_iter().flatten());
        Ok(verdicts)
    }

    async fn renew_runs(&self, worker: NodeId, holding: Vec<Assignee>) -> Result<Vec<Verdict>, Refusal> {
        self.renew_leases(worker, holding).await
    }

    async fn steps(
        &self,
        worker: NodeId,
        assignee: Assignee,
        ops: Vec<RunOp>,
    ) -> Result<Option<Vec<RunReply>>, Refusal> {
        let (tenant, partition) = (assignee.tenant, assignee.workflow.partition());
        let command = RunSteps {
            node: worker,
            assignee,
            ops,
        };
        let answers = match self.call(partition, command).await {
            Ok(Reply::Run(answers)) => answers,
            Ok(Reply::Verdict(_)) | Err(CallRefusal::Rejection(Rejection::NotFound)) => return Ok(None),
            Ok(other) => return Err(unexpected(&other)),
            Err(error) => return Err(error.into()),
        };
        let replays = answers.iter().any(|answer| matches!(answer, RunAnswer::Replay { .. }));
        if !replays {
            return Ok(Some(answers.into_iter().map(plain).collect()));
        }
        self.blocking(move |storage| {
            let mut records = Records::new(storage, partition);
            let opened = answers.into_iter().map(|answer| match answer {
                RunAnswer::Replay { attempt, seq } => Ok(RunReply::Replay {
                    attempt,
                    end: end_of(&mut records, tenant, seq)?,
                }),
                other => Ok(plain(other)),
            });
            opened.collect::<Result<Vec<_>, Refusal>>().map(Some)
        })
        .await
    }

    async fn run_refused(&self, worker: NodeId, assignee: Assignee, fault: Fault) -> Result<Verdict, Refusal> {
        self.refused(worker, assignee, fault).await
    }

    async fn run_dropped(&self, worker: NodeId, assignee: Assignee) -> Result<Verdict, Refusal> {
        self.give_up(worker, assignee, "its worker lost it".to_owned()).await
    }
}

/// How an activation ended, from its record.
fn end_of(records: &mut Records<'_>, tenant: TenantId, seq: u64) -> Result<Result<bytes::Bytes, Fault>, Refusal> {
    let entry = records.entry(seq).map_err(super::unreadable)?;
    let offset = usize::try_from(seq - entry.first_seq).unwrap_or(usize::MAX);
    let event = entry.records.get(offset).filter(|_| entry.tenant == tenant);
    let code = match event.and_then(|record| record.event.kind.as_ref()) {
        Some(gantry_proto::v1::event::Kind::ActivationEnded(ended)) => ended.code.clone(),
        _ => {
            return Err(Refusal::new(
                ErrorCode::Internal,
                "a step's end is not where it should be",
            ));
        }
    };
    let payload = records.payload(seq).map_err(content)?.unwrap_or_default();
    Ok(match code {
        None => Ok(payload
            .outputs_json
            .unwrap_or_else(|| bytes::Bytes::from_static(b"null"))),
        Some(code) => Err(Fault {
            code,
            message: payload.message.unwrap_or_default(),
            hint: payload.hint,
        }),
    })
}

fn plain(answer: RunAnswer) -> RunReply {
    match answer {
        RunAnswer::Execute(attempt) => RunReply::Execute(attempt),
        // Opened where replays are; an answer without its content is none.
        RunAnswer::Replay { .. } | RunAnswer::Skipped => RunReply::Skipped,
        RunAnswer::Wait(until_ms) => RunReply::Wait(until_ms),
        RunAnswer::Conflict(message) => RunReply::Conflict(message),
        RunAnswer::Unknown(attempt) => RunReply::Unknown(attempt),
        RunAnswer::Recorded => RunReply::Recorded,
    }
}
