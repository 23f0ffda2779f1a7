//! The task that looks up playbooks for runs that schedules owe, and starts them. What is owed is durable: this task may die at any time, and asks again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use gantry_proto::v1::{Payload, PlaybookRef};
use gantry_proto::{ErrorCode, PartitionId};
use serde_json::Map;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::super::Engine;
use super::run_parameters;
use crate::api::Refusal;
use crate::core::Body;
use crate::core::commands::{StartRun, Submit};
use crate::core::rows::ScheduleRow;
use crate::processor::Message;
use crate::spec;

/// After something failed that may heal, it is tried again so much later.
const RETRY: Duration = Duration::from_secs(1);
/// Looking up one playbook may take so long.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Wakes a task of the engine when there is something to do for it.
#[derive(Debug, Default)]
pub(crate) struct Waker(Notify);

impl Waker {
    /// Something is owed.
    pub(crate) fn wake(&self) {
        self.0.notify_one();
    }

    /// Waits until something is. Cancel safe.
    pub(crate) async fn woken(&self) {
        self.0.notified().await;
    }
}

/// See the module.
pub(crate) struct Starter {
    /// Weak: the engine owns this task.
    pub(crate) engine: Weak<Engine>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) shutdown: CancellationToken,
}

impl Starter {
    /// Runs until shutdown.
    pub(crate) async fn run(self) {
        loop {
            let again = match self.engine.upgrade() {
                // Cancel safe: a run that was looked up and not started is still owed.
                Some(engine) => tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    again = engine.start_owed() => again,
                },
                None => return,
            };
            let pause = async {
                if again {
                    tokio::time::sleep(RETRY).await;
                } else {
                    self.waker.woken().await;
                }
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = pause => {}
            }
        }
    }
}

impl Engine {
    /// Starts everything that is owed; returns whether something is to be tried again.
    async fn start_owed(&self) -> bool {
        let mut again = false;
        for partition in self.all_partitions() {
            again |= self.start_owed_in(partition).await;
        }
        again
    }

    async fn start_owed_in(&self, partition: PartitionId) -> bool {
        loop {
            let (reply, answer) = oneshot::channel();
            if self.post(partition, Message::Owed { reply }).is_err() {
                return true;
            }
            let Ok(owed) = answer.await else { return true };
            if owed.is_empty() {
                return false;
            }
            for (row, due_ms) in owed {
                if let Err(error) = self.start_run(&row, due_ms).await {
                    tracing::warn!(schedule = %row.name, %error, "a run cannot be started now; it is tried again");
                    return true;
                }
            }
        }
    }

    /// # Errors
    /// What may heal; what will not is recorded as the run's failure.
    async fn start_run(&self, row: &ScheduleRow, due_ms: u64) -> Result<(), Refusal> {
        let run = match self.look_up(row).await {
            Ok(submit) => Ok(Box::new(submit)),
            Err(refusal) if passes(refusal.code) => return Err(refusal),
            Err(refusal) => Err((refusal.code, refusal.message)),
        };
        let command = StartRun {
            tenant: row.tenant,
            schedule: row.id,
            due_ms,
            run,
        };
        self.call(row.id.partition(), command).await?;
        Ok(())
    }

    async fn look_up(&self, row: &ScheduleRow) -> Result<Submit, Refusal> {
        let looking = self.playbooks.playbook(row.tenant, &row.playbook, row.version);
        let found = tokio::time::timeout(LOOK_UP, looking).await;
        let (source, version) = found.unwrap_or_else(|_| {
            Err(Refusal::new(
                ErrorCode::StorageUnavailable,
                "the playbook could not be looked up in time",
            ))
        })?;
        let schedule = row.clone();
        let text = source.clone();
        let (compiled, parameters) = self
            .blocking(move |storage| run_parameters(storage, &schedule, &text))
            .await?;
        let json = |error: serde_json::Error| Refusal::new(ErrorCode::Internal, error.to_string());
        let attributes = spec::attributes(&compiled.definition, &parameters, &Map::new()).map_err(|issues| {
            let first = issues.into_iter().next().map(|issue| issue.message);
            Refusal::new(ErrorCode::InvalidParameters, first.unwrap_or_default())
        })?;
        let definition_json = serde_json::to_vec(&compiled.definition).map_err(json)?;
        let parameters_json = serde_json::to_vec(&parameters).map_err(json)?;
        Ok(Submit {
            tenant: row.tenant,
            by: row.changed_by,
            digest: Bytes::copy_from_slice(&compiled.digest),
            body: Arc::new(Body::new(compiled.definition, parameters)),
            payload: Payload {
                definition_json: Some(definition_json.into()),
                parameters_json: Some(parameters_json.into()),
                source: Some(source),
                ..Payload::default()
            },
            idempotency: None,
            idempotency_ttl_ms: None,
            labels: row.labels.clone(),
            attributes,
            traceparent: None,
            playbook: Some(PlaybookRef {
                name: row.playbook.clone(),
                version,
            }),
            id: None,
            priority: None,
            schedule: None,
            origin: None,
            carried: Vec::new(),
        })
    }
}

/// What another try may heal.
fn passes(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::StorageUnavailable | ErrorCode::Overloaded | ErrorCode::Internal
    )
}
