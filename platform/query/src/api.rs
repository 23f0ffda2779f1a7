//! What a query is, and what can go wrong with it.

use gantry_journal::archive::{ObjectError, SourceError};
use gantry_proto::TenantId;

/// A query.
#[derive(Debug, Clone)]
pub struct Query {
    /// Whose history.
    pub tenant: TenantId,
    /// One statement that reads, at most `QUERY_SQL_BYTES_MAX`.
    pub sql: String,
    /// Values of its parameters by name; a position (`1`, `2`) is a name too. At most `QUERY_PARAMETERS_MAX`.
    pub parameters: Vec<(String, Parameter)>,
    /// Rows of the answer at most, bounded by `QUERY_ROWS_MAX`.
    pub rows_max: u64,
    /// Milliseconds for everything, bounded by `QUERY_TIMEOUT_MS_MAX`.
    pub timeout_ms: u64,
    /// Sealed workflows that ended before the day of this time need not be looked at.
    pub since_ms: Option<u64>,
    /// Sealed workflows that ended after the day of this time need not be looked at.
    pub until_ms: Option<u64>,
}

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // they are what their names say
pub enum Parameter {
    Null,
    Bool(bool),
    I64(i64),
    F64(f64),
    Text(String),
}

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name; not unique, as SQL has it.
    pub name: String,
    /// DuckDB's name of its type.
    pub kind: String,
}

/// Where an answer was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// At the rows that were asked for.
    Rows,
    /// At `QUERY_ANSWER_BYTES_MAX`.
    Bytes,
}

/// What an answer cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// From the request to the end of the answer.
    pub elapsed_ms: u64,
    /// Sealed objects that were read.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Of these, fetched for this query.
    pub fetched_bytes: u64,
    /// Rows that are not sealed yet.
    pub tail_rows: u64,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// In the order of the statement.
    pub columns: Vec<Column>,
    /// Each a JSON array with a value for each column.
    pub rows: Vec<String>,
    /// Where it was cut, if it was.
    pub cut: Option<Cut>,
    /// What it cost.
    pub stats: Stats,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The request is not what a query takes.
    #[error("{0}")]
    Request(String),
    /// The statement is none that may be asked, or reaches for something else than its tables.
    #[error("{message}")]
    Refused {
        /// What is refused.
        message: String,
        /// Byte of the statement.
        position: Option<usize>,
    },
    /// DuckDB does not accept the statement, or it failed on its data.
    #[error("{message}")]
    Invalid {
        /// DuckDB's words.
        message: String,
        /// Byte of the statement.
        position: Option<usize>,
    },
    /// It needs more time, memory or history than it may.
    #[error("{0}")]
    Limit(String),
    /// As many queries run as may at once.
    #[error("{0}")]
    Busy(String),
    /// No query can be answered here.
    #[error("{0}")]
    Unavailable(String),
    /// History cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A sealed object cannot be read.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

/// Answers queries.
#[async_trait::async_trait]
pub trait QueryEngine: Send + Sync + 'static {
    /// Answers one. Dropping the future ends the query.
    ///
    /// # Errors
    /// [`QueryError`].
    async fn query(&self, query: Query) -> Result<Answer, QueryError>;
}
