//! argon2id, bounded: at most two hashes at once, off the async threads.
//!
//! Parameters: 19 MiB, 2 passes, 1 lane (the least that OWASP recommends). They make a stolen database useless even if a secret were guessable; ours
//! have 256 random bits, so more would only cost memory. Each hash carries its parameters (PHC string): they can be raised later.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as PasswordError, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::error::HashError;

const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes at once: two cost 38 MiB and two cores for some milliseconds; more would let strangers take the machine.
const AT_ONCE_MAX: usize = 2;

/// Who waits longer than this for a turn is told that it is busy.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

fn argon2() -> Result<Argon2<'static>, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| HashError::Argon2(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// The hash function with its queue.
#[derive(Clone)]
pub(crate) struct Hasher {
    turns: Arc<Semaphore>,
    /// Hash of a secret that nobody has: verified against when an id is unknown, so that this takes as long as a wrong secret.
    decoy: Arc<str>,
}

impl Hasher {
    /// Computes the decoy; blocks for one hash.
    pub(crate) async fn new() -> Result<Self, HashError> {
        let mut hasher = Self {
            turns: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            decoy: Arc::from(""),
        };
        hasher.decoy = hasher.hash(crate::token::mint()?).await?.into();
        Ok(hasher)
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let turns = Arc::clone(&self.turns);
        let turn = tokio::time::timeout(TURN_TIMEOUT, turns.acquire_owned())
            .await
            .map_err(|_| HashError::Busy)?
            .map_err(|_| HashError::Stopped)?;
        // The turn goes with the work: when the caller is dropped, the thread runs on and still counts.
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        })
        .await
        .map_err(|_| HashError::Stopped)?
    }

    /// Hash of a new secret, as PHC string.
    pub(crate) async fn hash(&self, secret: SecretString) -> Result<String, HashError> {
        self.in_turn(move || {
            let hash: PasswordHash = argon2()?
                .hash_password(secret.expose_secret().as_bytes())
                .map_err(|error| HashError::Argon2(error.to_string()))?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether `secret` is the one behind `hash`; without a hash the same work is done and the answer is no.
    pub(crate) async fn verify(&self, secret: SecretString, hash: Option<String>) -> Result<bool, HashError> {
        let decoy = Arc::clone(&self.decoy);
        self.in_turn(move || {
            let known = hash.is_some();
            let parsed = PasswordHash::new(hash.as_deref().unwrap_or(&decoy))
                .map_err(|error| HashError::Argon2(error.to_string()))?;
            match argon2()?.verify_password(secret.expose_secret().as_bytes(), &parsed) {
                Ok(()) => Ok(known),
                Err(PasswordError::PasswordInvalid) => Ok(false),
                Err(error) => Err(HashError::Argon2(error.to_string())),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_secret_verifies() {
        let hasher = Hasher::new().await.unwrap();
        let hash = hasher.hash("s1".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(hasher.verify("s1".into(), Some(hash.clone())).await.unwrap());
        assert!(!hasher.verify("s2".into(), Some(hash.clone())).await.unwrap());
        assert!(!hasher.verify("s1".into(), None).await.unwrap());
        assert_ne!(
            hash,
            hasher.hash("s1".into()).await.unwrap(),
            "each hash has its own salt"
        );
        assert!(hasher.verify("s1".into(), Some("nonsense".into())).await.is_err());
    }
}
