//! Playbooks and their versions.

use gantry_proto::limits::{DEFINITION_BYTES_MAX, PAGE_ITEMS_MAX};
use gantry_proto::{PrincipalId, TenantId};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::{SqliteDirectory, check_name, from_sql, id_bytes, to_sql};
use crate::error::ManageError;
use crate::playbooks::{
    ExportedPlaybook, NOTE_BYTES_MAX, NewPlaybookVersion, PLAYBOOKS_MAX, Playbook, PlaybookVersion, Playbooks,
    VERSIONS_MAX, Versioned,
};

const SUMMARY: &str = "SELECT p.*, v.description FROM playbooks p \
    JOIN playbook_versions v ON v.tenant = p.tenant AND v.name = p.name AND v.version = p.latest";

fn number(row: &SqliteRow, column: &str) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn playbook(row: &SqliteRow) -> Result<Playbook, sqlx::Error> {
    Ok(Playbook {
        name: row.try_get("name")?,
        latest: number(row, "latest")?,
        description: row.try_get("description")?,
        created_at_ms: from_sql(row.try_get("created_at_ms")?),
        changed_at_ms: from_sql(row.try_get("changed_at_ms")?),
        archived_at_ms: row.try_get::<Option<i64>, _>("archived_at_ms")?.map(from_sql),
    })
}

fn version(row: &SqliteRow) -> Result<PlaybookVersion, sqlx::Error> {
    let digest: Vec<u8> = row.try_get("digest")?;
    let by: Option<Vec<u8>> = row.try_get("created_by")?;
    Ok(PlaybookVersion {
        name: row.try_get("name")?,
        version: number(row, "version")?,
        digest: digest
            .try_into()
            .map_err(|_| sqlx::Error::Decode("a digest has not 32 bytes".into()))?,
        description: row.try_get("description")?,
        note: row.try_get("note")?,
        created_at_ms: from_sql(row.try_get("created_at_ms")?),
        created_by: by.map(|by| id_bytes(&by)).transpose()?.map(PrincipalId::from_bytes),
    })
}

/// What a version must be before it is stored.
fn check(name: &str, note: Option<&str>, source: &[u8]) -> Result<(), ManageError> {
    check_name("playbook", name)?;
    if note.is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
        return Err(ManageError::Invalid(format!(
            "a note on a version has at most {NOTE_BYTES_MAX} bytes"
        )));
    }
    if source.is_empty() || source.len() > DEFINITION_BYTES_MAX {
        return Err(ManageError::Invalid(format!(
            "a definition has 1 to {DEFINITION_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

async fn find(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    name: &str,
) -> Result<Option<Playbook>, ManageError> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "{SUMMARY} WHERE p.tenant = ? AND p.name = ?"
    )))
    .bind(tenant.as_bytes().as_slice())
    .bind(name)
    .fetch_optional(connection)
    .await?;
    Ok(row.as_ref().map(playbook).transpose()?)
}

async fn digest_of(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    name: &str,
    version: u32,
) -> Result<Option<Vec<u8>>, ManageError> {
    let row = sqlx::query("SELECT digest FROM playbook_versions WHERE tenant = ? AND name = ? AND version = ?")
        .bind(tenant.as_bytes().as_slice())
        .bind(name)
        .bind(version)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get("digest")).transpose()?)
}

