//! Where a reader of a workflow's stream is: the id of each event.
//!
//! A position in the log, and for each attempt that was running there how much of its output was sent. Attempts that ended before the position need no
//! entry, because the record of an attempt's end is sent only after all of its output: so the id grows with what runs at once, not with the workflow.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_proto::limits::TASKS_PER_WORKFLOW_MAX;
use gantry_proto::{TaskId, WorkflowId};

const VERSION: u8 = 1;

/// One attempt per task runs at a time.
const STREAMS_MAX: usize = TASKS_PER_WORKFLOW_MAX;

/// Longest id that is read: every stream with its longest numbers.
const ID_CHARS_MAX: usize = (1 + 4 + 10 + 10 + STREAMS_MAX * (8 + 5 + 5 + 10)) * 4 / 3 + 4;

/// One attempt at a step, within a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::struct_field_names)] // it is the number of the attempt, as in the API
pub(crate) struct Attempt {
    pub(crate) task: TaskId,
    pub(crate) step: u32,
    pub(crate) attempt: u32,
}

/// The random half of a task's id; enough to tell the tasks of one workflow apart.
type TaskTag = [u8; 8];

fn tag(task: TaskId) -> TaskTag {
    let mut tag = TaskTag::default();
    tag.copy_from_slice(&task.as_bytes()[8..]);
    tag
}

/// A decoded id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Position of the last record that was sent.
    pub(crate) position: u64,
    sent: BTreeMap<(TaskTag, u32, u32), u64>,
}

/// A text that is not an id of this workflow's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the event id is not one of this stream")]
pub(crate) struct BadCursor;

