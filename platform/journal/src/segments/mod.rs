//! Live output on disk: append-only segment files, one family per workflow, shared by all streams of its tasks.
//!
//! A chunk's id is given at the source and kept for ever. Appending is idempotent by it; reading gives the same ids and bytes each time, and only
//! what is durable. Chunks are sealed under the workflow's data key; ids are in the clear, so that a restart needs no key to know how far a stream is.

mod file;
mod frame;
mod handles;
mod index;
mod log;
mod store;

use bytes::Bytes;
use gantry_proto::v1::OutputStream;
use gantry_proto::{TaskId, TenantId, WorkflowId};

use crate::keyring::SealError;

pub use store::SegmentStore;

/// Which stream: the output of one attempt at one step of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey {
    /// Whose it is.
    pub tenant: TenantId,
    /// The workflow, and with it the family of files and the data key.
    pub workflow: WorkflowId,
    /// The task.
    pub task: TaskId,
    /// Index of the step in its task.
    pub step: u32,
    /// Attempt at the step, from 1.
    pub attempt: u32,
}

/// One chunk of a process's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Position in the stream, from 1, without gap.
    pub seq: u64,
    /// Where the process wrote it.
    pub stream: OutputStream,
    /// When the source read it, in milliseconds since the epoch.
    pub at_ms: u64,
    /// The bytes, at most [`gantry_proto::limits::OUTPUT_CHUNK_BYTES_MAX`].
    pub data: Bytes,
}

/// Why an operation on a stream failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SegmentError {
    /// Chunks are missing between what is stored and what was given. Nothing of the call was stored.
    #[error("a gap in the stream: {expected} is next, got {got}")]
    Gap {
        /// The sequence that must come next.
        expected: u64,
        /// The sequence that came.
        got: u64,
    },
    /// The stream has an end marker, and this goes past it.
    #[error("the stream ended at {last_seq}")]
    Finished {
        /// The last sequence of the stream.
        last_seq: u64,
    },
    /// A chunk is larger than its limit.
    #[error("a chunk of {bytes} bytes is past the limit of {limit}")]
    ChunkTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A chunk cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A file is damaged where that cannot be the trace of a crash, or was written by a newer version.
    #[error("segment file {path}: {detail}")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// The file system refused. It may be tried again.
    #[error("segment file {path}: {reason}")]
    Io {
        /// The file or directory.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A sync failed: what the kernel forgot to write cannot be found out. The workflow's files take nothing more until the process is restarted.
    #[error("segment file {path} could not be synced: {reason}")]
    Unsynced {
        /// The file or directory.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The workflow's output was destroyed while the operation ran.
    #[error("the workflow's output was destroyed")]
    Destroyed,
    /// The store is closed, or its worker thread ended unexpectedly.
    #[error("the segment store is closed")]
    Closed,
}
