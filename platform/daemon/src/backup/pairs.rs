//! Keys and values of the journal as files of a bounded size: `length of key u32 · length of value u32 · key · value`, big-endian.

use std::io::{self, Read};

/// One file. Held in memory while it is filled.
pub(super) const PART_BYTES: usize = 8 << 20;
/// No key of ours is near this; no value is larger than a log entry may be.
const KEY_BYTES_MAX: u32 = 4 << 10;
const VALUE_BYTES_MAX: u32 = 1 << 30;

/// Appends a pair; past 4 GiB there is none.
pub(super) fn append(part: &mut Vec<u8>, key: &[u8], value: &[u8]) -> io::Result<()> {
    for bytes in [key, value] {
        let length = u32::try_from(bytes.len()).map_err(|_| io::Error::other("a value is larger than 4 GiB"))?;
        part.extend_from_slice(&length.to_be_bytes());
    }
    part.extend_from_slice(key);
    part.extend_from_slice(value);
    Ok(())
}

/// Reads the next pair; `None` at the end.
pub(super) fn next(part: &mut dyn Read) -> io::Result<Option<(Vec<u8>, Vec<u8>)>> {
    let mut head = [0u8; 8];
    let first = part.read(&mut head)?;
    if first == 0 {
        return Ok(None);
    }
    part.read_exact(&mut head[first..])?;
    let [a, b, c, d, e, f, g, h] = head;
    let (key, value) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
    if key > KEY_BYTES_MAX || value > VALUE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds a length that no pair has",
        ));
    }
    let mut take = |length: u32| -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // Grows with what is there, so that a wrong length costs no memory.
        if (&mut *part).take(length.into()).read_to_end(&mut bytes)? == length as usize {
            Ok(bytes)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    };
    Ok(Some((take(key)?, take(value)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_round_trip_and_cuts_are_noticed() {
        let mut part = Vec::new();
        append(&mut part, b"key", b"value").unwrap();
        append(&mut part, b"", b"").unwrap();
        let mut reader = part.as_slice();
        assert_eq!(next(&mut reader).unwrap(), Some((b"key".to_vec(), b"value".to_vec())));
        assert_eq!(next(&mut reader).unwrap(), Some((Vec::new(), Vec::new())));
        assert_eq!(next(&mut reader).unwrap(), None);
        for cut in 1..16 {
            assert!(next(&mut &part[..cut]).is_err(), "cut at {cut}");
        }
        assert!(next(&mut [0xff; 64].as_slice()).is_err());
    }
}
