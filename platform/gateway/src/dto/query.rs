//! Bodies of queries.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryBody {
    /// One statement that reads: SELECT, WITH, FROM, VALUES, TABLE, DESCRIBE, SHOW, SUMMARIZE, or EXPLAIN of one of these.
    pub(crate) sql: String,
    /// Values of its parameters: a list for `?`, an object for `$name`. Each is a text, a number, true, false or null.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub(crate) parameters: Option<serde_json::Value>,
    /// Rows of the answer at most, 1 to 100,000, default 1,000.
    #[serde(default)]
    pub(crate) max_rows: Option<u64>,
    /// Milliseconds that it may take, 1 to 25,000, default 10,000.
    #[serde(default)]
    pub(crate) timeout_ms: Option<u64>,
    /// Workflows that ended before the day of this time (UTC) and are sealed need not be read. It only saves work: filter in the statement as well.
    #[serde(default)]
    pub(crate) since_ms: Option<u64>,
    /// Workflows that ended after the day of this time (UTC) and are sealed need not be read.
    #[serde(default)]
    pub(crate) until_ms: Option<u64>,
}

/// A column of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueryColumn {
    /// Its name.
    pub(crate) name: String,
    /// DuckDB's name of its type.
    pub(crate) r#type: String,
}

/// What an answer cost.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueryStats {
    /// Milliseconds, all in all.
    pub(crate) elapsed_ms: u64,
    /// Sealed objects that were read.
    pub(crate) objects: u64,
    /// Their bytes.
    pub(crate) object_bytes: u64,
    /// Of these, fetched from object storage for this query.
    pub(crate) fetched_bytes: u64,
    /// Rows that are not sealed yet.
    pub(crate) tail_rows: u64,
}

/// The answer to a query.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueryAnswer {
    /// In the order of the statement.
    pub(crate) columns: Vec<QueryColumn>,
    /// Each a list with a value for each column. Numbers have all their digits; times are ISO 8601, bytes base64.
    #[schema(value_type = Vec<Vec<Object>>)]
    pub(crate) rows: Vec<Box<RawValue>>,
    /// There was more: `rows` (cut at `max_rows`) or `bytes` (cut at 16 MiB). Absent when this is all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) truncated: Option<&'static str>,
    /// What it cost.
    pub(crate) stats: QueryStats,
}