/// Adds a version to a playbook whose newest is `latest` (0: it does not exist).
async fn add(
    connection: &mut SqliteConnection,
    tenant: TenantId,
    latest: u32,
    new: &PlaybookVersion,
    source: &[u8],
    now_ms: u64,
) -> Result<(), ManageError> {
    if new.version > VERSIONS_MAX {
        return Err(ManageError::Conflict(format!(
            "playbook `{}` has {VERSIONS_MAX} versions, which is the limit; start a new playbook",
            new.name
        )));
    }
    if latest == 0 {
        let row = sqlx::query("SELECT count(*) AS many FROM playbooks WHERE tenant = ?")
            .bind(tenant.as_bytes().as_slice())
            .fetch_one(&mut *connection)
            .await?;
        if number(&row, "many")? >= PLAYBOOKS_MAX {
            return Err(ManageError::Conflict(format!(
                "there are {PLAYBOOKS_MAX} playbooks, which is the limit of a tenant"
            )));
        }
        sqlx::query(
            "INSERT INTO playbooks (tenant, name, latest, created_at_ms, changed_at_ms) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(tenant.as_bytes().as_slice())
        .bind(&new.name)
        .bind(new.version)
        .bind(to_sql(new.created_at_ms))
        .bind(to_sql(now_ms))
        .execute(&mut *connection)
        .await?;
    } else {
        sqlx::query("UPDATE playbooks SET latest = ?, changed_at_ms = ? WHERE tenant = ? AND name = ?")
            .bind(new.version)
            .bind(to_sql(now_ms))
            .bind(tenant.as_bytes().as_slice())
            .bind(&new.name)
            .execute(&mut *connection)
            .await?;
    }
    let inserted = sqlx::query(
        "INSERT INTO playbook_versions (tenant, name, version, digest, description, note, source, created_at_ms, created_by) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(tenant.as_bytes().as_slice())
    .bind(&new.name)
    .bind(new.version)
    .bind(new.digest.as_slice())
    .bind(&new.description)
    .bind(&new.note)
    .bind(source)
    .bind(to_sql(new.created_at_ms))
    .bind(new.created_by.as_ref().map(|by| by.as_bytes().as_slice()))
    .execute(connection)
    .await;
    match inserted {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.is_foreign_key_violation() => Err(ManageError::NotFound),
        Err(error) => Err(error.into()),
    }
}

fn archived(name: &str) -> ManageError {
    ManageError::Conflict(format!("playbook `{name}` is archived; restore it first"))
}

#[async_trait::async_trait]
impl Playbooks for SqliteDirectory {
    async fn create_playbook_version(&self, new: NewPlaybookVersion) -> Result<Versioned, ManageError> {
        check(&new.name, new.note.as_deref(), &new.source)?;
        let now_ms = self.now_ms();
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        let known = find(&mut tx, new.tenant, &new.name).await?;
        let latest = known.as_ref().map_or(0, |known| known.latest);
        if known.as_ref().is_some_and(|known| known.archived_at_ms.is_some()) {
            return Err(archived(&new.name));
        }
        if new.expected.is_some_and(|expected| expected != latest) {
            return Err(ManageError::Conflict(if latest == 0 {
                format!("there is no playbook `{}`", new.name)
            } else {
                format!(
                    "playbook `{}` has version {latest} by now; look at what changed, and try again upon it",
                    new.name
                )
            }));
        }
        if latest > 0 && digest_of(&mut tx, new.tenant, &new.name, latest).await?.as_deref() == Some(&new.digest[..]) {
            drop(tx);
            let (version, _) = self.playbook_source(new.tenant, &new.name, Some(latest)).await?;
            return Ok(Versioned {
                version,
                created: false,
            });
        }
        let version = PlaybookVersion {
            name: new.name,
            version: latest + 1,
            digest: new.digest,
            description: new.description,
            note: new.note,
            created_at_ms: now_ms,
            created_by: new.created_by,
        };
        add(&mut tx, new.tenant, latest, &version, &new.source, now_ms).await?;
        tx.commit().await?;
        Ok(Versioned { version, created: true })
    }

    async fn playbooks(
        &self,
        tenant: TenantId,
        archived: bool,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Playbook>, ManageError> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "{SUMMARY} WHERE p.tenant = ? AND p.name > ? AND (p.archived_at_ms IS NOT NULL) = ? ORDER BY p.name LIMIT ?"
        )))
        .bind(tenant.as_bytes().as_slice())
        .bind(after.unwrap_or_default())
        .bind(archived)
        .bind(limit.min(PAGE_ITEMS_MAX + 1))
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(playbook).collect::<Result<_, _>>()?)
    }

    async fn playbook(&self, tenant: TenantId, name: &str) -> Result<Playbook, ManageError> {
        let found = find(&mut *self.readers.acquire().await?, tenant, name).await?;
        found.ok_or(ManageError::NotFound)
    }

    async fn playbook_versions(
        &self,
        tenant: TenantId,
        name: &str,
        before: Option<u32>,
        limit: u32,
    ) -> Result<Vec<PlaybookVersion>, ManageError> {
        self.playbook(tenant, name).await?;
        let rows = sqlx::query(
            "SELECT * FROM playbook_versions WHERE tenant = ? AND name = ? AND version < ? ORDER BY version DESC LIMIT ?",
        )
        .bind(tenant.as_bytes().as_slice())
        .bind(name)
        .bind(before.unwrap_or(u32::MAX))
        .bind(limit.min(PAGE_ITEMS_MAX + 1))
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(version).collect::<Result<_, _>>()?)
    }

    async fn playbook_source(
        &self,
        tenant: TenantId,
        name: &str,
        number: Option<u32>,
    ) -> Result<(PlaybookVersion, Vec<u8>), ManageError> {
        let row = sqlx::query(
            "SELECT * FROM playbook_versions WHERE tenant = ?1 AND name = ?2 AND version = \
             coalesce(?3, (SELECT latest FROM playbooks WHERE tenant = ?1 AND name = ?2))",
        )
        .bind(tenant.as_bytes().as_slice())
        .bind(name)
        .bind(number)
        .fetch_optional(&self.readers)
        .await?
        .ok_or(ManageError::NotFound)?;
        Ok((version(&row)?, row.try_get("source")?))
    }

    async fn archive_playbook(
        &self,
        tenant: TenantId,
        name: &str,
        archive: bool,
        by: Option<PrincipalId>,
    ) -> Result<Playbook, ManageError> {
        let now = to_sql(self.now_ms());
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "UPDATE playbooks SET archived_at_ms = ?, archived_by = ?, changed_at_ms = ? \
             WHERE tenant = ? AND name = ? AND (archived_at_ms IS NULL) = ?",
        )
        .bind(archive.then_some(now))
        .bind(by.as_ref().filter(|_| archive).map(|by| by.as_bytes().as_slice()))
        .bind(now)
        .bind(tenant.as_bytes().as_slice())
        .bind(name)
        .bind(archive)
        .execute(&mut *tx)
        .await?;
        let found = find(&mut tx, tenant, name).await?.ok_or(ManageError::NotFound)?;
        tx.commit().await?;
        Ok(found)
    }

    async fn import_playbooks(
        &self,
        tenant: TenantId,
        playbooks: Vec<ExportedPlaybook>,
        by: Option<PrincipalId>,
    ) -> Result<u32, ManageError> {
        let now_ms = self.now_ms();
        let mut added = 0;
        let mut tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for playbook in &playbooks {
            let known = find(&mut tx, tenant, &playbook.name).await?;
            if known.as_ref().is_some_and(|known| known.archived_at_ms.is_some()) {
                return Err(archived(&playbook.name));
            }
            let latest = known.map_or(0, |known| known.latest);
            for (expected, (version, source)) in (1u32..).zip(&playbook.versions) {
                check(&playbook.name, version.note.as_deref(), source)?;
                if version.version != expected {
                    return Err(ManageError::Invalid(format!(
                        "playbook `{}`: versions must be numbered from 1 without gap; found {} where {expected} belongs",
                        playbook.name, version.version
                    )));
                }
                if expected > latest {
                    let new = PlaybookVersion {
                        name: playbook.name.clone(),
                        created_by: by,
                        ..version.clone()
                    };
                    add(&mut tx, tenant, expected - 1, &new, source, now_ms).await?;
                    added += 1;
                } else if digest_of(&mut tx, tenant, &playbook.name, expected).await?.as_deref()
                    != Some(&version.digest[..])
                {
                    return Err(ManageError::Conflict(format!(
                        "playbook `{}` has another version {expected}; import it under another name",
                        playbook.name
                    )));
                }
            }
        }
        tx.commit().await?;
        Ok(added)
    }
}
