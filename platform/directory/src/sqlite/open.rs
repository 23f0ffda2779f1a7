//! Opening the file: permissions, connections, migrations, installation id.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Row, SqliteConnection, SqlitePool};

use super::last_used::LastUsed;
use super::{Options, SqliteDirectory};
use crate::cache::VerifiedCache;
use crate::error::OpenError;
use crate::hash::Hasher;
use crate::model::InstallationId;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Readers at once. Each is a thread and a page cache; requests hit the cache of verified keys first.
const READERS_MAX: u32 = 4;

/// How long one statement waits for another process's write, and a call for a connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

impl SqliteDirectory {
    /// [`SqliteDirectory::open`] with other settings.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let path = path.as_ref();
        // Created here, so that it is never readable by others; SQLite gives its side files the same mode.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| OpenError::File {
                path: path.to_owned(),
                source,
            })?;

        let connect = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("cache_size", "-512")
            .thread_name(|_| "directory-sql".to_owned());
        let damage = |error| damage(path, error);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(connect.clone())
            .await
            .map_err(|error| damage(OpenError::Storage(error)))?;
        let installation = prepare(&writer).await.map_err(damage)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .acquire_timeout(BUSY_TIMEOUT)
            .idle_timeout(Duration::from_mins(1))
            .connect_lazy_with(connect.read_only(true).create_if_missing(false));

        Ok(Self {
            last_used: LastUsed::start(writer.clone()),
            writer,
            readers,
            clock: options.clock,
            hasher: Hasher::new().await?,
            cache: VerifiedCache::new(options.recheck)?,
            installation,
        })
    }
}

/// Migrations and installation id in one exclusive transaction: a second process that starts at the same time waits, then finds everything done.
async fn prepare(writer: &SqlitePool) -> Result<InstallationId, OpenError> {
    let mut connection = writer.acquire().await?;
    check(&mut connection).await?;
    let mut tx = connection.begin_with("BEGIN EXCLUSIVE").await?;
    migrate(&mut tx).await?;
    let installation = installation(&mut tx).await?;
    tx.commit().await?;
    Ok(installation)
}

/// What SQLite says of a file that is none of its own, or whose structure does not hold, is named as damage of that file.
fn damage(path: &Path, error: OpenError) -> OpenError {
    let source = match &error {
        OpenError::Storage(source) | OpenError::Migrate(MigrateError::Execute(source)) => Some(source),
        _ => None,
    };
    let code = source
        .and_then(sqlx::Error::as_database_error)
        .and_then(sqlx::error::DatabaseError::code);
    // SQLITE_CORRUPT and SQLITE_NOTADB; extended codes have more in the upper bytes.
    let primary = code
        .as_deref()
        .and_then(|code| code.parse::<u32>().ok())
        .map(|code| code & 0xff);
    match primary {
        Some(11 | 26) => OpenError::Damaged(format!("{}: {error}", path.display())),
        _ => error,
    }
}

/// Reads the whole structure: a directory is small, and damage is better found now than by a request.
async fn check(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let found: String = sqlx::query("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await?
        .try_get(0)?;
    if found == "ok" {
        Ok(())
    } else {
        Err(OpenError::Damaged(found))
    }
}

async fn migrate(connection: &mut SqliteConnection) -> Result<(), OpenError> {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    // `run` does the same through a generic that is not `Send` for every lifetime.
    match MIGRATIONS.run_direct(None, connection, false).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) if found > known => Err(OpenError::NewerSchema { found, known }),
        Err(error) => Err(OpenError::Migrate(error)),
    }
}

async fn installation(connection: &mut SqliteConnection) -> Result<InstallationId, OpenError> {
    let mut fresh = [0u8; 16];
    getrandom::fill(&mut fresh).map_err(|error| crate::error::HashError::Entropy(error.to_string()))?;
    sqlx::query("INSERT INTO meta (key, value) VALUES ('installation', ?) ON CONFLICT DO NOTHING")
        .bind(fresh.as_slice())
        .execute(&mut *connection)
        .await?;
    let row = sqlx::query("SELECT value FROM meta WHERE key = 'installation'")
        .fetch_one(&mut *connection)
        .await?;
    let value: Vec<u8> = row.try_get(0)?;
    let id = value
        .try_into()
        .map_err(|_| OpenError::Damaged("the installation id has not 16 bytes".to_owned()))?;
    Ok(InstallationId(id))
}
