//! What the process printed and the node has not acknowledged yet. Pure: no I/O, no clock.

use std::collections::VecDeque;

use gantry_proto::limits::{OUTPUT_BUFFER_BYTES_MAX, OUTPUT_CHUNK_BYTES_MAX};
use gantry_proto::v1::OutputStream;

/// What a chunk costs beside its bytes; without it a process that prints single bytes would fill memory with chunk headers.
const CHUNK_OVERHEAD_BYTES: usize = 96;

/// A piece of output. Sequence number and bytes never change once it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) seq: u64,
    pub(crate) stream: OutputStream,
    pub(crate) data: Vec<u8>,
    pub(crate) at_ms: u64,
}

/// Bounded buffer of unacknowledged chunks. It never drops: when it is full, [`OutputBuffer::has_room`] says so and the pipes are not read.
#[derive(Debug)]
pub(crate) struct OutputBuffer {
    chunks: VecDeque<Chunk>,
    held_bytes: usize,
    total_bytes: u64,
    limit_bytes: u64,
    next_seq: u64,
    /// First sequence number that was not sent on this connection.
    unsent_seq: u64,
    /// Highest sequence number that was sent on any connection; later chunks may still grow.
    sent_seq: u64,
}

/// What became of bytes that were pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Kept,
    /// The total limit is reached; what was past it is not kept.
    LimitReached,
}

impl OutputBuffer {
    /// An empty buffer for a process that may print `limit_bytes` in all.
    pub(crate) fn new(limit_bytes: u64) -> Self {
        Self {
            chunks: VecDeque::new(),
            held_bytes: 0,
            total_bytes: 0,
            limit_bytes,
            next_seq: 1,
            unsent_seq: 1,
            sent_seq: 0,
        }
    }

    /// Whether a whole chunk can be taken. Pipes are read only then.
    pub(crate) fn has_room(&self) -> bool {
        self.held_bytes + OUTPUT_CHUNK_BYTES_MAX + CHUNK_OVERHEAD_BYTES <= OUTPUT_BUFFER_BYTES_MAX
    }

    /// Appends what was read from one pipe, at most a chunk's size.
    pub(crate) fn push(&mut self, stream: OutputStream, data: &[u8], at_ms: u64) -> Pushed {
        let left = self.limit_bytes - self.total_bytes;
        let kept = usize::try_from(left).map_or(data, |left| &data[..data.len().min(left)]);
        if !kept.is_empty() {
            self.total_bytes += kept.len() as u64;
            self.append(stream, kept, at_ms);
        }
        if kept.len() < data.len() {
            Pushed::LimitReached
        } else {
            Pushed::Kept
        }
    }

    fn append(&mut self, stream: OutputStream, data: &[u8], at_ms: u64) {
        if let Some(last) = self.chunks.back_mut()
            && last.seq > self.sent_seq
            && last.stream == stream
            && last.data.len() + data.len() <= OUTPUT_CHUNK_BYTES_MAX
        {
            last.data.extend_from_slice(data);
            self.held_bytes += data.len();
            return;
        }
        self.chunks.push_back(Chunk {
            seq: self.next_seq,
            stream,
            data: data.to_vec(),
            at_ms,
        });
        self.next_seq += 1;
        self.held_bytes += data.len() + CHUNK_OVERHEAD_BYTES;
    }

    /// The next chunk for this connection, or `None` when everything was sent.
    pub(crate) fn next_to_send(&mut self) -> Option<Chunk> {
        let first = self.chunks.front()?.seq;
        // The cursor can lag behind what an acknowledgement removed, never the other way round.
        let cursor = self.unsent_seq.max(first);
        let index = usize::try_from(cursor - first).ok()?;
        let chunk = self.chunks.get(index)?;
        self.unsent_seq = chunk.seq + 1;
        self.sent_seq = self.sent_seq.max(chunk.seq);
        Some(chunk.clone())
    }

    /// Whether [`OutputBuffer::next_to_send`] would give one.
    pub(crate) fn has_unsent(&self) -> bool {
        self.chunks.back().is_some_and(|last| last.seq >= self.unsent_seq)
    }

    /// A new connection: everything unacknowledged is sent again, with the same numbers and bytes.
    pub(crate) fn rewind(&mut self) {
        self.unsent_seq = self.chunks.front().map_or(self.next_seq, |first| first.seq);
    }

    /// Forgets everything up to and including `seq`. What was never sent cannot be acknowledged and stays.
    pub(crate) fn acknowledge(&mut self, seq: u64) {
        let seq = seq.min(self.sent_seq);
        while let Some(first) = self.chunks.front()
            && first.seq <= seq
        {
            self.held_bytes -= first.data.len() + CHUNK_OVERHEAD_BYTES;
            self.chunks.pop_front();
        }
    }

