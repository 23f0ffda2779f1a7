//! AES-256-GCM under a workflow's data key.

use std::fmt;
use std::sync::Arc;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use bytes::Bytes;
use zeroize::{Zeroize as _, Zeroizing};

use crate::keyring::SealError;

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// How much longer sealed bytes are than plain ones: nonce in front, tag behind.
pub const SEAL_OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// A data key in use. Cloning shares it; its memory is overwritten when the last clone goes.
///
/// Nonces are random 96 bits, so one key is good for 2^32 seals, far more than the chunks and records of one workflow.
#[derive(Clone)]
pub struct DataKey(Arc<Aes256Gcm>);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl DataKey {
    /// A key from its bytes; the caller overwrites its own copy.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut key = Key::<Aes256Gcm>::from(*bytes);
        let cipher = Aes256Gcm::new(&key);
        key.as_mut_slice().zeroize();
        Self(Arc::new(cipher))
    }

    /// Seals `plain`. `context` is authenticated, not stored: opening needs the same one, so sealed bytes cannot be moved elsewhere.
    ///
    /// # Errors
    /// [`SealError::Random`] when the system gives no randomness.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Bytes, SealError> {
        let mut nonce = [0u8; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| SealError::Random {
            reason: error.to_string(),
        })?;
        let sealed = self
            .0
            .encrypt(
                &Nonce::from(nonce),
                Payload {
                    msg: plain,
                    aad: context,
                },
            )
            .map_err(|_| SealError::Random {
                reason: "the text is longer than one seal can hold".into(),
            })?;
        let mut out = Vec::with_capacity(NONCE_BYTES + sealed.len());
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out.into())
    }

    /// Opens what [`Self::seal`] made with the same `context`.
    ///
    /// # Errors
    /// [`SealError::Open`] when the bytes are damaged or belong to another key or context.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Bytes, SealError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Open)?;
        let plain = self
            .0
            .decrypt(
                &Nonce::from(*nonce),
                Payload {
                    msg: body,
                    aad: context,
                },
            )
            .map_err(|_| SealError::Open)?;
        Ok(plain.into())
    }
}

/// Fresh random key bytes.
pub(crate) fn random_key() -> Result<Zeroizing<[u8; KEY_BYTES]>, SealError> {
    let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
    getrandom::fill(bytes.as_mut()).map_err(|error| SealError::Random {
        reason: error.to_string(),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_only_with_the_same_key_and_context() {
        let key = DataKey::from_bytes(&[1; 32]);
        let sealed = key.seal(b"here", b"text").unwrap();
        assert_eq!(sealed.len(), 4 + SEAL_OVERHEAD_BYTES);
        assert_eq!(key.open(b"here", &sealed).unwrap(), "text");
        assert!(matches!(key.open(b"there", &sealed), Err(SealError::Open)));
        assert!(matches!(
            DataKey::from_bytes(&[2; 32]).open(b"here", &sealed),
            Err(SealError::Open)
        ));
    }

    #[test]
    fn every_changed_or_missing_byte_is_noticed() {
        let key = DataKey::from_bytes(&[1; 32]);
        let sealed = key.seal(b"", b"some plain text").unwrap();
        for index in 0..sealed.len() {
            let mut damaged = sealed.to_vec();
            damaged[index] ^= 1;
            assert!(key.open(b"", &damaged).is_err(), "byte {index}");
            assert!(key.open(b"", &sealed[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn two_seals_of_the_same_text_differ() {
        let key = DataKey::from_bytes(&[1; 32]);
        assert_ne!(key.seal(b"", b"x").unwrap(), key.seal(b"", b"x").unwrap());
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", DataKey::from_bytes(&[7; 32])), "DataKey(..)");
    }
}
