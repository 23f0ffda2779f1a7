//! A workflow's view as spans. Ids are derived, so that every call gives the same ones, and an attempt's is the one that its process was told.

use std::collections::BTreeMap;

use gantry_proto::{TaskId, WorkflowId};
use serde_json::{Value, json};

use crate::api::{
    AttemptView, FailureView, Span, SpanKind, SpanStatus, StepState, StepView, TaskState, TaskView, Trace,
    WorkflowState, WorkflowView,
};
use crate::core::trace::{parent_span, span_id, traceparent};

/// The spans of a workflow, as far as it has come.
pub(crate) fn trace(view: &WorkflowView, submitter: Option<&str>) -> Trace {
    let id = view.summary.id;
    let own = span_id(&[b"workflow", id.as_bytes()]);
    let mut spans = vec![Span {
        id: own.clone(),
        parent: parent_span(submitter).map(str::to_owned),
        kind: SpanKind::Workflow,
        name: view.summary.name.clone(),
        start_ms: view.summary.created_at_ms,
        end_ms: view.summary.ended_at_ms,
        status: match view.summary.state {
            WorkflowState::Completed => SpanStatus::Ok,
            WorkflowState::Failed | WorkflowState::Cancelled => error(view.summary.failure.as_ref()),
            _ => SpanStatus::Unset,
        },
        attributes: BTreeMap::from([
            ("gantry.workflow.id", json!(id.to_string())),
            ("gantry.workflow.state", json!(view.summary.state.to_string())),
        ]),
    }];
    let mut tracer = Tracer {
        workflow: id,
        submitter,
        spans: Vec::new(),
    };
    for task in &view.tasks {
        tracer.task(task, &own);
    }
    spans.append(&mut tracer.spans);
    let header = traceparent(submitter, id, TaskId::default(), 0, 0);
    Trace {
        trace_id: header[3..35].to_owned(),
        spans,
    }
}

fn error(failure: Option<&FailureView>) -> SpanStatus {
    SpanStatus::Error(failure.map_or_else(|| "cancelled".to_owned(), |failure| failure.code.clone()))
}

struct Tracer<'a> {
    workflow: WorkflowId,
    submitter: Option<&'a str>,
    spans: Vec<Span>,
}

