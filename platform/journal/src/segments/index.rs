//! What is known in memory of each stream: how far it is, and sparse points from which its chunks can be found.

use super::frame::{FrameHead, FrameKind, StreamId};

/// Progress of a segment file after which a stream that writes gets another point. A read skips at most this much of other streams' frames before its
/// own; 64 GiB of output need 16 MiB of points at worst.
const POINT_SPACING_BYTES: u64 = 64 << 10;

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) seq: u64,
    pub(super) file: u32,
    pub(super) offset: u64,
}

/// One stream.
#[derive(Debug, Default)]
pub(super) struct StreamState {
    /// Highest sequence that was written.
    pub(super) written: u64,
    /// Highest sequence that is durable.
    pub(super) durable: u64,
    pub(super) end_written: Option<u64>,
    pub(super) end_durable: bool,
    /// Whether it stands in the list of what the next sync makes durable.
    pub(super) dirty: bool,
    points: Vec<Point>,
}

impl StreamState {
    /// Takes note of a frame at a place; whether it fits what came before.
    pub(super) fn note(&mut self, head: &FrameHead, file: u32, offset: u64) -> bool {
        match head.kind {
            FrameKind::Chunk => {
                if head.seq != self.written + 1 || self.end_written.is_some() {
                    return false;
                }
                self.written = head.seq;
                let due = self
                    .points
                    .last()
                    .is_none_or(|last| last.file != file || offset - last.offset >= POINT_SPACING_BYTES);
                if due {
                    self.points.push(Point {
                        seq: head.seq,
                        file,
                        offset,
                    });
                }
                true
            }
            FrameKind::End => {
                let fits = head.seq == self.written && self.end_written.is_none();
                self.end_written = Some(head.seq);
                fits
            }
            FrameKind::Synced => true,
        }
    }

    /// Where to begin to look for `seq`; `None` when the stream has no chunk.
    pub(super) fn point_before(&self, seq: u64) -> Option<Point> {
        let behind = self.points.partition_point(|point| point.seq <= seq);
        self.points.get(behind.saturating_sub(1)).copied()
    }

    /// Everything written is durable.
    pub(super) fn set_durable(&mut self) {
        self.durable = self.written;
        self.end_durable = self.end_written.is_some();
    }
}

/// What is to be durable before a caller is answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) stream: StreamId,
    pub(super) seq: u64,
    pub(super) end: bool,
}

#[cfg(test)]
mod tests {
    use gantry_proto::TaskId;

    use super::*;

    fn head(kind: FrameKind, seq: u64) -> FrameHead {
        FrameHead {
            kind,
            stream: StreamId {
                task: TaskId::nil(),
                step: 0,
                attempt: 1,
            },
            seq,
        }
    }

    #[test]
    fn points_are_sparse_and_lead_to_or_before_each_chunk() {
        let mut state = StreamState::default();
        assert_eq!(state.point_before(1), None);
        for seq in 1..=1000u64 {
            assert!(state.note(&head(FrameKind::Chunk, seq), 1, seq * 1024));
        }
        assert!(state.points.len() <= 16);
        for seq in 1..=1000 {
            let point = state.point_before(seq).unwrap();
            assert!(point.seq <= seq && (seq - point.seq) < 65);
        }
        assert!(state.note(&head(FrameKind::Chunk, 1001), 2, 16));
        assert_eq!(
            state.point_before(1001).unwrap().file,
            2,
            "every file has a point of its own"
        );
    }

    #[test]
    fn gaps_repeats_and_what_follows_an_end_do_not_fit() {
        let mut state = StreamState::default();
        assert!(!state.note(&head(FrameKind::Chunk, 2), 1, 16));
        assert!(state.note(&head(FrameKind::Chunk, 1), 1, 16));
        assert!(!state.note(&head(FrameKind::Chunk, 1), 1, 99));
        assert!(state.note(&head(FrameKind::End, 1), 1, 99));
        assert!(!state.note(&head(FrameKind::End, 1), 1, 150));
        assert!(!state.note(&head(FrameKind::Chunk, 2), 1, 150));
    }
}
