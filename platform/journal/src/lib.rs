//! Durable storage of Gantry: an ordered, fenced log and key-value state, output segments, sealed payloads and blobs.
//!
//! | module | what it holds |
//! |---|---|
//! | [`store`] | the contract of a [`Store`]: atomic batches, scans, an owner epoch per partition |
//! | [`memory`], [`rocks`] | its implementations: the model that the simulation runs on, and `RocksDB` |
//! | [`committer`] | one thread that lets the batches of all partitions share a sync |
//! | [`host`] | randomness and threads, and their seam for the simulation |
//! | [`keys`], [`chain`] | the key layout, and the hash chain over each partition's log |
//! | [`keyring`], [`data_key`], [`file_keyring`] | data keys per workflow under a master key file |
//! | [`segments`] | live output, append-only files per workflow |
//! | [`blobs`] | artifacts and uploads in object storage |
//! | [`erasures`] | the list of what was erased, outside of journal and backups |
//! | [`archive`] | sealed history in object storage, and what says which of it is valid |
//!
//! Invariants: nothing is readable before it is durable; a failed commit is never retried on top of applied state; every stored value carries or is
//! covered by a format version and a checksum. `docs/formats.md` has the layouts.

#![warn(clippy::pedantic)]
#![allow(clippy::module_name_repetitions)]

pub mod archive;
pub mod blobs;
pub mod chain;
pub mod committer;
pub mod data_key;
pub mod erasures;
pub mod file_keyring;
pub mod host;
pub mod keyring;
pub mod keys;
pub mod memory;
pub mod owner;
#[cfg(feature = "rocksdb")]
pub mod rocks;
pub mod segments;
pub mod store;

mod admission;
mod durable_fs;

pub use blobs::{BlobError, BlobInfo, BlobReader, BlobStore};
pub use chain::{LogPosition, LogReader};
pub use committer::{Committer, CommitterCounters};
pub use data_key::DataKey;
pub use erasures::{Erasure, ErasureError, ErasureList, Erasures};
pub use file_keyring::FileKeyRing;
pub use keyring::{KeyRing, SealError, WrappedKey};
pub use memory::{CommitFault, MemoryStore};
pub use owner::ContentOwner;
#[cfg(feature = "rocksdb")]
pub use rocks::{Loader, OpenError, RocksOptions, RocksStore, Snapshot};
pub use segments::{Chunk, SegmentError, SegmentStore, StreamKey};
pub use store::{Batch, CommitError, Direction, Epoch, Pair, ReadError, Store, WalCounters, Write, prefix_end};
