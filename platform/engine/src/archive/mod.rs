//! History as tables: which there are, and how rows and records become their rows, for sealed files and for the hot tail alike.
//!
//! | module | what it holds |
//! |---|---|
//! | [`tables`] | the tables and their columns |
//! | [`rows`] | a workflow's rows and records as rows of the tables |
//!
//! Only control data is in typed columns. What users wrote is in the raw record of an event, sealed as it is in the log.

pub mod rows;
pub mod tables;

pub use rows::Tables;
pub use tables::TABLES;
