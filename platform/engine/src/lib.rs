//! The durable engine of Gantry: workflow definitions, the pure core that decides, and the processors that make decisions durable.
//!
//! | module | what it holds |
//! |---|---|
//! | [`api`] | the traits and views that other crates see |
//! | [`archive`] | history as tables: sealing, retention, erasure |
//! | [`spec`] | definitions: parsing, schema, templates |
//! | `filter` | filters of workflows over what is in the clear |
//! | [`lifecycle`] | states and legal changes, as tables |
//! | [`core`] | `decide` and `apply`: no clock, no I/O, no randomness |
//! | [`processor`] | one owner per partition: batches, commits, recovery, leases |
//! | [`read`] | views over stored rows |
//! | [`verify`] | folds a log and compares it with the stored rows |
//! | [`inspect`] | digests, records as JSON, counts: a journal seen from outside |
//! | [`engine`] | the handle that puts it together |
//!
//! Invariants: `core` never reads a clock; nothing is answered or dispatched before its batch is durable; reads serve storage, never memory (live
//! progress is the one exception, and is marked so).

pub mod api;
pub mod archive;
pub mod core;
pub mod engine;
mod filter;
pub mod inspect;
pub mod lifecycle;
pub mod processor;
pub mod read;
pub mod spec;
pub mod verify;
mod verify_kept;

#[cfg(test)]
mod tests;

pub use engine::{Engine, EngineConfig, Parts, StartError};
pub use filter::{Filter, FilterError};
