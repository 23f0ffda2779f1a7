//! Tokens with which nodes join.

use gantry_proto::limits::PAGE_ITEMS_MAX;
use gantry_proto::{NodeTokenId, PartitionId, PrincipalId, TenantId};
use secrecy::SecretString;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::last_used::Used;
use super::tenants::default_tenant;
use super::{SqliteDirectory, check_name, from_sql, id_bytes, to_sql};
use crate::error::{AuthError, ManageError};
use crate::model::{Issued, NewNodeToken, NodeIdentity, NodeToken, Serves};
use crate::token::{self, TokenKind};

fn read(row: &SqliteRow) -> Result<NodeToken, sqlx::Error> {
    let id = id_bytes(row.try_get("id")?)?;
    Ok(NodeToken {
        id: NodeTokenId::from_bytes(id),
        prefix: token::shown(TokenKind::Node, &id),
        tenant: TenantId::from_bytes(id_bytes(row.try_get("tenant")?)?),
        shared: row.try_get("shared")?,
        name: row.try_get("name")?,
        created_at_ms: from_sql(row.try_get("created_at_ms")?),
        revoked_at_ms: row.try_get::<Option<i64>, _>("revoked_at_ms")?.map(from_sql),
        last_used_at_ms: row.try_get::<Option<i64>, _>("last_used_at_ms")?.map(from_sql),
    })
}

impl SqliteDirectory {
    pub(super) async fn verify_node_token(&self, text: &str) -> Result<NodeIdentity, AuthError> {
        let parsed = token::parse(TokenKind::Node, text)?;
        let row = sqlx::query("SELECT * FROM node_tokens WHERE lookup = ?")
            .bind(parsed.lookup)
            .fetch_optional(&self.readers)
            .await?;
        let hash = row.as_ref().map(|row| row.try_get("hash")).transpose()?;
        let right = self.hasher.verify(SecretString::from(parsed.secret), hash).await?;
        let found = row
            .as_ref()
            .filter(|_| right)
            .map(read)
            .transpose()?
            .ok_or(AuthError::Unknown)?;
        // Verifying takes long: whether it still lives is asked after it.
        if !self.lives(found.id).await? {
            return Err(AuthError::Revoked);
        }
        self.last_used
            .note(Used::NodeToken(*found.id.as_bytes()), self.now_ms());
        let serves = if found.shared {
            Serves::All
        } else {
            Serves::Tenant(found.tenant)
        };
        Ok(NodeIdentity {
            token: found.id,
            serves,
            name: found.name,
        })
    }

    async fn lives(&self, id: NodeTokenId) -> Result<bool, sqlx::Error> {
        let row = sqlx::query("SELECT EXISTS (SELECT 1 FROM node_tokens WHERE id = ? AND revoked_at_ms IS NULL)")
            .bind(id.as_bytes().as_slice())
            .fetch_one(&self.readers)
            .await?;
        row.try_get(0)
    }

    pub(super) async fn is_node_token_live(&self, id: NodeTokenId) -> Result<bool, ManageError> {
        Ok(self.lives(id).await?)
    }

    pub(super) async fn insert_node_token(&self, new: NewNodeToken) -> Result<Issued<NodeToken>, ManageError> {
        check_name("node token", &new.name)?;
        if new.shared && default_tenant(&mut *self.readers.acquire().await?).await? != Some(new.tenant) {
            return Err(ManageError::Forbidden(
                "only the default tenant may make tokens for shared nodes: they run every tenant's work".to_owned(),
            ));
        }
        let now_ms = self.now_ms();
        let id = NodeTokenId::new(now_ms, PartitionId::default(), token::entropy()?);
        let secret = token::mint()?;
        let token = token::compose(TokenKind::Node, id.as_bytes(), &secret);
        let hash = self.hasher.hash(secret).await?;
        let record = NodeToken {
            id,
            prefix: token::shown(TokenKind::Node, id.as_bytes()),
            tenant: new.tenant,
            shared: new.shared,
            name: new.name,
            created_at_ms: now_ms,
            revoked_at_ms: None,
            last_used_at_ms: None,
        };
        let inserted =
            sqlx::query("INSERT INTO node_tokens (id, lookup, tenant, shared, name, hash, created_at_ms, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
                .bind(id.as_bytes().as_slice())
                .bind(token::lookup_of(id.as_bytes()))
                .bind(record.tenant.as_bytes().as_slice())
                .bind(record.shared)
                .bind(&record.name)
                .bind(hash)
                .bind(to_sql(now_ms))
                .bind(new.created_by.as_ref().map(|by| by.as_bytes().as_slice()))
                .execute(&self.writer)
                .await;
        match inserted {
            Ok(_) => Ok(Issued { record, token }),
            Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => Err(ManageError::NotFound),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn list_node_tokens(
        &self,
        tenant: TenantId,
        after: Option<NodeTokenId>,
        limit: u32,
    ) -> Result<Vec<NodeToken>, ManageError> {
        let after = after.map_or([0xff; 16], |id| *id.as_bytes());
        let rows = sqlx::query("SELECT * FROM node_tokens WHERE tenant = ? AND id < ? ORDER BY id DESC LIMIT ?")
            .bind(tenant.as_bytes().as_slice())
            .bind(after.as_slice())
            .bind(limit.min(PAGE_ITEMS_MAX + 1))
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    pub(super) async fn end_node_token(
        &self,
        tenant: TenantId,
        id: NodeTokenId,
        by: Option<PrincipalId>,
    ) -> Result<NodeToken, ManageError> {
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE node_tokens SET revoked_at_ms = ?, revoked_by = ? WHERE id = ? AND tenant = ? AND revoked_at_ms IS NULL")
            .bind(to_sql(self.now_ms()))
            .bind(by.as_ref().map(|by| by.as_bytes().as_slice()))
            .bind(id.as_bytes().as_slice())
            .bind(tenant.as_bytes().as_slice())
            .execute(&mut *tx)
            .await?;
        let row = sqlx::query("SELECT * FROM node_tokens WHERE id = ? AND tenant = ?")
            .bind(id.as_bytes().as_slice())
            .bind(tenant.as_bytes().as_slice())
            .fetch_optional(&mut *tx)
            .await?;
        let ended = read(&row.ok_or(ManageError::NotFound)?)?;
        tx.commit().await?;
        Ok(ended)
    }
}
