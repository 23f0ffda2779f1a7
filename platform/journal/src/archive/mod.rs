//! The archive: history that changes no more, as Parquet files in object storage.
//!
//! | module | what it holds |
//! |---|---|
//! | [`column`] | typed columns, schemas and batches: what is sealed, and what the hot tail is handed out as |
//! | [`file`] | batches as Parquet files and back |
//! | [`name`] | what the name of a sealed object says |
//! | [`objects`] | the files in a directory or an S3 bucket |
//! | [`manifest`] | the rows of the store that say which objects are valid |
//! | [`source`] | what a reader of history gets: the valid objects, and the rows that are in none of them yet |
//!
//! Which tables there are, and what their columns mean, is the engine's to say. No type of a Parquet or Arrow library is in any signature.

pub mod column;
pub mod file;
pub mod manifest;
pub mod name;
pub mod objects;
pub mod source;

pub use column::{Batch, BatchBuilder, Column, ColumnError, ColumnType, Field, Schema, Table, Value};
pub use file::{FileError, FileReader, FileWriter};
pub use manifest::{ObjectRow, SealedRow};
pub use name::{Day, ObjectName};
pub use objects::{ArchiveStore, ObjectError, S3Config};
pub use source::{ArchiveSource, SealedObject, Sink, Snapshot, SourceError};
