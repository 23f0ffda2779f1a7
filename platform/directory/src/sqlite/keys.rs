//! API keys.

use gantry_proto::limits::PAGE_ITEMS_MAX;
use gantry_proto::{PartitionId, PrincipalId, TenantId};
use secrecy::SecretString;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::last_used::Used;
use super::{SqliteDirectory, check_name, from_sql, id_bytes, to_sql};
use crate::cache::Hit;
use crate::error::{AuthError, ManageError};
use crate::model::{ApiKey, Issued, NewKey, VerifiedKey};
use crate::scope::Scope;
use crate::token::{self, TokenKind};

/// What a row says about a key that is being verified.
struct Candidate {
    key: VerifiedKey,
    hash: String,
    revoked: bool,
}

fn optional_id(column: Option<&[u8]>) -> Result<Option<PrincipalId>, sqlx::Error> {
    column
        .map(|bytes| id_bytes(bytes).map(PrincipalId::from_bytes))
        .transpose()
}

fn scope(text: &str) -> Result<Scope, sqlx::Error> {
    text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn read(row: &SqliteRow) -> Result<ApiKey, sqlx::Error> {
    let id = id_bytes(row.try_get("id")?)?;
    Ok(ApiKey {
        id: PrincipalId::from_bytes(id),
        prefix: token::shown(TokenKind::ApiKey, &id),
        tenant: TenantId::from_bytes(id_bytes(row.try_get("tenant")?)?),
        name: row.try_get("name")?,
        scope: scope(row.try_get("scope")?)?,
        created_at_ms: from_sql(row.try_get("created_at_ms")?),
        created_by: optional_id(row.try_get("created_by")?)?,
        expires_at_ms: row.try_get::<Option<i64>, _>("expires_at_ms")?.map(from_sql),
        revoked_at_ms: row.try_get::<Option<i64>, _>("revoked_at_ms")?.map(from_sql),
        last_used_at_ms: row.try_get::<Option<i64>, _>("last_used_at_ms")?.map(from_sql),
    })
}

fn read_candidate(row: &SqliteRow) -> Result<Candidate, sqlx::Error> {
    let key = read(row)?;
    Ok(Candidate {
        revoked: key.revoked_at_ms.is_some(),
        hash: row.try_get("hash")?,
        key: VerifiedKey {
            id: key.id,
            tenant: key.tenant,
            name: key.name,
            scope: key.scope,
            expires_at_ms: key.expires_at_ms,
        },
    })
}

pub(super) async fn insert(connection: &mut SqliteConnection, key: &ApiKey, hash: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO api_keys (id, lookup, tenant, name, scope, hash, created_at_ms, created_by, expires_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key.id.as_bytes().as_slice())
    .bind(token::lookup_of(key.id.as_bytes()))
    .bind(key.tenant.as_bytes().as_slice())
    .bind(&key.name)
    .bind(key.scope.as_str())
    .bind(hash)
    .bind(to_sql(key.created_at_ms))
    .bind(key.created_by.as_ref().map(|id| id.as_bytes().as_slice()))
    .bind(key.expires_at_ms.map(to_sql))
    .execute(connection)
    .await?;
    Ok(())
}

impl SqliteDirectory {
    pub(super) async fn verify_key(&self, text: &str) -> Result<VerifiedKey, AuthError> {
        let parsed = token::parse(TokenKind::ApiKey, text)?;
        let print = self.cache.fingerprint(text);
        let key = match self.cache.get(&print) {
            Hit::Fresh(key) => key,
            Hit::Stale(id) => {
                let read_at = self.cache.revocations();
                let found = self.candidate(parsed.lookup).await?.filter(|found| found.key.id == id);
                let Some(found) = found else {
                    self.cache.forget(&print);
                    return Err(AuthError::Unknown);
                };
                if found.revoked {
                    self.cache.revoke(id);
                    return Err(AuthError::Revoked);
                }
                self.cache.put(print, found.key.clone(), read_at);
                found.key
            }
            Hit::Miss => {
                let found = self.candidate(parsed.lookup).await?;
                let hash = found.as_ref().map(|found| found.hash.clone());
                let right = self.hasher.verify(SecretString::from(parsed.secret), hash).await?;
                if !right || found.is_none() {
                    return Err(AuthError::Unknown);
                }
                // Read again: verifying takes long, and what was true before it may not be now.
                let read_at = self.cache.revocations();
                let found = self.candidate(parsed.lookup).await?.ok_or(AuthError::Unknown)?;
                if found.revoked {
                    return Err(AuthError::Revoked);
                }
                self.cache.put(print, found.key.clone(), read_at);
                found.key
            }
        };
        let now_ms = self.now_ms();
        if key.expires_at_ms.is_some_and(|end| end <= now_ms) {
            return Err(AuthError::Expired);
        }
        self.last_used.note(Used::Key(*key.id.as_bytes()), now_ms);
        Ok(key)
    }

    async fn candidate(&self, lookup: &str) -> Result<Option<Candidate>, sqlx::Error> {
        let row = sqlx::query("SELECT * FROM api_keys WHERE lookup = ?")
            .bind(lookup)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(read_candidate).transpose()
    }

    pub(super) async fn is_key_live(&self, id: PrincipalId) -> Result<bool, ManageError> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM api_keys WHERE id = ? AND revoked_at_ms IS NULL AND (expires_at_ms IS NULL OR expires_at_ms > ?))",
        )
        .bind(id.as_bytes().as_slice())
        .bind(to_sql(self.now_ms()))
        .fetch_one(&self.readers)
        .await?;
        Ok(row.try_get(0)?)
    }

    /// Checks, mints and hashes; nothing is stored yet.
    pub(super) async fn prepare_key(&self, new: NewKey) -> Result<(Issued<ApiKey>, String), ManageError> {
        check_name("key", &new.name)?;
        let now_ms = self.now_ms();
        if new.expires_at_ms.is_some_and(|end| end <= now_ms) {
            return Err(ManageError::Invalid(
                "`expires_at_ms` must be in the future (milliseconds since 1970)".to_owned(),
            ));
        }
        let id = PrincipalId::new(now_ms, PartitionId::default(), token::entropy()?);
        let secret = token::mint()?;
        let issued = Issued {
            token: token::compose(TokenKind::ApiKey, id.as_bytes(), &secret),
            record: ApiKey {
                id,
                prefix: token::shown(TokenKind::ApiKey, id.as_bytes()),
                tenant: new.tenant,
                name: new.name,
                scope: new.scope,
                created_at_ms: now_ms,
                created_by: new.created_by,
                expires_at_ms: new.expires_at_ms,
                revoked_at_ms: None,
                last_used_at_ms: None,
            },
        };
        let hash = self.hasher.hash(secret).await?;
        Ok((issued, hash))
    }

    pub(super) async fn insert_key(&self, new: NewKey) -> Result<Issued<ApiKey>, ManageError> {
        let (issued, hash) = self.prepare_key(new).await?;
        match insert(&mut *self.writer.acquire().await?, &issued.record, &hash).await {
            Ok(()) => Ok(issued),
            Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => Err(ManageError::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn list_keys(
        &self,
        tenant: TenantId,
        after: Option<PrincipalId>,
        limit: u32,
    ) -> Result<Vec<ApiKey>, ManageError> {
        let after = after.map_or([0xff; 16], |id| *id.as_bytes());
        let rows = sqlx::query("SELECT * FROM api_keys WHERE tenant = ? AND id < ? ORDER BY id DESC LIMIT ?")
            .bind(tenant.as_bytes().as_slice())
            .bind(after.as_slice())
            .bind(limit.min(PAGE_ITEMS_MAX + 1))
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    pub(super) async fn end_key(
        &self,
        tenant: TenantId,
        key: PrincipalId,
        by: Option<PrincipalId>,
    ) -> Result<ApiKey, ManageError> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE api_keys SET revoked_at_ms = ?, revoked_by = ? WHERE id = ? AND tenant = ? AND revoked_at_ms IS NULL")
            .bind(to_sql(self.now_ms()))
            .bind(by.as_ref().map(|id| id.as_bytes().as_slice()))
            .bind(key.as_bytes().as_slice())
            .bind(tenant.as_bytes().as_slice())
            .execute(&mut *tx)
            .await?;
        let row = sqlx::query("SELECT * FROM api_keys WHERE id = ? AND tenant = ?")
            .bind(key.as_bytes().as_slice())
            .bind(tenant.as_bytes().as_slice())
            .fetch_optional(&mut *tx)
            .await?;
        let ended = read(&row.ok_or(ManageError::NotFound)?)?;
        let committed = tx.commit().await;
        // Also when the commit's outcome is unknown: the row decides at the next use.
        self.cache.revoke(key);
        committed?;
        Ok(ended)
    }
}
