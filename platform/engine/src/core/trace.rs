//! W3C trace context: every step attempt gets a span of its own, under the trace that the caller opened or, without one, under the workflow's own.

use gantry_proto::{TaskId, WorkflowId};

/// Length of version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
const LENGTH: usize = 55;

/// The `TRACEPARENT` of a step attempt. Derived, so that a replay gives the same: the trace id from the caller's `parent` (flags kept) or from the
/// workflow's id, the span id from task, step and attempt.
pub(crate) fn traceparent(
    parent: Option<&str>,
    workflow: WorkflowId,
    task: TaskId,
    step: usize,
    attempt: u32,
) -> String {
    let parent = parent.filter(|parent| is_traceparent(parent));
    let trace = parent.map_or_else(|| hex::encode(workflow.as_bytes()), |parent| parent[3..35].to_owned());
    let flags = parent.map_or("01", |parent| &parent[53..55]);
    let span = span_id(&[task.as_bytes(), &(step as u64).to_be_bytes(), &attempt.to_be_bytes()]);
    format!("00-{trace}-{span}-{flags}")
}

/// The id of a span, from what it is about.
pub(crate) fn span_id(about: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in about {
        hasher.update(part);
    }
    let mut span = [0u8; 8];
    span.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    // An all-zero span id is invalid by the standard.
    span[7] |= 1;
    hex::encode(span)
}

/// The span that a submitter was in.
pub(crate) fn parent_span(parent: Option<&str>) -> Option<&str> {
    parent
        .filter(|parent| is_traceparent(parent))
        .map(|parent| &parent[36..52])
}

fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    text.len() == LENGTH
        && text.is_ascii()
        && text.starts_with("00-")
        && &text[35..36] == "-"
        && &text[52..53] == "-"
        && hex(&text[3..35])
        && hex(&text[36..52])
        && hex(&text[53..55])
        && text[3..35].bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use gantry_proto::PartitionId;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn ids() -> (WorkflowId, TaskId) {
        (
            WorkflowId::new(1, PartitionId::default(), 2),
            TaskId::new(1, PartitionId::default(), 3),
        )
    }

    #[test]
    fn a_step_joins_the_trace_of_its_caller() {
        let (workflow, task) = ids();
        let own = traceparent(Some(PARENT), workflow, task, 0, 1);
        assert!(is_traceparent(&own));
        assert_eq!((&own[3..35], &own[53..]), (&PARENT[3..35], "00"));
        assert_ne!(own[36..52], PARENT[36..52]);
    }

    #[test]
    fn without_a_caller_the_workflow_is_the_trace_and_each_attempt_a_span() {
        let (workflow, task) = ids();
        let first = traceparent(None, workflow, task, 0, 1);
        assert!(is_traceparent(&first));
        assert_eq!(first[3..35], hex::encode(workflow.as_bytes()));
        assert_eq!(
            first,
            traceparent(None, workflow, task, 0, 1),
            "the same again in a replay"
        );
        assert_ne!(first, traceparent(None, workflow, task, 0, 2));
        assert_eq!(traceparent(Some("garbage"), workflow, task, 0, 1), first);
    }
}
