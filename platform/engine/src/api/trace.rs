//! A workflow as spans.

use std::collections::BTreeMap;

use serde_json::Value;

/// What a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// The whole workflow.
    Workflow,
    /// A task, from ready to its end.
    Task,
    /// A step, from its first assignment to its end.
    Step,
    /// Time in which a step could have run and had no place: before an attempt.
    Queued,
    /// A try at a step, from assignment to the end of its process. Its id is the one that the step's process has in `TRACEPARENT`.
    Attempt,
    /// Within an attempt: the sandbox is made ready.
    Prepare,
    /// Within an attempt: the process runs.
    Run,
}

impl SpanKind {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Task => "task",
            Self::Step => "step",
            Self::Queued => "queued",
            Self::Attempt => "attempt",
            Self::Prepare => "prepare",
            Self::Run => "run",
        }
    }
}

/// How a span ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpanStatus {
    /// Not yet, or nothing is known.
    Unset,
    /// Well.
    Ok,
    /// Badly, with an error code.
    Error(String),
}

/// One span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// 16 hexadecimal digits.
    pub id: String,
    /// Id of the span around it; the workflow's is the submitter's, if there was one.
    pub parent: Option<String>,
    /// What it is about.
    pub kind: SpanKind,
    /// Name of workflow, task or step.
    pub name: String,
    /// Its begin.
    pub start_ms: u64,
    /// Its end, when it has ended.
    pub end_ms: Option<u64>,
    /// How it ended.
    pub status: SpanStatus,
    /// Ids, numbers and causes, under `gantry.` names.
    pub attributes: BTreeMap<&'static str, Value>,
}

/// A workflow's spans.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// 32 hexadecimal digits: the submitter's trace, or the workflow's own.
    pub trace_id: String,
    /// Parents before children.
    pub spans: Vec<Span>,
}
