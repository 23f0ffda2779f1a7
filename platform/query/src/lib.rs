//! SQL over a tenant's history.
//!
//! | module | what it holds |
//! |---|---|
//! | [`api`] | what a query is, and what can go wrong with it |
//! | `queries` | the way of a query: permits, files, process, answer |
//! | `cache` | sealed objects on local disk, by tenant, and the directory that a query sees |
//! | `pick` | which tables and objects a query needs |
//! | `process` | one `gantry-query` process |
//! | `tail` | rows that are not sealed, as messages |
//!
//! DuckDB is not in this process: it would cost every idle daemon 12 MB, a fault in it would be everybody's, and it does not keep single values within its
//! memory limit. `gantry-query` (platform/query/worker) is started for one query, sees one directory with the caller's files, and is killed when it
//! does not end.

#![warn(clippy::pedantic)]
// Names of products are no code.
#![allow(clippy::module_name_repetitions, clippy::doc_markdown)]

pub mod api;
mod cache;
mod pick;
mod process;
mod queries;
mod tail;

pub use api::{Answer, Column, Cut, Parameter, Query, QueryEngine, QueryError, Stats};
pub use queries::{Queries, QueryConfig};
