//! What a restarted or forked workflow has from the one before: its tasks end as they ended there, without running.

use gantry_proto::v1::event::Kind;
use gantry_proto::v1::{self, Payload};
use gantry_proto::{TaskId, WorkflowId};

use crate::core::apply::ApplyError;
use crate::core::carried::Carried;
use crate::core::decide::Batching;
use crate::core::state::TaskRef;

impl Batching<'_> {
    /// Ends the tasks of a workflow that has just been born as they ended before.
    pub(super) fn carry(&mut self, id: WorkflowId, carried: Vec<Carried>) -> Result<(), ApplyError> {
        for mut task in carried {
            let reference = (id, task.position);
            if let Some((list, items)) = task.items.take() {
                let first = self.carry_list(reference, list, items.len())?;
                for item in items {
                    self.carry_task((id, first.saturating_add(item.position)), item)?;
                }
            }
            self.carry_task(reference, task)?;
        }
        Ok(())
    }

    fn carry_task(&mut self, task: TaskRef, carried: Carried) -> Result<(), ApplyError> {
        let id = self.task_id(task);
        for (step, payload) in (0u32..).zip(carried.steps) {
            let event = v1::StepCarried { task: id, step };
            self.record(task.0, Kind::StepCarried(event), Some(payload))?;
        }
        let event = v1::TaskEnded {
            task: id,
            end: carried.end.into(),
            code: carried.code,
            outputs: carried.outputs.then_some(true),
        };
        self.record(task.0, Kind::TaskEnded(event), carried.payload)
    }

    /// Makes the items of a task over a list; returns the index of the first.
    fn carry_list(&mut self, task: TaskRef, list: Payload, count: usize) -> Result<u32, ApplyError> {
        let found = self.workflow(task.0);
        let definition = found.and_then(|workflow| workflow.definition(task.1 as usize));
        let name = definition.map_or("", |(name, _)| name).to_owned();
        let steps = definition.map_or(0, |(_, definition)| definition.steps.len());
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        let code = definition.and_then(|(_, definition)| definition.code());
        let component = code.map(|code| code.component.clone());
        let first = found.map_or(0, |workflow| workflow.tasks.len());
        let partition = self.state.partition;
        let seeds = (0u32..).take(count).map(|index| v1::TaskSeed {
            handles: None,
            task: TaskId::derive(
                self.now_ms,
                partition,
                &[
                    task.0.as_bytes(),
                    name.as_bytes(),
                    &first.to_be_bytes(),
                    &index.to_be_bytes(),
                ],
            ),
            name: format!("{name}[{index}]"),
            steps,
            component: component.clone(),
        });
        let event = v1::TaskFannedOut {
            task: self.task_id(task),
            items: seeds.collect(),
        };
        self.record(task.0, Kind::TaskFannedOut(event), Some(list))?;
        Ok(u32::try_from(first).unwrap_or(u32::MAX))
    }
}
