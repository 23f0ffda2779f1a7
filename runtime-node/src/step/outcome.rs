//! From what a process left to the result of its step.

use bytes::Bytes;
use gantry_proto::ErrorCode;
use gantry_proto::limits::{STEP_ATTRS_BYTES_MAX, STEP_OUTPUTS_BYTES_MAX};
use gantry_proto::v1::{EndCause, Fault, Plan, ProcessExited, ReportKind, StepResult};

use crate::report::{ReportError, parse_report};

/// A result without anything but its cause.
pub(super) fn result(cause: EndCause, finished_at_ms: u64, fault: Option<Fault>) -> StepResult {
    StepResult {
        cause: cause.into(),
        finished_at_ms,
        fault,
        ..StepResult::default()
    }
}

/// The result as the supervisor reported it.
pub(super) fn from_exit(exit: &ProcessExited) -> StepResult {
    StepResult {
        cause: exit.cause,
        exit_code: exit.exit_code,
        signal: exit.signal,
        oom_seen: exit.oom_seen,
        finished_at_ms: exit.finished_at_ms,
        last_seq: exit.last_seq,
        fault: exit.fault.clone(),
        user_cpu_us: exit.user_cpu_us,
        system_cpu_us: exit.system_cpu_us,
        max_rss_bytes: exit.max_rss_bytes,
        ..StepResult::default()
    }
}

/// Whether the process did what it was to do.
pub(super) fn succeeded(exit: &ProcessExited) -> bool {
    exit.cause() == EndCause::Exited && exit.exit_code == Some(0)
}

/// Outputs and attributes, as JSON.
pub(super) fn reports(exit: &ProcessExited, plan: &Plan) -> Result<(Option<Bytes>, Option<Bytes>), Fault> {
    let outputs = report(exit, ReportKind::Output, "$GANTRY_OUTPUT", STEP_OUTPUTS_BYTES_MAX)?;
    for name in &plan.outputs {
        if !outputs.as_ref().is_some_and(|(_, names)| names.contains(name)) {
            let message = format!("the step declares the output `{name}` but did not set it");
            return Err(Fault::new(ErrorCode::StepBadOutput, message).with_hint(format!(
                "have it write a line `{name}=value` to the file $GANTRY_OUTPUT"
            )));
        }
    }
    let attrs = report(exit, ReportKind::Attrs, "$GANTRY_ATTRS", STEP_ATTRS_BYTES_MAX)?;
    Ok((outputs.map(|(json, _)| json), attrs.map(|(json, _)| json)))
}

type Parsed = Option<(Bytes, Vec<String>)>;

fn report(exit: &ProcessExited, kind: ReportKind, variable: &str, limit_bytes: u64) -> Result<Parsed, Fault> {
    let bad = |error: ReportError| {
        Fault::new(
            ErrorCode::StepBadOutput,
            format!("the file {variable} is refused: {error}"),
        )
    };
    let Some(report) = exit.reports.iter().find(|report| report.kind() == kind) else {
        return Ok(None);
    };
    if report.truncated == Some(true) || report.content.len() as u64 > limit_bytes {
        return Err(bad(ReportError::TooLarge { limit_bytes }));
    }
    let values = parse_report(&report.content).map_err(bad)?;
    if values.is_empty() {
        return Ok(None);
    }
    let names = values.keys().cloned().collect();
    let json = serde_json::to_vec(&values).map_err(|error| Fault::new(ErrorCode::StepBadOutput, error.to_string()))?;
    Ok(Some((json.into(), names)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gantry_proto::v1::ReportFile;

    fn exit(kind: ReportKind, content: &'static str, truncated: bool) -> ProcessExited {
        let content = Bytes::from_static(content.as_bytes());
        let report = ReportFile {
            run: 1,
            kind: kind.into(),
            content,
            truncated: Some(truncated),
        };
        ProcessExited {
            reports: vec![report],
            ..ProcessExited::default()
        }
    }

    #[test]
    fn declared_outputs_must_be_set() {
        let plan = Plan {
            outputs: vec!["a".into()],
            ..Plan::default()
        };
        let (outputs, attrs) = reports(&exit(ReportKind::Output, "a=1\nb=2", false), &plan).unwrap();
        assert_eq!(outputs.unwrap(), r#"{"a":"1","b":"2"}"#);
        assert_eq!(attrs, None);
        for exit in [
            exit(ReportKind::Output, "b=2", false),
            exit(ReportKind::Attrs, "a=1", false),
            ProcessExited::default(),
        ] {
            assert_eq!(reports(&exit, &plan).unwrap_err().code, "step-bad-output");
        }
        let large = reports(&exit(ReportKind::Output, "", true), &Plan::default()).unwrap_err();
        assert!(large.message.contains("limit"), "{}", large.message);
    }
}
