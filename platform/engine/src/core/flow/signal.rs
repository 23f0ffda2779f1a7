//! Tasks that wait for a signal, and signals that wait for a task. Each signal goes to one task; of one name, in the order in which they came.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, TaskEnd, WaitKind};
use gantry_proto::{ErrorCode, WorkflowId};

use super::said;
use crate::core::apply::ApplyError;
use crate::core::decide::Batching;
use crate::core::state::{TaskRef, Workflow};
use crate::spec::definition::{OnTimeout, SignalDef, TaskKind};

/// How a task completed whose signal did not come, if it goes on then.
pub(crate) const TIMED_OUT: &str = "timed_out";

/// The name that a task waits for now.
pub(in crate::core) fn awaited(workflow: &Workflow, position: usize) -> Option<&str> {
    let waits = workflow.tasks.get(position)?.row.wait_kind == Some(WaitKind::Signal.into());
    match &workflow.definition(position).filter(|_| waits)?.1.kind {
        TaskKind::Signal(signal) => Some(&signal.name),
        _ => None,
    }
}

impl Batching<'_> {
    /// Takes a signal that came early, or waits.
    pub(in crate::core) fn await_signal(&mut self, task: TaskRef, signal: &SignalDef) -> Result<(), ApplyError> {
        let kept = self.workflow(task.0).and_then(|workflow| {
            let mut kept = workflow.row.signals.iter();
            kept.find(|kept| kept.name == signal.name).map(|kept| kept.seq)
        });
        match kept {
            Some(seq) => self.take_signal(task, seq),
            None => {
                let until_ms = signal.timeout_ms.map(|timeout| self.now_ms.saturating_add(timeout));
                self.wait_until(task, WaitKind::Signal, until_ms, None)
            }
        }
    }

    /// Hands signals that are kept to tasks that wait for them.
    pub(in crate::core) fn deliver(&mut self, id: WorkflowId) -> Result<(), ApplyError> {
        while let Some((task, seq)) = self.workflow(id).and_then(|workflow| {
            workflow.row.signals.iter().find_map(|kept| {
                let mut positions = 0..workflow.tasks.len();
                let taker = positions.find(|position| awaited(workflow, *position) == Some(kept.name.as_str()))?;
                Some(((id, workflow.tasks[taker].row.index), kept.seq))
            })
        }) {
            self.take_signal(task, seq)?;
        }
        Ok(())
    }

    fn take_signal(&mut self, task: TaskRef, signal_seq: u64) -> Result<(), ApplyError> {
        let event = v1::SignalDelivered {
            task: self.task_id(task),
            signal_seq,
        };
        self.record(task.0, Kind::SignalDelivered(event), None)?;
        self.complete(task, None, None)
    }

    /// The signal did not come in time.
    pub(in crate::core) fn signal_overdue(&mut self, task: TaskRef, signal: &SignalDef) -> Result<(), ApplyError> {
        let why = format!("signal `{}` did not come in time", signal.name);
        match signal.on_timeout {
            OnTimeout::Fail => {
                let code = ErrorCode::SignalTimeout.as_str();
                self.end_task(task, TaskEnd::Failed, Some(code), said(why))
            }
            OnTimeout::Continue => self.complete(task, Some(TIMED_OUT), None),
            OnTimeout::Escalate => self.escalate(task, ErrorCode::SignalTimeout, why),
        }
    }
}
