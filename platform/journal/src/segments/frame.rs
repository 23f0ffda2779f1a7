//! The bytes of a segment file: a header, then frames.
//!
//! ```text
//! file header  magic "GANTSEG\0" · version u32 · crc32c u32 of the 12 bytes before
//! frame        length u32 · crc32c u32 of what follows · kind u8 · task 16 · step u32 · attempt u32 · seq u64 · body
//! ```
//!
//! Numbers are big-endian; `length` counts what follows the checksum. A chunk's body is sealed `stream u8 · at_ms u64 · data`; an end marker has none and
//! its `seq` is the last of the stream; a sync marker has none either and its `seq` is the offset up to which the file was durable when it was written.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use gantry_proto::TaskId;
use gantry_proto::limits::OUTPUT_CHUNK_BYTES_MAX;
use gantry_proto::v1::OutputStream;

use super::{Chunk, SegmentError, StreamKey};
use crate::data_key::{DataKey, SEAL_OVERHEAD_BYTES};
use crate::keyring::SealError;

pub(super) const MAGIC: &[u8; 8] = b"GANTSEG\0";
pub(super) const VERSION: u32 = 1;
pub(super) const FILE_HEADER_BYTES: u64 = 16;
/// Length and checksum.
pub(super) const PREFIX_BYTES: usize = 8;
/// Kind, task, step, attempt, sequence.
pub(super) const CLEAR_BYTES: usize = 1 + 16 + 4 + 4 + 8;
/// What the length field of a frame without a body says.
pub(super) const MARKER_LENGTH: u32 = 33;
const _: () = assert!(MARKER_LENGTH as usize == CLEAR_BYTES);
const CHUNK_HEAD_BYTES: usize = 1 + 8;
/// What the length field may say.
pub(super) const LENGTH_MAX: usize = CLEAR_BYTES + SEAL_OVERHEAD_BYTES + CHUNK_HEAD_BYTES + OUTPUT_CHUNK_BYTES_MAX;

/// Streams within a workflow's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StreamId {
    pub(super) task: TaskId,
    pub(super) step: u32,
    pub(super) attempt: u32,
}

