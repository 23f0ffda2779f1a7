//! The owner of a partition: takes waiting commands, decides, commits, and only then answers, dispatches and tells observers.

pub(crate) mod batch;
pub(crate) mod code;
pub(crate) mod courier;
pub(crate) use batch::node_tenant;
mod leases;
mod live;
pub mod load;
mod outgoing;
mod owner;
mod pace;
mod run;
pub mod storage;
pub(crate) mod waiters;

pub(crate) use courier::Courier;
pub use live::{LiveTable, Writing};
pub use run::{CallError, Manifest, Message, Processor, Shared};
pub(crate) use run::{Fatal, Parts as ProcessorParts};
