//! Legal holds, erasure, and what the keeper of history needs of the engine.

use std::sync::Arc;

use gantry_journal::archive::ArchiveStore;
use gantry_journal::keys::{self, KeyRange, Kind, Parsed};
use gantry_journal::{Direction, Erasure, Store};
use gantry_proto::{ErrorCode, PartitionId, TenantId, WorkflowId, limits};
use tokio_util::sync::CancellationToken;

use super::{Engine, erased, not_found, unreadable};
use crate::api::{Caller, Keeping, Refusal, Uploads as _};
use crate::archive::keeper::House;
use crate::archive::{ArchiveParts, KeepError};
use crate::core::Command;
use crate::core::commands::{Erase, ForgetBulks, Hold, Release};
use crate::processor::Shared;
use crate::processor::load::{walk, workflow_rows};
use crate::processor::storage::Storage;

/// How a workflow stands to erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Live,
    Ended,
    Erased,
}

impl Engine {
    /// Gives the engine what keeping history needs. The first one counts.
    pub fn attach_archive(&self, parts: ArchiveParts) {
        if self.archive.set(Arc::new(parts)).is_err() {
            tracing::error!("an archive is attached already");
        }
    }

    /// Where sealed objects are, for readers of history; `None` while no archive is attached.
    #[must_use]
    pub fn archive_objects(&self) -> Option<ArchiveStore> {
        self.archive.get().map(|parts| parts.objects.clone())
    }

    pub(crate) fn archive_parts(&self) -> Option<Arc<ArchiveParts>> {
        self.archive.get().cloned()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.parts.clock.now_ms()
    }

    pub(crate) fn shared_of(&self, partition: PartitionId) -> Option<&Shared> {
        let found = self.partitions.get(usize::from(partition.index()));
        found.map(|found| found.shared.as_ref())
    }

