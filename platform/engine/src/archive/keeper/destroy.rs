//! Finishing what an erasure or a removal began: after the batch that took the data key away, the rest goes that is not in the store, and the key's bytes.

use bytes::Bytes;
use gantry_journal::keys::{self, KeyRange, Kind, Parsed};
use gantry_journal::{Direction, Erasure, Write};
use gantry_proto::{ErrorCode, PartitionId, PrincipalId, TenantId, WorkflowId, limits};

use super::{House, KeepError};
use crate::core::commands::Erase;
use crate::processor::load::workflow_rows;

impl House<'_> {
    /// Everything that is marked, batch by batch.
    pub(super) async fn finish_destruction(&mut self) -> Result<(), KeepError> {
        for partition in self.engine.all_partitions() {
            loop {
                let marked = self.blocking(move |store| {
                    let range = keys::all_of(Kind::Destroy, partition);
                    let page = store.scan(&range.from, &range.to, Direction::Forward, limits::DESTROY_BATCH_MAX)?;
                    let marked = page.iter().filter_map(|(key, _)| match keys::parse(key) {
                        Some(Parsed::Destroy { tenant, workflow, .. }) => Some((tenant, workflow)),
                        _ => None,
                    });
                    Ok(marked.collect::<Vec<_>>())
                });
                let marked = marked.await?;
                if marked.is_empty() {
                    break;
                }
                self.destroy_all(partition, &marked).await?;
            }
        }
        Ok(())
    }

    /// Destroys what is left of these workflows' content, wherever it is; their marks go last. Repeating is harmless.
    pub(crate) async fn destroy_all(
        &mut self,
        partition: PartitionId,
        marked: &[(TenantId, WorkflowId)],
    ) -> Result<(), KeepError> {
        let epoch = self.epoch(partition)?;
        let (at_ms, all) = (self.now_ms, marked.to_vec());
        let parts = self.engine.archive_parts().ok_or(KeepError::Stopped)?;
        // First what keeps an older backup from bringing it back. What was removed because its time was over, is removed again after a restore.
        self.engine
            .off_thread(move |storage| {
                let mut erasures = Vec::with_capacity(all.len());
                for (tenant, workflow) in all {
                    if storage
                        .store()
                        .get(&keys::erased(partition, tenant, workflow))?
                        .is_some()
                    {
                        erasures.push(Erasure {
                            at_ms,
                            tenant,
                            workflow: Some(workflow),
                        });
                    }
                }
                Ok::<_, KeepError>(parts.erasures.append(&erasures)?)
            })
            .await?;
        for (tenant, workflow) in marked {
            self.engine.forget_content(*tenant, *workflow).await?;
        }
        let ranges: Vec<KeyRange> = marked
            .iter()
            .map(|(tenant, workflow)| KeyRange::of_key(&keys::data_key(partition, *tenant, *workflow)))
            .collect();
        self.blocking(move |store| Ok(store.purge(&ranges)?)).await?;
        let marks = marked
            .iter()
            .map(|(tenant, workflow)| Write::Delete(keys::destroy(partition, *tenant, *workflow)));
        self.write(partition, epoch, marks.collect()).await?;
        self.done.destroyed += marked.len() as u64;
        Ok(())
    }

    /// What the list names must have no key, wherever the journal came from: one restored from an older backup is brought up to the list.
    pub(super) async fn repeat_erasures(&mut self) -> Result<(), KeepError> {
        for (tenant, at_ms) in self.parts.erasures.tenants() {
            self.repeat_tenant(tenant, at_ms).await?;
        }
        for (tenant, workflow) in self.parts.erasures.workflows() {
            let partition = workflow.partition();
            let ended = self.blocking(move |store| {
                let key: Option<Bytes> = store.get(&keys::data_key(partition, tenant, workflow))?;
                if key.is_none() {
                    return Ok(None);
                }
                let rows = workflow_rows(store, tenant, workflow)?;
                Ok(rows.map(|rows| rows.row.is_ended()))
            });
            match ended.await? {
                None => {}
                Some(true) => self.erase_again(partition, tenant, vec![workflow]).await?,
                Some(false) => {
                    tracing::warn!(%workflow, "a workflow that was erased runs in this older state of the journal; cancel it, and it is erased again");
                }
            }
        }
        Ok(())
    }

    /// Erases what a tenant had when it was erased.
    async fn repeat_tenant(&mut self, tenant: TenantId, at_ms: u64) -> Result<(), KeepError> {
        for partition in self.engine.all_partitions() {
            let mut range = Some(keys::ended_from(partition, tenant, 0));
            while let Some(next) = range {
                let (mut workflows, more) = self.engine.erasable(partition, tenant, next).await?;
                range = more;
                workflows.retain(|workflow| workflow.time_ms() <= at_ms);
                if !workflows.is_empty() {
                    self.erase_again(partition, tenant, workflows).await?;
                }
            }
        }
        Ok(())
    }

    async fn erase_again(
        &mut self,
        partition: PartitionId,
        tenant: TenantId,
        workflows: Vec<WorkflowId>,
    ) -> Result<(), KeepError> {
        let marked: Vec<_> = workflows.iter().map(|workflow| (tenant, *workflow)).collect();
        let command = Erase {
            tenant,
            workflows,
            by: PrincipalId::nil(),
        };
        match self.engine.destroy(partition, command.into()).await {
            Err(refusal) if refusal.code == ErrorCode::LegalHold => {
                tracing::warn!(
                    why = refusal.message,
                    "what was erased is held in this older state of the journal; release it, and it is erased again"
                );
                Ok(())
            }
            done => {
                done?;
                self.destroy_all(partition, &marked).await
            }
        }
    }
}
