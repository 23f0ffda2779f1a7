//! A workflow's records and live output as one stream, from any point.
//!
//! Order: records by position; an attempt's output after the record that assigned it and before the record that ended it. Memory per reader: one page of
//! records and one of output, however far behind it is.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;

use axum::response::sse::Event;
use gantry_engine::api::{EventView, StreamKey, WorkflowView};
use gantry_proto::{ErrorCode, TaskId, WorkflowId};

use super::cursor::{Attempt, Cursor};
use super::{OUTPUT_PAGE_BYTES, Stop, Watch, line, opening_event, stop_event};
use crate::problem::Problem;

/// Records that one read brings.
const RECORDS_PAGE: usize = 64;

/// Pages of output that are sent before records are looked for again, though nothing woke the reader: a loud attempt does not delay them for long, and a
/// read of records is not paid for every page.
const OUTPUT_PAGES_MAX: u32 = 16;

/// Records that one read brings when nothing is sent, only remembered.
const REPLAY_PAGE: usize = 500;

/// What the stream shows of a task.
struct TaskNames {
    name: String,
    steps: Vec<String>,
}

/// The attempt that a record is about.
fn attempt_of(record: &EventView) -> Option<Attempt> {
    let number = |field: &str| {
        record
            .data
            .get(field)?
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
    };
    Some(Attempt {
        task: record.data.get("task")?.as_str()?.parse().ok()?,
        step: number("step")?,
        attempt: number("attempt")?,
    })
}

/// See the module.
pub(crate) struct WorkflowReader {
    watch: Watch,
    workflow: WorkflowId,
    with_output: bool,
    cursor: Cursor,
    /// Attempts that run at the cursor.
    running: BTreeSet<Attempt>,
    /// The running attempt whose output was read last, so that a loud one does not starve the others.
    served: Option<Attempt>,
    names: HashMap<TaskId, TaskNames>,
    records: VecDeque<EventView>,
    /// Pages of output that may be sent before records are read again; 0 while there may be more records.
    output_pages: u32,
    frames: VecDeque<Event>,
    ended: bool,
    done: bool,
}

impl WorkflowReader {
    /// A reader that goes on after `last_id`, or begins at the first record.
    pub(crate) async fn open(
        watch: Watch,
        view: WorkflowView,
        last_id: Option<&str>,
        with_output: bool,
    ) -> Result<Self, Problem> {
        let workflow = view.summary.id;
        let cursor = match last_id {
            Some(text) => Cursor::decode(workflow, text).map_err(|error| {
                Problem::invalid(error.to_string()).hint("leave `Last-Event-ID` out to read from the first record")
            })?,
            None => Cursor::default(),
        };
        if cursor.position > view.position {
            return Err(Problem::invalid(
                "the event id is newer than the workflow's newest record",
            ));
        }
        let names = names(view);
        let mut reader = Self {
            watch,
            workflow,
            with_output,
            cursor,
            running: BTreeSet::new(),
            served: None,
            names,
            records: VecDeque::new(),
            output_pages: 0,
            frames: VecDeque::from([opening_event()]),
            ended: false,
            done: false,
        };
        reader.remember().await?;
        Ok(reader)
    }

    /// Reads the records up to the cursor again, to know what was running there.
    async fn remember(&mut self) -> Result<(), Problem> {
        let until = self.cursor.position;
        let mut after = 0;
        while after < until {
            let page = self
                .watch
                .shared
                .backend
                .events(self.watch.key.tenant, self.workflow, after, REPLAY_PAGE)
                .await?;
            let Some(last) = page.last() else { break };
            after = last.position;
            for record in page.iter().filter(|record| record.position <= until) {
                self.note(record);
            }
        }
        Ok(())
    }

    fn note(&mut self, record: &EventView) {
        match record.kind.as_str() {
            "step_assigned" => self.running.extend(attempt_of(record)),
            "step_ended" => {
                if let Some(attempt) = attempt_of(record) {
                    self.running.remove(&attempt);
                    self.cursor.close(attempt);
                }
            }
            "workflow_ended" => self.ended = true,
            _ => {}
        }
    }

