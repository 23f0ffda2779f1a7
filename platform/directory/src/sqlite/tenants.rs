//! Tenants, and what a fresh installation needs.

use gantry_proto::{PartitionId, TenantId, limits};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{SqliteDirectory, check_name, from_sql, id_bytes, to_sql};
use crate::error::ManageError;
use crate::model::{Bootstrap, DEFAULT_TENANT, NewKey, Tenant};
use crate::scope::Scope;
use crate::token;

fn read(row: &SqliteRow) -> Result<Tenant, sqlx::Error> {
    Ok(Tenant {
        id: TenantId::from_bytes(id_bytes(row.try_get(0)?)?),
        name: row.try_get(1)?,
        created_at_ms: from_sql(row.try_get(2)?),
        weight: u32::try_from(row.try_get::<i64, _>(3)?).unwrap_or(1),
    })
}

impl SqliteDirectory {
    pub(super) async fn list_tenants(&self) -> Result<Vec<Tenant>, ManageError> {
        let rows = sqlx::query("SELECT id, name, created_at_ms, weight FROM tenants ORDER BY id")
            .fetch_all(&self.readers)
            .await?;
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    pub(super) async fn insert_tenant(&self, name: &str) -> Result<Tenant, ManageError> {
        check_name("tenant", name)?;
        let tenant = self.new_tenant(name)?;
        match insert(&mut *self.writer.acquire().await?, &tenant).await {
            Ok(()) => Ok(tenant),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                Err(ManageError::Conflict(format!("there is a tenant `{name}` already")))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn new_tenant(&self, name: &str) -> Result<Tenant, ManageError> {
        let now_ms = self.now_ms();
        let id = TenantId::new(now_ms, PartitionId::default(), token::entropy()?);
        Ok(Tenant {
            id,
            name: name.to_owned(),
            created_at_ms: now_ms,
            weight: 1,
        })
    }

    pub(super) async fn set_weight(&self, tenant: TenantId, weight: u32) -> Result<Option<Tenant>, ManageError> {
        if !(1..=limits::TENANT_WEIGHT_MAX).contains(&weight) {
            return Err(ManageError::Invalid(format!(
                "a tenant weighs 1 to {}",
                limits::TENANT_WEIGHT_MAX
            )));
        }
        let row = sqlx::query("UPDATE tenants SET weight = ? WHERE id = ? RETURNING id, name, created_at_ms, weight")
            .bind(i64::from(weight))
            .bind(tenant.as_bytes().as_slice())
            .fetch_optional(&mut *self.writer.acquire().await?)
            .await?;
        Ok(row.as_ref().map(read).transpose()?)
    }

    /// Finding that nothing works and making the key is one transaction: of two processes that start at once, one makes it.
    pub(super) async fn bootstrap(&self) -> Result<Bootstrap, ManageError> {
        let fresh = self.new_tenant(DEFAULT_TENANT)?;
        let tenant = {
            let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let tenant = if let Some(tenant) = default_tenant(&mut tx).await? {
                tenant
            } else {
                insert(&mut tx, &fresh).await?;
                fresh.id
            };
            tx.commit().await?;
            tenant
        };
        // Hashing takes long, so it happens only when it seems needed, outside the transaction, and the condition is checked again inside.
        if self.has_admin(tenant).await? {
            return Ok(Bootstrap { tenant, admin: None });
        }
        let new = NewKey {
            tenant,
            name: "first admin key".to_owned(),
            scope: Scope::Admin,
            expires_at_ms: None,
            created_by: None,
        };
        let (issued, hash) = self.prepare_key(new).await?;
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let exists = self.admin_exists(&mut tx, tenant).await?;
        if !exists {
            super::keys::insert(&mut tx, &issued.record, &hash).await?;
        }
        tx.commit().await?;
        Ok(Bootstrap {
            tenant,
            admin: (!exists).then_some(issued),
        })
    }

    async fn has_admin(&self, tenant: TenantId) -> Result<bool, ManageError> {
        let mut connection = self.writer.acquire().await?;
        Ok(self.admin_exists(&mut connection, tenant).await?)
    }

    async fn admin_exists(&self, connection: &mut SqliteConnection, tenant: TenantId) -> Result<bool, sqlx::Error> {
        let row = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM api_keys WHERE tenant = ? AND scope = 'admin' AND revoked_at_ms IS NULL AND (expires_at_ms IS NULL OR expires_at_ms > ?))",
        )
        .bind(tenant.as_bytes().as_slice())
        .bind(to_sql(self.now_ms()))
        .fetch_one(connection)
        .await?;
        row.try_get(0)
    }
}

pub(super) async fn default_tenant(connection: &mut SqliteConnection) -> Result<Option<TenantId>, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM tenants WHERE name = ?")
        .bind(DEFAULT_TENANT)
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok(TenantId::from_bytes(id_bytes(row.try_get(0)?)?)))
        .transpose()
}

async fn insert(connection: &mut SqliteConnection, tenant: &Tenant) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO tenants (id, name, created_at_ms) VALUES (?, ?, ?)")
        .bind(tenant.id.as_bytes().as_slice())
        .bind(&tenant.name)
        .bind(to_sql(tenant.created_at_ms))
        .execute(connection)
        .await?;
    Ok(())
}
