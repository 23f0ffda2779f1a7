//! Identity of activations, the journaled units of code on workers. The formula is shared with workers, which compute it on their own: a difference is
//! noticed before anything is executed under a wrong id.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};

/// What the hash of an id begins with.
const DOMAIN: &[u8] = b"agnt5.activation.identity.v1\0";
/// What a printed id begins with.
const PREFIX: &str = "actv1_";

/// Length of a stored activation id: the first half of its identity, far more than the activations of one run need.
pub(crate) const ACTIVATION_ID_BYTES: usize = 16;

/// Identity of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActivationIdentity([u8; 32]);

impl ActivationIdentity {
    /// From what the activation is: `kind` as numbered in the protocol, `parent` empty at the top.
    pub(crate) fn new(project: &str, run: &str, parent: &str, kind: u32, stable_key: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(DOMAIN);
        for text in [project, run, parent] {
            frame(&mut hasher, text.as_bytes());
        }
        hasher.update(kind.to_be_bytes());
        frame(&mut hasher, stable_key.as_bytes());
        Self(hasher.finalize().into())
    }

    /// The stored id.
    pub(crate) fn id(&self) -> [u8; ACTIVATION_ID_BYTES] {
        let mut id = [0u8; ACTIVATION_ID_BYTES];
        id.copy_from_slice(&self.0[..ACTIVATION_ID_BYTES]);
        id
    }

    /// As it is written: `actv1_` and the whole hash in base64 for URLs, without padding.
    pub(crate) fn text(&self) -> String {
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&self.0))
    }
}

/// Length, then bytes: no two lists of parts have the same frames.
fn frame(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed with Python: hashlib.sha256(b"agnt5.activation.identity.v1\0" + frames).digest(), base64.urlsafe_b64encode, '=' stripped.
    #[test]
    fn ids_are_those_of_the_formula() {
        let top = ActivationIdentity::new("proj", "run-1", "", 1, "step:fetch:0");
        assert_eq!(top.text(), "actv1_3i23eCa-JWIYFKP-eXwfipJ01nMpYZBqu5iDG_lmdXo");
        let nested = ActivationIdentity::new("proj", "run-1", &top.text(), 7, "sleep:ü");
        assert_eq!(nested.text(), "actv1_98MQbEdv-Wdtj-H1aCQYX1-H-sVzzhayhuOvhpK2TPU");
        assert_eq!(
            data_encoding::HEXLOWER.encode(&nested.id()),
            "f7c3106c476ff9676d8fe1f56824185f"
        );
    }
}