impl Tracer<'_> {
    fn task(&mut self, task: &TaskView, parent: &str) {
        // What never became ready took no time.
        let Some(start_ms) = task.ready_at_ms else {
            return;
        };
        let own = span_id(&[b"task", task.id.as_bytes()]);
        self.spans.push(Span {
            id: own.clone(),
            parent: Some(parent.to_owned()),
            kind: SpanKind::Task,
            name: task.name.clone(),
            start_ms,
            end_ms: task.ended_at_ms,
            status: match task.state {
                TaskState::Completed => SpanStatus::Ok,
                TaskState::Failed | TaskState::Cancelled => error(task.failure.as_ref()),
                _ => SpanStatus::Unset,
            },
            attributes: BTreeMap::from([
                ("gantry.task.id", json!(task.id.to_string())),
                ("gantry.task.state", json!(task.state.to_string())),
                ("gantry.task.leases", json!(task.attempt)),
            ]),
        });
        // A step may run once the one before has ended.
        let mut free_ms = start_ms;
        for step in &task.steps {
            free_ms = self.step(task, step, &own, free_ms);
        }
    }

    /// Gives the time at which the next step may run.
    fn step(&mut self, task: &TaskView, step: &StepView, parent: &str, mut free_ms: u64) -> u64 {
        let (Some(first), Some(last)) = (step.attempts.first(), step.attempts.last()) else {
            return free_ms;
        };
        let own = span_id(&[b"step", task.id.as_bytes(), &u64::from(step.index).to_be_bytes()]);
        let ended = matches!(
            step.state,
            StepState::Completed | StepState::Failed | StepState::Cancelled
        );
        self.spans.push(Span {
            id: own.clone(),
            parent: Some(parent.to_owned()),
            kind: SpanKind::Step,
            name: step.key.clone(),
            start_ms: free_ms.min(first.assigned_at_ms),
            end_ms: last.finished_at_ms.or(task.ended_at_ms).filter(|_| ended),
            status: match step.state {
                StepState::Completed => SpanStatus::Ok,
                StepState::Failed | StepState::Cancelled => error(last.failure.as_ref()),
                _ => SpanStatus::Unset,
            },
            attributes: BTreeMap::from([
                ("gantry.step.index", json!(step.index)),
                ("gantry.step.attempts", json!(step.attempts.len())),
            ]),
        });
        for attempt in &step.attempts {
            self.attempt(task, step, attempt, &own, free_ms);
            free_ms = attempt.finished_at_ms.unwrap_or(attempt.assigned_at_ms).max(free_ms);
        }
        free_ms
    }

    fn attempt(&mut self, task: &TaskView, step: &StepView, attempt: &AttemptView, parent: &str, free_ms: u64) {
        let header = traceparent(
            self.submitter,
            self.workflow,
            task.id,
            step.index as usize,
            attempt.attempt,
        );
        let own = header[36..52].to_owned();
        let part = |name: &[u8]| span_id(&[name, own.as_bytes()]);
        let span = |id, parent: &str, kind: SpanKind, start_ms, end_ms| Span {
            id,
            parent: Some(parent.to_owned()),
            kind,
            name: kind.as_str().to_owned(),
            start_ms,
            end_ms,
            status: SpanStatus::Unset,
            attributes: BTreeMap::new(),
        };
        if attempt.assigned_at_ms > free_ms {
            let end = Some(attempt.assigned_at_ms);
            self.spans
                .push(span(part(b"queued"), parent, SpanKind::Queued, free_ms, end));
        }
        let ended = !matches!(attempt.state, StepState::Assigned | StepState::Running);
        let mut attributes: BTreeMap<&'static str, Value> = BTreeMap::from([
            ("gantry.attempt", json!(attempt.attempt)),
            ("gantry.node.id", json!(attempt.node.to_string())),
        ]);
        let known = [
            ("gantry.sandbox.id", attempt.sandbox.map(|id| json!(id.to_string()))),
            ("gantry.cause", attempt.cause.as_ref().map(|cause| json!(cause))),
            ("process.exit.code", attempt.exit_code.map(|code| json!(code))),
            ("gantry.signal", attempt.signal.map(|signal| json!(signal))),
            ("gantry.cpu_us", attempt.cpu_us.map(|cpu| json!(cpu))),
            ("gantry.max_rss_bytes", attempt.max_rss_bytes.map(|bytes| json!(bytes))),
        ];
        attributes.extend(known.into_iter().filter_map(|(name, value)| Some((name, value?))));
        self.spans.push(Span {
            name: format!("{} #{}", step.key, attempt.attempt),
            status: match attempt.state {
                StepState::Completed => SpanStatus::Ok,
                StepState::Failed | StepState::Lost | StepState::Cancelled => error(attempt.failure.as_ref()),
                _ => SpanStatus::Unset,
            },
            attributes,
            ..span(
                own.clone(),
                parent,
                SpanKind::Attempt,
                attempt.assigned_at_ms,
                attempt.finished_at_ms.filter(|_| ended),
            )
        });
        let Some(started_ms) = attempt.started_at_ms else {
            return;
        };
        // The node's clock may be behind ours.
        let started_ms = started_ms.max(attempt.assigned_at_ms);
        self.spans.push(span(
            part(b"prepare"),
            &own,
            SpanKind::Prepare,
            attempt.assigned_at_ms,
            Some(started_ms),
        ));
        let finished_ms = attempt
            .finished_at_ms
            .filter(|_| ended)
            .map(|finished| finished.max(started_ms));
        self.spans
            .push(span(part(b"run"), &own, SpanKind::Run, started_ms, finished_ms));
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::{NodeId, PartitionId};

    use super::*;
    use crate::api::WorkflowSummary;

    const SUBMITTER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn attempt(number: u32, state: StepState, times: (u64, Option<u64>, Option<u64>)) -> AttemptView {
        AttemptView {
            attempt: number,
            state,
            node: NodeId::new(1, PartitionId::default(), 9),
            sandbox: None,
            assigned_at_ms: times.0,
            started_at_ms: times.1,
            finished_at_ms: times.2,
            cause: None,
            exit_code: (state == StepState::Failed).then_some(1),
            signal: None,
            oom_seen: false,
            failure: (state == StepState::Failed).then(|| FailureView {
                code: "step-exit".to_owned(),
                message: String::new(),
                hint: None,
            }),
            progress: None,
            cpu_us: None,
            max_rss_bytes: None,
        }
    }

    /// Ready at 100, failed try 150-200-300, second try 400-450, still running.
    fn view() -> WorkflowView {
        let step = StepView {
            key: "build".to_owned(),
            index: 0,
            state: StepState::Running,
            attempts: vec![
                attempt(1, StepState::Failed, (150, Some(200), Some(300))),
                attempt(2, StepState::Running, (400, Some(450), None)),
            ],
            outputs: Value::Null,
            attrs: Value::Null,
            artifacts: Vec::new(),
        };
        let task = TaskView {
            handles: None,
            round: 0,
            feedback: None,
            assigned_to: None,
            excluded: Vec::new(),
            id: TaskId::new(1, PartitionId::default(), 3),
            name: "compile".to_owned(),
            state: TaskState::InProgress,
            kind: "steps".to_owned(),
            carried: false,
            outcome: None,
            deadline_ms: None,
            needs: Vec::new(),
            waiting: None,
            refused: None,
            component: None,
            attempt: 2,
            node: None,
            ready_at_ms: Some(100),
            started_at_ms: Some(150),
            ended_at_ms: None,
            failure: None,
            child: None,
            items: None,
            item_of: None,
            item_index: None,
            item: None,
            decision: None,
            outputs: None,
            steps: vec![step],
        };
        WorkflowView {
            ending: None,
            summary: WorkflowSummary {
                id: WorkflowId::new(1, PartitionId::default(), 2),
                name: "release".to_owned(),
                playbook: None,
                state: WorkflowState::Active,
                created_at_ms: 90,
                ended_at_ms: None,
                tasks_total: 1,
                tasks_ended: 0,
                priority: 5,
                lineage: None,
                failure: None,
                origin: None,
                attributes: BTreeMap::new(),
            },
            definition_digest: String::new(),
            parameters: Value::Null,
            outputs: Value::Null,
            labels: BTreeMap::new(),
            deadline_ms: None,
            held: None,
            paused: None,
            tasks: vec![task],
            position: 1,
            hold: None,
            erased_at_ms: None,
        }
    }

    #[test]
    fn queue_time_stands_apart_from_run_time() {
        let trace = trace(&view(), None);
        let spans: Vec<_> = trace
            .spans
            .iter()
            .map(|span| (span.kind.as_str(), span.start_ms, span.end_ms))
            .collect();
        assert_eq!(
            spans,
            [
                ("workflow", 90, None),
                ("task", 100, None),
                ("step", 100, None),
                ("queued", 100, Some(150)),
                ("attempt", 150, Some(300)),
                ("prepare", 150, Some(200)),
                ("run", 200, Some(300)),
                ("queued", 300, Some(400)),
                ("attempt", 400, None),
                ("prepare", 400, Some(450)),
                ("run", 450, None),
            ]
        );
        assert_eq!(trace.spans[4].status, SpanStatus::Error("step-exit".to_owned()));
        assert_eq!(trace.spans[8].status, SpanStatus::Unset);
    }

    #[test]
    fn ids_are_those_that_processes_were_told_and_parents_come_first() {
        let view = view();
        let trace = trace(&view, Some(SUBMITTER));
        assert_eq!(trace.trace_id, SUBMITTER[3..35]);
        assert_eq!(trace.spans[0].parent.as_deref(), Some(&SUBMITTER[36..52]));
        let told = traceparent(Some(SUBMITTER), view.summary.id, view.tasks[0].id, 0, 2);
        assert_eq!(trace.spans[8].id, told[36..52]);
        for (index, span) in trace.spans.iter().enumerate().skip(1) {
            let before = &trace.spans[..index];
            assert!(before.iter().all(|other| other.id != span.id), "ids are unique");
            assert!(
                before.iter().any(|other| Some(&other.id) == span.parent.as_ref()),
                "{span:?}"
            );
        }
        assert_eq!(trace, super::trace(&view, Some(SUBMITTER)), "the same each time");
        let own = super::trace(&view, None);
        assert_eq!((own.trace_id.len(), own.spans[0].parent.as_deref()), (32, None));
        assert_ne!(own.trace_id, trace.trace_id);
    }
}
