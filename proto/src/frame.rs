//! Frames of the supervisor socket and of query processes: `u32` big-endian length, then one protobuf message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::limits::FRAME_BYTES_MAX;

const HEADER_BYTES: usize = 4;

/// Why a frame was refused. The connection is of no use afterwards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced or actual length is past the limit.
    #[error("frame of {got_bytes} bytes is larger than the limit of {max_bytes} bytes")]
    TooLarge {
        /// Length of the frame.
        got_bytes: usize,
        /// Longest frame there.
        max_bytes: usize,
    },
    /// The body is not the expected message.
    #[error("frame does not decode")]
    Malformed(#[from] prost::DecodeError),
}

/// Appends one message to `out`.
///
/// # Errors
/// [`FrameError::TooLarge`]; nothing is appended then.
pub fn encode<M: Message>(message: &M, out: &mut BytesMut) -> Result<(), FrameError> {
    encode_within(FRAME_BYTES_MAX, message, out)
}

/// [`encode`] where frames may have `max_bytes`.
///
/// # Errors
/// [`FrameError::TooLarge`]; nothing is appended then.
pub fn encode_within<M: Message>(max_bytes: usize, message: &M, out: &mut BytesMut) -> Result<(), FrameError> {
    let length = message.encoded_len();
    let header = u32::try_from(length).ok().filter(|_| length <= max_bytes);
    let Some(header) = header else {
        return Err(FrameError::TooLarge {
            got_bytes: length,
            max_bytes,
        });
    };
    out.reserve(HEADER_BYTES + length);
    out.put_u32(header);
    // The buffer was reserved, and BytesMut grows: encoding cannot run out of room.
    message.encode_raw(out);
    Ok(())
}

/// Takes one whole message off the front of `buffer`, or `None` when more bytes are needed.
///
/// # Errors
/// As soon as the header announces too much, before any of it is buffered, or when the body does not decode.
pub fn decode<M: Message + Default>(buffer: &mut BytesMut) -> Result<Option<M>, FrameError> {
    decode_within(FRAME_BYTES_MAX, buffer)
}

/// [`decode`] where frames may have `max_bytes`.
///
/// # Errors
/// As [`decode`].
pub fn decode_within<M: Message + Default>(max_bytes: usize, buffer: &mut BytesMut) -> Result<Option<M>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*header) as usize;
    if length > max_bytes {
        return Err(FrameError::TooLarge {
            got_bytes: length,
            max_bytes,
        });
    }
    if buffer.len() < HEADER_BYTES + length {
        buffer.reserve(HEADER_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(HEADER_BYTES);
    let body: Bytes = buffer.split_to(length).freeze();
    Ok(Some(M::decode(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Ping;

    #[test]
    fn frames_round_trip_over_any_cut() {
        let mut wire = BytesMut::new();
        for token in 0..3 {
            encode(&Ping { token }, &mut wire).unwrap();
        }
        let wire = wire.freeze();
        for cut in 0..=wire.len() {
            let mut buffer = BytesMut::from(&wire[..cut]);
            let mut got = Vec::new();
            while let Some(ping) = decode::<Ping>(&mut buffer).unwrap() {
                got.push(ping.token);
            }
            buffer.extend_from_slice(&wire[cut..]);
            while let Some(ping) = decode::<Ping>(&mut buffer).unwrap() {
                got.push(ping.token);
            }
            assert_eq!(got, [0, 1, 2]);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn oversized_frame_is_refused_by_its_header_alone() {
        let mut buffer = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert!(matches!(decode::<Ping>(&mut buffer), Err(FrameError::TooLarge { .. })));
    }
}
