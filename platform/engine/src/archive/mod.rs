//! History as tables: which there are, and how rows and records become their rows, for sealed files and for the hot tail alike.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tables`] | the tables and their columns |
//! | [`config`] | when what is sealed and removed |
//! | [`keeper`] | the task that seals, compacts, removes and destroys |
//! | [`rows`] | a workflow's rows and records as rows of the tables |
//! | `tail` | the engine as a source of history: valid objects, and what is in none of them |
//!
//! Only control data is in typed columns. What users wrote is in the raw record of an event, sealed as it is in the log.

pub mod config;
pub mod keeper;
pub mod rows;
pub mod tables;
mod tail;

pub use config::{ArchiveConfig, ArchiveParts, Retention};
pub use keeper::{KeepError, Keeper};
pub use rows::Tables;
pub use tables::TABLES;