    /// Runs what blocks off the async threads.
    pub(crate) async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, KeepError> + Send + 'static,
    ) -> Result<T, KeepError> {
        self.blocking(move |storage| Ok(work(storage))).await?
    }

    /// Has records of destruction decided and made durable.
    pub(crate) async fn destroy(&self, partition: PartitionId, command: Command) -> Result<(), Refusal> {
        self.call(partition, command).await?;
        Ok(())
    }

    /// Removes what is outside of the store of a workflow's content, and the open key.
    pub(crate) async fn forget_content(&self, tenant: TenantId, workflow: WorkflowId) -> Result<(), KeepError> {
        self.storage.forget_key(workflow.into());
        self.blobs.delete_workflow(tenant, workflow).await?;
        self.segments.destroy(tenant, workflow).await?;
        Ok(())
    }

    async fn standing(&self, tenant: TenantId, workflow: WorkflowId) -> Result<Standing, Refusal> {
        self.partition(workflow.partition())?;
        self.blocking(move |storage| {
            let store = storage.store().as_ref();
            let rows = workflow_rows(store, tenant, workflow).map_err(unreadable)?;
            let rows = rows.ok_or_else(not_found)?;
            let key = store
                .get(&keys::data_key(workflow.partition(), tenant, workflow))
                .map_err(unreadable)?;
            Ok(match (rows.row.is_ended(), key) {
                (_, None) => Standing::Erased,
                (true, Some(_)) => Standing::Ended,
                (false, Some(_)) => Standing::Live,
            })
        })
        .await
    }

    /// Destroys what the batch of an erasure could not.
    async fn finish(&self, partition: PartitionId, erased: &[(TenantId, WorkflowId)]) -> Result<(), Refusal> {
        let parts = self.archive_parts().ok_or_else(no_archive)?;
        let never = CancellationToken::new();
        let done = House::new(self, &parts, &never).destroy_all(partition, erased).await;
        done.map_err(|error| unfinished(&error))
    }

    /// Ended workflows of a tenant in a partition that are not erased, from a key on, at most a batch; and where to go on.
    pub(crate) async fn erasable(
        &self,
        partition: PartitionId,
        tenant: TenantId,
        range: KeyRange,
    ) -> Result<(Vec<WorkflowId>, Option<KeyRange>), Refusal> {
        self.blocking(move |storage| {
            let store = storage.store().as_ref();
            let page = store
                .scan(&range.from, &range.to, Direction::Forward, limits::DESTROY_BATCH_MAX)
                .map_err(unreadable)?;
            let mut found = Vec::with_capacity(page.len());
            for (key, _) in &page {
                if let Some(Parsed::Ended { workflow, .. }) = keys::parse(key)
                    && store
                        .get(&keys::data_key(partition, tenant, workflow))
                        .map_err(unreadable)?
                        .is_some()
                {
                    found.push(workflow);
                }
            }
            let more = page.last().filter(|_| page.len() == limits::DESTROY_BATCH_MAX);
            let next = more.map(|(key, _)| KeyRange {
                from: KeyRange::of_key(key).to,
                to: range.to.clone(),
            });
            Ok((found, next))
        })
        .await
    }

    /// Deletes all uploads of a tenant, and their objects at once.
    async fn erase_uploads(&self, caller: Caller) -> Result<(), Refusal> {
        let tenant = caller.tenant;
        for partition in self.all_partitions() {
            let uploads = self
                .blocking(move |storage| {
                    let mut found = Vec::new();
                    walk(
                        storage.store().as_ref(),
                        &keys::uploads_of(partition, tenant),
                        |key, _| {
                            if let Some(Parsed::Upload { upload, .. }) = keys::parse(key) {
                                found.push(upload);
                            }
                            Ok(())
                        },
                    )
                    .map_err(unreadable)?;
                    Ok(found)
                })
                .await?;
            for upload in uploads {
                match self.delete_upload(caller, upload).await {
                    Err(refusal) if refusal.code == ErrorCode::NotFound => {}
                    done => done?,
                }
                self.storage.forget_key(upload.into());
                let gone = self.blobs.delete_upload(tenant, upload).await;
                gone.map_err(super::content::blob_refusal)?;
            }
        }
        Ok(())
    }

    /// Writes down that a tenant was erased, and makes the bytes of its keys go: also of what was deleted before without being erased.
    async fn seal_erasure(&self, tenant: TenantId, at_ms: u64) -> Result<(), Refusal> {
        let parts = self.archive_parts().ok_or_else(no_archive)?;
        let ranges: Vec<KeyRange> = self
            .all_partitions()
            .map(|partition| keys::tenant_of(Kind::DataKey, partition, tenant))
            .collect();
        let done = self.off_thread(move |storage| {
            parts.erasures.append(&[Erasure {
                at_ms,
                tenant,
                workflow: None,
            }])?;
            Ok(storage.store().purge(&ranges)?)
        });
        done.await.map_err(|error| unfinished(&error))
    }

    /// Refuses while one workflow of a tenant has not ended or is held, and while a schedule may start one.
    async fn require_erasable(&self, tenant: TenantId) -> Result<(), Refusal> {
        let partitions: Vec<PartitionId> = self.all_partitions().collect();
        self.blocking(move |storage| {
            for partition in partitions {
                for (kind, code, what) in [
                    (Kind::Active, ErrorCode::Conflict, "has not ended; cancel it first"),
                    (
                        Kind::Hold,
                        ErrorCode::LegalHold,
                        "is under a legal hold; release it first",
                    ),
                    (Kind::Schedule, ErrorCode::Conflict, "is there; delete it first"),
                ] {
                    if let Some(which) = first_of(storage.store().as_ref(), kind, partition, tenant)? {
                        return Err(Refusal::new(code, format!("{which} {what}, then erase the tenant")));
                    }
                }
            }
            Ok(())
        })
        .await
    }
}

fn unfinished(error: &KeepError) -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        format!("the key is destroyed, but not every trace yet: {error}"),
    )
    .with_hint("It is tried again by itself; asking again does so at once.")
}

fn no_archive() -> Refusal {
    Refusal::new(
        ErrorCode::StorageUnavailable,
        "this process keeps no archive and no list of erasures",
    )
}

