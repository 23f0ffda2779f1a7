//! Sealed objects in object storage: files under a directory, or S3.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig};

use super::name::ROOT;
use crate::durable_fs;

/// One call of the object store. Objects are at most tens of megabytes; a store that hangs must not hang the sealer for ever.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);
/// One try within a call.
const TRY_TIMEOUT: Duration = Duration::from_secs(20);
const TRIES_MAX: usize = 3;

/// A bucket of an S3-compatible service.
#[derive(Clone)]
pub struct S3Config {
    /// Bucket.
    pub bucket: String,
    /// Region; any word for services that have none.
    pub region: String,
    /// `http(s)://host:port` of a service that is not AWS.
    pub endpoint: Option<String>,
    /// What all names in the bucket begin with, without slash at the end; empty for none.
    pub prefix: String,
    /// Access key id; absent: from the environment or the instance.
    pub access_key_id: Option<String>,
    /// Its secret.
    pub secret_access_key: Option<zeroize::Zeroizing<String>>,
}

impl fmt::Debug for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Config")
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Why an object cannot be stored or read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    /// There is no such object.
    #[error("there is no object `{name}` in the archive")]
    NotFound {
        /// Its name.
        name: String,
    },
    /// Its bytes are not those that were sealed.
    #[error(
        "object `{name}` of the archive is damaged: its hash is not the one that was recorded; restore it from a backup"
    )]
    Damaged {
        /// Its name.
        name: String,
    },
    /// The object store refused, or did not answer in time.
    #[error("object storage: {0}")]
    Store(String),
}

/// Objects by name. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ArchiveStore {
    store: Arc<dyn ObjectStore>,
    prefix: String,
    /// Where the objects are files.
    local: Option<PathBuf>,
}

impl ArchiveStore {
    /// Objects as files under `dir`, synced before they are reported as stored. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn local(dir: &Path) -> Result<Self, ObjectError> {
        let fail = |error: std::io::Error| ObjectError::Store(format!("{}: {error}", dir.display()));
        durable_fs::create_dir_all(dir).map_err(fail)?;
        let store = LocalFileSystem::new_with_prefix(dir)
            .map_err(|error| ObjectError::Store(error.to_string()))?
            .with_automatic_cleanup(true)
            .with_fsync(true);
        Ok(Self {
            store: Arc::new(store),
            prefix: String::new(),
            local: Some(dir.to_owned()),
        })
    }

    /// Objects in a bucket. No call is made yet.
    ///
    /// # Errors
    /// When the configuration is not usable.
    pub fn s3(config: &S3Config) -> Result<Self, ObjectError> {
        let options = ClientOptions::new().with_timeout(TRY_TIMEOUT);
        let retry = RetryConfig {
            max_retries: TRIES_MAX,
            retry_timeout: CALL_TIMEOUT,
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_client_options(options)
            .with_retry(retry);
        if let Some(endpoint) = &config.endpoint {
            // Services of one's own often have no certificate; the payloads are sealed all the same.
            builder = builder
                .with_endpoint(endpoint)
                .with_allow_http(endpoint.starts_with("http://"));
        }
        if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.as_str());
        }
        let store = builder.build().map_err(|error| ObjectError::Store(error.to_string()))?;
        Ok(Self {
            store: Arc::new(store),
            prefix: config.prefix.clone(),
            local: None,
        })
    }

    fn path(&self, name: &str) -> ObjectPath {
        if self.prefix.is_empty() {
            ObjectPath::from(name)
        } else {
            ObjectPath::from(format!("{}/{name}", self.prefix))
        }
    }

    /// Where an object is a file; `None` when objects are elsewhere.
    #[must_use]
    pub fn local_path(&self, name: &str) -> Option<PathBuf> {
        self.local.as_ref().map(|root| root.join(name))
    }

    /// Stores an object whole and durably, or not at all.
    ///
    /// # Errors
    /// When the store refuses; whether it is there is then not known.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), ObjectError> {
        timed(name, self.store.put(&self.path(name), bytes.into()))
            .await
            .map(drop)
    }

    /// Reads an object and checks it against the hash that was recorded.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn get(&self, name: &str, digest: &[u8]) -> Result<Bytes, ObjectError> {
        let path = self.path(name);
        let bytes = timed(name, async { self.store.get(&path).await?.bytes().await }).await?;
        if blake3::hash(&bytes).as_bytes() != digest {
            return Err(ObjectError::Damaged { name: name.to_owned() });
        }
        Ok(bytes)
    }

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn delete(&self, name: &str) -> Result<(), ObjectError> {
        match timed(name, self.store.delete(&self.path(name))).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Names of what is stored of the archive, at most `limit`, whether it counts or not; in no order.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn list(&self, limit: usize) -> Result<Vec<String>, ObjectError> {
        let root = self.path(ROOT);
        let mut listed = self.store.list(Some(&root));
        let mut names = Vec::new();
        while names.len() < limit {
            let next = tokio::time::timeout(CALL_TIMEOUT, listed.next());
            let Some(meta) = next.await.map_err(|_| late())? else {
                break;
            };
            let meta = meta.map_err(|error| ObjectError::Store(error.to_string()))?;
            let full = meta.location.to_string();
            let name = if self.prefix.is_empty() {
                Some(full.as_str())
            } else {
                full.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('/'))
            };
            names.extend(name.map(str::to_owned));
        }
        Ok(names)
    }
}

fn late() -> ObjectError {
    ObjectError::Store(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))
}

async fn timed<T>(name: &str, call: impl Future<Output = object_store::Result<T>>) -> Result<T, ObjectError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(done) => done.map_err(|error| match error {
            object_store::Error::NotFound { .. } => ObjectError::NotFound { name: name.to_owned() },
            other => ObjectError::Store(other.to_string()),
        }),
        Err(_) => Err(late()),
    }
}
