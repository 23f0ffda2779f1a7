//! What the store says about sealed objects. An object without a row here does not count, whatever is in object storage.

use bytes::Bytes;
use gantry_proto::v1::Row;
use gantry_proto::{JOURNAL_FORMAT, PartitionId, TenantId};
use prost::Message;

use super::name::{Day, ObjectName};
use crate::keys::{self, Parsed};
use crate::store::{Direction, ReadError, Store};

/// A sealed object.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectRow {
    /// Its name in object storage ([`ObjectName`]).
    #[prost(string, required, tag = "1")]
    pub name: String,
    /// Rows in it.
    #[prost(uint64, required, tag = "2")]
    pub rows: u64,
    /// Its length.
    #[prost(uint64, required, tag = "3")]
    pub size_bytes: u64,
    /// BLAKE3 of its bytes.
    #[prost(bytes = "bytes", required, tag = "4")]
    pub digest: Bytes,
    /// When it was sealed.
    #[prost(uint64, required, tag = "5")]
    pub sealed_at_ms: u64,
    /// Others took its place then: it is served to nobody, and removed once nobody can be reading it any more.
    #[prost(uint64, optional, tag = "6")]
    pub retired_at_ms: Option<u64>,
    /// Workflows whose rows are in it, or were looked for.
    #[prost(uint64, required, tag = "7")]
    pub workflows: u64,
}

/// How far a tenant's ended workflows are sealed in a partition.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SealedRow {
    /// Every workflow whose end has this position or a lower one is in the archive, or was removed.
    #[prost(uint64, required, tag = "1")]
    pub through_seq: u64,
}

/// The stored form of one of these rows.
#[must_use]
pub fn encode(row: &impl Message) -> Bytes {
    Row {
        format: JOURNAL_FORMAT,
        clear: row.encode_to_vec().into(),
        sealed: None,
    }
    .encode_to_vec()
    .into()
}

/// Reads what [`encode`] wrote.
///
/// # Errors
/// [`ReadError::Damaged`], also for rows of a newer version.
pub fn decode<M: Message + Default>(what: &str, value: &[u8]) -> Result<M, ReadError> {
    let damaged = |detail: String| ReadError::Damaged {
        what: what.to_owned(),
        detail,
    };
    let row = Row::decode(value).map_err(|error| damaged(error.to_string()))?;
    if row.format == 0 || row.format > JOURNAL_FORMAT {
        return Err(damaged(format!(
            "it has format {}, this version reads up to {JOURNAL_FORMAT}: use a newer Gantry",
            row.format
        )));
    }
    M::decode(row.clear).map_err(|error| damaged(error.to_string()))
}

/// The key of an object's row.
#[must_use]
pub fn key(name: &ObjectName, table: u8) -> Bytes {
    keys::archive(
        name.partition,
        name.tenant,
        table,
        name.day.0,
        name.epoch.0,
        name.from_seq,
        name.generation,
    )
}

/// Rows that one scan takes.
const PAGE_ROWS: usize = 512;

/// Every object of a tenant in a partition, retired ones included, with its key, by table and day.
///
/// # Errors
/// When the store cannot read or a row is damaged.
pub fn objects(
    store: &dyn Store,
    partition: PartitionId,
    tenant: TenantId,
) -> Result<Vec<(Bytes, ObjectName, ObjectRow)>, ReadError> {
    let range = keys::archive_of(partition, tenant);
    let mut from = range.from.to_vec();
    let mut found = Vec::new();
    loop {
        let page = store.scan(&from, &range.to, Direction::Forward, PAGE_ROWS)?;
        for (key, value) in &page {
            let row: ObjectRow = decode("a row of the archive's manifest", value)?;
            let damaged = |detail: String| ReadError::Damaged {
                what: format!("the manifest row of {}", row.name),
                detail,
            };
            let name: ObjectName = row.name.parse().map_err(|error| damaged(format!("{error}")))?;
            let fits = matches!(keys::parse(key), Some(Parsed::Archive { partition, tenant, day, from_seq, .. })
                if (partition, tenant, Day(day), from_seq) == (name.partition, name.tenant, name.day, name.from_seq));
            if !fits {
                return Err(damaged("its content does not fit its key".to_owned()));
            }
            found.push((key.clone(), name, row));
        }
        let Some((last, _)) = page.last().filter(|_| page.len() == PAGE_ROWS) else {
            return Ok(found);
        };
        from = last.to_vec();
        from.push(0);
    }
}

/// Up to which end of a workflow a tenant is sealed in a partition; 0 for nothing.
///
/// # Errors
/// When the store cannot read or the row is damaged.
pub fn sealed_through(store: &dyn Store, partition: PartitionId, tenant: TenantId) -> Result<u64, ReadError> {
    let stored = store.get(&keys::sealed(partition, tenant))?;
    let row = stored
        .map(|value| decode::<SealedRow>("how far a tenant is sealed", &value))
        .transpose()?;
    Ok(row.map_or(0, |row| row.through_seq))
}