fn first_of(
    store: &dyn Store,
    kind: Kind,
    partition: PartitionId,
    tenant: TenantId,
) -> Result<Option<String>, Refusal> {
    let range = keys::tenant_of(kind, partition, tenant);
    let first = store
        .scan(&range.from, &range.to, Direction::Forward, 1)
        .map_err(unreadable)?;
    Ok(first.first().and_then(|(key, _)| match keys::parse(key)? {
        Parsed::Active { workflow, .. } | Parsed::Hold { workflow, .. } => Some(format!("workflow {workflow}")),
        Parsed::Schedule { schedule, .. } => Some(format!("schedule {schedule}")),
        _ => None,
    }))
}

#[async_trait::async_trait]
impl Keeping for Engine {
    async fn hold(&self, caller: Caller, workflow: WorkflowId, reason: Option<String>) -> Result<(), Refusal> {
        if reason
            .as_ref()
            .is_some_and(|reason| reason.len() > limits::HOLD_REASON_BYTES_MAX)
        {
            return Err(Refusal::new(
                ErrorCode::TooLarge,
                format!("a reason has at most {} bytes", limits::HOLD_REASON_BYTES_MAX),
            ));
        }
        if self.standing(caller.tenant, workflow).await? == Standing::Erased {
            return Err(erased());
        }
        let command = Hold {
            tenant: caller.tenant,
            workflow,
            by: caller.principal,
            reason,
        };
        self.call(workflow.partition(), command).await?;
        Ok(())
    }

    async fn release(&self, caller: Caller, workflow: WorkflowId) -> Result<(), Refusal> {
        // A hold that came in the moment of the removal is there without its workflow.
        if let Err(refusal) = self.standing(caller.tenant, workflow).await {
            let hold = keys::hold(workflow.partition(), caller.tenant, workflow);
            let held = self.blocking(move |storage| storage.store().get(&hold).map_err(unreadable));
            if refusal.code != ErrorCode::NotFound || held.await?.is_none() {
                return Err(refusal);
            }
        }
        let command = Release {
            tenant: caller.tenant,
            workflow,
            by: caller.principal,
        };
        self.call(workflow.partition(), command).await?;
        Ok(())
    }

    async fn erase(&self, caller: Caller, workflow: WorkflowId) -> Result<(), Refusal> {
        let parts = self.archive_parts().ok_or_else(no_archive)?;
        let partition = workflow.partition();
        match self.standing(caller.tenant, workflow).await? {
            Standing::Live => {
                return Err(
                    Refusal::new(ErrorCode::Conflict, format!("workflow {workflow} has not ended")).with_hint(format!(
                        "Cancel it first (`gantry workflow cancel {workflow}`), then erase it."
                    )),
                );
            }
            Standing::Erased if parts.erasures.contains(caller.tenant, workflow) => {}
            Standing::Erased | Standing::Ended => {
                let command = Erase {
                    tenant: caller.tenant,
                    workflows: vec![workflow],
                    by: caller.principal,
                };
                self.call(partition, command).await?;
            }
        }
        self.finish(partition, &[(caller.tenant, workflow)]).await
    }

    async fn erase_tenant(&self, caller: Caller, tenant: TenantId) -> Result<u64, Refusal> {
        if caller.tenant != tenant {
            return Err(not_found());
        }
        self.archive_parts().ok_or_else(no_archive)?;
        let at_ms = self.now_ms();
        self.require_erasable(tenant).await?;
        for partition in self.all_partitions() {
            self.call(partition, ForgetBulks { tenant }).await?;
        }
        self.erase_uploads(caller).await?;
        let mut count = 0;
        for partition in self.all_partitions() {
            let mut range = Some(keys::ended_from(partition, tenant, 0));
            while let Some(next) = range {
                let (workflows, more) = self.erasable(partition, tenant, next).await?;
                range = more;
                if workflows.is_empty() {
                    continue;
                }
                let gone: Vec<_> = workflows.iter().map(|workflow| (tenant, *workflow)).collect();
                let command = Erase {
                    tenant,
                    workflows,
                    by: caller.principal,
                };
                self.call(partition, command).await?;
                self.finish(partition, &gone).await?;
                count += gone.len() as u64;
            }
        }
        // What was submitted meanwhile, and is older than `at_ms` all the same, would be left out by restores.
        self.require_erasable(tenant).await?;
        self.seal_erasure(tenant, at_ms).await?;
        Ok(count)
    }
}
