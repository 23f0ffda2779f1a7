//! The bytes of a blob.
//!
//! ```text
//! header  magic "GANTBLB\0" · version u32 · plain bytes of a frame u32
//! frame   sealed: nonce 12 · text · tag 16; all but the last hold exactly the plain size of a frame, the last one 1 to as many, or 0 in an empty blob
//! ```

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{BlobError, BlobKey};
use crate::data_key::{DataKey, SEAL_OVERHEAD_BYTES};

const MAGIC: &[u8; 8] = b"GANTBLB\0";
const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: u64 = 16;
/// What a range read fetches too much at each end, against 28 bytes of overhead per frame.
pub(super) const FRAME_PLAIN_BYTES: usize = 64 << 10;
pub(super) const FRAME_SEALED_BYTES: u64 = (FRAME_PLAIN_BYTES + SEAL_OVERHEAD_BYTES) as u64;

fn context(key: &BlobKey, index: u64, last: bool) -> BytesMut {
    let mut context = BytesMut::with_capacity(16 * 4 + 9);
    context.put_slice(b"gantry blob 0001");
    context.put_slice(key.tenant.as_bytes());
    context.put_slice(key.owner.as_bytes());
    context.put_slice(key.id.as_bytes());
    context.put_u64(index);
    context.put_u8(u8::from(last));
    context
}

pub(super) fn open_frame(key: &BlobKey, data_key: &DataKey, index: u64, last: bool, sealed: &[u8]) -> Option<Bytes> {
    data_key.open(&context(key, index, last), sealed).ok()
}

/// Frames and plain bytes of an object; `None` when no object has such a length.
pub(super) fn shape(object_bytes: u64) -> Option<(u64, u64)> {
    let overhead = SEAL_OVERHEAD_BYTES as u64;
    let body = object_bytes.checked_sub(HEADER_BYTES)?;
    let frames = body.div_ceil(FRAME_SEALED_BYTES);
    let last = body.checked_sub(frames.checked_sub(1)? * FRAME_SEALED_BYTES)?;
    let whole = last > overhead || (last == overhead && frames == 1);
    whole.then(|| (frames, body - frames * overhead))
}

/// What is wrong with a header, if anything.
pub(super) fn check_header(header: &[u8]) -> Option<&'static str> {
    let expected = header_bytes();
    match header {
        _ if header.len() != expected.len() || header[..8] != expected[..8] => Some("it does not begin as a blob"),
        _ if header != expected => Some("it was written by another version: use a newer Gantry"),
        _ => None,
    }
}

fn header_bytes() -> [u8; 16] {
    let mut header = [0u8; 16];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_be_bytes());
    header[12..].copy_from_slice(&(64u32 << 10).to_be_bytes());
    header
}

/// Cuts plain bytes into frames. One frame is held back, because the last one is sealed as such.
pub(super) struct FrameSealer {
    key: BlobKey,
    data_key: DataKey,
    index: u64,
    plain: Vec<u8>,
    sealed: BytesMut,
}

impl FrameSealer {
    pub(super) fn new(key: BlobKey, data_key: DataKey) -> Self {
        let mut sealed = BytesMut::new();
        sealed.put_slice(&header_bytes());
        Self {
            key,
            data_key,
            index: 0,
            plain: Vec::with_capacity(FRAME_PLAIN_BYTES),
            sealed,
        }
    }

    /// Takes at most a frame's plain bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        while !bytes.is_empty() {
            if self.plain.len() == FRAME_PLAIN_BYTES {
                self.seal(false)?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(FRAME_PLAIN_BYTES - self.plain.len()));
            self.plain.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), BlobError> {
        self.seal(true)
    }

    fn seal(&mut self, last: bool) -> Result<(), BlobError> {
        let sealed = self.data_key.seal(&context(&self.key, self.index, last), &self.plain)?;
        self.sealed.put_slice(&sealed);
        self.plain.clear();
        self.index += 1;
        Ok(())
    }

    pub(super) fn sealed_len(&self) -> usize {
        self.sealed.len()
    }

    pub(super) fn take(&mut self) -> Bytes {
        self.sealed.split().freeze()
    }
}