    /// The next event; `None` after the last one.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            if self.done {
                return None;
            }
            if let Err(stop) = self.fill().await {
                self.done = true;
                self.frames.push_back(stop_event(stop));
            }
        }
    }

    /// Reads what comes next and makes frames of it; may wait, and may make none.
    async fn fill(&mut self) -> Result<(), Stop> {
        self.watch.check().await?;
        if self.records.is_empty() && self.output_pages == 0 {
            let (tenant, position) = (self.watch.key.tenant, self.cursor.position);
            let page = self
                .watch
                .shared
                .backend
                .events(tenant, self.workflow, position, RECORDS_PAGE)
                .await;
            self.records
                .extend(page.map_err(|refusal| Stop::Problem(refusal.into()))?);
            if self.records.is_empty() {
                self.output_pages = OUTPUT_PAGES_MAX;
            }
        }
        if let Some(record) = self.records.front() {
            // All output of an attempt goes before the record of its end.
            if self.with_output
                && record.kind == "step_ended"
                && let Some(attempt) = attempt_of(record)
                && self.running.contains(&attempt)
                && self.send_output(attempt).await?
            {
                return Ok(());
            }
            if let Some(record) = self.records.pop_front() {
                self.send_record(&record);
            }
            return Ok(());
        }
        if self.with_output && self.send_some_output().await? {
            self.output_pages -= 1;
            return Ok(());
        }
        if self.ended {
            self.send_end().await?;
            return Ok(());
        }
        self.output_pages = 0;
        self.watch.wait().await
    }

    fn send_record(&mut self, record: &EventView) {
        self.cursor.position = record.position;
        self.note(record);
        let data = serde_json::to_string(record).unwrap_or_default();
        self.frames.push_back(
            Event::default()
                .id(self.cursor.encode(self.workflow))
                .event(&record.kind)
                .data(data),
        );
    }

    async fn send_end(&mut self) -> Result<(), Stop> {
        self.done = true;
        let view = self
            .watch
            .shared
            .backend
            .workflow(self.watch.key.tenant, self.workflow)
            .await
            .map_err(|refusal| Stop::Problem(refusal.into()))?;
        let data = serde_json::json!({ "state": view.summary.state, "position": self.cursor.position });
        self.frames.push_back(
            Event::default()
                .id(self.cursor.encode(self.workflow))
                .event("end")
                .data(data.to_string()),
        );
        Ok(())
    }

    /// One page of output of the next running attempt that has some.
    async fn send_some_output(&mut self) -> Result<bool, Stop> {
        let start = self.served.map_or(Bound::Unbounded, Bound::Excluded);
        let behind: Vec<Attempt> = self.running.range((start, Bound::Unbounded)).copied().collect();
        let before: Vec<Attempt> = self
            .running
            .iter()
            .copied()
            .take_while(|attempt| self.served.is_some_and(|served| *attempt <= served))
            .collect();
        for attempt in behind.into_iter().chain(before) {
            if self.send_output(attempt).await? {
                self.served = Some(attempt);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One page of an attempt's output; whether there was any.
    async fn send_output(&mut self, attempt: Attempt) -> Result<bool, Stop> {
        let key = StreamKey {
            tenant: self.watch.key.tenant,
            workflow: self.workflow,
            task: attempt.task,
            step: attempt.step,
            attempt: attempt.attempt,
        };
        let page = match self
            .watch
            .shared
            .backend
            .output(key, self.cursor.sent(attempt), OUTPUT_PAGE_BYTES)
            .await
        {
            Ok(page) => page,
            // Nothing was printed yet.
            Err(refusal) if refusal.code == ErrorCode::NotFound => return Ok(false),
            Err(refusal) => return Err(Stop::Problem(refusal.into())),
        };
        let any = !page.chunks.is_empty();
        if any && !self.names.contains_key(&attempt.task) {
            // Tasks can be added while a workflow runs.
            let view = self
                .watch
                .shared
                .backend
                .workflow(self.watch.key.tenant, self.workflow)
                .await
                .map_err(|refusal| Stop::Problem(refusal.into()))?;
            self.names = names(view);
        }
        for chunk in page.chunks {
            self.cursor.set_sent(attempt, chunk.seq);
            let mut line = line::line(&chunk);
            let names = self.names.get(&attempt.task);
            line.task = names.map(|names| names.name.clone());
            line.step = names.and_then(|names| names.steps.get(attempt.step as usize)).cloned();
            line.attempt = Some(attempt.attempt);
            let data = serde_json::to_string(&line).unwrap_or_default();
            self.frames.push_back(
                Event::default()
                    .id(self.cursor.encode(self.workflow))
                    .event("output")
                    .data(data),
            );
        }
        Ok(any)
    }
}

fn names(view: WorkflowView) -> HashMap<TaskId, TaskNames> {
    view.tasks
        .into_iter()
        .map(|task| {
            (
                task.id,
                TaskNames {
                    name: task.name,
                    steps: task.steps.into_iter().map(|step| step.key).collect(),
                },
            )
        })
        .collect()
}
