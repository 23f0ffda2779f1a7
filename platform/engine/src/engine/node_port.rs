//! What the coordinator calls on behalf of nodes.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::BoxStream;
use gantry_proto::v1::{
    Artifact, Assignee, Fault, HeldVerdict, NodeHealth, ProcessOutput, Register, StepResult, StepStarted,
};
use gantry_proto::{ArtifactId, ErrorCode, NodeId, PartitionId, TaskId, limits};
use tokio::sync::oneshot;

use super::content::stream_of;
use super::results::within_limits;
use super::{Engine, Seen, stopped, unexpected, unreadable};
use crate::api::{Departure, NodePort, Refusal, Registration, Serves, Verdict};
use crate::core::commands::{
    self, AssignmentRefused, Dropped, NodeDeparted, NodeRegister, Reconcile, StepFinished, reported_in,
};
use crate::core::{Reply, commands::StepStarted as StepStartedCommand};
use crate::processor::Message;
use crate::processor::load::workflow_rows;

fn verdict(reply: Reply) -> Result<Verdict, Refusal> {
    match reply {
        Reply::Verdict(verdict) => Ok(verdict),
        other => Err(unexpected(&other)),
    }
}

impl Engine {
    fn see(&self, node: NodeId, health: Option<&NodeHealth>) {
        let at_ms = self.parts.clock.now_ms();
        let mut seen = self.seen.write();
        if seen.len() >= limits::NODES_MAX && !seen.contains_key(&node) {
            return;
        }
        let entry: &mut Seen = seen.entry(node).or_default();
        entry.at_ms = at_ms;
        if let Some(health) = health {
            entry.running = health.running.unwrap_or(entry.running);
            entry.containers = health.containers.unwrap_or(entry.containers);
        }
    }

    /// Notes whether a connected node can work. One that can again is offered what waits.
    fn judge(&self, node: NodeId, health: Option<&NodeHealth>) {
        let unfit = health.is_some_and(commands::is_unfit);
        let recovered = {
            let mut all = self.parts.unfit.write();
            if unfit {
                all.insert(node);
                false
            } else {
                all.remove(&node)
            }
        };
        if recovered {
            self.wake_all();
        }
    }

    /// Renews leases, whoever holds them.
    pub(super) async fn renew_leases(&self, node: NodeId, holding: Vec<Assignee>) -> Result<Vec<Verdict>, Refusal> {
        let mut by_partition: BTreeMap<PartitionId, Vec<(usize, Assignee)>> = BTreeMap::new();
        for (position, assignee) in holding.iter().enumerate() {
            by_partition
                .entry(assignee.workflow.partition())
                .or_default()
                .push((position, assignee.clone()));
        }
        let mut verdicts = vec![Verdict::Stale; holding.len()];
        let asked = by_partition.into_iter().map(|(partition, of)| async move {
            if usize::from(partition.index()) >= self.partitions.len() {
                return Ok(Vec::new());
            }
            let (positions, holding): (Vec<usize>, Vec<Assignee>) = of.into_iter().unzip();
            let (reply, answer) = oneshot::channel();
            self.post(partition, Message::Renew { node, holding, reply })?;
            let verdicts = answer.await.map_err(|_| stopped())?;
            Ok::<_, Refusal>(positions.into_iter().zip(verdicts).collect())
        });
        for (position, verdict) in try_join_all(asked).await?.into_iter().flatten() {
            verdicts[position] = verdict;
        }
        Ok(verdicts)
    }

    /// An attempt that the core does not know any more: its workflow has ended, and its row says how the attempt did.
    async fn verdict_from_rows(&self, node: NodeId, assignee: Assignee) -> Result<Verdict, Refusal> {
        self.blocking(move |storage| {
            let rows =
                workflow_rows(storage.store().as_ref(), assignee.tenant, assignee.workflow).map_err(unreadable)?;
            let task = rows.and_then(|rows| rows.tasks.into_iter().find(|task| task.row.id == assignee.task));
            let known = task.is_some_and(|task| reported_in(&task.row, node, &assignee));
            Ok(if known { Verdict::Accepted } else { Verdict::Stale })
        })
        .await
    }
}

