//! A fresh database in memory, locked before the statement is looked at.

use std::ffi::{CString, c_char};
use std::ptr;

use duckdb::{Connection, ffi};

use crate::failure::Failure;
use crate::statement;

/// An open database with one connection for work and one for asking the parser.
pub(crate) struct Database {
    // Fields are dropped in this order: connections before the database.
    connection: Connection,
    parser: Raw,
    _raw: RawDatabase,
}

struct Raw(ffi::duckdb_connection);

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the connection was opened by `Database::open` and is closed once, before its database.
        unsafe { ffi::duckdb_disconnect(&raw mut self.0) }
    }
}

struct RawDatabase(ffi::duckdb_database);

impl Drop for RawDatabase {
    fn drop(&mut self) {
        // SAFETY: the database was opened by `Database::open` and is closed once, after its connections.
        unsafe { ffi::duckdb_close(&raw mut self.0) }
    }
}

struct RawConfig(ffi::duckdb_config);

impl Drop for RawConfig {
    fn drop(&mut self) {
        // SAFETY: the configuration was made by DuckDB and is destroyed once.
        unsafe { ffi::duckdb_destroy_config(&raw mut self.0) }
    }
}

impl Database {
    /// A database that uses one thread and at most `memory_bytes`, and no disk.
    pub(crate) fn open(memory_bytes: u64) -> Result<Self, Failure> {
        let memory = format!("{memory_bytes}B");
        let mut config = RawConfig(ptr::null_mut());
        // SAFETY: DuckDB writes a configuration there, which its guard destroys.
        if unsafe { ffi::duckdb_create_config(&raw mut config.0) } != ffi::DuckDBSuccess {
            return Err(Failure::internal("DuckDB makes no configuration"));
        }
        for (name, value) in [
            (c"threads", "1"),
            (c"memory_limit", memory.as_str()),
            (c"temp_directory", ""),
            (c"autoinstall_known_extensions", "false"),
            (c"autoload_known_extensions", "false"),
            (c"allow_community_extensions", "false"),
            (c"allow_persistent_secrets", "false"),
            (c"errors_as_json", "true"),
        ] {
            let value = CString::new(value).map_err(|_| Failure::internal("a setting with a NUL character"))?;
            // SAFETY: the configuration exists; both texts end in NUL and are copied.
            let set = unsafe { ffi::duckdb_set_config(config.0, name.as_ptr(), value.as_ptr()) };
            if set != ffi::DuckDBSuccess {
                return Err(Failure::internal(format!("DuckDB does not take the setting {name:?}")));
            }
        }
        let mut database = RawDatabase(ptr::null_mut());
        let mut error: *mut c_char = ptr::null_mut();
        // SAFETY: the path ends in NUL, the configuration exists, and what DuckDB writes is destroyed by the guard. The message of a failure is left to
        // the end of the process, which follows.
        let opened =
            unsafe { ffi::duckdb_open_ext(c":memory:".as_ptr(), &raw mut database.0, config.0, &raw mut error) };
        if opened != ffi::DuckDBSuccess {
            return Err(Failure::internal("DuckDB opens no database"));
        }
        let mut parser = Raw(ptr::null_mut());
        // SAFETY: the database is open; the guard closes the connection.
        if unsafe { ffi::duckdb_connect(database.0, &raw mut parser.0) } != ffi::DuckDBSuccess {
            return Err(Failure::internal("DuckDB opens no connection"));
        }
        // SAFETY: the database is open and outlives the connection: it is the last field to be dropped.
        let connection = unsafe { Connection::open_from_raw(database.0) }?;
        Ok(Self {
            connection,
            parser,
            _raw: database,
        })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// From here on nothing but the files of `directory` can be read, nothing can be written, and no setting can be changed.
    pub(crate) fn lock(&self, directory: &str) -> Result<(), Failure> {
        let directory = directory.replace('\'', "''");
        self.connection
            .execute_batch(&format!(
                "SET TimeZone = 'UTC'; SET allowed_directories = ['{directory}']; SET enable_external_access = false; \
                 SET lock_configuration = true"
            ))
            .map_err(|error| Failure::internal(format!("DuckDB cannot be locked: {error}")))
    }

    /// Refuses what is not one statement that reads.
    pub(crate) fn check(&self, sql: &str) -> Result<(), Failure> {
        statement::check_words(sql)?;
        // SAFETY: the connection is open as long as `self` lives.
        unsafe { statement::check_parsed(self.parser.0, sql) }
    }
}
