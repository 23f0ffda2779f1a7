//! Results that break their contract: the attempt ran and said something that cannot be kept. It has failed, once, with a reason; it was not lost.

use gantry_proto::v1::{EndCause, Fault, StepResult};
use gantry_proto::{ErrorCode, limits};
use serde_json::{Map, Value};

/// The JSON of a report file may be longer than the file: quotes and escapes. Past twice its limit it is not kept.
const JSON_OF_FILE: u64 = 2;
/// A reason in words.
const MESSAGE_BYTES_MAX: usize = 16 << 10;

fn json_fault(variable: &str, json: &[u8], file_bytes_max: u64) -> Option<Fault> {
    let limit = file_bytes_max * JSON_OF_FILE;
    if json.len() as u64 > limit {
        let message = format!(
            "what the step wrote to {variable} has {} bytes as JSON; the limit is {limit}",
            json.len()
        );
        let hint = "Write less, or keep it as a file: an artifact has room.";
        return Some(Fault::new(ErrorCode::StepBadOutput, message).with_hint(hint));
    }
    serde_json::from_slice::<Map<String, Value>>(json).err().map(|error| {
        let message = format!("what the step wrote to {variable} is no JSON object: {error}");
        Fault::new(ErrorCode::StepBadOutput, message)
    })
}

fn fault_of(result: &StepResult) -> Option<Fault> {
    let outputs = result.outputs_json.as_deref();
    let attrs = result.attrs_json.as_deref();
    outputs
        .and_then(|json| json_fault("$GANTRY_OUTPUT", json, limits::STEP_OUTPUTS_BYTES_MAX))
        .or_else(|| attrs.and_then(|json| json_fault("$GANTRY_ATTRS", json, limits::STEP_ATTRS_BYTES_MAX)))
        .or_else(|| {
            let (count, limit) = (result.artifacts.len(), limits::ARTIFACTS_PER_STEP_MAX);
            (count > limit).then(|| {
                let message = format!("the step left {count} artifacts; the limit is {limit}");
                Fault::new(ErrorCode::ArtifactRefused, message).with_hint("Pack them into one file.")
            })
        })
}

/// The result as it can be journaled. One that ended well and breaks a limit has failed; of one that failed anyway only the excess goes.
pub(super) fn within_limits(mut result: StepResult) -> StepResult {
    if let Some(fault) = fault_of(&result) {
        result.outputs_json = None;
        result.attrs_json = None;
        result.artifacts.clear();
        if result.cause() == EndCause::Exited && result.exit_code == Some(0) {
            result.set_cause(EndCause::Contract);
            result.fault = Some(fault);
        }
    }
    if let Some(fault) = &mut result.fault {
        for text in [Some(&mut fault.message), fault.hint.as_mut()].into_iter().flatten() {
            text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gantry_proto::v1::Artifact;

    use super::*;

    fn ended(exit_code: i32) -> StepResult {
        StepResult {
            exit_code: Some(exit_code),
            ..StepResult::default()
        }
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let result = StepResult {
            outputs_json: Some(Bytes::from_static(br#"{"a": 1}"#)),
            attrs_json: Some(Bytes::from_static(b"{}")),
            artifacts: vec![Artifact::default(); limits::ARTIFACTS_PER_STEP_MAX],
            ..ended(0)
        };
        assert_eq!(within_limits(result.clone()), result);
    }

    #[test]
    fn what_does_not_fit_is_a_broken_contract() {
        let long = |limit: u64| {
            Some(Bytes::from(format!(
                r#"{{"a": "{}"}}"#,
                "x".repeat(usize::try_from(limit).unwrap() * 2)
            )))
        };
        let cases = [
            (
                StepResult {
                    outputs_json: long(limits::STEP_OUTPUTS_BYTES_MAX),
                    ..ended(0)
                },
                "step-bad-output",
                "$GANTRY_OUTPUT",
            ),
            (
                StepResult {
                    attrs_json: long(limits::STEP_ATTRS_BYTES_MAX),
                    ..ended(0)
                },
                "step-bad-output",
                "$GANTRY_ATTRS",
            ),
            (
                StepResult {
                    outputs_json: Some(Bytes::from_static(b"[1]")),
                    ..ended(0)
                },
                "step-bad-output",
                "no JSON object",
            ),
            (
                StepResult {
                    artifacts: vec![Artifact::default(); limits::ARTIFACTS_PER_STEP_MAX + 1],
                    ..ended(0)
                },
                "artifact-refused",
                "1001 artifacts",
            ),
        ];
        for (result, code, words) in cases {
            let failed = within_limits(result.clone());
            let fault = failed.fault.clone().unwrap();
            assert_eq!((failed.cause(), fault.code.as_str()), (EndCause::Contract, code));
            assert!(fault.message.contains(words), "{}", fault.message);
            assert!(failed.outputs_json.is_none() && failed.attrs_json.is_none() && failed.artifacts.is_empty());
            // It failed by itself: that is its reason.
            let by_itself = within_limits(StepResult {
                exit_code: Some(3),
                ..result
            });
            assert_eq!((by_itself.cause(), by_itself.fault), (EndCause::Exited, None));
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let fault = Fault::new(ErrorCode::StepExit, "ü".repeat(MESSAGE_BYTES_MAX));
        let cut = within_limits(StepResult {
            fault: Some(fault),
            ..ended(1)
        })
        .fault
        .unwrap();
        assert_eq!(cut.message, "ü".repeat(MESSAGE_BYTES_MAX / 2));
    }
}