#[async_trait::async_trait]
impl NodePort for Engine {
    async fn register(&self, serves: Serves, register: Register) -> Result<Registration, Refusal> {
        let node = register.node;
        if node.is_nil() || register.name.len() > limits::NAME_BYTES_MAX {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "a node needs an id, and a name within its limit",
            ));
        }
        self.see(node, register.health.as_ref());
        self.judge(node, register.health.as_ref());
        let held: Vec<Assignee> = register.holding.iter().map(|held| held.assignee.clone()).collect();
        let mut by_partition: BTreeMap<PartitionId, (Vec<Assignee>, Vec<TaskId>)> = self
            .all_partitions()
            .map(|partition| (partition, Default::default()))
            .collect();
        for assignee in &held {
            // Ids of another installation have no partition here, and are refused below.
            if let Some((holding, _)) = by_partition.get_mut(&assignee.workflow.partition()) {
                holding.push(assignee.clone());
            }
        }
        for task in &register.workspaces {
            if let Some((_, workspaces)) = by_partition.get_mut(&task.partition()) {
                workspaces.push(*task);
            }
        }
        self.call(self.home_of(node), NodeRegister { serves, register }).await?;
        let asked = by_partition
            .into_iter()
            .map(|(partition, (holding, workspaces))| async move {
                match self
                    .call(
                        partition,
                        Reconcile {
                            node,
                            holding,
                            workspaces,
                        },
                    )
                    .await?
                {
                    Reply::Held { verdicts, release } => Ok::<_, Refusal>((verdicts, release)),
                    other => Err(unexpected(&other)),
                }
            });
        let (answers, release): (Vec<_>, Vec<_>) = try_join_all(asked).await?.into_iter().unzip();
        let answers: Vec<HeldVerdict> = answers.into_iter().flatten().collect();
        let mut verdicts = Vec::with_capacity(held.len());
        for assignee in held {
            let found = answers.iter().find(|answer| answer.assignee == assignee);
            let mut verdict = found.cloned().unwrap_or(HeldVerdict {
                assignee: assignee.clone(),
                keep: false,
                output_seq: None,
            });
            if !verdict.keep && self.verdict_from_rows(node, assignee.clone()).await? == Verdict::Accepted {
                verdict.keep = true;
            }
            if verdict.keep {
                // One damaged stream is no reason to refuse a node: without a position it sends everything that it still has.
                match self.segments.stream_end(&stream_of(&assignee)).await {
                    Ok((durable, _)) => verdict.output_seq = Some(durable),
                    Err(error) => tracing::warn!(?assignee, %error, "output of an attempt cannot be read"),
                }
            }
            verdicts.push(verdict);
        }
        self.wake_all();
        Ok(Registration {
            verdicts,
            release: release.concat(),
        })
    }

    async fn departed(&self, node: NodeId, departure: Departure) -> Result<(), Refusal> {
        // Nothing is placed on a node without a session.
        self.parts.unfit.write().remove(&node);
        self.call(self.home_of(node), NodeDeparted { node, departure }).await?;
        Ok(())
    }

    async fn health(&self, node: NodeId, health: NodeHealth) -> Result<(), Refusal> {
        self.see(node, Some(&health));
        self.judge(node, Some(&health));
        // Most say nothing new: the core records a change only, and it rides along with other work.
        self.inform(self.home_of(node), commands::NodeHealth { node, health })
            .await?;
        Ok(())
    }

    async fn renew(&self, node: NodeId, holding: Vec<Assignee>) -> Result<Vec<Verdict>, Refusal> {
        self.see(node, None);
        self.renew_leases(node, holding).await
    }

    async fn started(&self, node: NodeId, started: StepStarted) -> Result<Verdict, Refusal> {
        let partition = started.assignee.workflow.partition();
        verdict(self.inform(partition, StepStartedCommand { node, started }).await?)
    }

    async fn output(
        &self,
        node: NodeId,
        assignee: Assignee,
        chunks: Vec<ProcessOutput>,
    ) -> Result<(Verdict, u64), Refusal> {
        self.store_output(node, assignee, chunks).await
    }

    async fn progress(&self, node: NodeId, assignee: Assignee, content: Bytes) -> Result<Verdict, Refusal> {
        let verdict = self.check_live(node, &assignee)?;
        if content.len() as u64 > limits::STEP_PROGRESS_BYTES_MAX {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                "the progress file is larger than its limit",
            ));
        }
        if verdict == Verdict::Accepted {
            let text = String::from_utf8_lossy(&content).into_owned();
            self.progress.lock().put(assignee.task, (assignee.clone(), text));
            self.parts.observer.workflow_changed(assignee.tenant, assignee.workflow);
        }
        Ok(verdict)
    }

    async fn finished(&self, node: NodeId, assignee: Assignee, result: StepResult) -> Result<Verdict, Refusal> {
        let result = within_limits(result);
        let last_seq = result.last_seq.unwrap_or(0);
        if self.check_live(node, &assignee)? == Verdict::Accepted {
            self.require_output(&assignee, last_seq).await?;
        }
        let partition = assignee.workflow.partition();
        let mut verdict = verdict(
            self.call(
                partition,
                StepFinished {
                    node,
                    assignee: assignee.clone(),
                    result,
                },
            )
            .await?,
        )?;
        if verdict == Verdict::Stale {
            verdict = self.verdict_from_rows(node, assignee.clone()).await?;
        }
        if verdict == Verdict::Accepted {
            self.progress.lock().pop(&assignee.task);
            if last_seq > 0
                && let Err(error) = self.segments.finish(&stream_of(&assignee), last_seq).await
            {
                // Readers know the end from the row; the marker is for those who only have the files.
                tracing::warn!(%error, workflow = %assignee.workflow, "the end of an output stream was not marked");
            }
        }
        Ok(verdict)
    }

    async fn refused(&self, node: NodeId, assignee: Assignee, fault: Fault) -> Result<Verdict, Refusal> {
        let partition = assignee.workflow.partition();
        verdict(
            self.call(partition, AssignmentRefused { node, assignee, fault })
                .await?,
        )
    }

    async fn dropped(&self, node: NodeId, assignee: Assignee) -> Result<Verdict, Refusal> {
        let why = None;
        verdict(
            self.call(assignee.workflow.partition(), Dropped { node, assignee, why })
                .await?,
        )
    }

    async fn give_up(&self, node: NodeId, assignee: Assignee, why: String) -> Result<Verdict, Refusal> {
        let why = Some(format!("what its node reported could not be recorded: {why}"));
        verdict(
            self.call(assignee.workflow.partition(), Dropped { node, assignee, why })
                .await?,
        )
    }

    async fn put_artifact(
        &self,
        node: NodeId,
        assignee: Assignee,
        name: String,
        content_type: Option<String>,
        data: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<Artifact, Refusal> {
        self.store_artifact(node, assignee, name, content_type, data).await
    }

    async fn get_artifact(
        &self,
        node: NodeId,
        assignee: Assignee,
        artifact: ArtifactId,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, Refusal> {
        if self.check_live(node, &assignee)? == Verdict::Stale {
            return Err(Refusal::new(
                ErrorCode::StaleFence,
                "the lease has passed to another holder",
            ));
        }
        // Only what a step of this workflow has stored and completed with.
        self.find_artifact(assignee.tenant, assignee.workflow, artifact).await?;
        self.open_artifact(assignee.tenant, assignee.workflow, artifact, None)
            .await
    }

    fn wake(&self, partitions: &[PartitionId]) {
        for partition in partitions {
            if let Some(found) = self.partitions.get(usize::from(partition.index())) {
                found.shared.wake.notify_one();
            }
        }
    }
}