impl From<&StreamKey> for StreamId {
    fn from(key: &StreamKey) -> Self {
        Self {
            task: key.task,
            step: key.step,
            attempt: key.attempt,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameKind {
    Chunk,
    End,
    Synced,
}

impl FrameKind {
    fn byte(self) -> u8 {
        match self {
            Self::Chunk => 1,
            Self::End => 2,
            Self::Synced => 3,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Chunk, Self::End, Self::Synced]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// The clear part of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) kind: FrameKind,
    pub(super) stream: StreamId,
    pub(super) seq: u64,
}

pub(super) fn file_header() -> [u8; 16] {
    let mut header = [0u8; 16];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_be_bytes());
    let crc = crc32c::crc32c(&header[..12]);
    header[12..].copy_from_slice(&crc.to_be_bytes());
    header
}

/// Whether a file header is whole and of a version that is understood; otherwise what is wrong.
pub(super) fn check_file_header(header: &[u8; 16]) -> Result<(), String> {
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..8] != MAGIC[..] || crc32c::crc32c(&header[..12]) != number(12) {
        return Err(
            "it does not begin as a segment file: restore it from a backup, or move it away to lose its output".into(),
        );
    }
    match number(8) {
        VERSION => Ok(()),
        newer => Err(format!(
            "it has version {newer}, this Gantry reads version {VERSION}: use a newer Gantry"
        )),
    }
}

fn put_frame(out: &mut BytesMut, head: FrameHead, body: &[u8]) {
    let start = out.len();
    // The length is at most LENGTH_MAX: chunks are checked before they come here.
    #[allow(clippy::cast_possible_truncation)]
    out.put_u32((CLEAR_BYTES + body.len()) as u32);
    out.put_u32(0);
    out.put_u8(head.kind.byte());
    out.put_slice(head.stream.task.as_bytes());
    out.put_u32(head.stream.step);
    out.put_u32(head.stream.attempt);
    out.put_u64(head.seq);
    out.put_slice(body);
    let crc = crc32c::crc32c(&out[start + PREFIX_BYTES..]);
    out[start + 4..start + PREFIX_BYTES].copy_from_slice(&crc.to_be_bytes());
}

pub(super) fn put_end(out: &mut BytesMut, stream: StreamId, last_seq: u64) {
    put_frame(
        out,
        FrameHead {
            kind: FrameKind::End,
            stream,
            seq: last_seq,
        },
        &[],
    );
}

pub(super) fn put_synced(out: &mut BytesMut, durable_offset: u64) {
    let stream = StreamId {
        task: TaskId::nil(),
        step: 0,
        attempt: 0,
    };
    put_frame(
        out,
        FrameHead {
            kind: FrameKind::Synced,
            stream,
            seq: durable_offset,
        },
        &[],
    );
}

/// What a chunk's seal is bound to: its place. A frame copied elsewhere does not open.
fn chunk_context(key: &StreamKey, seq: u64) -> BytesMut {
    let mut context = BytesMut::with_capacity(16 * 3 + 4 + 4 + 8 + 16);
    context.put_slice(b"gantry segment 1");
    context.put_slice(key.tenant.as_bytes());
    context.put_slice(key.workflow.as_bytes());
    context.put_slice(key.task.as_bytes());
    context.put_u32(key.step);
    context.put_u32(key.attempt);
    context.put_u64(seq);
    context
}

pub(super) fn seal_chunk(key: &StreamKey, data_key: &DataKey, chunk: &Chunk) -> Result<Bytes, SegmentError> {
    if chunk.data.len() > OUTPUT_CHUNK_BYTES_MAX {
        return Err(SegmentError::ChunkTooLarge {
            bytes: chunk.data.len(),
            limit: OUTPUT_CHUNK_BYTES_MAX,
        });
    }
    let mut plain = BytesMut::with_capacity(CHUNK_HEAD_BYTES + chunk.data.len());
    plain.put_u8(match chunk.stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    });
    plain.put_u64(chunk.at_ms);
    plain.put_slice(&chunk.data);
    Ok(data_key.seal(&chunk_context(key, chunk.seq), &plain)?)
}

pub(super) fn put_chunk(out: &mut BytesMut, stream: StreamId, seq: u64, sealed: &[u8]) {
    put_frame(
        out,
        FrameHead {
            kind: FrameKind::Chunk,
            stream,
            seq,
        },
        sealed,
    );
}

pub(super) fn open_chunk(key: &StreamKey, data_key: &DataKey, seq: u64, sealed: &[u8]) -> Result<Chunk, SegmentError> {
    let mut plain = data_key.open(&chunk_context(key, seq), sealed)?;
    if plain.len() < CHUNK_HEAD_BYTES {
        return Err(SealError::Open.into());
    }
    let stream = match plain.get_u8() {
        0 => OutputStream::Stdout,
        1 => OutputStream::Stderr,
        _ => return Err(SealError::Open.into()),
    };
    let at_ms = plain.get_u64();
    Ok(Chunk {
        seq,
        stream,
        at_ms,
        data: plain,
    })
}

/// Splits the checksummed part of a frame; `None` when it is not one.
pub(super) fn parse_frame(content: &[u8]) -> Option<(FrameHead, &[u8])> {
    let mut rest = content;
    if rest.len() < CLEAR_BYTES {
        return None;
    }
    let kind = FrameKind::of(rest.get_u8())?;
    let mut task = [0u8; 16];
    rest.copy_to_slice(&mut task);
    let stream = StreamId {
        task: TaskId::from_bytes(task),
        step: rest.get_u32(),
        attempt: rest.get_u32(),
    };
    let seq = rest.get_u64();
    Some((FrameHead { kind, stream, seq }, rest))
}
