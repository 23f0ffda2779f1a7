//! Why a call of the directory fails.

use std::path::PathBuf;

/// Why a directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be created or its permissions cannot be set.
    #[error("cannot open the directory file {path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A newer version of Gantry has written the file.
    #[error(
        "the directory has schema version {found}, this version of Gantry knows {known}: upgrade Gantry, or restore the backup made before the upgrade"
    )]
    NewerSchema {
        /// Version in the file.
        found: i64,
        /// Newest version that this binary knows.
        known: i64,
    },
    /// A migration failed or does not match what was applied.
    #[error("cannot migrate the directory: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The database does not work.
    #[error("cannot use the directory: {0}")]
    Storage(#[from] sqlx::Error),
    /// The system gives no randomness, or the hash function refuses its parameters.
    #[error("cannot hash secrets: {0}")]
    Hash(#[from] HashError),
    /// A stored value is not what this version writes.
    #[error("the directory is damaged: {0}. Restore the data directory from a backup")]
    Damaged(String),
}

/// Why a credential is not accepted. What differs between these is told only to who holds the right secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Not the form of a token at all.
    #[error("the credential is not an API key of the form ab_<id>_<secret>")]
    Malformed,
    /// A node token where an API key is needed, or the other way round.
    #[error(
        "this kind of credential is not accepted here: the API takes API keys (ab_...), nodes join with node tokens (gn_...)"
    )]
    WrongKind,
    /// Unknown id or wrong secret.
    #[error("the credential is not known")]
    Unknown,
    /// The right secret, past its end.
    #[error("the credential has expired")]
    Expired,
    /// The right secret, revoked.
    #[error("the credential was revoked")]
    Revoked,
    /// Too many verifications wait.
    #[error("too many credentials are being verified at once")]
    Busy,
    /// The directory does not answer.
    #[error("the directory does not answer: {0}")]
    Storage(#[from] sqlx::Error),
    /// A stored hash cannot be read, or hashing failed.
    #[error("cannot verify the credential: {0}")]
    Hash(#[source] HashError),
}

impl From<HashError> for AuthError {
    fn from(error: HashError) -> Self {
        if matches!(error, HashError::Busy) {
            Self::Busy
        } else {
            Self::Hash(error)
        }
    }
}

/// Why keys, tokens or tenants cannot be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// No such thing in the caller's tenant.
    #[error("not found")]
    NotFound,
    /// A field is not what it must be; the message names it.
    #[error("{0}")]
    Invalid(String),
    /// The state does not allow it; the message says why.
    #[error("{0}")]
    Conflict(String),
    /// The caller's tenant may not do this; the message says why.
    #[error("{0}")]
    Forbidden(String),
    /// Too many hashes are being computed.
    #[error("too many secrets are being hashed at once")]
    Busy,
    /// The directory does not answer.
    #[error("the directory does not answer: {0}")]
    Storage(#[from] sqlx::Error),
    /// Hashing failed.
    #[error("cannot hash the secret: {0}")]
    Hash(#[source] HashError),
}

impl From<HashError> for ManageError {
    fn from(error: HashError) -> Self {
        if matches!(error, HashError::Busy) {
            Self::Busy
        } else {
            Self::Hash(error)
        }
    }
}

/// Why a secret cannot be hashed or compared.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HashError {
    /// Parameters or a stored hash are not understood, or there is no memory.
    #[error("argon2: {0}")]
    Argon2(String),
    /// The system gives no randomness.
    #[error("no randomness: {0}")]
    Entropy(String),
    /// The hashing thread ended.
    #[error("the hashing task was stopped")]
    Stopped,
    /// The bounded queue before the hash function is full.
    #[error("too many hashes wait")]
    Busy,
}
