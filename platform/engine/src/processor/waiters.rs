//! Callers that wait for the end of a run: told from memory, once it is durable, so that nobody has to read for it.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use gantry_proto::WorkflowId;
use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{LeaseEnd, Payload, WorkflowEnd};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::api::{FailureView, WorkflowState};
use crate::core::Recorded;

/// How a run ended, or an attempt at it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunEnd {
    /// Of the workflow; active when an attempt failed and another one will follow.
    pub(crate) state: WorkflowState,
    /// What it returned, JSON.
    pub(crate) output: Option<Bytes>,
    /// Why it failed.
    pub(crate) failure: Option<FailureView>,
    /// When it is tried again.
    pub(crate) retry_at_ms: Option<u64>,
}

type Waiting = Arc<Mutex<HashMap<WorkflowId, Vec<oneshot::Sender<RunEnd>>>>>;

/// Who waits. Bounded by the calls that the gateway lets in.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Waiting);

/// One caller's ear. Dropping it ends the waiting.
pub(crate) struct Listener {
    all: Waiting,
    workflow: WorkflowId,
    told: oneshot::Receiver<RunEnd>,
}

impl Waiters {
    /// Listens from now on.
    pub(crate) fn listen(&self, workflow: WorkflowId) -> Listener {
        let (tell, told) = oneshot::channel();
        self.0.lock().entry(workflow).or_default().push(tell);
        Listener {
            all: Arc::clone(&self.0),
            workflow,
            told,
        }
    }

    /// What those who wait are to be told of these records once they are durable.
    pub(crate) fn ends(&self, events: &[Recorded]) -> Vec<(WorkflowId, RunEnd)> {
        let waiting = self.0.lock();
        let mut ends: Vec<(WorkflowId, RunEnd)> = Vec::new();
        if waiting.is_empty() {
            return ends;
        }
        for event in events {
            let Some(workflow) = event.workflow.filter(|id| waiting.contains_key(id)) else {
                continue;
            };
            let at = ends.iter().position(|(id, _)| *id == workflow);
            match &event.kind {
                Kind::LeaseEnded(lease) if lease.end() != LeaseEnd::Refused => {}
                Kind::TaskEnded(_) | Kind::RunFailed(_) | Kind::LeaseEnded(_) => {
                    let code = match &event.kind {
                        Kind::RunFailed(failed) => Some(&failed.code),
                        Kind::LeaseEnded(refused) => refused.code.as_ref(),
                        Kind::TaskEnded(ended) => ended.code.as_ref(),
                        _ => None,
                    };
                    let end = RunEnd {
                        state: WorkflowState::Active,
                        output: event.payload.as_ref().and_then(|payload| payload.outputs_json.clone()),
                        failure: code.map(|code| failure(code, event.payload.as_ref())),
                        retry_at_ms: None,
                    };
                    match at {
                        Some(at) => ends[at].1 = end,
                        None => ends.push((workflow, end)),
                    }
                }
                Kind::TaskWaiting(waits) => {
                    if let Some(at) = at {
                        ends[at].1.retry_at_ms = waits.until_ms;
                    }
                }
                Kind::WorkflowEnded(ended) => {
                    if let Some(at) = at {
                        ends[at].1.state = match ended.end() {
                            WorkflowEnd::Completed => WorkflowState::Completed,
                            WorkflowEnd::Failed => WorkflowState::Failed,
                            WorkflowEnd::Cancelled => WorkflowState::Cancelled,
                        };
                    }
                }
                _ => {}
            }
        }
        // A task that completed among others is no news.
        ends.retain(|(_, end)| end.state != WorkflowState::Active || end.failure.is_some());
        ends
    }

    /// Tells those who wait.
    pub(crate) fn tell(&self, ends: Vec<(WorkflowId, RunEnd)>) {
        for (workflow, end) in ends {
            let waiting = self.0.lock().remove(&workflow).unwrap_or_default();
            for caller in waiting {
                // One that has gone does not want to know.
                let _ = caller.send(end.clone());
            }
        }
    }
}

/// A failure as it is shown.
pub(crate) fn failure(code: &str, payload: Option<&Payload>) -> FailureView {
    let title = || {
        code.parse::<gantry_proto::ErrorCode>()
            .map_or_else(|_| code.to_owned(), |code| code.title().to_owned())
    };
    FailureView {
        code: code.to_owned(),
        message: payload
            .and_then(|payload| payload.message.clone())
            .unwrap_or_else(title),
        hint: payload.and_then(|payload| payload.hint.clone()),
    }
}

impl Listener {
    /// Waits for the end. Cancel safe; `None` when the engine stops.
    pub(crate) async fn end(&mut self) -> Option<RunEnd> {
        (&mut self.told).await.ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.told.close();
        let mut all = self.all.lock();
        if let Some(waiting) = all.get_mut(&self.workflow) {
            waiting.retain(|caller| !caller.is_closed());
            if waiting.is_empty() {
                all.remove(&self.workflow);
            }
        }
    }
}
