//! How steps end.

use bytes::Bytes;
use gantry_proto::v1::{EndCause, StepResult};

use crate::dice::Dice;

pub(crate) fn ended(cause: EndCause, exit_code: Option<i32>) -> StepResult {
    let mut result = StepResult {
        exit_code,
        ..StepResult::default()
    };
    result.set_cause(cause);
    result
}

/// Mostly well; always well when faults are over.
pub(crate) fn draw(dice: &Dice, healed: bool) -> StepResult {
    let unique = dice.below(1_000_000);
    let done = || StepResult {
        outputs_json: Some(Bytes::from(format!("{{\"n\": {unique}}}"))),
        ..ended(EndCause::Exited, Some(0))
    };
    if healed {
        return done();
    }
    match dice.below(100) {
        0..=83 => done(),
        84..=89 => ended(EndCause::Exited, Some(1)),
        90 => ended(EndCause::Signalled, None),
        91 => ended(EndCause::Timeout, None),
        92 => ended(EndCause::Oom, None),
        93 => ended(EndCause::Contract, None),
        94 => ended(EndCause::Cancelled, None),
        _ => ended(EndCause::Lost, None),
    }
}
