//! The identity formulas, byte for byte, written down a second time on purpose: the server computes ids on its own, and both must agree.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};

fn frame(hasher: &mut Sha256, bytes: &[u8]) {
    hasher.update((bytes.len() as u64).to_be_bytes());
    hasher.update(bytes);
}

/// `actv1_` + base64url of the hash over domain, project, run, parent, kind (four bytes) and key, each but the kind with its length in eight bytes before.
#[must_use]
pub fn activation_id(project: &str, run: &str, parent: &str, kind: u32, key: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(b"agnt5.activation.identity.v1\0");
    frame(&mut hasher, project.as_bytes());
    frame(&mut hasher, run.as_bytes());
    frame(&mut hasher, parent.as_bytes());
    hasher.update(kind.to_be_bytes());
    frame(&mut hasher, key.as_bytes());
    format!("actv1_{}", BASE64URL_NOPAD.encode(&hasher.finalize()))
}

/// Digest of what a step is: the code's artifact, the component with its version, the protocol, and the step's configuration.
#[must_use]
pub fn definition_digest(artifact: &[u8; 32], component: &str, version: &str, config: &str) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"agnt5.activation.definition.v1\0");
    frame(&mut hasher, artifact);
    for part in [component, version, "durable_activation_v1", config] {
        frame(&mut hasher, part.as_bytes());
    }
    hasher.finalize().into()
}

/// Digest of what a step is given.
#[must_use]
pub fn input_digest(json: &[u8]) -> [u8; 32] {
    Sha256::digest(json).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Computed apart, with Python:
    //   fr = lambda b: struct.pack('>Q', len(b)) + b
    //   h = hashlib.sha256(b"agnt5.activation.identity.v1\0" + fr(project) + fr(run) + fr(parent) + struct.pack('>I', kind) + fr(key)).digest()
    //   "actv1_" + base64.urlsafe_b64encode(h).decode().rstrip('=')
    const TOP: &str = "actv1_3i23eCa-JWIYFKP-eXwfipJ01nMpYZBqu5iDG_lmdXo";
    const NESTED: &str = "actv1_98MQbEdv-Wdtj-H1aCQYX1-H-sVzzhayhuOvhpK2TPU";
    const DEFINITION: &str = "5e3e44cab7e471ebd05082342a99f4633a4b9f17a543460ad990d9bb9fa73195";

    #[test]
    fn ids_are_those_of_the_formula() {
        assert_eq!(activation_id("proj", "run-1", "", 1, "step:fetch:0"), TOP);
        assert_eq!(activation_id("proj", "run-1", TOP, 7, "sleep:ü"), NESTED);
    }

    #[test]
    fn definitions_are_those_of_the_formula() {
        let artifact = std::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(
            hex::encode(definition_digest(&artifact, "greet", "1.0", "{}")),
            DEFINITION
        );
    }

    #[test]
    fn no_two_splits_of_the_same_bytes_are_one() {
        assert_ne!(
            activation_id("ab", "c", "", 1, "k"),
            activation_id("a", "bc", "", 1, "k")
        );
        assert_ne!(activation_id("a", "b", "", 1, "k"), activation_id("a", "b", "", 2, "k"));
    }
}
