//! The embedded back end: one SQLite file, WAL, every commit synced, one writer and a few readers.

mod keys;
mod last_used;
mod node_bindings;
mod node_tokens;
mod open;
mod playbooks;
mod snapshot;
mod tenants;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_proto::limits::NAME_BYTES_MAX;
use gantry_proto::time::{Clock, SystemClock};
use gantry_proto::{NodeId, NodeTokenId, PrincipalId, TenantId};
use sqlx::SqlitePool;

use crate::api::Directory;
use crate::cache::VerifiedCache;
use crate::error::{AuthError, ManageError, OpenError};
use crate::hash::Hasher;
use crate::model::{
    ApiKey, Bootstrap, InstallationId, Issued, NewKey, NewNodeToken, NodeIdentity, NodeToken, Tenant, VerifiedKey,
};
use last_used::LastUsed;

/// Settings that only tests and unusual installations change.
#[derive(Clone)]
pub struct Options {
    /// Source of time for expiry and records.
    pub clock: Arc<dyn Clock>,
    /// How long a verified key is used without reading its row again: bounds how late another process's revocation is seen. A revocation in this process
    /// is immediate.
    pub recheck: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            recheck: Duration::from_secs(2),
        }
    }
}

/// The directory in one SQLite file. Share it by `Arc`; call [`Self::close`] at the end.
pub struct SqliteDirectory {
    writer: SqlitePool,
    readers: SqlitePool,
    clock: Arc<dyn Clock>,
    hasher: Hasher,
    cache: VerifiedCache,
    last_used: LastUsed,
    installation: InstallationId,
}

impl SqliteDirectory {
    /// Opens or creates the file (mode 0600), and brings its schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`]; a file of a newer version is refused untouched.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(path, Options::default()).await
    }

    /// Writes what is pending and closes all connections.
    pub async fn close(&self) {
        self.last_used.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}

/// SQLite has signed integers only. Times past the year 292 million do not fit and read as the last one that does.
fn to_sql(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn from_sql(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Sixteen bytes of an id column; the schema checks the length.
fn id_bytes(column: &[u8]) -> Result<[u8; 16], sqlx::Error> {
    column
        .try_into()
        .map_err(|_| sqlx::Error::Decode("an id column has not 16 bytes".into()))
}

/// Names are shown in lists and terminals: one line, no control characters.
fn check_name(what: &str, name: &str) -> Result<(), ManageError> {
    if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
        return Err(ManageError::Invalid(format!(
            "the name of the {what} must have 1 to {NAME_BYTES_MAX} bytes and no control characters"
        )));
    }
    Ok(())
}

#[async_trait::async_trait]
impl Directory for SqliteDirectory {
    fn installation(&self) -> InstallationId {
        self.installation
    }

    async fn ready(&self) -> Result<(), ManageError> {
        sqlx::query("SELECT 1 FROM meta LIMIT 1")
            .fetch_optional(&self.readers)
            .await?;
        Ok(())
    }

    async fn ensure_bootstrap(&self) -> Result<Bootstrap, ManageError> {
        self.bootstrap().await
    }

    async fn create_tenant(&self, name: &str) -> Result<Tenant, ManageError> {
        self.insert_tenant(name).await
    }

    async fn tenants(&self) -> Result<Vec<Tenant>, ManageError> {
        self.list_tenants().await
    }

    async fn weigh_tenant(&self, tenant: TenantId, weight: u32) -> Result<Option<Tenant>, ManageError> {
        self.set_weight(tenant, weight).await
    }

    async fn authenticate_key(&self, token: &str) -> Result<VerifiedKey, AuthError> {
        self.verify_key(token).await
    }

    async fn key_lives(&self, key: PrincipalId) -> Result<bool, ManageError> {
        self.is_key_live(key).await
    }

    async fn create_key(&self, new: NewKey) -> Result<Issued<ApiKey>, ManageError> {
        self.insert_key(new).await
    }

    async fn keys(&self, tenant: TenantId, after: Option<PrincipalId>, limit: u32) -> Result<Vec<ApiKey>, ManageError> {
        self.list_keys(tenant, after, limit).await
    }

    async fn revoke_key(
        &self,
        tenant: TenantId,
        key: PrincipalId,
        by: Option<PrincipalId>,
    ) -> Result<ApiKey, ManageError> {
        self.end_key(tenant, key, by).await
    }

    async fn authenticate_node(&self, token: &str) -> Result<NodeIdentity, AuthError> {
        self.verify_node_token(token).await
    }

    async fn bind_node(&self, token: Option<NodeTokenId>, node: NodeId) -> Result<(), ManageError> {
        self.bind(token, node).await
    }

    async fn node_token_lives(&self, token: NodeTokenId) -> Result<bool, ManageError> {
        self.is_node_token_live(token).await
    }

    async fn create_node_token(&self, new: NewNodeToken) -> Result<Issued<NodeToken>, ManageError> {
        self.insert_node_token(new).await
    }

    async fn node_tokens(
        &self,
        tenant: TenantId,
        after: Option<NodeTokenId>,
        limit: u32,
    ) -> Result<Vec<NodeToken>, ManageError> {
        self.list_node_tokens(tenant, after, limit).await
    }

    async fn revoke_node_token(
        &self,
        tenant: TenantId,
        token: NodeTokenId,
        by: Option<PrincipalId>,
    ) -> Result<NodeToken, ManageError> {
        self.end_node_token(tenant, token, by).await
    }
}