    /// Number that the next new chunk gets.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Number of the last chunk, 0 when there was none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: OutputStream = OutputStream::Stdout;
    const ERR: OutputStream = OutputStream::Stderr;

    fn drain(buffer: &mut OutputBuffer) -> Vec<Chunk> {
        std::iter::from_fn(|| buffer.next_to_send()).collect()
    }

    #[test]
    fn one_sequence_over_both_streams() {
        let mut buffer = OutputBuffer::new(1000);
        buffer.push(OUT, b"a", 1);
        buffer.push(ERR, b"b", 2);
        buffer.push(OUT, b"c", 3);
        let sent = drain(&mut buffer);
        assert_eq!(
            sent.iter().map(|c| (c.seq, c.stream)).collect::<Vec<_>>(),
            [(1, OUT), (2, ERR), (3, OUT)]
        );
        assert_eq!(buffer.last_seq(), 3);
        assert!(!buffer.has_unsent());
    }

    #[test]
    fn unsent_chunks_grow_and_sent_ones_never_change() {
        let mut buffer = OutputBuffer::new(1000);
        buffer.push(OUT, b"a", 1);
        buffer.push(OUT, b"b", 2);
        assert_eq!(buffer.next_to_send().unwrap().data, b"ab");
        buffer.push(OUT, b"c", 3);
        buffer.rewind();
        assert_eq!(
            drain(&mut buffer).iter().map(|c| c.data.clone()).collect::<Vec<_>>(),
            [b"ab".to_vec(), b"c".to_vec()]
        );
    }

    #[test]
    fn replay_after_reconnection_has_the_same_numbers_and_bytes() {
        let mut buffer = OutputBuffer::new(1 << 20);
        for n in 0..10_u8 {
            buffer.push(if n % 2 == 0 { OUT } else { ERR }, &[n; 100], u64::from(n));
        }
        let first = drain(&mut buffer);
        buffer.acknowledge(4);
        buffer.rewind();
        assert_eq!(drain(&mut buffer), first[4..]);
        buffer.acknowledge(10);
        buffer.rewind();
        assert!(!buffer.has_unsent());
        assert_eq!(buffer.next_to_send(), None);
        buffer.push(OUT, b"later", 1);
        assert_eq!(buffer.next_to_send().unwrap().seq, 11);
    }

    #[test]
    fn what_was_never_sent_cannot_be_acknowledged() {
        let mut buffer = OutputBuffer::new(1000);
        buffer.push(OUT, b"a", 1);
        buffer.acknowledge(u64::MAX);
        assert_eq!(buffer.next_to_send().unwrap().data, b"a");
    }

    #[test]
    fn acknowledging_ahead_of_a_rewound_cursor_skips_what_is_gone() {
        let mut buffer = OutputBuffer::new(1000);
        buffer.push(OUT, b"a", 1);
        buffer.push(ERR, b"b", 1);
        drain(&mut buffer);
        buffer.rewind();
        buffer.acknowledge(1);
        assert_eq!(buffer.next_to_send().unwrap().seq, 2);
    }

    #[test]
    fn full_buffer_has_no_room_until_acknowledged() {
        let mut buffer = OutputBuffer::new(u64::MAX);
        let block = vec![7; OUTPUT_CHUNK_BYTES_MAX];
        while buffer.has_room() {
            buffer.push(OUT, &block, 1);
        }
        assert!(buffer.held_bytes <= OUTPUT_BUFFER_BYTES_MAX);
        assert!(buffer.held_bytes + 2 * OUTPUT_CHUNK_BYTES_MAX > OUTPUT_BUFFER_BYTES_MAX);
        let sent = drain(&mut buffer);
        buffer.acknowledge(sent[0].seq);
        assert!(buffer.has_room());
        buffer.acknowledge(sent.last().unwrap().seq);
        assert_eq!(buffer.held_bytes, 0);
    }

    #[test]
    fn single_bytes_of_alternating_streams_stay_within_the_bound() {
        let mut buffer = OutputBuffer::new(u64::MAX);
        let mut pushed = 0_usize;
        while buffer.has_room() {
            buffer.push(if pushed.is_multiple_of(2) { OUT } else { ERR }, b"x", 1);
            pushed += 1;
        }
        assert!(pushed * CHUNK_OVERHEAD_BYTES <= OUTPUT_BUFFER_BYTES_MAX);
    }

    #[test]
    fn limit_keeps_exactly_what_is_allowed() {
        let mut buffer = OutputBuffer::new(5);
        assert_eq!(buffer.push(OUT, b"abc", 1), Pushed::Kept);
        assert_eq!(buffer.push(ERR, b"de", 1), Pushed::Kept);
        assert_eq!(buffer.push(OUT, b"f", 1), Pushed::LimitReached);
        let text: Vec<u8> = drain(&mut buffer).into_iter().flat_map(|c| c.data).collect();
        assert_eq!(text, b"abcde");
    }
}