impl Cursor {
    /// How much of an attempt's output was sent, as its last sequence number.
    pub(crate) fn sent(&self, attempt: Attempt) -> u64 {
        self.sent
            .get(&(tag(attempt.task), attempt.step, attempt.attempt))
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn set_sent(&mut self, attempt: Attempt, seq: u64) {
        self.sent
            .insert((tag(attempt.task), attempt.step, attempt.attempt), seq);
    }

    /// The attempt has ended and all of it was sent.
    pub(crate) fn close(&mut self, attempt: Attempt) {
        self.sent.remove(&(tag(attempt.task), attempt.step, attempt.attempt));
    }

    pub(crate) fn encode(&self, workflow: WorkflowId) -> String {
        let mut bytes = Vec::with_capacity(16 + self.sent.len() * 14);
        bytes.push(VERSION);
        bytes.extend_from_slice(&stamp(workflow));
        put(&mut bytes, self.position);
        put(&mut bytes, self.sent.len() as u64);
        for ((task, step, attempt), seq) in &self.sent {
            bytes.extend_from_slice(task);
            put(&mut bytes, u64::from(*step));
            put(&mut bytes, u64::from(*attempt));
            put(&mut bytes, *seq);
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn decode(workflow: WorkflowId, text: &str) -> Result<Self, BadCursor> {
        if text.len() > ID_CHARS_MAX {
            return Err(BadCursor);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| BadCursor)?;
        let mut rest = bytes
            .strip_prefix(&[VERSION])
            .and_then(|rest| rest.strip_prefix(&stamp(workflow)))
            .ok_or(BadCursor)?;
        let rest = &mut rest;
        let mut cursor = Self {
            position: take(rest)?,
            sent: BTreeMap::new(),
        };
        let count = take(rest)?;
        if count > STREAMS_MAX as u64 {
            return Err(BadCursor);
        }
        for _ in 0..count {
            let (task, tail) = rest.split_first_chunk::<8>().ok_or(BadCursor)?;
            *rest = tail;
            let step = u32::try_from(take(rest)?).map_err(|_| BadCursor)?;
            let attempt = u32::try_from(take(rest)?).map_err(|_| BadCursor)?;
            cursor.sent.insert((*task, step, attempt), take(rest)?);
        }
        if rest.is_empty() { Ok(cursor) } else { Err(BadCursor) }
    }
}

/// Tells ids of other workflows apart: a mistake, not an attack, since ids grant nothing.
fn stamp(workflow: WorkflowId) -> [u8; 4] {
    let mut stamp = [0u8; 4];
    stamp.copy_from_slice(&blake3::hash(workflow.as_bytes()).as_bytes()[..4]);
    stamp
}

/// LEB128.
fn put(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        // Masked to seven bits.
        #[allow(clippy::cast_possible_truncation)]
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            bytes.push(low);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn take(rest: &mut &[u8]) -> Result<u64, BadCursor> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(BadCursor)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(BadCursor);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(BadCursor)
}

#[cfg(test)]
mod tests {
    use gantry_proto::PartitionId;

    use super::*;

    fn workflow(n: u64) -> WorkflowId {
        WorkflowId::new(n, PartitionId::default(), n)
    }

    fn attempt(n: u64) -> Attempt {
        Attempt {
            task: TaskId::new(1, PartitionId::default(), n),
            step: 3,
            attempt: u32::MAX,
        }
    }

    #[test]
    fn round_trip() {
        let mut cursor = Cursor {
            position: u64::MAX,
            ..Cursor::default()
        };
        cursor.set_sent(attempt(1), 1 << 40);
        cursor.set_sent(attempt(2), u64::MAX);
        cursor.set_sent(attempt(3), 7);
        cursor.close(attempt(3));
        let decoded = Cursor::decode(workflow(1), &cursor.encode(workflow(1))).unwrap();
        assert_eq!(decoded, cursor);
        assert_eq!((decoded.sent(attempt(1)), decoded.sent(attempt(3))), (1 << 40, 0));
    }

    #[test]
    fn the_longest_id_is_read_and_longer_ones_are_not() {
        let mut cursor = Cursor {
            position: u64::MAX,
            ..Cursor::default()
        };
        for n in 0..STREAMS_MAX as u64 {
            cursor.set_sent(
                Attempt {
                    step: u32::MAX,
                    ..attempt(n)
                },
                u64::MAX,
            );
        }
        let text = cursor.encode(workflow(1));
        assert!(text.len() <= ID_CHARS_MAX);
        assert_eq!(Cursor::decode(workflow(1), &text), Ok(cursor.clone()));
        cursor.set_sent(attempt(STREAMS_MAX as u64 + 1), 1);
        assert_eq!(Cursor::decode(workflow(1), &cursor.encode(workflow(1))), Err(BadCursor));
    }

    #[test]
    fn damaged_and_foreign_ids_are_refused() {
        let mut cursor = Cursor {
            position: 300,
            ..Cursor::default()
        };
        cursor.set_sent(attempt(1), 200);
        let good = URL_SAFE_NO_PAD.decode(cursor.encode(workflow(1))).unwrap();
        assert_eq!(
            Cursor::decode(workflow(2), &URL_SAFE_NO_PAD.encode(&good)),
            Err(BadCursor)
        );
        for cut in 0..good.len() {
            assert_eq!(
                Cursor::decode(workflow(1), &URL_SAFE_NO_PAD.encode(&good[..cut])),
                Err(BadCursor),
                "cut at {cut}"
            );
        }
        let mut longer = good.clone();
        longer.push(0);
        assert_eq!(
            Cursor::decode(workflow(1), &URL_SAFE_NO_PAD.encode(&longer)),
            Err(BadCursor)
        );
        let mut endless = good[..5].to_vec();
        endless.extend([0xff; 12]);
        assert_eq!(
            Cursor::decode(workflow(1), &URL_SAFE_NO_PAD.encode(&endless)),
            Err(BadCursor)
        );
        for text in ["", "12", "%%%", &"A".repeat(ID_CHARS_MAX + 1)] {
            assert_eq!(Cursor::decode(workflow(1), text), Err(BadCursor));
        }
    }
}
