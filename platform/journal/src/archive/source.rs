//! What a reader of history gets: which objects are valid now, and the rows that are in none of them yet. Together they are every row of a tenant, once.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_proto::{PartitionId, TenantId};

use super::column::{Batch, Table};
use super::name::Day;
use crate::store::ReadError;

/// An object that holds rows of one table of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedObject {
    /// Which table.
    pub table: &'static str,
    /// Its name in object storage; the same name never has other bytes.
    pub name: String,
    /// Day on which the workflows in it ended.
    pub day: Day,
    /// Rows in it.
    pub rows: u64,
    /// Its length.
    pub size_bytes: u64,
    /// BLAKE3 of its bytes: what was fetched is checked against it.
    pub digest: Bytes,
}

/// A tenant's history at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Whose.
    pub tenant: TenantId,
    /// All valid objects. They can be fetched for at least ten minutes from the snapshot on, also when others take their place meanwhile.
    pub objects: Vec<SealedObject>,
    /// Up to which end of a workflow each partition is in `objects`: what divides them from the tail.
    pub through: BTreeMap<PartitionId, u64>,
}

/// Why history cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// The journal cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A row does not fit its table: a fault of ours.
    #[error(transparent)]
    Column(#[from] super::column::ColumnError),
    /// The reader wants no more; not a failure of the source.
    #[error("stopped by the reader")]
    Stopped,
    /// Sealing moved on each time it was looked at; try again.
    #[error("the archive changes too fast to be looked at; try again")]
    Busy,
}

/// Takes batches; [`SourceError::Stopped`] ends the reading.
pub type Sink<'a> = &'a mut dyn FnMut(Batch) -> Result<(), SourceError>;

/// The engine's side of the archive. Every call blocks.
pub trait ArchiveSource: Send + Sync + 'static {
    /// The tables that there are.
    fn tables(&self) -> &'static [&'static Table];

    /// What is sealed of a tenant now, and where its tail begins. Nothing of another tenant is looked at.
    ///
    /// # Errors
    /// When the journal cannot be read.
    fn snapshot(&self, tenant: TenantId) -> Result<Snapshot, SourceError>;

    /// Hands out every row of `snapshot`'s tenant that is in none of its objects, of the tables named in `tables`, in batches of at most
    /// [`super::column::BATCH_ROWS_MAX`] rows: active workflows, and those that ended and are not sealed. A workflow's rows of different tables are of
    /// the same moment. Memory is that of one workflow and one batch per table.
    ///
    /// # Errors
    /// What the journal or `sink` says.
    fn tail(&self, snapshot: &Snapshot, tables: &[&str], sink: Sink<'_>) -> Result<(), SourceError>;
}
