//! The formats that Gantry's processes share: generated protobuf types, typed ids, limits and error codes.
//!
//! Everything here is data. This crate depends on nothing of ours and does no I/O (except [`time`], the one place that reads the wall clock).

#![warn(clippy::pedantic)]
#![allow(clippy::module_name_repetitions, clippy::missing_errors_doc)]

pub mod error_code;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod time;
pub mod vocabulary;

#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/gantry.v1.rs"));
}

/// Generated from `proto/gantry/v1/*.proto`; the comments there are the documentation.
pub mod v1 {
    pub use crate::generated::*;
    pub use crate::ids::{
        ArtifactId, BulkId, NodeId, PrincipalId, SandboxId, ScheduleId, TaskId, TenantId, UploadId, WorkflowId,
    };
}

pub use error_code::ErrorCode;
pub use ids::{
    ArtifactId, BulkId, NodeId, NodeTokenId, PartitionId, PrincipalId, SandboxId, ScheduleId, TaskId, TenantId,
    UploadId, WorkflowId,
};

/// Newest version of the node protocol. Both sides speak this and the one before.
pub const NODE_PROTOCOL: u32 = 1;
/// Newest version of the worker protocol. Both sides speak this and the one before.
pub const WORKER_PROTOCOL: u32 = 1;
/// Newest version of the supervisor protocol. Both sides speak this and the one before.
pub const SUPERVISOR_PROTOCOL: u32 = 1;
/// Version of the journal's records and rows.
pub const JOURNAL_FORMAT: u32 = 1;
