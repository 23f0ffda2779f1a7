//! Idempotency keys with a lifetime of their own.

use super::table::{Fate, Table, submission};
use crate::core::commands::Submit;
use crate::core::{Rejection, Reply};

const KEY: [u8; 32] = [1; 32];

fn keyed(request: u8, ttl_ms: Option<u64>) -> Submit {
    Submit {
        idempotency: Some((KEY, [request; 32])),
        idempotency_ttl_ms: ttl_ms,
        ..submission("{name: one, tasks: {t: {run: 'true'}}}")
    }
}

impl Table {
    fn asked(&mut self, submit: Submit) -> Result<(gantry_proto::WorkflowId, bool), Rejection> {
        match self.batch(vec![submit.into()], &[], Fate::Done).remove(0)? {
            Reply::Submitted(receipt) => Ok((receipt.workflow, receipt.replayed)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_key_is_remembered_as_long_as_was_asked_for_and_is_free_then() {
    let mut table = Table::new();
    let (first, replayed) = table.asked(keyed(1, Some(10_000))).unwrap();
    assert!(!replayed);
    table.crash();
    assert_eq!(table.asked(keyed(1, None)), Ok((first, true)));
    assert_eq!(table.asked(keyed(2, None)), Err(Rejection::IdempotencyMismatch(first)));
    table.pass(9_999, &[]);
    assert_eq!(
        table.asked(keyed(1, None)),
        Ok((first, true)),
        "asking again does not make it longer"
    );
    table.pass(1, &[]);
    assert!(table.state.idempotency.is_empty(), "its row is removed by its timer");
    let (second, replayed) = table.asked(keyed(2, None)).unwrap();
    assert!(!replayed && second != first);
    table.crash();
    table.pass(23 * 3_600_000, &[]);
    assert_eq!(
        table.asked(keyed(2, None)),
        Ok((second, true)),
        "a day when nothing else is said"
    );
    table.verify();
}
