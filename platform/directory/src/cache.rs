//! Keys whose secret was verified, so that the hash is not paid per request.
//!
//! An entry is found by a keyed hash of the whole token (the key is random per process), so the cache holds no secret. It is bounded, dropped at once by a
//! revocation in this process, and checked against the row again after a short while, which bounds how long another process's revocation can go unseen.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use gantry_proto::PrincipalId;
use lru::LruCache;
use parking_lot::Mutex;

use crate::error::HashError;
use crate::model::VerifiedKey;

/// Distinct keys in use at once; an entry is about 200 bytes.
const ENTRIES_MAX: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

pub(crate) type Fingerprint = [u8; 32];

/// What the cache knows of a token.
pub(crate) enum Hit {
    /// Use it.
    Fresh(VerifiedKey),
    /// The secret is right; whether the key still lives must be read again.
    Stale(PrincipalId),
    /// Not here.
    Miss,
}

struct Entry {
    key: VerifiedKey,
    checked: Instant,
}

struct Inner {
    entries: LruCache<Fingerprint, Entry>,
    /// Counts revocations: what was read before one is not stored after it.
    revocations: u64,
}

/// See the module.
pub(crate) struct VerifiedCache {
    process_key: [u8; 32],
    recheck: Duration,
    inner: Mutex<Inner>,
}

impl VerifiedCache {
    pub(crate) fn new(recheck: Duration) -> Result<Self, HashError> {
        let mut process_key = [0u8; 32];
        getrandom::fill(&mut process_key).map_err(|error| HashError::Entropy(error.to_string()))?;
        Ok(Self {
            process_key,
            recheck,
            inner: Mutex::new(Inner {
                entries: LruCache::new(ENTRIES_MAX),
                revocations: 0,
            }),
        })
    }

    pub(crate) fn fingerprint(&self, token: &str) -> Fingerprint {
        *blake3::keyed_hash(&self.process_key, token.as_bytes()).as_bytes()
    }

    pub(crate) fn get(&self, fingerprint: &Fingerprint) -> Hit {
        match self.inner.lock().entries.get(fingerprint) {
            Some(entry) if entry.checked.elapsed() < self.recheck => Hit::Fresh(entry.key.clone()),
            Some(entry) => Hit::Stale(entry.key.id),
            None => Hit::Miss,
        }
    }

    /// Take this before reading a row, and pass it to [`Self::put`].
    pub(crate) fn revocations(&self) -> u64 {
        self.inner.lock().revocations
    }

    pub(crate) fn put(&self, fingerprint: Fingerprint, key: VerifiedKey, read_at: u64) {
        let mut inner = self.inner.lock();
        if inner.revocations == read_at {
            inner.entries.put(
                fingerprint,
                Entry {
                    key,
                    checked: Instant::now(),
                },
            );
        }
    }

    /// Drops one token's entry.
    pub(crate) fn forget(&self, fingerprint: &Fingerprint) {
        self.inner.lock().entries.pop(fingerprint);
    }

    /// Drops every entry of a key; what is being verified right now is not stored.
    pub(crate) fn revoke(&self, id: PrincipalId) {
        let mut inner = self.inner.lock();
        inner.revocations += 1;
        let gone: Vec<Fingerprint> = inner
            .entries
            .iter()
            .filter(|(_, entry)| entry.key.id == id)
            .map(|(fingerprint, _)| *fingerprint)
            .collect();
        for fingerprint in gone {
            inner.entries.pop(&fingerprint);
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_proto::{PartitionId, TenantId};

    use super::*;
    use crate::scope::Scope;

    fn key(n: u64) -> VerifiedKey {
        VerifiedKey {
            id: PrincipalId::new(n, PartitionId::default(), n),
            tenant: TenantId::nil(),
            name: "k".into(),
            scope: Scope::Read,
            expires_at_ms: None,
        }
    }

    #[test]
    fn a_revocation_wins_over_a_verification_that_began_before_it() {
        let cache = VerifiedCache::new(Duration::from_mins(1)).unwrap();
        let print = cache.fingerprint("t");
        let before = cache.revocations();
        cache.revoke(key(1).id);
        cache.put(print, key(1), before);
        assert!(matches!(cache.get(&print), Hit::Miss));
        cache.put(print, key(1), cache.revocations());
        assert!(matches!(cache.get(&print), Hit::Fresh(_)));
        cache.revoke(key(2).id);
        assert!(
            matches!(cache.get(&print), Hit::Fresh(_)),
            "another key's revocation leaves it"
        );
        cache.revoke(key(1).id);
        assert!(matches!(cache.get(&print), Hit::Miss));
    }

    #[test]
    fn it_is_bounded_and_goes_stale() {
        let cache = VerifiedCache::new(Duration::ZERO).unwrap();
        for n in 0..ENTRIES_MAX.get() as u64 + 10 {
            cache.put(cache.fingerprint(&n.to_string()), key(n), 0);
        }
        assert_eq!(cache.inner.lock().entries.len(), ENTRIES_MAX.get());
        assert!(matches!(cache.get(&cache.fingerprint("0")), Hit::Miss));
        assert!(matches!(cache.get(&cache.fingerprint("50")), Hit::Stale(_)));
    }
}
