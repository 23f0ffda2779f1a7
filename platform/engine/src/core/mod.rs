//! The pure core: `decide(state, command, inputs) -> events`, `apply(state, event)`.
//!
//! Nothing in here reads a clock, does I/O, takes randomness or depends on the iteration order of a hash map: time, entropy and candidates come in as
//! [`Inputs`]. Deciding emits event by event, each applied at once by the same [`apply`](apply::apply) that recovery and verification use, so that a
//! later decision of one command sees the earlier ones.

pub mod apply;
pub mod body;
pub mod bulk;
pub mod carried;
pub mod code;
pub mod commands;
pub mod decide;
pub(crate) mod flow;
mod inputs;
pub mod keep;
pub mod limits;
pub mod mail;
pub mod placement;
pub(crate) mod plan;
pub mod queue;
mod row_parts;
pub mod rows;
pub mod schedule;
pub mod scopes;
pub mod state;
pub(crate) mod trace;

pub use apply::ApplyError;
pub use body::Body;
pub use commands::{Command, Rejection, Reply};
pub use decide::{Batching, Decision, Inputs, Recorded, decide};
pub use state::{PartitionState, Settings};
